//! The embedded store: one SQLite database in the data directory of one node.
//!
//! [`SqliteStore`] owns the directory's lock, a pool of readers and one writer. All that writes goes through
//! [`writer::Writer`], whose queue is fair, so that neither the small writes nor the probe starve the commits and
//! `SQLITE_BUSY` cannot happen between them. Each of the other files is one concern of the [`Store`] trait.
//!
//! Invariant: what a call returned as written is in the WAL and synced (`synchronous=FULL`).

mod accounts;
mod checkpoint;
mod claims;
mod column;
mod commit;
mod desk;
mod inbox;
mod nodes;
mod open;
mod overview;
mod plan;
mod readers;
mod reads;
mod snapshot;
mod sweep;
#[cfg(test)]
mod tests;
mod upkeep;
mod writer;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sqlx::SqlitePool;

use self::readers::Readers;
use self::writer::Writer;
use super::{
    Access, AckRow, Claim, CommitError, EventRange, EventRow, InboxRow, KeyCoverage, Membership, NewPublicKey,
    NodeReport, NodeRow, Page, Position, Retention, SessionCommit, SessionSummary, Store, StoreResult, TokenHash,
    TokenOwner, UserRow, UserSummary,
};
use crate::protocol::{
    ClientId, GoneReason, InboxId, MemberView, NodeId, RoomKeyView, SessionId, SessionInfo, Timestamp, UserId,
};
use crate::session::state::Task;

/// Where the store's time comes from.
#[derive(Clone, Debug, Default)]
pub enum StoreClock {
    /// The machine's clock.
    #[default]
    System,
    /// Milliseconds since the Unix epoch that somebody else moves: for tests.
    Manual(Arc<AtomicI64>),
}

impl StoreClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(match self {
            Self::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
            }
            Self::Manual(millis) => millis.load(Ordering::Acquire),
        })
    }
}

/// How the embedded store is opened.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// The data directory; made, with mode 0700, where it is missing.
    pub data_dir: PathBuf,
    /// Connections that read at the same time.
    pub readers: u32,
    /// The WAL's size in bytes from which on it is emptied as soon as no reader needs it.
    pub wal_bytes: u64,
    /// The store's clock.
    pub clock: StoreClock,
}

impl SqliteOptions {
    /// With the defaults: 4 readers, a WAL of 64 MiB, the machine's clock.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), readers: 4, wal_bytes: 64 << 20, clock: StoreClock::System }
    }
}

/// The embedded store; see the module.
#[derive(Debug)]
pub struct SqliteStore {
    /// What is seldom read.
    readers: SqlitePool,
    /// What connections and sessions read all the time.
    reading: Readers,
    writer: Writer,
    clock: StoreClock,
    /// The history that sequence numbers are of.
    log: String,
    /// Held until the store is closed: another process that wants this directory is refused.
    lock: File,
}

impl SqliteStore {
    /// Opens the store of a data directory, which is made where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// `Unavailable` where another process has the directory or the files cannot be used; `Corrupt` where a newer
    /// version of the program wrote them.
    pub async fn open(options: &SqliteOptions) -> StoreResult<Self> {
        open::open(options).await
    }

    /// Names the history anew, so that every client starts over where its numbers are of the former one. For a
    /// database that was restored from a backup in a way that [`SqliteStore::open`] does not notice by itself.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be written.
    pub async fn begin_new_history(&mut self) -> StoreResult<()> {
        self.log = open::new_history(&self.writer).await?;
        Ok(())
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn now(&self) -> StoreResult<Timestamp> {
        Ok(self.clock.now())
    }

    async fn probe(&self) -> StoreResult<()> {
        self.writer.probe(self.clock.now()).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.reading.close().await;
        self.writer.close().await;
        // Whoever still holds the closed store does not keep the next process from the directory.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "the data directory's lock goes with the process");
        }
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
