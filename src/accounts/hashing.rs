//! Password hashes: argon2id on a pool that is bounded, so that a flood of logins slows logins and nothing else.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::secrets::Password;
use crate::config::{AccountSettings, LimitSettings};
use crate::protocol::{ErrorCode, Refusal};
use crate::telemetry::Metrics;

/// Hashes passwords, so many at once, with so many more waiting.
pub(super) struct Hashing {
    argon2: Argon2<'static>,
    at_once: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// What a password is compared with where there is no such account, so that the answer takes alike.
    nobody: Arc<str>,
}

/// The right to hash one password now.
pub(super) struct Turn {
    argon2: Argon2<'static>,
    _admitted: OwnedSemaphorePermit,
    _at_once: OwnedSemaphorePermit,
}

impl Hashing {
    pub(super) fn new(accounts: &AccountSettings, limits: &LimitSettings, metrics: Arc<Metrics>) -> Self {
        let params = Params::new(accounts.argon2_memory_kib, accounts.argon2_passes, 1, None)
            .expect("the configuration allows only costs that argon2 takes");
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let nobody = argon2
            .hash_password(&rand::random::<[u8; 32]>())
            .expect("a random password can be hashed")
            .to_string()
            .into();
        Self {
            argon2,
            at_once: Arc::new(Semaphore::new(limits.password_hashes_at_once)),
            admitted: Arc::new(Semaphore::new(limits.password_hashes_at_once + limits.password_hashes_waiting)),
            metrics,
            nobody,
        }
    }

    /// Waits until a password may be hashed.
    ///
    /// # Errors
    /// `overloaded` if too many wait already.
    pub(super) async fn turn(&self) -> Result<Turn, Refusal> {
        let overloaded = |_| Refusal::new(ErrorCode::Overloaded, "too many passwords wait to be checked, try again");
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(overloaded)?;
        self.metrics.password_hashes_waiting.inc();
        let at_once = Arc::clone(&self.at_once).acquire_owned().await;
        self.metrics.password_hashes_waiting.dec();
        let at_once = at_once.map_err(|_| Refusal::new(ErrorCode::Unavailable, "the node is stopping"))?;
        self.metrics.password_hashes.inc();
        Ok(Turn { argon2: self.argon2.clone(), _admitted: admitted, _at_once: at_once })
    }

    /// What to compare with where there is no such account.
    pub(super) fn nobody(&self) -> Arc<str> {
        Arc::clone(&self.nobody)
    }
}

impl Turn {
    /// Makes a hash, in PHC's string format.
    pub(super) async fn hash(self, password: Password) -> Result<String, Refusal> {
        let hash = move || self.argon2.hash_password(password.as_str().as_bytes()).map(|hash| hash.to_string());
        match tokio::task::spawn_blocking(hash).await {
            Ok(Ok(hash)) => Ok(hash),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Whether the password is the one that was hashed. The costs are the hash's own, not today's settings.
    pub(super) async fn verify(self, password: Password, hash: Arc<str>) -> Result<bool, Refusal> {
        let verify = move || self.argon2.verify_password(password.as_str().as_bytes(), &*hash);
        match tokio::task::spawn_blocking(verify).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(argon2::password_hash::Error::PasswordInvalid)) => Ok(false),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn failed(error: &dyn std::error::Error) -> Refusal {
    tracing::error!(%error, "a password could not be hashed or compared");
    Refusal::new(ErrorCode::Internal, "the password could not be checked")
}
