//! The way of everything that leaves a session: one message to each hub that has listeners, whatever their number, and
//! one to the bus for all other nodes; answers and asks for connections of another node go there.
//!
//! Invariants: a hub's batches arrive in the order in which they were handed over; whoever hands over waits while a hub
//! lags; what goes to another node goes in its order.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::cluster::{Asked, CallAnswer, Channel, Effect, NodeMessage, Nudge, Publication, Row, UserSignal, Wire};
use crate::protocol::{NodeId, SessionId, UserId};

use super::hub::{Batch, Found};
use super::people::Workers;
use super::{Answer, Deliveries, Parcel, Subscriptions};

type Batches = Vec<(u16, Batch)>;

fn batch_for(batches: &mut Batches, worker: u16) -> &mut Batch {
    let index = batches.iter().position(|(known, _)| *known == worker).unwrap_or_else(|| {
        batches.push((worker, Batch::default()));
        batches.len() - 1
    });
    &mut batches[index].1
}

impl Workers {
    fn iter(self) -> impl Iterator<Item = u16> {
        (0..Self::MAX as u16).filter(move |worker| self.contains(*worker))
    }
}

impl Subscriptions {
    /// The hubs that a publication concerns: the session's listeners, and those of users whom it names.
    fn concerned(&self, publication: &Publication) -> Workers {
        let mut workers = self.workers_of(publication.session_id);
        for row in &publication.rows {
            let user_id = match row {
                Row::Notice { user_id, .. } | Row::Withdrawn { user_id, .. } => *user_id,
                Row::Event { effect: Effect::Joined(user_id) | Effect::Left(user_id), .. } => *user_id,
                Row::Event { effect: Effect::None | Effect::Ended, .. }
                | Row::Typing { .. }
                | Row::Head(_)
                | Row::Released(_)
                | Row::RollCall { .. } => continue,
            };
            workers = workers.and(self.0.people.workers_of(user_id));
        }
        workers
    }

    fn workers_of(&self, session_id: SessionId) -> Workers {
        self.0.sessions.of(&session_id).get(&session_id).map_or_else(Workers::default, |known| known.workers)
    }

    fn sort(&self, parcel: Parcel) -> Batches {
        let Parcel { answers, publication, signals, asks } = parcel;
        let mut batches = Vec::new();
        for answer in answers {
            batch_for(&mut batches, answer.connection.worker).answers.push(answer);
        }
        if let Some(publication) = publication.map(Arc::new) {
            for worker in self.concerned(&publication).iter() {
                batch_for(&mut batches, worker).publication = Some(Arc::clone(&publication));
            }
        }
        for (user_id, signal) in signals {
            for worker in self.0.people.workers_of(user_id).iter() {
                batch_for(&mut batches, worker).signals.push((user_id, signal.clone()));
            }
        }
        for Asked { session_id, owner, user_id, connection, frames } in asks {
            let reached = self.0.people.this_or_youngest(user_id, connection);
            if let Some(connection) = reached {
                batch_for(&mut batches, connection.worker).asks.push((connection, frames));
            }
            self.report(owner, session_id, user_id, reached.is_some());
        }
        batches
    }

    /// Tells a session whether an ask has reached its member. Its own node hears only of those that have not.
    fn report(&self, owner: NodeId, session_id: SessionId, user_id: UserId, reached: bool) {
        let report = NodeMessage::Nudge(session_id, Nudge::Reached(user_id, self.0.node, reached));
        if owner != self.0.node {
            self.tell(owner, &|wire| report.encode(wire));
        } else if !reached {
            self.receive_own(report);
        }
    }

    /// To the hubs of this node.
    pub(super) async fn deliver_here(&self, parcel: Parcel) {
        self.hand(self.sort(parcel)).await;
    }

    async fn hand(&self, batches: Batches) {
        for (worker, batch) in batches {
            if let Some(hub) = self.hub(worker) {
                hub.hand(batch).await;
            }
        }
    }

    /// What the store has of sessions and users that are listened to here: the hubs look what they have missed.
    pub async fn compare(&self, found: Found) {
        let mut batches = Batches::new();
        for (session_id, version) in found.heads {
            for worker in self.workers_of(session_id).iter() {
                batch_for(&mut batches, worker).found.heads.push((session_id, version));
            }
        }
        for (user_id, sessions) in found.memberships {
            for worker in self.0.people.workers_of(user_id).iter() {
                batch_for(&mut batches, worker).found.memberships.push((user_id, sessions.clone()));
            }
        }
        for user_id in found.inboxes {
            for worker in self.0.people.workers_of(user_id).iter() {
                batch_for(&mut batches, worker).found.inboxes.push(user_id);
            }
        }
        self.hand(batches).await;
    }

    /// Tells a user's connections, here and elsewhere.
    pub async fn signal(&self, user_id: UserId, signal: UserSignal) {
        self.deliver(Parcel { signals: vec![(user_id, signal)], ..Parcel::default() }).await;
    }

    /// Tells a user's connections of this node only.
    pub async fn signal_here(&self, user_id: UserId, signal: UserSignal) {
        self.deliver_here(Parcel { signals: vec![(user_id, signal)], ..Parcel::default() }).await;
    }

    async fn deliver_everywhere(self, mut parcel: Parcel) {
        self.send_afar(&mut parcel);
        let Some(bus) = self.0.bus.get() else { return self.deliver_here(parcel).await };
        let wire = bus.wire();
        let publication = parcel
            .publication
            .as_ref()
            .map(|publication| (Channel::Session(publication.session_id), publication.encode(wire)));
        let signals = parcel.signals.iter();
        let signals: Vec<_> =
            signals.map(|(user_id, signal)| (Channel::User(*user_id), signal.encode(wire, *user_id))).collect();
        self.deliver_here(parcel).await;
        for (channel, message) in publication.into_iter().chain(signals) {
            if let Err(error) = bus.publish(channel, message).await {
                // The store has it: whoever misses it finds a gap, or the sweep does.
                tracing::debug!(%error, "not published");
            }
        }
    }

    /// Takes out of a parcel what is for connections of other nodes, and sends it there: answers first.
    fn send_afar(&self, parcel: &mut Parcel) {
        let me = self.0.node;
        if parcel.answers.iter().any(|answer| answer.connection.node != me) {
            let (here, afar) =
                std::mem::take(&mut parcel.answers).into_iter().partition(|one| one.connection.node == me);
            parcel.answers = here;
            let mut by_node: Vec<(NodeId, SessionId, Vec<CallAnswer>)> = Vec::new();
            for Answer { connection, refused, frame, call, .. } in afar as Vec<Answer> {
                let Some((session_id, id)) = call else { continue };
                let answer = CallAnswer { id, refused, frame };
                match by_node.iter_mut().find(|(node, of, _)| *node == connection.node && *of == session_id) {
                    Some((.., answers)) => answers.push(answer),
                    None => by_node.push((connection.node, session_id, vec![answer])),
                }
            }
            for (node, session_id, answers) in by_node {
                let message = NodeMessage::Answers(session_id, answers);
                self.tell(node, &|wire| message.encode(wire));
            }
        }
        if parcel.asks.iter().any(|asked| asked.connection.node != me) {
            let (here, afar) = std::mem::take(&mut parcel.asks).into_iter().partition(|one| one.connection.node == me);
            parcel.asks = here;
            for asked in afar as Vec<Asked> {
                let (node, message) = (asked.connection.node, NodeMessage::Asks(asked));
                self.tell(node, &|wire| message.encode(wire));
            }
        }
    }
}

impl Deliveries for Subscriptions {
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, ()> {
        self.clone().deliver_everywhere(parcel).boxed()
    }

    fn answer_now(&self, answer: Answer) {
        if answer.connection.node != self.0.node {
            return self.send_afar(&mut Parcel { answers: vec![answer], ..Parcel::default() });
        }
        if let Some(hub) = self.hub(answer.connection.worker) {
            hub.answer_now(answer);
        }
    }

    fn tell(&self, node: NodeId, encode: &dyn Fn(Wire) -> Bytes) {
        self.send(node, encode);
    }
}
