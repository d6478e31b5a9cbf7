//! Finding a session, and what follows: it is taken and comes to life here, or its commands go to the node that has it.
//!
//! The store alone says who owns a session; what is remembered here is where it was found last. Invariants: a command
//! that another node sent is never sent on to a third; what was perhaps taken elsewhere is told again only where that
//! does no harm; every command is answered within its deadline.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::actor::{SessionActor, Stop, unavailable};
use super::registry::{At, Live, Parked, Place, Shard, lock};
use super::router::Inner;
use crate::cluster::placement::{Arrival, DOUBT_MS, Ticket, ToSend};
use crate::cluster::{Asked, Call, CallAnswer, CallId, NodeMessage, NotTaken, Nudge, Wire};
use crate::connection::{Origin, Parcel, Peers, ReplySlot};
use crate::protocol::{ErrorCode, NodeId, Refusal, SessionId};
use crate::store::{Claim, Claimed, StoreResult};

/// How often what waits is looked at.
const WATCH: Duration = Duration::from_millis(250);

/// Between two questions to the store about an owner who does not answer.
const DOUBT_AGAIN: Duration = Duration::from_millis(400);

/// Owners who are doubted in one look: a store or a node that is only slow must not be asked all the more.
const DOUBTS: u32 = 64;

/// Looks between two sweeps of what is not used any more.
const UNUSED_EVERY: u32 = 40;

/// How often in a row the store may fail to answer before everything that waits is refused.
const STORE_TRIES: u32 = 3;

impl Inner {
    // Finding.

    /// Asks the store for the session, after `wait`, unless that is being done.
    pub(super) fn look(self: &Arc<Self>, session_id: SessionId, place: &mut Place, wait: Duration) {
        if std::mem::replace(&mut place.looking, true) {
            return;
        }
        let this = Arc::clone(self);
        self.spawn(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let (shared, may_take_over) = (&this.shared, (this.shared.may_take_over)());
            let claim = shared.store.claim(session_id, shared.options.node_id, may_take_over).await;
            this.found(session_id, claim);
        });
    }

    fn found(self: &Arc<Self>, session_id: SessionId, claim: StoreResult<Claim>) {
        let mut shard = self.registry.shard(session_id);
        let Some(place) = shard.get(session_id) else { return };
        place.looking = false;
        match claim {
            Ok(Claim::Mine(claimed)) => self.bring_home(session_id, &mut shard, *claimed),
            Ok(Claim::OwnedBy(owner)) => self.found_away(session_id, &mut shard, owner),
            Ok(Claim::NoSession) => {
                place.at = At::Nowhere;
                self.refuse_all(session_id, &mut shard, &Refusal::no_session());
            }
            Err(error) => {
                tracing::warn!(session = %session_id, %error, "a session could not be looked for");
                // Where it was known before, it may still be.
                if matches!(place.at, At::Nowhere) {
                    place.in_vain += 1;
                    if place.in_vain < STORE_TRIES {
                        self.look(session_id, place, Duration::from_millis(50));
                    } else {
                        place.in_vain = 0;
                        self.refuse_all(session_id, &mut shard, &unavailable());
                    }
                }
            }
        }
    }

    /// The session is this node's: it comes to life, and is told what waits for it.
    fn bring_home(self: &Arc<Self>, session_id: SessionId, shard: &mut Shard, claimed: Claimed) {
        let Some(place) = shard.get(session_id) else { return };
        let (shared, registration) = (Arc::clone(&self.shared), self.registry.register(session_id));
        let (pending, token) = (Arc::clone(&registration.pending), registration.token);
        let addr = self.start_actor(move || SessionActor::load(session_id, shared, registration, claimed));
        let live = Live { addr, pending, token };
        let now = self.registry.millis();
        place.in_vain = 0;
        place.calls.moved(self.shared.options.node_id, now, |parked| parked.command.is_repeatable());
        for parked in place.calls.take_home() {
            let Parked { command, reply, .. } = parked;
            match self.admit(session_id) {
                // Dropped if its actor is gone already, it refuses by itself.
                Ok(()) => drop(self.tell(&live, command, reply)),
                Err(refusal) => reply.refuse_now(refusal),
            }
        }
        for nudge in place.take_nudges() {
            drop(live.addr.try_send(nudge));
        }
        if self.registry.is_closed() {
            // It came too late for those that were asked to stop.
            drop(live.addr.try_send(Stop));
        }
        place.at = At::Here(live);
        shard.settle(session_id);
    }

    /// The session is another node's: this node's commands go there, those of other nodes back to them.
    fn found_away(self: &Arc<Self>, session_id: SessionId, shard: &mut Shard, owner: NodeId) {
        let Some(place) = shard.get(session_id) else { return };
        let strangers = place.calls.extract(|parked| parked.reply.is_from_afar());
        place.at = At::Away(owner);
        let now = self.registry.millis();
        place.calls.moved(owner, now, |parked| parked.command.is_repeatable());
        place.calls.iter_mut().for_each(|call| call.item.charge.waits_for(owner));
        for nudge in place.take_nudges() {
            let message = NodeMessage::Nudge(session_id, nudge);
            self.shared.deliveries.tell(owner, &|wire| message.encode(wire));
        }
        self.forward(session_id, place, owner);
        for parked in strangers {
            self.give_back(session_id, shard, parked.reply);
        }
        shard.settle(session_id);
    }

    // Sending.

    /// Sends what has not been sent to the session's owner.
    pub(super) fn forward(&self, session_id: SessionId, place: &mut Place, owner: NodeId) {
        let now = self.registry.millis();
        for call in place.calls.send_to(owner, now, self.registry.next_call()) {
            self.shared.metrics.calls_sent.inc();
            self.shared.deliveries.tell(owner, &|wire| encode(wire, session_id, &call));
        }
    }

    /// Tells a session something that may be lost. `from`: the node that it came from, if it is another one.
    pub(super) fn nudge(self: &Arc<Self>, session_id: SessionId, nudge: Nudge, from: Option<NodeId>) {
        let mut shard = self.registry.shard(session_id);
        if self.admit(session_id).is_err() {
            return;
        }
        let answers_a_live_one = matches!(nudge, Nudge::Present(_) | Nudge::Reached(..));
        if answers_a_live_one && shard.get(session_id).is_none() {
            return;
        }
        let place = shard.place(session_id, self.registry.millis());
        match &place.at {
            At::Here(live) => {
                if live.addr.try_send(nudge).is_err() {
                    tracing::debug!(session = %session_id, "a session is too busy to be nudged");
                }
            }
            At::Nowhere if answers_a_live_one => {}
            At::Nowhere => {
                place.park_nudge(nudge);
                self.look(session_id, place, Duration::ZERO);
            }
            At::Away(owner) if from.is_none() => {
                let message = NodeMessage::Nudge(session_id, nudge);
                self.shared.deliveries.tell(*owner, &|wire| message.encode(wire));
            }
            At::Away(_) => {}
        }
        shard.settle(session_id);
    }

    // Receiving: as the owner.

    /// Another node's command.
    fn call(self: &Arc<Self>, from: NodeId, call: Call) {
        let Call { ticket, session_id, caller, command } = call;
        let mut shard = self.registry.shard(session_id);
        let line = shard.line(session_id, from);
        let arrival = lock(&line).arrive(ticket, self.registry.millis());
        match arrival {
            Arrival::New => {}
            Arrival::Answered(answer) => {
                let again = NodeMessage::Answers(session_id, vec![answer]);
                return self.shared.deliveries.tell(from, &|wire| again.encode(wire));
            }
            Arrival::Known => return,
            Arrival::Refused(missing) => {
                let message = NodeMessage::NotTaken(session_id, ticket.line, missing, NotTaken::Missing);
                return self.shared.deliveries.tell(from, &|wire| message.encode(wire));
            }
        }
        let Ticket { id, line: number, .. } = ticket;
        let keep = Arc::new(move |answer| lock(&line).answer(id, answer));
        let origin = Origin { session_id, call: id, line: number, keep };
        let reply = ReplySlot::from_afar(caller, origin, Arc::clone(&self.shared.deliveries));
        if self.registry.is_closed() {
            return self.give_back(session_id, &mut shard, reply);
        }
        if let Err(refusal) = self.admit(session_id) {
            return reply.refuse_now(refusal);
        }
        let place = shard.place(session_id, self.registry.millis());
        if matches!(place.at, At::Away(_)) {
            // Perhaps it has come home since: the store is asked, and the caller asks again.
            self.look(session_id, place, Duration::ZERO);
            return self.give_back(session_id, &mut shard, reply);
        }
        self.tell_or_park(session_id, place, command, reply);
        shard.settle(session_id);
    }

    /// Tells a node that its call, and those behind it, were not taken.
    pub(super) fn give_back(&self, session_id: SessionId, shard: &mut Shard, reply: ReplySlot) {
        let from = reply.caller().connection.node;
        if let Some((line, call)) = reply.take_back() {
            lock(&shard.line(session_id, from)).give_back(call);
            let message = NodeMessage::NotTaken(session_id, line, call, NotTaken::Moved);
            self.shared.deliveries.tell(from, &|wire| message.encode(wire));
        }
    }

    // Receiving: as the caller.

    fn answers(&self, from: NodeId, session_id: SessionId, answers: Vec<CallAnswer>) -> Vec<Parcel> {
        let mut shard = self.registry.shard(session_id);
        let Some(place) = shard.get(session_id) else { return Vec::new() };
        let at_owner = matches!(place.at, At::Away(owner) if owner == from);
        let mut parcels = Vec::new();
        for CallAnswer { id, refused, frame } in answers {
            // A former owner that is at its end does not speak for the present one.
            if refused == Some(ErrorCode::Unavailable) && !at_owner {
                continue;
            }
            let Some(call) = place.calls.answered(id) else { continue };
            place.in_vain = 0;
            let Parked { reply, asks, .. } = call.item;
            parcels.push(Parcel { answers: vec![reply.pass_on(refused, frame)], asks, ..Parcel::default() });
        }
        shard.settle(session_id);
        parcels
    }

    /// Asks go behind the answers to what their connection has asked before.
    fn asks(&self, asked: Asked) -> Vec<Parcel> {
        let mut shard = self.registry.shard(asked.session_id);
        if let Some(place) = shard.get(asked.session_id) {
            let of_theirs = |parked: &Parked| parked.reply.caller().connection == asked.connection;
            if let Some(call) = place.calls.iter_mut().rev().find(|call| of_theirs(&call.item)) {
                call.item.asks.push(asked);
                return Vec::new();
            }
        }
        vec![Parcel { asks: vec![asked], ..Parcel::default() }]
    }

    fn calls_not_taken(
        self: &Arc<Self>,
        node: NodeId,
        session_id: SessionId,
        (line, from): (CallId, CallId),
        why: NotTaken,
    ) {
        let mut shard = self.registry.shard(session_id);
        let Some(place) = shard.get(session_id) else { return };
        if !place.calls.not_taken(node, line, from) || !matches!(place.at, At::Away(owner) if owner == node) {
            return;
        }
        self.shared.metrics.calls_resent.inc();
        match why {
            NotTaken::Missing => self.forward(session_id, place, node),
            NotTaken::Moved => {
                place.at = At::Nowhere;
                place.in_vain += 1;
                let wait = match place.in_vain {
                    0 | 1 => 0,
                    times => 5 << times.min(6),
                };
                self.look(session_id, place, Duration::from_millis(wait));
            }
        }
        shard.settle(session_id);
    }

    // Watching.

    /// Looks a few times each second after what waits, as long as the node lives.
    pub(super) fn watch(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        self.spawn(async move {
            for round in 0_u32.. {
                tokio::time::sleep(WATCH).await;
                let Some(this) = Weak::upgrade(&this) else { return };
                this.watch_once(round.is_multiple_of(UNUSED_EVERY));
            }
        });
    }

    fn watch_once(self: &Arc<Self>, unused_too: bool) {
        let deadline = u64::try_from(self.shared.options.call_deadline.as_millis()).unwrap_or(u64::MAX);
        let mut doubts = DOUBTS;
        for mut shard in self.registry.shards() {
            for session_id in shard.busy() {
                self.watch_session(session_id, &mut shard, deadline, &mut doubts);
            }
            if unused_too {
                shard.forget_unused(self.registry.millis(), deadline);
            }
        }
    }

    fn watch_session(self: &Arc<Self>, session_id: SessionId, shard: &mut Shard, deadline: u64, doubts: &mut u32) {
        let now = self.registry.millis();
        let Some(place) = shard.get(session_id) else { return };
        let expired = place.calls.expire(now, deadline);
        let doubtful = place.calls.unanswered_for(now).is_some_and(|wait| wait >= DOUBT_MS);
        if doubtful && matches!(place.at, At::Away(_)) && !place.looking && *doubts > 0 {
            *doubts -= 1;
            self.look(session_id, place, DOUBT_AGAIN);
        }
        if let Some((owner, call)) = place.calls.resend(now) {
            self.shared.metrics.calls_resent.inc();
            self.shared.deliveries.tell(owner, &|wire| encode(wire, session_id, &call));
        }
        for call in expired {
            self.shared.metrics.calls_expired.inc();
            call.item.reply.refuse_now(unavailable());
        }
        shard.settle(session_id);
    }
}

fn encode(wire: Wire, session_id: SessionId, call: &ToSend<'_, Parked>) -> Bytes {
    let Parked { command, reply, .. } = call.item;
    NodeMessage::encode_call(wire, call.ticket, session_id, reply.caller(), command)
}

impl Peers for Inner {
    fn released(self: Arc<Self>, session_id: SessionId, by: NodeId) {
        let mut shard = self.registry.shard(session_id);
        let Some(place) = shard.get(session_id) else { return };
        if !matches!(place.at, At::Away(owner) if owner == by) {
            return;
        }
        place.at = At::Nowhere;
        if !place.calls.is_empty() {
            self.look(session_id, place, Duration::ZERO);
        }
        shard.settle(session_id);
    }

    fn receive(self: Arc<Self>, from: NodeId, message: NodeMessage) -> Vec<Parcel> {
        match message {
            NodeMessage::Call(call) => self.call(from, *call),
            NodeMessage::Answers(session_id, answers) => return self.answers(from, session_id, answers),
            NodeMessage::Asks(asked) => return self.asks(asked),
            NodeMessage::NotTaken(session_id, line, call, why) => {
                self.calls_not_taken(from, session_id, (line, call), why);
            }
            NodeMessage::Nudge(session_id, nudge) => self.nudge(session_id, nudge, Some(from)),
        }
        Vec::new()
    }
}
