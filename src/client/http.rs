//! The contract's HTTP calls: accounts, and who somebody is.
//!
//! A connection per call: they are few. Passwords and tokens are in the requests' bodies and headers only and are
//! not logged.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::dial::{Stream, dial};
use super::identity::{Fingerprint, PublicKey};
use super::secret::Secret;
use super::servers::Chosen;
use super::{ClientError, Servers};
use crate::protocol::{Refusal, Timestamp, UserId};

/// The largest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// How long connecting to one address may take, where there are others to be tried.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// What `register` and `login` answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Login {
    /// Who the token is for.
    pub user_id: UserId,
    /// The bearer token.
    pub token: Secret,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

/// What the server says of a user.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct UserInfo {
    /// Who.
    pub user_id: UserId,
    /// Their name.
    pub name: String,
    /// What they call themselves.
    pub display_name: Option<String>,
    /// Their public key, as the server has it.
    pub public_key: String,
    /// Its fingerprint, as the server says; clients reckon it themselves.
    pub fingerprint: String,
}

impl UserInfo {
    /// The public key, read.
    ///
    /// # Errors
    /// Where it is no RSA key, or its fingerprint is not the one that the server told.
    pub fn key(&self) -> Result<PublicKey, ClientError> {
        let key = PublicKey::from_base64(&self.public_key)?;
        match self.fingerprint.parse::<Fingerprint>() {
            Ok(told) if told == key.fingerprint() => Ok(key),
            Ok(_) | Err(_) => Err(ClientError::Contract("the fingerprint is not the key's".to_owned())),
        }
    }
}

/// A server's HTTP side.
#[derive(Clone, Debug)]
pub struct HttpClient {
    servers: Servers,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
}

impl HttpClient {
    /// Calls to this server: to the address of it that is in use, or the next that can be reached.
    pub fn new(servers: impl Into<Servers>) -> Self {
        Self { servers: servers.into(), tls: None, timeout: Duration::from_secs(30) }
    }

    /// With another idea of whose certificates to believe.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<ClientConfig>>) -> Self {
        self.tls = tls;
        self
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`ClientError::Refused`] for a name that is taken or a weak password; see [`ClientError`] for the rest.
    pub async fn register(
        &self,
        name: &str,
        password: &str,
        key: &PublicKey,
        display_name: Option<&str>,
    ) -> Result<Login, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            name: &'a str,
            password: &'a str,
            public_key: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            display_name: Option<&'a str>,
        }
        let body = Body { name, password, public_key: key.to_base64(), display_name };
        self.call(Method::POST, "/v1/register", None, Some(&body)).await
    }

    /// Logs in.
    ///
    /// # Errors
    /// `unauthenticated` for a wrong name or password.
    pub async fn login(&self, name: &str, password: &str) -> Result<Login, ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            name: &'a str,
            password: &'a str,
        }
        self.call(Method::POST, "/v1/login", None, Some(&Body { name, password })).await
    }

    /// Kills the token.
    ///
    /// # Errors
    /// `unauthenticated` for one that is dead already.
    pub async fn logout(&self, token: &Secret) -> Result<(), ClientError> {
        self.call_empty(Method::POST, "/v1/logout", token, None::<&()>).await
    }

    /// Who has this id.
    ///
    /// # Errors
    /// `not_found` where nobody does.
    pub async fn user(&self, token: &Secret, user_id: UserId) -> Result<UserInfo, ClientError> {
        self.call(Method::GET, &format!("/v1/users/{user_id}"), Some(token), None::<&()>).await
    }

    /// Who has this name.
    ///
    /// # Errors
    /// `not_found` where nobody does.
    pub async fn user_named(&self, token: &Secret, name: &str) -> Result<UserInfo, ClientError> {
        let escaped: String = name.bytes().map(escape).collect();
        self.call(Method::GET, &format!("/v1/users?name={escaped}"), Some(token), None::<&()>).await
    }

    /// Replaces the caller's public key.
    ///
    /// # Errors
    /// `permission_denied` for a wrong password.
    pub async fn set_public_key(&self, token: &Secret, password: &str, key: &PublicKey) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            public_key: String,
            password: &'a str,
        }
        let body = Body { public_key: key.to_base64(), password };
        self.call_empty(Method::PUT, "/v1/me/public_key", token, Some(&body)).await
    }

    /// Replaces the caller's password; their other tokens are dead then.
    ///
    /// # Errors
    /// `permission_denied` for a wrong password.
    pub async fn set_password(&self, token: &Secret, password: &str, new_password: &str) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            password: &'a str,
            new_password: &'a str,
        }
        self.call_empty(Method::PUT, "/v1/me/password", token, Some(&Body { password, new_password })).await
    }

    /// Closes the caller's account for good.
    ///
    /// # Errors
    /// `permission_denied` for a wrong password.
    pub async fn close_account(&self, token: &Secret, password: &str) -> Result<(), ClientError> {
        #[derive(Serialize)]
        struct Body<'a> {
            password: &'a str,
        }
        self.call_empty(Method::DELETE, "/v1/me", token, Some(&Body { password })).await
    }

    /// The body of a page such as `/readyz` or `/metrics`, with its status.
    ///
    /// # Errors
    /// Where the server cannot be reached.
    pub async fn page(&self, path: &str) -> Result<(u16, String), ClientError> {
        let (status, body) = self.exchange(Method::GET, path, None, None::<&()>).await?;
        Ok((status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
        body: Option<&impl Serialize>,
    ) -> Result<T, ClientError> {
        let (status, answer) = self.exchange(method, path, token, body).await?;
        if !status.is_success() {
            return Err(refusal(status, &answer));
        }
        serde_json::from_slice(&answer).map_err(|error| ClientError::Contract(error.to_string()))
    }

    async fn call_empty(
        &self,
        method: Method,
        path: &str,
        token: &Secret,
        body: Option<&impl Serialize>,
    ) -> Result<(), ClientError> {
        let (status, answer) = self.exchange(method, path, Some(token), body).await?;
        match status {
            StatusCode::NO_CONTENT => Ok(()),
            status if status.is_success() => Err(ClientError::Contract(format!("expected 204, got {status}"))),
            status => Err(refusal(status, &answer)),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        token: Option<&Secret>,
        body: Option<&impl Serialize>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose()));
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(body).map_err(|error| ClientError::Contract(error.to_string()))?)
            }
            None => Bytes::new(),
        };
        let sending = async {
            let (stream, chosen) = self.connect().await?;
            let request = request.header(HOST, chosen.address.authority()).body(Full::new(body));
            let request = request.map_err(|_| ClientError::Contract("not a header value".to_owned()))?;
            let answer = send(stream, request).await?;
            // It starts or stops: the next call goes to another one.
            if answer.0 == StatusCode::SERVICE_UNAVAILABLE {
                self.servers.pass_over(chosen);
            }
            Ok(answer)
        };
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout),
        }
    }

    /// A connection to the address in use or, if that cannot be reached, the next that can.
    async fn connect(&self) -> Result<(Stream, Chosen<'_>), ClientError> {
        for _ in 1..self.servers.count() {
            let chosen = self.servers.current();
            match tokio::time::timeout(CONNECT_WITHIN, dial(chosen.address, self.tls.as_ref())).await {
                Ok(Ok(stream)) => return Ok((stream, chosen)),
                Ok(Err(_)) | Err(_) => self.servers.pass_over(chosen),
            }
        }
        let last = self.servers.current();
        Ok((dial(last.address, self.tls.as_ref()).await?, last))
    }
}

async fn send(stream: Stream, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), ClientError> {
    let broken = |error: hyper::Error| ClientError::Connect(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| ClientError::Connect(error.to_string()))?.to_bytes();
        Ok((status, body))
    };
    // The connection is driven beside the exchange and dropped with it: nothing is left running.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}

fn refusal(status: StatusCode, answer: &[u8]) -> ClientError {
    #[derive(Deserialize)]
    struct Answer {
        error: Refusal,
    }
    match serde_json::from_slice::<Answer>(answer) {
        Ok(Answer { error }) => ClientError::Refused(error),
        Err(_) => ClientError::Contract(format!("status {status} without an error body")),
    }
}

fn escape(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    }
}
