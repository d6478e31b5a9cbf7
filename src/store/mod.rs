//! What must outlive the process, and how it is asked for.
//!
//! A [`Store`] answers reads and writes the small things at once; the commits of sessions go through [`GroupCommit`],
//! which turns all that queued up while the last transaction ran into the next one. Invariant: a commit is taken only
//! if its `fence` and `previous_version` are those of the session's row, so two nodes that both believe they own a
//! session cannot both write it.

mod column;
#[cfg(test)]
pub(crate) mod conformance;
pub mod faulty;
mod group_commit;
mod overview;
mod postgres;
mod records;
mod row;
mod sqlite;

use async_trait::async_trait;

pub use group_commit::{BatchObserver, BatchReport, CommitOutcome, GroupCommit, GroupCommitOptions};
pub use overview::*;
pub use postgres::{PostgresOptions, PostgresStore};
pub use row::*;
pub use sqlite::{SqliteOptions, SqliteStore, StoreClock};

use crate::protocol::{
    ClientId, GoneReason, InboxId, MemberView, NodeId, RoomKeyView, SessionId, SessionInfo, Timestamp, UserId,
};
use crate::session::state::Task;

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be done now: no connection, a full disk, a lock that stays.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A name, an id or a number is taken already.
    #[error("taken already: {0}")]
    Conflict(&'static str),
    /// What is stored does not make sense.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
}

/// The result of a call to the store.
pub type StoreResult<T> = Result<T, StoreError>;

/// A page of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Whether there are further ones.
    pub more: bool,
}

/// What must outlive the process. Every kind passes one conformance suite.
///
/// Reads see only what is durable. A write that returned is durable.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The store's own clock: stored times are by it.
    async fn now(&self) -> StoreResult<Timestamp>;

    /// Proves over a connection of its own that the store commits.
    async fn probe(&self) -> StoreResult<()>;

    /// Closes all connections, after what is under way.
    async fn close(&self);

    // Accounts.

    /// Adds an account. `Conflict` where the name was ever given out.
    async fn create_user(&self, user: &UserRow) -> StoreResult<()>;

    /// A live (neither closed nor disabled) account by its name.
    async fn user_by_name(&self, name: &str) -> StoreResult<Option<UserRow>>;

    /// A live account by its id.
    async fn user_by_id(&self, user_id: UserId) -> StoreResult<Option<UserRow>>;

    /// Public keys (base64 of SPKI DER) of those of `users` whose accounts are live, in any order.
    async fn public_keys(&self, users: &[UserId]) -> StoreResult<Vec<(UserId, String)>>;

    /// Adds a token; expired ones of the same user are removed, and the oldest beyond `keep`.
    async fn add_token(&self, hash: TokenHash, owner: &TokenOwner, keep: u32) -> StoreResult<()>;

    /// Whose token it is, if it is live at `now` and its account too.
    async fn token_owner(&self, hash: TokenHash, now: Timestamp) -> StoreResult<Option<TokenOwner>>;

    /// Removes a token; whose it was.
    async fn remove_token(&self, hash: TokenHash) -> StoreResult<Option<UserId>>;

    /// Which of `hashes` are no live tokens at `now`.
    async fn dead_tokens(&self, hashes: &[TokenHash], now: Timestamp) -> StoreResult<Vec<TokenHash>>;

    /// Replaces the password's hash and removes all tokens of the user but `keep`, in one transaction.
    async fn set_password(&self, user_id: UserId, password_hash: &str, keep: TokenHash) -> StoreResult<()>;

    /// Replaces the public key and adds a task for each of the user's sessions, in one transaction; those sessions.
    async fn set_public_key(&self, user_id: UserId, key: &NewPublicKey) -> StoreResult<Vec<SessionId>>;

    /// Closes the account for good: its tokens, hash and display name go, its name stays taken, and each session in
    /// which it is a member, applicant or invitee gets a task, in one transaction; those sessions. Again: nothing.
    async fn close_account(&self, user_id: UserId, now: Timestamp) -> StoreResult<Vec<SessionId>>;

    /// Disables a live account until [`Store::enable_user`]: its tokens go, it cannot log in, and each session of it
    /// gets a task as if it were closed, in one transaction; those sessions. Again: nothing.
    async fn disable_user(&self, user_id: UserId, now: Timestamp) -> StoreResult<Vec<SessionId>>;

    /// Makes a disabled account live again, with its name, password and public key, without tokens and outside of the
    /// sessions that it was in. Whether it was disabled.
    async fn enable_user(&self, user_id: UserId) -> StoreResult<bool>;

    /// Removes all tokens of a user; how many.
    async fn revoke_tokens(&self, user_id: UserId) -> StoreResult<u64>;

    // Sessions: ownership and commits.

    /// Takes a session for `node_id`: if it has no owner, is this node's already, or (only where `from_others`) its
    /// owner's lease is over. Raises the fence each time.
    async fn claim(&self, session_id: SessionId, node_id: NodeId, from_others: bool) -> StoreResult<Claim>;

    /// Gives a session up, if it is still this node's with this fence.
    async fn release(&self, session_id: SessionId, node_id: NodeId, fence: u64) -> StoreResult<()>;

    /// Commits a batch of different sessions in one transaction; a result for each, in order. A commit with
    /// `previous_version` 0 makes its session, owned by `node_id` with its fence. If a row is refused, each session is
    /// tried alone, so that none suffers for another.
    async fn commit(&self, node_id: NodeId, batch: &[SessionCommit]) -> Vec<Result<(), CommitError>>;

    /// The session that `creator` made under this id, with the JSON of its reply.
    async fn made_before(&self, creator: UserId, id: &ClientId) -> StoreResult<Option<String>>;

    /// Tasks that wait for a session.
    async fn tasks(&self, session_id: SessionId) -> StoreResult<Vec<Task>>;

    /// Sessions that have tasks waiting, at most `limit`.
    async fn sessions_with_tasks(&self, limit: u64) -> StoreResult<Vec<SessionId>>;

    /// Sessions whose rotation is under way, and that no node owns which lives; at most `limit`.
    async fn rotations_unattended(&self, limit: u64) -> StoreResult<Vec<SessionId>>;

    // Sessions: reads. Whether the caller may is for the caller to ask, by `access`.

    /// What `user_id` is to the session.
    async fn access(&self, session_id: SessionId, user_id: UserId, now: Timestamp) -> StoreResult<Access>;

    /// All sessions of a user, by id.
    async fn sessions_of(&self, user_id: UserId) -> StoreResult<Vec<Membership>>;

    /// Why the user is no longer in those of `sessions` in which they once were; others are left out.
    async fn departures(&self, user_id: UserId, sessions: &[SessionId]) -> StoreResult<Vec<(SessionId, GoneReason)>>;

    /// A session's version and latest `seq`.
    async fn position(&self, session_id: SessionId) -> StoreResult<Option<(u64, u64)>>;

    /// Where those of `sessions` stand that have not ended, in any order.
    async fn positions(&self, sessions: &[SessionId]) -> StoreResult<Vec<Position>>;

    /// Who of `users` is a member of what, by user and session, from behind `after` on.
    async fn memberships_of(
        &self,
        users: &[UserId],
        after: Option<(UserId, SessionId)>,
        limit: u64,
    ) -> StoreResult<Page<(UserId, SessionId)>>;

    /// Events, at most `limit` of them and about `bytes` (but at least one).
    async fn events(
        &self,
        session_id: SessionId,
        range: EventRange,
        limit: u64,
        bytes: usize,
    ) -> StoreResult<Page<EventRow>>;

    /// The wrapped keys sent to a user, by epoch.
    async fn room_keys(
        &self,
        session_id: SessionId,
        user_id: UserId,
        after_epoch: u64,
        limit: u64,
    ) -> StoreResult<Page<RoomKeyView>>;

    /// Members by user id.
    async fn members(
        &self,
        session_id: SessionId,
        after: Option<UserId>,
        limit: u64,
        now: Timestamp,
    ) -> StoreResult<Page<MemberView>>;

    /// The whole answer to `get_session_info`, with the first `members` members by joining and, for who may see them,
    /// the open join requests and invitations.
    async fn session_info(
        &self,
        session_id: SessionId,
        members: u64,
        now: Timestamp,
    ) -> StoreResult<Option<SessionInfo>>;

    // What belongs to one user.

    /// The user's oldest inbox events that have not lapsed at `now`.
    async fn inbox(&self, user_id: UserId, limit: u64, now: Timestamp) -> StoreResult<Vec<InboxRow>>;

    /// Those of `users` who have inbox events that have not lapsed at `now`, in any order.
    async fn users_with_inbox(&self, users: &[UserId], now: Timestamp) -> StoreResult<Vec<UserId>>;

    /// The user's inbox events of one session that hold keys, up to a version of it.
    async fn inbox_keys(&self, user_id: UserId, session_id: SessionId, up_to: u64) -> StoreResult<Vec<InboxRow>>;

    /// Removes inbox events; unknown ones are ignored.
    async fn ack_inbox(&self, user_id: UserId, inbox_ids: &[InboxId]) -> StoreResult<()>;

    /// Writes acks; none moves back, and those of users who are no members are dropped.
    async fn ack(&self, acks: &[AckRow]) -> StoreResult<()>;

    // The nodes and the house-keeping.

    /// Adds or renews this node's row for `lease_ms` from now by the store's clock; the row.
    async fn renew_lease(&self, node_id: NodeId, lease_ms: i64, report: &NodeReport) -> StoreResult<NodeRow>;

    /// The nodes whose lease is not over, by id.
    async fn nodes(&self) -> StoreResult<Vec<NodeRow>>;

    /// Asks a node to drain: its next renewal tells it. Whether there is such a live node.
    async fn ask_to_drain(&self, node_id: NodeId) -> StoreResult<bool>;

    /// Removes this node's row and gives up all its sessions.
    async fn end_lease(&self, node_id: NodeId) -> StoreResult<()>;

    /// Removes inbox events that have lapsed, at most `limit`; whose they were.
    async fn lapse_inbox(&self, now: Timestamp, limit: u64) -> StoreResult<Vec<(UserId, InboxId)>>;

    /// Removes what is kept no longer. Whether there is more to remove.
    async fn prune(&self, now: Timestamp, retention: &Retention) -> StoreResult<bool>;

    /// Members of encrypted sessions without the current key; open rotations; the age of the oldest of them.
    async fn key_coverage(&self, now: Timestamp) -> StoreResult<KeyCoverage>;

    // What operators see.

    /// The sessions that have not ended, by id.
    async fn sessions_overview(&self, after: Option<SessionId>, limit: u64) -> StoreResult<Page<SessionSummary>>;

    /// One session that has not ended.
    async fn session_overview(&self, session_id: SessionId) -> StoreResult<Option<SessionSummary>>;

    /// An account by its name, closed and disabled ones too.
    async fn user_overview(&self, name: &str) -> StoreResult<Option<UserSummary>>;
}
