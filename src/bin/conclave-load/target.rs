//! Where a node is: `ws://host:port/path`, and the head that asks it for a WebSocket.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail, ensure};
use conclave::client::{ServerAddress, Servers};
use hyper::Uri;

/// The sub-protocol of the only version that this program speaks.
pub(crate) const SUB_PROTOCOL: &str = "conclave.v1.json";

/// A node's, or a balancer's, WebSocket.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// As it was given.
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    /// Its HTTP side.
    pub(crate) server: ServerAddress,
    path: String,
}

impl Endpoint {
    /// Reads a URL and looks its host up.
    pub(crate) fn resolve(url: &str) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => bail!("{url}: this program speaks no TLS; give it a plain ws:// listener"),
            Some(_) | None => bail!("{url}: expected ws://HOST:PORT/v1/ws"),
        }
        let server: ServerAddress = url.parse().with_context(|| format!("{url}: expected ws://HOST:PORT/v1/ws"))?;
        let path = match uri.path() {
            "/" | "" => "/v1/ws",
            path => path,
        };
        let found = (server.host.as_str(), server.port).to_socket_addrs();
        let mut found = found.with_context(|| format!("{url}: the host is not known"))?;
        let address = found.next().with_context(|| format!("{url}: the host has no address"))?;
        Ok(Self { url: url.to_owned(), address, server, path: path.to_owned() })
    }

    /// The request that begins a WebSocket.
    pub(crate) fn upgrade(&self) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUB_PROTOCOL}\r\n\r\n",
            self.path,
            self.server.authority()
        )
    }
}

/// All nodes for a client of the library; another one first for each number.
pub(crate) fn servers(endpoints: &[Endpoint], number: usize) -> Result<Servers> {
    let addresses = endpoints.iter().map(|endpoint| endpoint.server.clone());
    let mut addresses = addresses.cycle().skip(number % endpoints.len().max(1)).take(endpoints.len());
    Ok(Servers::new(addresses.next().context("no --url")?, addresses))
}

/// Checks the answer to [`Endpoint::upgrade`], as far as its head goes.
pub(crate) fn check_upgraded(head: &str) -> Result<()> {
    let status = head.lines().next().unwrap_or_default();
    let code = status.strip_prefix("HTTP/1.1 ").unwrap_or_default();
    ensure!(
        !code.starts_with("400"),
        "the server refused the sub-protocol {SUB_PROTOCOL}: is it of another version? ({status})"
    );
    ensure!(code.starts_with("101"), "the server did not open a WebSocket here: {status}");
    let agreed = head.lines().filter_map(|line| line.split_once(':')).any(|(name, value)| {
        name.eq_ignore_ascii_case("sec-websocket-protocol") && value.trim().eq_ignore_ascii_case(SUB_PROTOCOL)
    });
    ensure!(agreed, "the server opened a WebSocket, but not with {SUB_PROTOCOL}: is it of another version?");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_explained() {
        let endpoint = Endpoint::resolve("ws://127.0.0.1:9/v1/ws").unwrap();
        assert_eq!(endpoint.address, "127.0.0.1:9".parse().unwrap());
        assert!(endpoint.upgrade().starts_with("GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:9\r\n"));
        assert!(Endpoint::resolve("ws://127.0.0.1").unwrap().upgrade().starts_with("GET /v1/ws "));
        for (wrong, why) in [
            ("http://127.0.0.1:9", "expected ws://"),
            ("127.0.0.1:9", "expected ws://"),
            ("wss://127.0.0.1:9/v1/ws", "no TLS"),
            ("ws://no host", "no URL"),
            ("ws://host.invalid:9/v1/ws", "not known"),
        ] {
            let error = format!("{:#}", Endpoint::resolve(wrong).unwrap_err());
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn another_version_is_recognised() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: conclave.v1.json\r\n\r\n";
        check_upgraded(head).unwrap();
        for (head, why) in [
            ("HTTP/1.1 400 Bad Request\r\n\r\n", "another version"),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "another version"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            ("SSH-2.0", "did not open"),
        ] {
            assert!(check_upgraded(head).unwrap_err().to_string().contains(why), "{head}");
        }
    }
}
