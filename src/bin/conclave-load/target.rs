//! Where a node is: `ws://host:port/path` or `wss://...`, and the head that asks it for a WebSocket.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use conclave::client::{ServerAddress, Servers, tls_public, tls_trusting};
use hyper::Uri;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::arguments::Common;

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
    /// The name that its certificate has to have, and whom to believe that it has it; none without TLS.
    pub(crate) tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
    path: String,
}

/// All that were given.
pub(crate) fn endpoints(common: &Common) -> Result<Vec<Endpoint>> {
    let trust = trust(common)?;
    common.urls.iter().map(|url| Endpoint::resolve(url, &trust)).collect()
}

/// Whose certificates to believe.
pub(crate) fn trust(common: &Common) -> Result<Arc<ClientConfig>> {
    match &common.ca {
        Some(file) => tls_trusting(file).context("--ca"),
        None => Ok(tls_public()),
    }
}

impl Endpoint {
    /// Reads a URL and looks its host up. With TLS, `trust` says whose certificates to believe.
    fn resolve(url: &str, trust: &Arc<ClientConfig>) -> Result<Self> {
        let expected = || format!("{url}: expected ws://HOST:PORT/v1/ws or wss://HOST:PORT/v1/ws");
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let server: ServerAddress = url.parse().with_context(expected)?;
        let path = match uri.path() {
            "/" | "" => "/v1/ws",
            path => path,
        };
        let found = (server.host.as_str(), server.port).to_socket_addrs();
        let mut found = found.with_context(|| format!("{url}: the host is not known"))?;
        let address = found.next().with_context(|| format!("{url}: the host has no address"))?;
        let tls = if server.tls {
            let name = ServerName::try_from(server.host.clone()).with_context(expected)?;
            Some((name, Arc::clone(trust)))
        } else {
            None
        };
        Ok(Self { url: url.to_owned(), address, server, tls, path: path.to_owned() })
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
    Ok(Servers::new(addresses.next().context("no --url")?, addresses)?)
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
        let resolve = |url| Endpoint::resolve(url, &tls_public());
        let endpoint = resolve("ws://127.0.0.1:9/v1/ws").unwrap();
        assert_eq!(endpoint.address, "127.0.0.1:9".parse().unwrap());
        assert!(endpoint.upgrade().starts_with("GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:9\r\n"));
        assert!(endpoint.tls.is_none());
        for (url, address) in [("wss://127.0.0.1", "127.0.0.1:443"), ("https://127.0.0.1:9/v1/ws", "127.0.0.1:9")] {
            let endpoint = resolve(url).unwrap();
            assert_eq!(endpoint.address, address.parse().unwrap());
            assert!(endpoint.tls.is_some() && endpoint.upgrade().starts_with("GET /v1/ws "), "{url}");
        }
        for (wrong, why) in [
            ("ftp://127.0.0.1:9", "expected ws://"),
            ("127.0.0.1:9", "expected ws://"),
            ("ws://no host", "no URL"),
            ("ws://host.invalid:9/v1/ws", "not known"),
        ] {
            let error = format!("{:#}", resolve(wrong).unwrap_err());
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
