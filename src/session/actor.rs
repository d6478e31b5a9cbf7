//! The shell around a session's state: mailbox, timer, commits, publications.
//!
//! Made by [`Sessions`](super::Sessions) on first need, on a session thread; it stops by itself when it is idle, when
//! the session is nobody's here, or when a commit failed. If it panics, what was not committed is lost and refused
//! with `unavailable`; the next activation loads what is true.
//!
//! Invariants: at most one commit of a session is under way, and all that is decided meanwhile leaves as the next one;
//! no answer leaves before the commits that it was decided on; an actor whose commit did not succeed never handles
//! another command.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::outgoing::Outgoing;
use super::router::{Permit, Registration, Shared};
use super::state::{AskFor, Command, Decision, SessionState, Task};
use crate::connection::{ConnectionKey, Parcel, ReplySlot};
use crate::protocol::{Ask, ErrorCode, Frame, KeyEpoch, Refusal, Reply, SessionId, Timestamp, UserId};
use crate::store::{Claim, Claimed, CommitError, SessionCommit, StoreResult};
use crate::telemetry::{Metrics, RotationResult};

/// How long to wait before a commit that the store's queue did not take is offered again.
const RETRY: Duration = Duration::from_millis(5);

pub(super) struct SessionActor {
    session_id: SessionId,
    shared: Arc<Shared>,
    registration: Registration,
    life: Life,
    growing: Outgoing,
    committing: bool,
    /// Whether a commit that the store's queue did not take waits to be offered again.
    retrying: bool,
    /// The connection that the rotator spoke on: later asks go there too.
    rotator_at: Option<(UserId, ConnectionKey)>,
    timer: Option<(SpawnHandle, Timestamp)>,
    idle_since: std::time::Instant,
    stopping: bool,
}

enum Life {
    /// To be made by this command.
    New(Box<(Command, ReplySlot, Permit)>),
    /// Being claimed; the mailbox waits.
    Loading,
    Live(Box<Live>),
    /// Whatever still comes is refused with this.
    Gone(Refusal),
}

struct Live {
    state: SessionState,
    fence: u64,
    version: u64,
    creation: Option<Creation>,
}

/// What goes with a session's first commit only.
struct Creation {
    client_session_id: Option<crate::protocol::ClientId>,
    reply: String,
}

/// A command of a user.
pub(super) struct Envelope {
    pub(super) command: Command,
    pub(super) reply: ReplySlot,
    pub(super) permit: Permit,
}

/// A nudge; lossy, since the store has the truth.
pub(super) enum Nudge {
    /// Tasks wait in the store.
    Tasks,
    /// A member has a new connection.
    MemberConnected(UserId, ConnectionKey),
    /// Stop as soon as nothing is under way.
    Stop,
}

impl SessionActor {
    pub(super) fn load(session_id: SessionId, shared: Arc<Shared>, registration: Registration) -> Self {
        Self::with(session_id, shared, registration, Life::Loading)
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
        Self {
            session_id,
            shared,
            registration,
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

    fn claim(&self, ctx: &mut Context<Self>) {
        let (shared, session_id) = (Arc::clone(&self.shared), self.session_id);
        let claim = async move { shared.store.claim(session_id, shared.node_id, true).await };
        ctx.wait(claim.into_actor(self).map(|claim, actor, ctx| actor.claimed(claim, ctx)));
    }

    fn claimed(&mut self, claim: StoreResult<Claim>, ctx: &mut Context<Self>) {
        match claim {
            Ok(Claim::Mine(claimed)) => {
                let Claimed { fence, version, snapshot, tasks } = *claimed;
                self.shared.metrics.activations.inc();
                let state = SessionState::restore(self.shared.rules.clone(), snapshot);
                self.life = Life::Live(Box::new(Live { state, fence, version, creation: None }));
                self.take_in(&tasks, ctx);
                self.arm(ctx);
            }
            Ok(Claim::NoSession) => self.give_up(Refusal::no_session(), ctx),
            Ok(Claim::OwnedBy(node)) => {
                tracing::debug!(session = %self.session_id, %node, "a session is owned by another node");
                self.give_up(unavailable(), ctx);
            }
            Err(error) => {
                tracing::warn!(session = %self.session_id, %error, "a session could not be claimed");
                self.give_up(unavailable(), ctx);
            }
        }
    }

    fn create(&mut self, command: Command, reply: ReplySlot, ctx: &mut Context<Self>) {
        let Command::Create { body, failed } = command else {
            reply.refuse_now(Refusal::new(ErrorCode::Internal, "a session is made by its creation only"));
            return self.give_up(Refusal::no_session(), ctx);
        };
        let client_session_id = body.client_session_id.clone();
        let (creator, now) = (reply.caller().user_id, self.shared.clock.now());
        let (state, decision) =
            SessionState::create(self.shared.rules.clone(), self.session_id, creator, now, body, failed);
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
            let (now, presence) = (self.shared.clock.now(), Arc::clone(&self.shared.presence));
            let online = |user_id| presence.connection_of(user_id).is_some();
            match self.decide(|state| state.take_in(now, task, &online)) {
                Some(decision) => self.absorb(decision, None, ctx),
                None => return self.give_up(unavailable(), ctx),
            }
        }
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

    /// Adds the asks that are due: to the connection that just spoke, if it is whose user is asked.
    fn ask(&mut self, speaker: Option<(UserId, ConnectionKey)>) {
        let Life::Live(live) = &mut self.life else { return };
        if !live.state.wants_keys() {
            return;
        }
        let presence = &self.shared.presence;
        let online = |user_id| presence.connection_of(user_id).is_some();
        let rotating = live.state.rotation_under_way().map(|(epoch, _)| epoch);
        for ask in live.state.due_asks(self.shared.clock.now(), &online) {
            let to = ask.to();
            let spoke = speaker.filter(|(user_id, _)| *user_id == to);
            if spoke.is_some() {
                self.rotator_at = spoke;
            }
            // Once the rotation is over, the connection that it was spoken on may be long gone.
            let at = self.rotator_at.filter(|(user_id, _)| *user_id == to && rotating == Some(ask.epoch()));
            let known = at.or(spoke).map(|(_, connection)| connection);
            if let Some(connection) = known.or_else(|| presence.connection_of(to)) {
                self.growing.asks.push((connection, ask));
            }
        }
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
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
                self.give_up(unavailable(), ctx);
            }
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
            Life::New(_) | Life::Loading | Life::Gone(_) => None,
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

    /// Ends this life of the session here: what is queued is refused, and the next command starts a new one.
    fn give_up(&mut self, refusal: Refusal, ctx: &mut Context<Self>) {
        self.registration.close();
        for (slot, _) in std::mem::take(&mut self.growing).answers {
            slot.refuse_now(unavailable());
        }
        self.life = Life::Gone(refusal);
        self.after_work(ctx);
    }

    /// Stops when nothing more can come; arms the timer otherwise.
    fn after_work(&mut self, ctx: &mut Context<Self>) {
        match &self.life {
            Life::Gone(_) if self.registration.pending() == 0 && !self.committing => ctx.stop(),
            Life::Live(_) if self.stopping => self.passivate(ctx),
            Life::Live(_) => self.arm(ctx),
            Life::Gone(_) | Life::New(_) | Life::Loading => {}
        }
    }

    /// Has the timer run at the state's next deadline, or to see whether the session is idle.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let Life::Live(live) = &self.life else { return };
        let now = self.shared.clock.now();
        let idle = now.plus_millis(i64::try_from(self.shared.idle.as_millis()).unwrap_or(i64::MAX));
        let due = live.state.next_wakeup().map_or(idle, |due| due.min(idle));
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
        let (now, presence) = (self.shared.clock.now(), Arc::clone(&self.shared.presence));
        let online = |user_id| presence.connection_of(user_id).is_some();
        match self.decide(|state| state.tick(now, &online)) {
            Some(decision) => self.absorb(decision, None, ctx),
            None => return self.give_up(unavailable(), ctx),
        }
        self.ask(None);
        self.flush(ctx);
        let Life::Live(live) = &self.life else { return };
        if self.idle_since.elapsed() >= self.shared.idle && live.state.is_quiet() {
            self.passivate(ctx);
        }
        self.arm(ctx);
    }

    /// Gives the session up, if nothing is under way and nothing is on its way here.
    fn passivate(&mut self, ctx: &mut Context<Self>) {
        if self.committing || !self.growing.is_empty() || !self.registration.close_if_unused() {
            return;
        }
        let fence = match &self.life {
            Life::Live(live) if live.version > 0 => live.fence,
            Life::Live(_) | Life::New(_) | Life::Loading | Life::Gone(_) => return ctx.stop(),
        };
        self.life = Life::Gone(unavailable());
        let (shared, session_id) = (Arc::clone(&self.shared), self.session_id);
        let release = async move { shared.store.release(session_id, shared.node_id, fence).await };
        ctx.spawn(release.into_actor(self).map(|released, actor, ctx| {
            if let Err(error) = released {
                tracing::warn!(session = %actor.session_id, %error, "a session could not be released");
            }
            ctx.stop();
        }));
    }
}

impl Message for Envelope {
    type Result = ();
}

impl Message for Nudge {
    type Result = ();
}

impl Actor for SessionActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(self.shared.mailbox);
        self.shared.metrics.sessions.inc();
        match std::mem::replace(&mut self.life, Life::Loading) {
            Life::New(first) => {
                let (command, reply, permit) = *first;
                self.create(command, reply, ctx);
                drop(permit);
            }
            Life::Loading => self.claim(ctx),
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
                let (now, presence) = (self.shared.clock.now(), Arc::clone(&self.shared.presence));
                let online = |user_id| presence.connection_of(user_id).is_some();
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
            Life::New(_) | Life::Loading => reply.refuse_now(unavailable()),
        }
        drop(permit);
        if matches!(self.life, Life::Gone(_)) {
            self.after_work(ctx);
        }
    }
}

impl Handler<Nudge> for SessionActor {
    type Result = ();

    fn handle(&mut self, nudge: Nudge, ctx: &mut Context<Self>) {
        match nudge {
            Nudge::Tasks => {
                let (shared, session_id) = (Arc::clone(&self.shared), self.session_id);
                let tasks = async move { shared.store.tasks(session_id).await };
                ctx.wait(tasks.into_actor(self).map(|tasks, actor, ctx| match tasks {
                    Ok(tasks) => actor.take_in(&tasks, ctx),
                    Err(error) => tracing::warn!(session = %actor.session_id, %error, "tasks could not be read"),
                }));
            }
            Nudge::MemberConnected(user_id, connection) => {
                let Life::Live(live) = &mut self.life else { return };
                live.state.member_connected(user_id);
                if self.rotator_at.is_some_and(|(rotator, _)| rotator == user_id) {
                    self.rotator_at = Some((user_id, connection));
                }
                self.ask(Some((user_id, connection)));
                self.flush(ctx);
            }
            Nudge::Stop => {
                self.stopping = true;
                self.after_work(ctx);
            }
        }
    }
}

/// Looks up the public keys that asks need and delivers them. Those who could not be asked, if that failed.
async fn deliver_asks(
    shared: &Shared,
    session_id: SessionId,
    asks: Vec<(ConnectionKey, AskFor)>,
) -> Result<(), Vec<UserId>> {
    let members: Vec<UserId> = asks
        .iter()
        .filter_map(|(_, ask)| match ask {
            AskFor::Key { member, .. } => Some(*member),
            AskFor::NewKey { .. } => None,
        })
        .collect();
    let keys = if members.is_empty() { Ok(Vec::new()) } else { shared.store.public_keys(&members).await };
    let keys: std::collections::HashMap<UserId, String> = match keys {
        Ok(keys) => keys.into_iter().collect(),
        Err(error) => {
            tracing::warn!(session = %session_id, %error, "public keys could not be read");
            return Err(asks.iter().map(|(_, ask)| ask.to()).collect());
        }
    };
    let mut parcel: Vec<(ConnectionKey, Vec<Frame>)> = Vec::new();
    for (connection, ask) in asks {
        let ask = match ask {
            AskFor::NewKey { epoch, .. } => Ask::UpdateRoomKeyNotification { session_id, key_epoch: epoch },
            AskFor::Key { member, epoch, .. } => match keys.get(&member) {
                Some(public_key) => Ask::SendRoomKeyNotification {
                    session_id,
                    user_id: member,
                    public_key: public_key.clone(),
                    key_epoch: epoch,
                },
                // The account is closed: its task will take the member out.
                None => continue,
            },
        };
        let frame = Frame::text(&ask.encode());
        match parcel.last_mut() {
            Some((last, frames)) if *last == connection => frames.push(frame),
            Some(_) | None => parcel.push((connection, vec![frame])),
        }
    }
    shared.deliveries.deliver(Parcel { asks: parcel, ..Parcel::default() }).await;
    Ok(())
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
