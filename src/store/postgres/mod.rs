//! The shared store: one PostgreSQL database for many nodes.
//!
//! [`PostgresStore`] owns connections in four groups, so that nothing waits for what is less urgent: commits, the
//! node's lease, the probe, and everything else. Every statement is one round trip and a transaction of its own, with
//! a deadline ([`lanes`]); what takes several statements elsewhere is a function in the database (the migrations).
//! Each of the other files is one concern of the [`Store`] trait.
//!
//! Invariants: what a call returned as written is durable (`synchronous_commit=on`); no node holds a lock in the
//! database while it does something else; leases and all stored times are by the database's clock.

mod accounts;
mod claims;
mod column;
mod commit;
mod inbox;
mod lanes;
mod nodes;
mod open;
mod overview;
mod plan;
mod reads;
mod sweep;
#[cfg(test)]
mod tests;
mod upkeep;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use self::column::{Columns, corrupt};
use self::lanes::{History, Lanes};
use super::{
    Access, AckRow, Claim, CommitError, EventRange, EventRow, InboxRow, KeyCoverage, Membership, NewPublicKey,
    NodeReport, NodeRow, Page, Position, Retention, SessionCommit, SessionSummary, Store, StoreResult, TokenHash,
    TokenOwner, UserRow, UserSummary,
};
use crate::protocol::{
    ClientId, GoneReason, InboxId, MemberView, NodeId, RoomKeyView, SessionId, SessionInfo, Timestamp, UserId,
};
use crate::session::state::Task;

/// How the shared store is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database`, with what else PostgreSQL's URLs may have.
    pub url: String,
    /// Connections for everything but commits, the lease and the probe.
    pub connections: usize,
    /// Connections that commit at the same time: one for each shard of the group commit.
    pub shards: usize,
    /// How long a call waits for a connection.
    pub acquire_within: Duration,
    /// How long one statement may take.
    pub statement_within: Duration,
    /// How long to wait, at the start, for a database that is not there.
    pub connect_within: Duration,
}

impl PostgresOptions {
    /// With the defaults: 16 connections and 4 that commit, 5 s for a connection and for a statement, 60 s at the start.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connections: 16,
            shards: 4,
            acquire_within: Duration::from_secs(5),
            statement_within: Duration::from_secs(5),
            connect_within: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    /// Without the URL, which has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, connections, shards, acquire_within, statement_within, connect_within } = self;
        f.debug_struct("PostgresOptions")
            .field("connections", connections)
            .field("shards", shards)
            .field("acquire_within", acquire_within)
            .field("statement_within", statement_within)
            .field("connect_within", connect_within)
            .finish_non_exhaustive()
    }
}

/// The shared store; see the module.
pub struct PostgresStore {
    daily: Lanes,
    committing: Lanes,
    /// The lease, and who else lives.
    vital: Lanes,
    probing: Lanes,
    probe_id: Uuid,
    history: Arc<History>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

impl PostgresStore {
    /// Connects, waiting up to `connect_within` for a database that is not there yet, and brings its schema up to date.
    ///
    /// # Errors
    /// `Unavailable` where the database cannot be reached or used, without the password in the text; `Corrupt` where a
    /// version of the program more than one schema ahead wrote it.
    pub async fn open(options: &PostgresOptions) -> StoreResult<Self> {
        Self::open_saying(options, &Notify::new()).await
    }

    /// Like [`PostgresStore::open`]; `absent` is notified when the database turns out to be not there yet.
    ///
    /// # Errors
    /// As there.
    pub async fn open_saying(options: &PostgresOptions, absent: &Notify) -> StoreResult<Self> {
        open::open(options, absent).await
    }

    async fn read_clock(&self) -> StoreResult<Timestamp> {
        let row = self.daily.row(sqlx::query("SELECT conclave_now() AS now")).await?;
        row.ok_or_else(|| corrupt("now"))?.time("now")
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn now(&self) -> StoreResult<Timestamp> {
        self.read_clock().await
    }

    async fn probe(&self) -> StoreResult<()> {
        self.write_probe().await
    }

    async fn close(&self) {
        let all = [&self.daily, &self.committing, &self.vital, &self.probing];
        futures_util::future::join_all(all.map(Lanes::close)).await;
    }

    async fn create_user(&self, user: &UserRow) -> StoreResult<()> {
        self.insert_user(user).await
    }

    async fn user_by_name(&self, name: &str) -> StoreResult<Option<UserRow>> {
        self.find_user_by_name(name).await
    }

    async fn user_by_id(&self, user_id: UserId) -> StoreResult<Option<UserRow>> {
        self.find_user_by_id(user_id).await
    }

    async fn public_keys(&self, users: &[UserId]) -> StoreResult<Vec<(UserId, String)>> {
        self.find_public_keys(users).await
    }

    async fn add_token(&self, hash: TokenHash, owner: &TokenOwner, keep: u32) -> StoreResult<()> {
        self.insert_token(hash, owner, keep).await
    }

    async fn token_owner(&self, hash: TokenHash, now: Timestamp) -> StoreResult<Option<TokenOwner>> {
        self.find_token(hash, now).await
    }

    async fn remove_token(&self, hash: TokenHash) -> StoreResult<Option<UserId>> {
        self.delete_token(hash).await
    }

    async fn dead_tokens(&self, hashes: &[TokenHash], now: Timestamp) -> StoreResult<Vec<TokenHash>> {
        self.find_dead_tokens(hashes, now).await
    }

    async fn set_password(&self, user_id: UserId, password_hash: &str, keep: TokenHash) -> StoreResult<()> {
        self.update_password(user_id, password_hash, keep).await
    }

    async fn set_public_key(&self, user_id: UserId, key: &NewPublicKey) -> StoreResult<Vec<SessionId>> {
        self.update_public_key(user_id, key).await
    }

    async fn close_account(&self, user_id: UserId, now: Timestamp) -> StoreResult<Vec<SessionId>> {
        self.end_account(user_id, now).await
    }

    async fn disable_user(&self, user_id: UserId, now: Timestamp) -> StoreResult<Vec<SessionId>> {
        self.suspend_account(user_id, now).await
    }

    async fn enable_user(&self, user_id: UserId) -> StoreResult<bool> {
        self.resume_account(user_id).await
    }

    async fn revoke_tokens(&self, user_id: UserId) -> StoreResult<u64> {
        self.delete_tokens(user_id).await
    }

    async fn claim(&self, session_id: SessionId, node_id: NodeId, from_others: bool) -> StoreResult<Claim> {
        self.take_session(session_id, node_id, from_others).await
    }

    async fn release(&self, session_id: SessionId, node_id: NodeId, fence: u64) -> StoreResult<()> {
        self.give_session_up(session_id, node_id, fence).await
    }

    async fn commit(&self, node_id: NodeId, batch: &[SessionCommit]) -> Vec<Result<(), CommitError>> {
        self.commit_batch(node_id, batch).await
    }

    async fn made_before(&self, creator: UserId, id: &ClientId) -> StoreResult<Option<String>> {
        self.find_creation_reply(creator, id).await
    }

    async fn tasks(&self, session_id: SessionId) -> StoreResult<Vec<Task>> {
        self.find_tasks(session_id).await
    }

    async fn sessions_with_tasks(&self, limit: u64) -> StoreResult<Vec<SessionId>> {
        self.find_sessions_with_tasks(limit).await
    }

    async fn rotations_unattended(&self, limit: u64) -> StoreResult<Vec<SessionId>> {
        self.find_rotations_unattended(limit).await
    }

    async fn access(&self, session_id: SessionId, user_id: UserId, now: Timestamp) -> StoreResult<Access> {
        self.find_access(session_id, user_id, now).await
    }

    async fn sessions_of(&self, user_id: UserId) -> StoreResult<Vec<Membership>> {
        self.find_sessions_of(user_id).await
    }

    async fn departures(&self, user_id: UserId, sessions: &[SessionId]) -> StoreResult<Vec<(SessionId, GoneReason)>> {
        self.find_departures(user_id, sessions).await
    }

    async fn position(&self, session_id: SessionId) -> StoreResult<Option<(u64, u64)>> {
        self.find_position(session_id).await
    }

    async fn positions(&self, sessions: &[SessionId]) -> StoreResult<Vec<Position>> {
        self.find_positions(sessions).await
    }

    async fn memberships_of(
        &self,
        users: &[UserId],
        after: Option<(UserId, SessionId)>,
        limit: u64,
    ) -> StoreResult<Page<(UserId, SessionId)>> {
        self.find_memberships_of(users, after, limit).await
    }

    async fn events(
        &self,
        session_id: SessionId,
        range: EventRange,
        limit: u64,
        bytes: usize,
    ) -> StoreResult<Page<EventRow>> {
        self.find_events(session_id, range, limit, bytes).await
    }

    async fn room_keys(
        &self,
        session_id: SessionId,
        user_id: UserId,
        after_epoch: u64,
        limit: u64,
    ) -> StoreResult<Page<RoomKeyView>> {
        self.find_room_keys(session_id, user_id, after_epoch, limit).await
    }

    async fn members(
        &self,
        session_id: SessionId,
        after: Option<UserId>,
        limit: u64,
        now: Timestamp,
    ) -> StoreResult<Page<MemberView>> {
        self.find_members(session_id, after, limit, now).await
    }

    async fn session_info(
        &self,
        session_id: SessionId,
        members: u64,
        now: Timestamp,
    ) -> StoreResult<Option<SessionInfo>> {
        self.find_session_info(session_id, members, now).await
    }

    async fn inbox(&self, user_id: UserId, limit: u64, now: Timestamp) -> StoreResult<Vec<InboxRow>> {
        self.find_inbox(user_id, limit, now).await
    }

    async fn users_with_inbox(&self, users: &[UserId], now: Timestamp) -> StoreResult<Vec<UserId>> {
        self.find_users_with_inbox(users, now).await
    }

    async fn inbox_keys(&self, user_id: UserId, session_id: SessionId, up_to: u64) -> StoreResult<Vec<InboxRow>> {
        self.find_inbox_keys(user_id, session_id, up_to).await
    }

    async fn ack_inbox(&self, user_id: UserId, inbox_ids: &[InboxId]) -> StoreResult<()> {
        self.delete_inbox(user_id, inbox_ids).await
    }

    async fn ack(&self, acks: &[AckRow]) -> StoreResult<()> {
        self.write_acks(acks).await
    }

    async fn renew_lease(&self, node_id: NodeId, lease_ms: i64, report: &NodeReport) -> StoreResult<NodeRow> {
        self.write_lease(node_id, lease_ms, report).await
    }

    async fn nodes(&self) -> StoreResult<Vec<NodeRow>> {
        self.find_nodes().await
    }

    async fn ask_to_drain(&self, node_id: NodeId) -> StoreResult<bool> {
        self.note_drain(node_id).await
    }

    async fn end_lease(&self, node_id: NodeId) -> StoreResult<()> {
        self.delete_lease(node_id).await
    }

    async fn lapse_inbox(&self, now: Timestamp, limit: u64) -> StoreResult<Vec<(UserId, InboxId)>> {
        self.delete_lapsed_inbox(now, limit).await
    }

    async fn prune(&self, now: Timestamp, retention: &Retention) -> StoreResult<bool> {
        self.remove_old(now, retention).await
    }

    async fn key_coverage(&self, now: Timestamp) -> StoreResult<KeyCoverage> {
        self.count_keys(now).await
    }

    async fn sessions_overview(&self, after: Option<SessionId>, limit: u64) -> StoreResult<Page<SessionSummary>> {
        self.summarize_sessions(after, limit).await
    }

    async fn session_overview(&self, session_id: SessionId) -> StoreResult<Option<SessionSummary>> {
        self.summarize_session(session_id).await
    }

    async fn user_overview(&self, name: &str) -> StoreResult<Option<UserSummary>> {
        self.summarize_user(name).await
    }
}
