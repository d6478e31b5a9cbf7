//! How what was decided leaves a session: to the store first, and when it is durable to everybody else.
//!
//! Invariants: at most one commit of a session is under way, and all that is decided meanwhile leaves as the next one;
//! no answer leaves before the commits that it was decided on.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::actor::{Life, SessionActor, unavailable};
use super::asking::deliver_asks;
use super::outgoing::Outgoing;
use crate::connection::Parcel;
use crate::protocol::{Refusal, UserId};
use crate::store::{CommitError, SessionCommit};

/// How long to wait before a commit that the store's queue did not take is offered again.
const RETRY: Duration = Duration::from_millis(5);

impl SessionActor {
    /// Has what was decided leave, if nothing is on its way.
    pub(super) fn flush(&mut self, ctx: &mut Context<Self>) {
        if self.committing || self.retrying || self.growing.is_empty() {
            return;
        }
        if self.growing.is_read_only() {
            let outgoing = std::mem::take(&mut self.growing);
            return self.leave(outgoing, None, ctx);
        }
        let Life::Live(live) = &mut self.life else { return };
        let (last_seq, last_time, key_messages) = live.state.counters();
        let commit = SessionCommit {
            session_id: self.session_id,
            fence: live.fence,
            previous_version: live.version,
            version: live.version + 1,
            last_seq,
            last_time,
            key_messages,
            wants_keys: live.state.wants_keys(),
            remembered_from: live.state.remembered_from(),
            head: self.growing.head_changed.then(|| live.state.head().clone()),
            client_session_id: live.creation.as_ref().and_then(|creation| creation.client_session_id.clone()),
            creation_reply: live.creation.as_ref().map(|creation| creation.reply.clone()),
            writes: std::mem::take(&mut self.growing.writes),
        };
        match self.shared.commits.submit(commit) {
            Ok(outcome) => {
                let outgoing = std::mem::take(&mut self.growing);
                self.committing = true;
                let version = live.version + 1;
                let outcome = async move {
                    outcome.await.unwrap_or_else(|_| Err(CommitError::Unknown("the writer stopped".to_owned())))
                };
                ctx.spawn(outcome.into_actor(self).map(move |outcome, actor, ctx| {
                    actor.committed(outcome, outgoing, version, ctx);
                }));
            }
            Err(rejected) => {
                // Nothing was lost: it waits here, and the permits of this session hold off what would come on top.
                self.growing.writes = rejected.writes;
                self.retrying = true;
                ctx.run_later(RETRY, |actor, ctx| {
                    actor.retrying = false;
                    actor.flush(ctx);
                });
            }
        }
    }

    fn committed(
        &mut self,
        outcome: Result<(), CommitError>,
        outgoing: Outgoing,
        version: u64,
        ctx: &mut Context<Self>,
    ) {
        match outcome {
            Ok(()) => {
                // A life that was given up meanwhile still tells what it has made durable.
                if let Life::Live(live) = &mut self.life {
                    live.version = version;
                    live.creation = None;
                }
                self.leave(outgoing, Some(version), ctx);
            }
            Err(CommitError::AlreadyMade) => self.made_before(outgoing, ctx),
            Err(error) => {
                tracing::warn!(session = %self.session_id, %error, "a commit failed, the session is loaded anew");
                self.shared.metrics.commit_failed(&error);
                // Before anybody is told: who tries again at once finds a new life.
                self.registration.close();
                for (slot, _) in outgoing.answers {
                    slot.refuse_now(unavailable());
                }
                self.committing = false;
                self.release();
                self.give_up(unavailable(), ctx);
            }
        }
    }

    /// Leaves a session that failed here to whoever is told something for it first.
    fn release(&self) {
        let Life::Live(live) = &self.life else { return };
        let (shared, session_id, fence) = (Arc::clone(&self.shared), self.session_id, live.fence);
        if live.version > 0 {
            actix_web::rt::spawn(async move {
                // Not done, it stays with this node, which takes it up again.
                drop(shared.store.release(session_id, shared.options.node_id, fence).await);
            });
        }
    }

    /// Delivers what is durable, then goes on with what was decided meanwhile.
    fn leave(&mut self, mut outgoing: Outgoing, version: Option<u64>, ctx: &mut Context<Self>) {
        let (publication, signals) = match version {
            Some(version) => outgoing.publication(self.session_id, version),
            None => (None, Vec::new()),
        };
        let answers = outgoing.answers.drain(..).map(|(slot, outcome)| slot.answer(&outcome)).collect();
        let parcel = Parcel { answers, publication, signals, asks: Vec::new() };
        let (shared, session_id, asks) = (Arc::clone(&self.shared), self.session_id, outgoing.asks);
        self.committing = true;
        let delivered = async move {
            shared.deliveries.deliver(parcel).await;
            if asks.is_empty() { Ok(()) } else { deliver_asks(&shared, session_id, asks).await }
        };
        ctx.spawn(delivered.into_actor(self).map(|asked: Result<(), Vec<UserId>>, actor, ctx| {
            actor.committing = false;
            if let (Err(not_asked), Life::Live(live)) = (asked, &mut actor.life) {
                not_asked.into_iter().for_each(|user_id| live.state.member_connected(user_id));
            }
            actor.flush(ctx);
            actor.after_work(ctx);
        }));
    }

    /// The creator has made this session before, on another connection at the same time: it is answered alike.
    fn made_before(&mut self, outgoing: Outgoing, ctx: &mut Context<Self>) {
        let id = match &self.life {
            Life::Live(live) => live.creation.as_ref().and_then(|creation| creation.client_session_id.clone()),
            Life::New(_) | Life::Claimed(_) | Life::Gone(_) => None,
        };
        let shared = Arc::clone(&self.shared);
        let answer = async move {
            for (slot, _) in outgoing.answers {
                match &id {
                    Some(id) => shared.answer_made_before(slot, id).await,
                    None => slot.refuse_now(unavailable()),
                }
            }
        };
        ctx.spawn(answer.into_actor(self).map(|(), actor, ctx| {
            actor.committing = false;
            actor.give_up(Refusal::no_session(), ctx);
        }));
    }
}
