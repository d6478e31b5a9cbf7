//! The connections of one node: what all worker threads share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::config::{ConnectionSettings, LimitSettings};
use crate::protocol::{CloseCode, ErrorCode, Limits, NodeId, Refusal, SessionId, Timestamp, UserId};
use crate::session::Sessions;
use crate::session::state::Command;
use crate::store::{Store, StoreError, TokenHash};
use crate::telemetry::{Limit, Metrics};

use super::acks::Acks;
use super::hub::CloseAll;
use super::people::AddressSlot;
use super::{ConnectionKey, Deliveries, ReplySlot, Subscriptions};

/// The way to sessions, as connections need it.
pub trait SessionPort: Send + Sync + 'static {
    /// Hands a command to a session; never waits.
    fn submit(&self, session_id: SessionId, command: Command, reply: ReplySlot);

    /// Makes a session with its first command.
    fn create(&self, command: Command, reply: ReplySlot);

    /// Tells a session that one of its members has a new connection.
    fn member_connected(&self, session_id: SessionId, user_id: UserId, connection: ConnectionKey);
}

impl SessionPort for Sessions {
    fn submit(&self, session_id: SessionId, command: Command, reply: ReplySlot) {
        Self::submit(self, session_id, command, reply);
    }

    fn create(&self, command: Command, reply: ReplySlot) {
        Self::create(self, command, reply);
    }

    fn member_connected(&self, session_id: SessionId, user_id: UserId, connection: ConnectionKey) {
        Self::member_connected(self, session_id, user_id, connection);
    }
}

/// What the connections of a node are made of.
pub struct ConnectionParts {
    /// What must outlive the process.
    pub store: Arc<dyn Store>,
    /// The way to sessions.
    pub sessions: Arc<dyn SessionPort>,
    /// The way back.
    pub subscriptions: Subscriptions,
    /// `connections.*`.
    pub settings: ConnectionSettings,
    /// `limits.*`.
    pub limits: LimitSettings,
    /// This node's name, as clients are told.
    pub node: NodeId,
    /// The time by the store's clock, as nearly as it is known.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// A token's hash, if the text can be a token.
    pub token_hash: fn(&str) -> Option<TokenHash>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// The connections of one node.
pub struct Connections {
    pub(super) store: Arc<dyn Store>,
    pub(super) sessions: Arc<dyn SessionPort>,
    pub(super) subscriptions: Subscriptions,
    pub(super) deliveries: Arc<dyn Deliveries>,
    pub(super) settings: ConnectionSettings,
    pub(super) limits: LimitSettings,
    pub(super) arguments: Limits,
    pub(super) node: NodeId,
    pub(super) acks: Acks,
    pub(super) metrics: Arc<Metrics>,
    pub(super) token_hash: fn(&str) -> Option<TokenHash>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    started: Instant,
    shut: AtomicBool,
}

impl Connections {
    /// Made once per node, outside of the server's factory, on a runtime.
    pub fn new(parts: ConnectionParts) -> Arc<Self> {
        let node = Arc::new(Self {
            acks: Acks::new(Arc::clone(&parts.store)),
            deliveries: Arc::new(parts.subscriptions.clone()),
            arguments: parts.limits.arguments(),
            store: parts.store,
            sessions: parts.sessions,
            subscriptions: parts.subscriptions,
            settings: parts.settings,
            limits: parts.limits,
            node: parts.node,
            metrics: parts.metrics,
            token_hash: parts.token_hash,
            clock: parts.clock,
            started: Instant::now(),
            shut: AtomicBool::new(false),
        });
        node.acks.flush_every(Duration::from_millis(node.settings.ack_flush_ms), Arc::downgrade(&node));
        node
    }

    /// From now on no connection is taken: newcomers are told to try elsewhere.
    pub fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    /// Whether no connection is taken any more.
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    /// Resolves when no connection is left. Only at the end, so that a look now and then is good enough.
    pub async fn gone(&self) {
        while self.metrics.connections.get() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends all connections with `code`, and asks them to spread their coming back over `spread_ms`.
    pub fn close_all(&self, code: CloseCode, spread_ms: u64) {
        self.subscriptions.close_all(CloseAll { code, spread_ms });
    }

    /// Writes the `ack`s that are still gathered; at the end, before the store is closed.
    pub async fn flush(&self) {
        self.acks.flush().await;
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Nanoseconds since this node began, for rate limits.
    pub(super) fn nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Counts a connection from an address.
    pub(super) fn come_from(&self, address: IpAddr) -> Result<AddressSlot, Refusal> {
        let people = self.subscriptions.people();
        people.come_from(address, self.limits.connections_per_address).map_err(|_| {
            self.metrics.limited(Limit::ConnectionsPerAddress);
            Refusal::rate_limited("too many connections from this address", 1000)
        })
    }

    /// Rows of a page: what was asked for, held within the maximum.
    pub(super) fn page_rows(&self, limit: Option<crate::protocol::PageLimit>) -> u64 {
        limit.map_or(100, |limit| limit.0).min(self.limits.page)
    }
}

/// What a client is told when the store fails; logged here, once.
pub(super) fn refusal_of(error: &StoreError) -> Refusal {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "a request could not be answered");
            Refusal::new(ErrorCode::Unavailable, "the store is unavailable, try again")
        }
        StoreError::Conflict(_) | StoreError::Corrupt(_) => {
            tracing::error!(%error, "a request could not be answered");
            Refusal::new(ErrorCode::Internal, "the request failed in the server")
        }
    }
}
