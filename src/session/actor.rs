//! The shell around a session's state: mailbox, timer, its beginning and its end. How what was decided leaves it is in
//! [`leaving`](super::leaving), whom it asks for keys in [`asking`](super::asking).
//!
//! Made by [`Sessions`](super::Sessions) when this node has claimed the session or makes it, on a session thread; it
//! stops by itself when it is idle, when the node drains, or when a commit failed. If it panics, what was not committed is lost and refused
//! with `unavailable`; the next activation loads what is true.
//!
//! Invariant: an actor whose commit did not succeed never handles another command.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::asking::{Everywhere, tell_all_nodes};
use super::outgoing::Outgoing;
use super::registry::{Permit, Registration};
use super::router::Shared;
use super::state::{Command, Decision, SessionState, Task};
use crate::cluster::Row;
use crate::connection::{ConnectionKey, ReplySlot};
use crate::protocol::{ErrorCode, KeyEpoch, Refusal, Reply, SessionId, Timestamp, UserId};
use crate::store::Claimed;
use crate::telemetry::{Metrics, RotationResult};

pub(super) struct SessionActor {
    pub(super) session_id: SessionId,
    pub(super) shared: Arc<Shared>,
    pub(super) registration: Registration,
    pub(super) life: Life,
    pub(super) growing: Outgoing,
    pub(super) committing: bool,
    /// Whether a commit that the store's queue did not take waits to be offered again.
    pub(super) retrying: bool,
    /// The connection that the rotator spoke on: later asks go there too.
    pub(super) rotator_at: Option<(UserId, ConnectionKey)>,
    pub(super) everywhere: Everywhere,
    timer: Option<(SpawnHandle, Timestamp)>,
    idle_since: std::time::Instant,
    stopping: bool,
}

pub(super) enum Life {
    /// To be made by this command.
    New(Box<(Command, ReplySlot, Permit)>),
    /// Just claimed.
    Claimed(Box<Claimed>),
    Live(Box<Live>),
    /// Whatever still comes is refused with this.
    Gone(Refusal),
}

pub(super) struct Live {
    pub(super) state: SessionState,
    pub(super) fence: u64,
    pub(super) version: u64,
    pub(super) creation: Option<Creation>,
}

/// What goes with a session's first commit only.
pub(super) struct Creation {
    pub(super) client_session_id: Option<crate::protocol::ClientId>,
    pub(super) reply: String,
}

/// A command of a user.
pub(super) struct Envelope {
    pub(super) command: Command,
    pub(super) reply: ReplySlot,
    pub(super) permit: Permit,
}

/// Stop as soon as nothing is under way.
pub(super) struct Stop;

impl SessionActor {
    pub(super) fn load(
        session_id: SessionId,
        shared: Arc<Shared>,
        registration: Registration,
        claimed: Claimed,
    ) -> Self {
        Self::with(session_id, shared, registration, Life::Claimed(Box::new(claimed)))
    }

    pub(super) fn make(
        session_id: SessionId,
        shared: Arc<Shared>,
        registration: Registration,
        command: Command,
        reply: ReplySlot,
        permit: Permit,
    ) -> Self {
        Self::with(session_id, shared, registration, Life::New(Box::new((command, reply, permit))))
    }

    fn with(session_id: SessionId, shared: Arc<Shared>, registration: Registration, life: Life) -> Self {
        let everywhere = Everywhere::new(Arc::clone(&shared.presence), shared.options.roll_call_every);
        Self {
            session_id,
            shared,
            registration,
            everywhere,
            life,
            growing: Outgoing::default(),
            committing: false,
            retrying: false,
            rotator_at: None,
            timer: None,
            idle_since: std::time::Instant::now(),
            stopping: false,
        }
    }

    fn wake(&mut self, claimed: Claimed, ctx: &mut Context<Self>) {
        let Claimed { fence, version, snapshot, tasks } = claimed;
        self.shared.metrics.activations.inc();
        let state = SessionState::restore(self.shared.options.rules.clone(), snapshot);
        self.life = Life::Live(Box::new(Live { state, fence, version, creation: None }));
        // What the last owner stored and did not tell: whoever listens finds it missing.
        self.publish(Row::Head(version));
        self.take_in(&tasks, ctx);
        self.call_roll();
        self.arm(ctx);
    }

    fn create(&mut self, command: Command, reply: ReplySlot, ctx: &mut Context<Self>) {
        let Command::Create { body, failed } = command else {
            reply.refuse_now(Refusal::new(ErrorCode::Internal, "a session is made by its creation only"));
            return self.give_up(Refusal::no_session(), ctx);
        };
        let client_session_id = body.client_session_id.clone();
        let (creator, now) = (reply.caller().user_id, self.shared.clock.now());
        let (state, decision) =
            SessionState::create(self.shared.options.rules.clone(), self.session_id, creator, now, body, failed);
        let told = decision.outcome.as_ref().ok().and_then(|reply| serde_json::to_string(reply).ok());
        let creation = Some(Creation { client_session_id, reply: told.unwrap_or_default() });
        self.life = Life::Live(Box::new(Live { state, fence: 1, version: 0, creation }));
        self.absorb(decision, Some(reply), ctx);
        self.arm(ctx);
    }

    /// Lets a command, a task or the passing of time through the state; a panic in there is contained.
    fn decide(&mut self, decide: impl FnOnce(&mut SessionState) -> Decision) -> Option<Decision> {
        let Life::Live(live) = &mut self.life else { return None };
        let rotation = live.state.rotation_under_way();
        match catch_unwind(AssertUnwindSafe(|| decide(&mut live.state))) {
            Ok(decision) => {
                if let Some((epoch, cause)) = rotation {
                    count_rotation(&self.shared.metrics, &live.state, epoch, cause);
                }
                Some(decision)
            }
            Err(_) => {
                self.registration.panicked();
                None
            }
        }
    }

    fn take_in(&mut self, tasks: &[Task], ctx: &mut Context<Self>) {
        for task in tasks {
            let (now, everywhere) = (self.shared.clock.now(), self.everywhere.clone());
            let online = |user_id| everywhere.connection_of(user_id).is_some();
            match self.decide(|state| state.take_in(now, task, &online)) {
                Some(decision) => self.absorb(decision, None, ctx),
                None => return self.give_up(unavailable(), ctx),
            }
        }
    }

    /// Takes in what waits in the store.
    pub(super) fn read_tasks(&mut self, ctx: &mut Context<Self>) {
        let (shared, session_id) = (Arc::clone(&self.shared), self.session_id);
        let tasks = async move { shared.store.tasks(session_id).await };
        ctx.wait(tasks.into_actor(self).map(|tasks, actor, ctx| match tasks {
            Ok(tasks) => actor.take_in(&tasks, ctx),
            Err(error) => tracing::warn!(session = %actor.session_id, %error, "tasks could not be read"),
        }));
    }

    /// Takes what was decided into what leaves next, and has it leave if nothing is on the way.
    fn absorb(&mut self, mut decision: Decision, reply: Option<ReplySlot>, ctx: &mut Context<Self>) {
        let Life::Live(live) = &mut self.life else { return };
        let touches_keys = decision.head_changed || decision.changes.len() > 1;
        self.growing.take(&mut decision, |user_id| live.state.is_member(user_id));
        let speaker = reply.as_ref().map(|slot| (slot.caller().user_id, slot.caller().connection));
        if let Some(slot) = reply {
            self.growing.answers.push((slot, decision.outcome));
        }
        if touches_keys {
            self.ask(speaker);
        }
        self.flush(ctx);
    }

    /// Ends this life of the session here: what is queued is refused, and the next command starts a new one.
    pub(super) fn give_up(&mut self, refusal: Refusal, ctx: &mut Context<Self>) {
        self.registration.close();
        for (slot, _) in std::mem::take(&mut self.growing).answers {
            slot.refuse_now(unavailable());
        }
        self.life = Life::Gone(refusal);
        self.after_work(ctx);
    }

    /// Stops when nothing more can come; arms the timer otherwise.
    pub(super) fn after_work(&mut self, ctx: &mut Context<Self>) {
        match &self.life {
            Life::Gone(_) if self.registration.pending() == 0 && !self.committing => ctx.stop(),
            Life::Live(_) if self.stopping => self.passivate(ctx),
            Life::Live(_) => self.arm(ctx),
            Life::Gone(_) | Life::New(_) | Life::Claimed(_) => {}
        }
    }

    /// Has the timer run at the state's next deadline, or to see whether the session is idle.
    pub(super) fn arm(&mut self, ctx: &mut Context<Self>) {
        let Life::Live(live) = &self.life else { return };
        let now = self.shared.clock.now();
        let idle = now.plus_millis(i64::try_from(self.shared.options.idle.as_millis()).unwrap_or(i64::MAX));
        let mut due = live.state.next_wakeup().map_or(idle, |due| due.min(idle));
        if live.state.wants_keys() {
            let wait = self.everywhere.due_in(self.shared.options.roll_call_every);
            due = due.min(now.plus_millis(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)));
        }
        match self.timer {
            Some((_, armed)) if armed <= due => return,
            Some((later, _)) => drop(ctx.cancel_future(later)),
            None => {}
        }
        let wait = Duration::from_millis(due.millis_since(now).max(1).unsigned_abs());
        let timer = ctx.run_later(wait, |actor, ctx| {
            actor.timer = None;
            actor.on_time(ctx);
        });
        self.timer = Some((timer, due));
    }

    fn on_time(&mut self, ctx: &mut Context<Self>) {
        let (now, everywhere) = (self.shared.clock.now(), self.everywhere.clone());
        let online = |user_id| everywhere.connection_of(user_id).is_some();
        match self.decide(|state| state.tick(now, &online)) {
            Some(decision) => self.absorb(decision, None, ctx),
            None => return self.give_up(unavailable(), ctx),
        }
        self.ask(None);
        self.flush(ctx);
        let Life::Live(live) = &self.life else { return };
        if self.idle_since.elapsed() >= self.shared.options.idle && live.state.is_quiet() {
            self.passivate(ctx);
        }
        self.arm(ctx);
    }

    /// Gives the session up, if nothing is under way and nothing is on its way here.
    fn passivate(&mut self, ctx: &mut Context<Self>) {
        let leaving = self.registration.leaving();
        if self.committing || !self.growing.is_empty() || !self.registration.close_if_unused() {
            return;
        }
        let fence = match &self.life {
            Life::Live(live) if live.version > 0 => live.fence,
            Life::Live(_) | Life::New(_) | Life::Claimed(_) | Life::Gone(_) => return ctx.stop(),
        };
        self.life = Life::Gone(unavailable());
        let (shared, session_id) = (Arc::clone(&self.shared), self.session_id);
        let release = async move {
            match shared.store.release(session_id, shared.options.node_id, fence).await {
                Ok(()) => tell_all_nodes(&shared, session_id, Row::Released(shared.options.node_id)).await,
                Err(error) => tracing::warn!(session = %session_id, %error, "a session could not be released"),
            }
            drop(leaving);
        };
        ctx.spawn(release.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

impl Message for Envelope {
    type Result = ();
}

impl Message for Stop {
    type Result = ();
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.shared.options.mailbox);
        self.shared.metrics.sessions.inc();
        match std::mem::replace(&mut self.life, Life::Gone(unavailable())) {
            Life::New(first) => {
                let (command, reply, permit) = *first;
                self.create(command, reply, ctx);
                drop(permit);
            }
            Life::Claimed(claimed) => self.wake(*claimed, ctx),
            other @ (Life::Live(_) | Life::Gone(_)) => self.life = other,
        }
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        self.shared.metrics.sessions.dec();
        self.registration.close();
    }
}

impl Handler<Envelope> for SessionActor {
    type Result = ();

    fn handle(&mut self, envelope: Envelope, ctx: &mut Context<Self>) {
        let Envelope { command, reply, permit } = envelope;
        self.idle_since = std::time::Instant::now();
        match &self.life {
            Life::Gone(refusal) => reply.refuse_now(refusal.clone()),
            Life::Live(_) if self.shared.commits.is_full(self.session_id) => {
                reply.refuse_now(Refusal::new(ErrorCode::Overloaded, "the node has more to store than it can"));
            }
            Life::Live(_) => {
                let (now, everywhere) = (self.shared.clock.now(), self.everywhere.clone());
                let online = |user_id| everywhere.connection_of(user_id).is_some();
                let caller = reply.caller().user_id;
                match self.decide(|state| state.handle(now, caller, command, &online)) {
                    Some(decision) => self.absorb(decision, Some(reply), ctx),
                    None => {
                        self.registration.close();
                        reply.refuse_now(Refusal::new(ErrorCode::Internal, "the request failed in the server"));
                        self.give_up(unavailable(), ctx);
                    }
                }
            }
            Life::New(_) | Life::Claimed(_) => reply.refuse_now(unavailable()),
        }
        drop(permit);
        if matches!(self.life, Life::Gone(_)) {
            self.after_work(ctx);
        }
    }
}

impl Handler<Stop> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Context<Self>) {
        self.stopping = true;
        self.after_work(ctx);
    }
}

/// Counts a rotation that was under way before a decision, if that ended it.
fn count_rotation(metrics: &Metrics, state: &SessionState, epoch: KeyEpoch, cause: &'static str) {
    let result = match state.current_epoch() {
        Some(current) if current == epoch => RotationResult::Finished,
        Some(_) | None if state.rotation_under_way().is_some_and(|(now, _)| now == epoch) => return,
        Some(_) | None if state.is_encrypted() => RotationResult::Void,
        Some(_) | None => RotationResult::Off,
    };
    metrics.rotation(cause, result);
}

pub(super) fn unavailable() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the session is moving, try again")
}

/// The JSON of a stored creation's reply, as a reply again.
pub(super) fn creation_reply(json: &str) -> Option<Reply> {
    #[derive(serde::Deserialize)]
    struct Stored {
        session_id: SessionId,
        key_epoch: Option<crate::protocol::KeyEpoch>,
        failed_members: Vec<crate::protocol::FailedMember>,
    }
    let Stored { session_id, key_epoch, failed_members } = serde_json::from_str(json).ok()?;
    Some(Reply::NewSession { session_id, key_epoch, failed_members })
}
