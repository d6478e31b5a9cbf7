//! A store that fails on demand, for tests of those who rely on one: it refuses commits, loses its answers after they
//! are stored, is slow, or is not there for a while. What it does not fail it hands to the store inside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    Access, AckRow, Claim, CommitError, EventRange, EventRow, InboxRow, KeyCoverage, Membership, NewPublicKey,
    NodeReport, NodeRow, Page, Position, Retention, SessionCommit, SessionSummary, Store, StoreError, StoreResult,
    TokenHash, TokenOwner, UserRow, UserSummary,
};
use crate::protocol::{
    ClientId, GoneReason, InboxId, MemberView, NodeId, RoomKeyView, SessionId, SessionInfo, Timestamp, UserId,
};
use crate::session::state::Task;

/// How a commit fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A row is refused: nothing of the session's commit is stored.
    Refused,
    /// The connection dies before `COMMIT`: nothing is stored, and nobody knows.
    LostBefore,
    /// The connection dies after `COMMIT`: it is stored, and nobody knows.
    LostAfter,
    /// The store panics before anything is stored.
    Panic,
}

/// Which commits a fault hits.
#[derive(Clone, Debug)]
struct Planned {
    session_id: Option<SessionId>,
    fault: Fault,
    times: u32,
}

/// The store that fails on demand; see the module.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    planned: Mutex<Vec<Planned>>,
    unavailable: AtomicBool,
    held: watch::Sender<bool>,
}

impl std::fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// Around a store that works.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        let held = watch::Sender::new(false);
        Self { inner, planned: Mutex::default(), unavailable: AtomicBool::new(false), held }
    }

    /// Fails the next `times` commits of a session, or of any where none is named.
    pub fn fail_commits(&self, session_id: Option<SessionId>, fault: Fault, times: u32) {
        self.plans().push(Planned { session_id, fault, times });
    }

    /// Whether every call answers `Unavailable` (commits: `Refused`) from now on.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.unavailable.store(unavailable, Ordering::Release);
    }

    /// Holds commits back until [`FaultyStore::go_on`].
    pub fn hold_commits(&self) {
        self.held.send_replace(true);
    }

    /// Lets commits pass that were held back.
    pub fn go_on(&self) {
        self.held.send_replace(false);
    }

    /// Whether all planned faults have happened.
    pub fn is_through(&self) -> bool {
        self.plans().is_empty()
    }

    fn plans(&self) -> std::sync::MutexGuard<'_, Vec<Planned>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault_of(&self, session_id: SessionId) -> Option<Fault> {
        let mut plans = self.plans();
        let at = plans.iter().position(|plan| plan.session_id.is_none_or(|id| id == session_id))?;
        let fault = plans[at].fault;
        plans[at].times = plans[at].times.saturating_sub(1);
        if plans[at].times == 0 {
            plans.remove(at);
        }
        Some(fault)
    }

    fn there(&self) -> StoreResult<&dyn Store> {
        if self.unavailable.load(Ordering::Acquire) {
            return Err(StoreError::Unavailable("not there, as the test wants it".to_owned()));
        }
        Ok(&*self.inner)
    }

    async fn one_commit(&self, node_id: NodeId, commit: &SessionCommit) -> Result<(), CommitError> {
        let store = self.there().map_err(|error| CommitError::Refused(error.to_string()))?;
        let outcome = || async {
            let outcomes = store.commit(node_id, std::slice::from_ref(commit)).await;
            outcomes.into_iter().next().unwrap_or(Err(CommitError::NotOwner))
        };
        let lost = || Err(CommitError::Unknown("lost, as the test wants it".to_owned()));
        match self.fault_of(commit.session_id) {
            None => outcome().await,
            Some(Fault::Refused) => Err(CommitError::Refused("refused, as the test wants it".to_owned())),
            Some(Fault::LostBefore) => lost(),
            Some(Fault::LostAfter) => outcome().await.and_then(|()| lost()),
            Some(Fault::Panic) => panic!("the store panics, as the test wants it"),
        }
    }
}

macro_rules! pass_on {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait]
        impl Store for FaultyStore {
            async fn close(&self) {
                self.inner.close().await;
            }

            async fn commit(&self, node_id: NodeId, batch: &[SessionCommit]) -> Vec<Result<(), CommitError>> {
                let mut held = self.held.subscribe();
                // The sender lives as long as this store: there is always an answer.
                drop(held.wait_for(|held| !held).await);
                if self.is_through() && self.there().is_ok() {
                    return self.inner.commit(node_id, batch).await;
                }
                let mut outcomes = Vec::with_capacity(batch.len());
                for commit in batch {
                    outcomes.push(self.one_commit(node_id, commit).await);
                }
                outcomes
            }

            $(async fn $name(&self, $($arg: $type),*) -> StoreResult<$out> {
                self.there()?.$name($($arg),*).await
            })*
        }
    };
}

pass_on! {
    now() -> Timestamp;
    probe() -> ();
    create_user(user: &UserRow) -> ();
    user_by_name(name: &str) -> Option<UserRow>;
    user_by_id(user_id: UserId) -> Option<UserRow>;
    public_keys(users: &[UserId]) -> Vec<(UserId, String)>;
    add_token(hash: TokenHash, owner: &TokenOwner, keep: u32) -> ();
    token_owner(hash: TokenHash, now: Timestamp) -> Option<TokenOwner>;
    remove_token(hash: TokenHash) -> Option<UserId>;
    dead_tokens(hashes: &[TokenHash], now: Timestamp) -> Vec<TokenHash>;
    set_password(user_id: UserId, password_hash: &str, keep: TokenHash) -> ();
    set_public_key(user_id: UserId, key: &NewPublicKey) -> Vec<SessionId>;
    close_account(user_id: UserId, now: Timestamp) -> Vec<SessionId>;
    disable_user(user_id: UserId, now: Timestamp) -> Vec<SessionId>;
    enable_user(user_id: UserId) -> bool;
    revoke_tokens(user_id: UserId) -> u64;
    claim(session_id: SessionId, node_id: NodeId, from_others: bool) -> Claim;
    release(session_id: SessionId, node_id: NodeId, fence: u64) -> ();
    made_before(creator: UserId, id: &ClientId) -> Option<String>;
    tasks(session_id: SessionId) -> Vec<Task>;
    sessions_with_tasks(limit: u64) -> Vec<SessionId>;
    rotations_unattended(limit: u64) -> Vec<SessionId>;
    access(session_id: SessionId, user_id: UserId, now: Timestamp) -> Access;
    sessions_of(user_id: UserId) -> Vec<Membership>;
    departures(user_id: UserId, sessions: &[SessionId]) -> Vec<(SessionId, GoneReason)>;
    position(session_id: SessionId) -> Option<(u64, u64)>;
    positions(sessions: &[SessionId]) -> Vec<Position>;
    memberships_of(
        users: &[UserId],
        after: Option<(UserId, SessionId)>,
        limit: u64
    ) -> Page<(UserId, SessionId)>;
    events(session_id: SessionId, range: EventRange, limit: u64, bytes: usize) -> Page<EventRow>;
    room_keys(session_id: SessionId, user_id: UserId, after_epoch: u64, limit: u64) -> Page<RoomKeyView>;
    members(session_id: SessionId, after: Option<UserId>, limit: u64, now: Timestamp) -> Page<MemberView>;
    session_info(session_id: SessionId, members: u64, now: Timestamp) -> Option<SessionInfo>;
    inbox(user_id: UserId, limit: u64, now: Timestamp) -> Vec<InboxRow>;
    users_with_inbox(users: &[UserId], now: Timestamp) -> Vec<UserId>;
    inbox_keys(user_id: UserId, session_id: SessionId, up_to: u64) -> Vec<InboxRow>;
    ack_inbox(user_id: UserId, inbox_ids: &[InboxId]) -> ();
    ack(acks: &[AckRow]) -> ();
    renew_lease(node_id: NodeId, lease_ms: i64, report: &NodeReport) -> NodeRow;
    nodes() -> Vec<NodeRow>;
    ask_to_drain(node_id: NodeId) -> bool;
    end_lease(node_id: NodeId) -> ();
    lapse_inbox(now: Timestamp, limit: u64) -> Vec<(UserId, InboxId)>;
    prune(now: Timestamp, retention: &Retention) -> bool;
    key_coverage(now: Timestamp) -> KeyCoverage;
    sessions_overview(after: Option<SessionId>, limit: u64) -> Page<SessionSummary>;
    session_overview(session_id: SessionId) -> Option<SessionSummary>;
    user_overview(name: &str) -> Option<UserSummary>;
}
