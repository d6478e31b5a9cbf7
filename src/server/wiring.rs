//! Small pieces between the rooms, so that none of them has to know another: who hears what follows from an account's
//! change, and commits only while the lease is held.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::accounts::Aftermath;
use crate::cluster::{Lease, UserSignal};
use crate::connection::Subscriptions;
use crate::protocol::{SessionId, UserId};
use crate::session::{Commits, Sessions};
use crate::store::{CommitError, CommitOutcome, SessionCommit};

/// What follows from an account's change: signals to connections, wake-ups to sessions.
pub(super) struct Ripples {
    pub(super) subscriptions: Subscriptions,
    pub(super) sessions: Sessions,
}

impl Aftermath for Ripples {
    fn signal(&self, user_id: UserId, signal: UserSignal) -> BoxFuture<'static, ()> {
        let subscriptions = self.subscriptions.clone();
        async move { subscriptions.signal(user_id, signal).await }.boxed()
    }

    fn wake(&self, session_id: SessionId) {
        self.sessions.wake(session_id);
    }
}

/// Commits, as long as the node counts as alive: who cannot renew the lease commits nothing either.
pub(super) struct LeasedCommits<C> {
    pub(super) commits: C,
    pub(super) lease: Arc<Lease>,
}

impl<C: Commits> Commits for LeasedCommits<C> {
    fn submit(&self, commit: SessionCommit) -> Result<CommitOutcome, Box<SessionCommit>> {
        if self.lease.is_held() {
            return self.commits.submit(commit);
        }
        let (outcome, receiver) = oneshot::channel();
        // The receiver is right here.
        let _ = outcome.send(Err(CommitError::Refused("the node's lease is over".to_owned())));
        Ok(receiver)
    }

    fn is_full(&self, session_id: SessionId) -> bool {
        self.commits.is_full(session_id)
    }
}
