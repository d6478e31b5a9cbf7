//! Where a request comes from: the peer's address, or what a trusted load balancer says of it.
//!
//! The header is `Forwarded` (RFC 7239) and no other: a balancer that sets `X-Forwarded-For` would pass on a `Forwarded`
//! that the client made up. Each proxy adds its element at the end, so the list is read from there, and as long as the
//! address before is trusted. Invariant: nobody outside of the trusted networks chooses their address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use actix_web::HttpRequest;
use actix_web::http::header::{FORWARDED, HeaderMap};
use ipnet::IpNet;

/// Elements that are looked at: more proxies than any request goes through.
const MOST_HOPS: usize = 32;

/// The networks whose word is taken.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub(super) const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The client's address.
    pub(super) fn client_of(&self, request: &HttpRequest) -> IpAddr {
        let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        self.resolve(peer, request.headers())
    }

    fn resolve(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut address = peer.to_canonical();
        if self.0.is_empty() {
            return address;
        }
        let lines: Vec<&str> = headers.get_all(FORWARDED).filter_map(|value| value.to_str().ok()).collect();
        for element in lines.iter().rev().flat_map(|line| line.rsplit(',')).take(MOST_HOPS) {
            if !self.trusts(address) {
                break;
            }
            // `unknown` and obfuscated names end the chain: the proxy that says so stands in for the client.
            let Some(before) = forwarded_for(element) else { break };
            address = before.to_canonical();
        }
        address
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The address of an element's `for` parameter. Quoted strings cannot hold the comma or semicolon that they are split
/// at here, where the parameter is an address.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let node = element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })?;
    if let Ok(address) = node.parse::<IpAddr>() {
        return Some(address);
    }
    if let Ok(address) = node.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    node.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn client(trusted: &[&str], peer: &str, headers: &[&str]) -> String {
        let networks = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(FORWARDED, HeaderValue::from_str(header).unwrap());
        }
        TrustedProxies::new(networks).resolve(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn a_header_counts_only_from_a_trusted_network() {
        assert_eq!(client(&[], "192.0.2.1", &["for=198.51.100.7"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.0/8"], "192.0.2.1", &["for=198.51.100.7"]), "192.0.2.1");
        assert_eq!(client(&["10.0.0.0/8"], "10.1.2.3", &["for=198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&["10.0.0.0/8"], "::ffff:10.1.2.3", &["for=198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&["10.0.0.0/8"], "10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn what_the_client_made_up_stands_before_what_the_proxy_added() {
        let trusted = ["10.0.0.0/8"];
        assert_eq!(client(&trusted, "10.0.0.1", &["for=1.1.1.1, for=198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&trusted, "10.0.0.1", &["for=1.1.1.1", "for=198.51.100.7"]), "198.51.100.7");
        assert_eq!(client(&trusted, "10.0.0.1", &["for=1.1.1.1, for=198.51.100.7, for=10.0.0.2"]), "198.51.100.7");
        assert_eq!(client(&trusted, "10.0.0.1", &["for=1.1.1.1, for=unknown"]), "10.0.0.1");
        assert_eq!(client(&trusted, "10.0.0.1", &["for=1.1.1.1, for=_hidden, for=10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn all_forms_of_an_address() {
        let cases = [
            ("For=198.51.100.7;proto=https;by=10.0.0.1", "198.51.100.7"),
            ("proto=https; FOR=\"198.51.100.7:4711\"", "198.51.100.7"),
            ("for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("for=\"[2001:db8::7]\"", "2001:db8::7"),
            ("", "10.0.0.1"),
            ("for=", "10.0.0.1"),
            ("by=198.51.100.7", "10.0.0.1"),
        ];
        for (header, expected) in cases {
            assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[header]), expected, "{header}");
        }
    }
}
