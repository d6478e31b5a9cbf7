//! What the bus has lost, found in the store: where sessions stand, memberships, inbox events, dead tokens, of everybody
//! who is connected here.
//!
//! Run in turn by the sweep, so that whatever was lost is found even if nobody speaks again; and at once for channels of
//! which the bus knows that something may be missing. Invariant: nothing is taken back here: the hubs compare, and who
//! has missed something reads it from the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::UserSignal;
use crate::protocol::{SessionId, Timestamp, UserId};
use crate::store::{Store, StoreResult, TokenHash};

use super::{Found, Subscriptions};

/// Sessions, or users, that one question is about.
const AT_ONCE: usize = 500;

/// Rows of one page of memberships.
const PAGE: u64 = 5000;

/// After a question that the store did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks for what was lost. Cheap to clone.
#[derive(Clone)]
pub struct Recovery {
    store: Arc<dyn Store>,
    subscriptions: Subscriptions,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Recovery {
    /// For the listeners of one node.
    pub fn new(
        store: Arc<dyn Store>,
        subscriptions: Subscriptions,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Self {
        Self { store, subscriptions, clock }
    }

    /// Looks for everything that anybody here may have missed.
    ///
    /// # Errors
    /// If the store cannot be read; what was not looked at waits for the next time.
    pub async fn everything(&self) -> StoreResult<()> {
        self.sessions(&self.subscriptions.sessions_here()).await?;
        self.people(&self.subscriptions.people_here()).await
    }

    /// Looks at once for what may be missing, whenever the bus knows of something. For ever.
    pub async fn follow(&self) {
        loop {
            let (sessions, users) = self.subscriptions.next_missed().await;
            let mut people = self.subscriptions.people_here();
            people.retain(|(user_id, _)| users.contains(user_id));
            while let Err(error) = self.both(&sessions, &people).await {
                tracing::warn!(%error, "what the bus may have lost cannot be looked for");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn both(&self, sessions: &[SessionId], people: &[(UserId, Vec<TokenHash>)]) -> StoreResult<()> {
        self.sessions(sessions).await?;
        self.people(people).await
    }

    async fn sessions(&self, sessions: &[SessionId]) -> StoreResult<()> {
        for some in sessions.chunks(AT_ONCE) {
            let positions = self.store.positions(some).await?;
            let versions: HashMap<SessionId, u64> =
                positions.into_iter().map(|position| (position.session_id, position.version)).collect();
            let heads = some.iter().map(|session_id| (*session_id, versions.get(session_id).copied())).collect();
            self.subscriptions.compare(Found { heads, ..Found::default() }).await;
        }
        Ok(())
    }

    async fn people(&self, people: &[(UserId, Vec<TokenHash>)]) -> StoreResult<()> {
        for some in people.chunks(AT_ONCE) {
            let users: Vec<UserId> = some.iter().map(|(user_id, _)| *user_id).collect();
            let inboxes = self.store.users_with_inbox(&users, (self.clock)()).await?;
            self.subscriptions.compare(Found { inboxes, ..Found::default() }).await;
            self.memberships(&users).await?;
            self.tokens(some).await?;
        }
        Ok(())
    }

    async fn memberships(&self, users: &[UserId]) -> StoreResult<()> {
        let mut after = None;
        loop {
            let page = self.store.memberships_of(users, after, PAGE).await?;
            after = page.rows.last().copied();
            let mut memberships: Vec<(UserId, Vec<SessionId>)> = Vec::new();
            for (user_id, session_id) in page.rows {
                match memberships.last_mut() {
                    Some((last, sessions)) if *last == user_id => sessions.push(session_id),
                    Some(_) | None => memberships.push((user_id, vec![session_id])),
                }
            }
            self.subscriptions.compare(Found { memberships, ..Found::default() }).await;
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn tokens(&self, people: &[(UserId, Vec<TokenHash>)]) -> StoreResult<()> {
        let tokens: Vec<TokenHash> = people.iter().flat_map(|(_, tokens)| tokens.iter().copied()).collect();
        for some in tokens.chunks(AT_ONCE) {
            for dead in self.store.dead_tokens(some, (self.clock)()).await? {
                let owners = people.iter().filter(|(_, tokens)| tokens.contains(&dead));
                for (user_id, _) in owners {
                    self.subscriptions.signal_here(*user_id, UserSignal::TokenDead(dead)).await;
                }
            }
        }
        Ok(())
    }
}
