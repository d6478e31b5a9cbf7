//! Accounts: who there is, how they prove it, and the public keys that others encrypt for.
//!
//! Owns the rules for names, passwords, keys and tokens, the limits on trying, and the bounded pool that hashes
//! passwords. Does not own what a change means to sessions: that travels as task rows, written by the store in the
//! account's own transaction; sessions are only woken to look. Invariant: an unknown name and a wrong password are
//! answered alike and take alike.

mod attempts;
mod hashing;
mod public_key;
mod requests;
mod rules;
mod secrets;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use uuid::Uuid;

pub use public_key::parse_public_key;
pub use requests::{
    CloseRequest, LoggedIn, LoginRequest, PasswordRequest, PublicKeyRequest, RegisterRequest, UserView,
};
pub use secrets::{Password, Token};

use attempts::{Attempts, PerMinute, network};
use hashing::Hashing;

use crate::cluster::UserSignal;
use crate::config::Config;
use crate::protocol::{ErrorCode, Refusal, SessionId, UserId};
use crate::session::Clock;
use crate::store::{Store, StoreError, TokenHash, TokenOwner, UserRow};
use crate::telemetry::{Limit, Metrics};

/// Carries what happened to an account to those whom it concerns.
pub trait Aftermath: Send + Sync + 'static {
    /// To the user's connections, on all nodes; resolves when this node's have it. Lossy: the sweep finds dead tokens.
    fn signal(&self, user_id: UserId, signal: UserSignal) -> BoxFuture<'static, ()>;

    /// To a session that has a task waiting. Lossy: the sweep finds tasks too.
    fn wake(&self, session_id: SessionId);
}

/// What accounts work with.
pub struct AccountParts {
    /// Where they are kept.
    pub store: Arc<dyn Store>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Takes what follows elsewhere.
    pub aftermath: Arc<dyn Aftermath>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Who shows a live token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// The user.
    pub user_id: UserId,
    /// The token, as the store knows it.
    pub token: TokenHash,
    /// Until when it lives.
    pub expires_at: crate::protocol::Timestamp,
}

/// The accounts of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

struct Inner {
    parts: AccountParts,
    hashing: Hashing,
    failed_by_name: Attempts,
    failed_by_address: Attempts,
    registrations: Attempts,
    settings: Settings,
}

struct Settings {
    token_lifetime_s: u64,
    tokens_per_user: u32,
    failed_logins: PerMinute,
    registrations: PerMinute,
    display_name_bytes: usize,
}

impl Settings {
    const fn failed_logins_per_address(&self) -> PerMinute {
        PerMinute(self.failed_logins.0.saturating_mul(10))
    }
}

impl Accounts {
    /// Accounts by their configuration.
    pub fn new(config: &Config, parts: AccountParts) -> Self {
        let settings = Settings {
            token_lifetime_s: config.accounts.token_lifetime_s,
            tokens_per_user: config.accounts.tokens_per_user,
            failed_logins: PerMinute(config.limits.failed_logins_per_minute),
            registrations: PerMinute(config.limits.registrations_per_minute),
            display_name_bytes: config.limits.name_bytes,
        };
        let hashing = Hashing::new(&config.accounts, &config.limits, Arc::clone(&parts.metrics));
        let inner = Inner {
            parts,
            hashing,
            failed_by_name: Attempts::new(),
            failed_by_address: Attempts::new(),
            registrations: Attempts::new(),
            settings,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes an account and logs it in.
    ///
    /// # Errors
    /// `invalid_argument`, `already_exists`, `rate_limited`, `overloaded`, `unavailable`.
    pub async fn register(&self, request: RegisterRequest, from: IpAddr) -> Result<LoggedIn, Refusal> {
        let Inner { parts, hashing, settings, .. } = &*self.inner;
        rules::check_name(&request.name)?;
        rules::check_password("password", request.password.as_str())?;
        if let Some(display_name) = &request.display_name {
            rules::check_display_name(display_name, settings.display_name_bytes)?;
        }
        let key = parse_public_key(&request.public_key)?;
        self.count_registration(from)?;
        let password_hash = hashing.turn().await?.hash(request.password).await?;
        let user = UserRow {
            user_id: UserId::new(Uuid::now_v7()),
            name: request.name,
            display_name: request.display_name,
            password_hash,
            public_key: key.public_key,
            fingerprint: key.fingerprint,
            created_at: parts.clock.now(),
        };
        parts.store.create_user(&user).await.map_err(|error| match error {
            StoreError::Conflict(_) => Refusal::new(ErrorCode::AlreadyExists, "name: taken already"),
            StoreError::Unavailable(_) | StoreError::Corrupt(_) => refused(error),
        })?;
        parts.metrics.registrations.inc();
        self.log_in(user.user_id).await
    }

    /// Gives a token to who knows the password.
    ///
    /// # Errors
    /// `unauthenticated`, `rate_limited`, `overloaded`, `unavailable`.
    pub async fn login(&self, request: LoginRequest, from: IpAddr) -> Result<LoggedIn, Refusal> {
        let Inner { parts, hashing, .. } = &*self.inner;
        let user = parts.store.user_by_name(&request.name).await.map_err(refused)?;
        let hash = user.as_ref().map_or_else(|| hashing.nobody(), |user| user.password_hash.as_str().into());
        let right = self.verify(&request.name, from, request.password, hash).await?;
        let Some(user) = user.filter(|_| right) else { return Err(wrong_login()) };
        let logged_in = self.log_in(user.user_id).await?;
        // A password that was changed meanwhile has ended the tokens that were there, but not this one.
        let now = parts.store.user_by_id(user.user_id).await.map_err(refused)?;
        if now.is_none_or(|now| now.password_hash != user.password_hash) {
            parts.store.remove_token(logged_in.token.hash()).await.map_err(refused)?;
            return Err(wrong_login());
        }
        parts.metrics.logins.inc();
        Ok(logged_in)
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// `unauthenticated`, `unavailable`.
    pub async fn authenticate(&self, token: &str) -> Result<Bearer, Refusal> {
        let parts = &self.inner.parts;
        let dead = || Refusal::new(ErrorCode::Unauthenticated, "the token is not valid");
        let token = Token::parse(token).ok_or_else(dead)?.hash();
        let owner = parts.store.token_owner(token, parts.clock.now()).await.map_err(refused)?;
        owner.map(|TokenOwner { user_id, expires_at }| Bearer { user_id, token, expires_at }).ok_or_else(dead)
    }

    /// Ends a token, on every node.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn logout(&self, bearer: Bearer) -> Result<(), Refusal> {
        let parts = &self.inner.parts;
        parts.store.remove_token(bearer.token).await.map_err(refused)?;
        parts.aftermath.signal(bearer.user_id, UserSignal::TokenDead(bearer.token)).await;
        Ok(())
    }

    /// A user by id.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn user_by_id(&self, user_id: UserId) -> Result<UserView, Refusal> {
        let user = self.inner.parts.store.user_by_id(user_id).await.map_err(refused)?;
        user.map(view).ok_or_else(no_user)
    }

    /// A user by name.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn user_by_name(&self, name: &str) -> Result<UserView, Refusal> {
        let user = self.inner.parts.store.user_by_name(name).await.map_err(refused)?;
        user.map(view).ok_or_else(no_user)
    }

    /// Replaces the public key; every session of the user takes it in.
    ///
    /// # Errors
    /// `invalid_argument`, `permission_denied`, `rate_limited`, `overloaded`, `unavailable`.
    pub async fn replace_public_key(
        &self,
        bearer: Bearer,
        request: PublicKeyRequest,
        from: IpAddr,
    ) -> Result<(), Refusal> {
        let parts = &self.inner.parts;
        let key = parse_public_key(&request.public_key)?;
        self.prove(bearer, request.password, from).await?;
        let sessions = parts.store.set_public_key(bearer.user_id, &key).await.map_err(refused)?;
        sessions.into_iter().for_each(|session_id| parts.aftermath.wake(session_id));
        Ok(())
    }

    /// Changes the password; the user's other tokens are dead.
    ///
    /// # Errors
    /// `invalid_argument`, `permission_denied`, `rate_limited`, `overloaded`, `unavailable`.
    pub async fn change_password(&self, bearer: Bearer, request: PasswordRequest, from: IpAddr) -> Result<(), Refusal> {
        let Inner { parts, hashing, .. } = &*self.inner;
        rules::check_password("new_password", request.new_password.as_str())?;
        self.prove(bearer, request.password, from).await?;
        let hash = hashing.turn().await?.hash(request.new_password).await?;
        parts.store.set_password(bearer.user_id, &hash, bearer.token).await.map_err(refused)?;
        parts.aftermath.signal(bearer.user_id, UserSignal::TokensDead { except: Some(bearer.token) }).await;
        Ok(())
    }

    /// Closes the account for good; the user leaves every session.
    ///
    /// # Errors
    /// `permission_denied`, `rate_limited`, `overloaded`, `unavailable`.
    pub async fn close(&self, bearer: Bearer, request: CloseRequest, from: IpAddr) -> Result<(), Refusal> {
        let parts = &self.inner.parts;
        self.prove(bearer, request.password, from).await?;
        let sessions = parts.store.close_account(bearer.user_id, parts.clock.now()).await.map_err(refused)?;
        parts.aftermath.signal(bearer.user_id, UserSignal::TokensDead { except: None }).await;
        sessions.into_iter().for_each(|session_id| parts.aftermath.wake(session_id));
        Ok(())
    }

    /// Asks one who is logged in for the password: a stolen token alone changes no account.
    async fn prove(&self, bearer: Bearer, password: Password, from: IpAddr) -> Result<(), Refusal> {
        let user = self.inner.parts.store.user_by_id(bearer.user_id).await.map_err(refused)?;
        let user = user.ok_or_else(|| Refusal::new(ErrorCode::Unauthenticated, "the account is closed"))?;
        if self.verify(&user.name, from, password, user.password_hash.into()).await? {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::PermissionDenied, "password: it is not the account's"))
    }

    /// Compares a password with a hash, within the limits on trying; a failure counts.
    async fn verify(&self, name: &str, from: IpAddr, password: Password, hash: Arc<str>) -> Result<bool, Refusal> {
        let Inner { parts, hashing, .. } = &*self.inner;
        self.may_try(name, from)?;
        let turn = hashing.turn().await?;
        // Again: whoever sent a thousand at once has failed a few times by now.
        self.may_try(name, from)?;
        let right = turn.verify(password, hash).await?;
        if !right {
            parts.metrics.failed_logins.inc();
            self.count_failure(name, from);
        }
        Ok(right)
    }

    fn may_try(&self, name: &str, from: IpAddr) -> Result<(), Refusal> {
        let Inner { parts, settings, failed_by_name, failed_by_address, .. } = &*self.inner;
        let now = Instant::now();
        failed_by_name
            .look(name, settings.failed_logins, now)
            .and_then(|()| failed_by_address.look(network(from), settings.failed_logins_per_address(), now))
            .map_err(|wait| {
                parts.metrics.limited(Limit::FailedLogins);
                limited("too many failed logins", wait)
            })
    }

    fn count_failure(&self, name: &str, from: IpAddr) {
        let Inner { settings, failed_by_name, failed_by_address, .. } = &*self.inner;
        let now = Instant::now();
        failed_by_name.take(name, settings.failed_logins, now);
        failed_by_address.take(network(from), settings.failed_logins_per_address(), now);
    }

    fn count_registration(&self, from: IpAddr) -> Result<(), Refusal> {
        let Inner { parts, settings, registrations, .. } = &*self.inner;
        if settings.registrations.0 == 0 {
            return Ok(());
        }
        let (from, now) = (network(from), Instant::now());
        registrations.look(from, settings.registrations, now).map_err(|wait| {
            parts.metrics.limited(Limit::Registrations);
            limited("too many registrations from this address", wait)
        })?;
        registrations.take(from, settings.registrations, now);
        Ok(())
    }

    async fn log_in(&self, user_id: UserId) -> Result<LoggedIn, Refusal> {
        let Inner { parts, settings, .. } = &*self.inner;
        let token = Token::random();
        let expires_at = parts.clock.now().plus_secs(settings.token_lifetime_s);
        let owner = TokenOwner { user_id, expires_at };
        parts.store.add_token(token.hash(), &owner, settings.tokens_per_user).await.map_err(refused)?;
        Ok(LoggedIn { user_id, token, expires_at })
    }
}

fn view(user: UserRow) -> UserView {
    let UserRow { user_id, name, display_name, public_key, fingerprint, .. } = user;
    UserView { user_id, name, display_name, public_key, fingerprint }
}

fn wrong_login() -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, "unknown name or wrong password")
}

fn no_user() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such user")
}

fn limited(message: &'static str, wait: Duration) -> Refusal {
    Refusal::rate_limited(message, u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1))
}

fn refused(error: StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(why) => {
            tracing::warn!(%why, "the store did not answer for an account");
            Refusal::new(ErrorCode::Unavailable, "the store is unavailable, try again")
        }
        StoreError::Conflict(what) => Refusal::new(ErrorCode::AlreadyExists, what),
        StoreError::Corrupt(why) => {
            tracing::error!(%why, "the store holds an account that makes no sense");
            Refusal::new(ErrorCode::Internal, "the account cannot be read")
        }
    }
}

#[cfg(test)]
mod tests;
