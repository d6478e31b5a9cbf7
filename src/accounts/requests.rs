//! The bodies of the HTTP calls about accounts.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::secrets::{Password, Token};
use crate::protocol::{Timestamp, UserId};

/// `POST /v1/register`.
#[derive(Clone, Debug, Deserialize)]
pub struct RegisterRequest {
    /// What they will log in with.
    pub name: String,
    /// 10 to 1,024 bytes.
    pub password: Password,
    /// RSA: SPKI or PKCS#1, DER in base64 or PEM.
    pub public_key: String,
    /// What others see.
    pub display_name: Option<String>,
}

/// `POST /v1/login`.
#[derive(Clone, Debug, Deserialize)]
pub struct LoginRequest {
    /// Who.
    pub name: String,
    /// Proves it.
    pub password: Password,
}

/// `PUT /v1/me/public_key`.
#[derive(Clone, Debug, Deserialize)]
pub struct PublicKeyRequest {
    /// The new one.
    pub public_key: String,
    /// The account's.
    pub password: Password,
}

/// `PUT /v1/me/password`.
#[derive(Clone, Debug, Deserialize)]
pub struct PasswordRequest {
    /// The account's until now.
    pub password: Password,
    /// From now on.
    pub new_password: Password,
}

/// `DELETE /v1/me`.
#[derive(Clone, Debug, Deserialize)]
pub struct CloseRequest {
    /// The account's.
    pub password: Password,
}

/// The answer to `register` and `login`.
#[derive(Clone, Debug, Serialize)]
pub struct LoggedIn {
    /// Who they are.
    pub user_id: UserId,
    /// What proves it from now on.
    pub token: Token,
    /// Until when.
    pub expires_at: Timestamp,
}

/// A user, as others see them.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct UserView {
    /// Who.
    pub user_id: UserId,
    /// What they log in with.
    pub name: String,
    /// What they want to be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Base64 of SPKI DER.
    pub public_key: String,
    /// Hex SHA-256 of the SPKI DER.
    pub fingerprint: String,
}

impl fmt::Debug for UserView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserView").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}
