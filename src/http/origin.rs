//! Which web pages may open a WebSocket: a browser sends a page's origin with it and asks nobody beforehand.

use actix_web::http::header::{HOST, HeaderMap, ORIGIN};

use crate::protocol::{ErrorCode, Refusal};

/// The origins of `http.allowed_origins`.
#[derive(Clone, Debug, Default)]
pub(super) struct AllowedOrigins(Vec<String>);

impl AllowedOrigins {
    pub(super) const fn new(origins: Vec<String>) -> Self {
        Self(origins)
    }

    /// Lets through programs that are no browsers, pages of the node's own host, and those that are allowed.
    ///
    /// # Errors
    /// `permission_denied` for any other page.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default().trim_end_matches('/');
        let allowed = |allowed: &String| allowed == "*" || allowed.trim_end_matches('/').eq_ignore_ascii_case(origin);
        if self.0.iter().any(allowed) || is_own_host(origin, headers) {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::PermissionDenied, "origin: pages of this origin may not connect"))
    }
}

fn is_own_host(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    matches!((host, of_origin), (Some(host), Some(origin)) if !host.is_empty() && host.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn origins() {
        let some = ["https://chat.example.org", "http://localhost:3000/"];
        let cases: [(&[&str], Option<&str>, bool); 10] = [
            (&[], None, true),
            (&[], Some("http://node:8080"), true),
            (&[], Some("http://NODE:8080"), true),
            (&[], Some("http://node"), false),
            (&[], Some("null"), false),
            (&some, Some("https://chat.example.org"), true),
            (&some, Some("http://localhost:3000"), true),
            (&some, Some("http://chat.example.org"), false),
            (&some, Some("https://chat.example.org.evil.example"), false),
            (&["*"], Some("https://anywhere.example"), true),
        ];
        for (allowed, origin, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("node:8080"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            let allowed = AllowedOrigins::new(allowed.iter().map(ToString::to_string).collect());
            assert_eq!(allowed.check(&headers).is_ok(), expected, "{origin:?} with {allowed:?}");
        }
    }
}
