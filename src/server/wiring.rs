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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::conformance::{NODE, Session, user};
    use crate::store::faulty::FaultyStore;
    use crate::store::{GroupCommit, GroupCommitOptions, SqliteOptions, SqliteStore, Store};
    use crate::telemetry::Metrics;

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let patience = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), patience).await.unwrap_or_else(|_| panic!("waiting for {what}"));
    }

    #[tokio::test]
    async fn who_cannot_renew_the_lease_commits_nothing_though_the_store_would_take_it() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap());
        // Only the lease's way to the store is broken.
        let broken = Arc::new(FaultyStore::new(Arc::clone(&store)));
        let for_lease = Arc::clone(&broken) as Arc<dyn Store>;
        let lease = Lease::take(Duration::from_millis(500), for_lease, Box::new(|_| {}), Metrics::new()).await.unwrap();
        let keeping = tokio::spawn({
            let lease = Arc::clone(&lease);
            async move { lease.keep().await }
        });
        let commits = GroupCommit::start(Arc::clone(&store), NODE, GroupCommitOptions::default(), None);
        let commits = LeasedCommits { commits, lease: Arc::clone(&lease) };
        let mut session = Session::new(1, user(1));
        let making = session.making();

        broken.set_unavailable(true);
        until("the lease to lapse", || !lease.is_held()).await;
        let refused = commits.submit(making.clone()).unwrap().await.unwrap();
        assert!(matches!(&refused, Err(CommitError::Refused(why)) if why.contains("lease")), "{refused:?}");
        assert_eq!(store.position(session.id()).await.unwrap(), None);

        broken.set_unavailable(false);
        until("the lease to be renewed", || lease.is_held()).await;
        assert_eq!(commits.submit(making).unwrap().await.unwrap(), Ok(()));
        assert_eq!(store.position(session.id()).await.unwrap(), Some((1, 1)));
        keeping.abort();
    }
}
