//! The connection that sends to one server of Redis, and what waits for it.
//!
//! Invariants: what is handed over first leaves first, whatever channel it is for, so calls between two nodes keep their
//! order; what waits is bounded in bytes, unanswered messages included. When full, or without a connection, nothing more
//! is taken: the caller is told, and whoever listens to the channel hears that it missed something as soon as that can
//! be said. The same for what was under way when a connection was lost.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value};
use tokio::sync::Notify;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::dial::{Address, Backoff, RedisTrouble};
use super::listener::GOOD;
use super::names::Place;
use super::post::{Post, Side, lock};
use crate::cluster::envelope::{Kind, OVERHEAD};
use crate::cluster::{Channel, Message};

/// Messages in one write, at most.
const BATCH: usize = 256;
/// Bytes after which a write takes no more messages.
const BATCH_BYTES: usize = 1 << 20;
/// Writes that may be unanswered.
const UNANSWERED: usize = 8;
/// Channels with losses that are remembered one by one; beyond, everybody is told that anything may be lost.
const LOSSES: usize = 4096;

/// Sends to one server. Made by its link, which runs [`Publisher::run`] and ends it.
pub(super) struct Publisher {
    at: Address,
    lane: u32,
    limit: usize,
    post: Arc<Post>,
    queue: Mutex<Queue>,
    wake: Notify,
    /// Told when a channel is another server's.
    found: Arc<Notify>,
}

#[derive(Default)]
struct Queue {
    is_up: bool,
    waiting: VecDeque<Parcel>,
    /// Of all that waits or is unanswered.
    bytes: usize,
    losses: HashSet<Channel>,
    /// More losses than can be remembered.
    too_many_losses: bool,
    /// Losses on channels that this server does not have: for whoever knows who has them.
    strays: Vec<Channel>,
}

struct Parcel {
    place: Place,
    kind: Kind,
    message: Message,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Redis is away.
    Away,
    /// Too much waits.
    Full,
    /// Redis did not take it.
    Refused,
}

impl Dropped {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Full => "full",
            Self::Refused => "refused",
        }
    }
}

/// What to write next.
struct Next {
    parcels: Vec<Parcel>,
    bytes: usize,
    /// Bytes of what did not wait before: what has to be said of losses.
    notices: usize,
}

/// One write under way.
struct Unanswered {
    answer: Pin<Box<dyn Future<Output = RedisResult<Vec<Value>>> + Send>>,
    places: Vec<(Place, Kind)>,
    bytes: usize,
}

impl Publisher {
    pub(super) fn new(at: Address, lane: u32, limit: usize, post: Arc<Post>, found: Arc<Notify>) -> Self {
        Self { at, lane, limit, post, queue: Mutex::default(), wake: Notify::new(), found }
    }

    /// Takes a message, if there is room and a connection.
    pub(super) fn send(&self, place: Place, kind: Kind, message: Message) -> Result<(), Dropped> {
        let mut queue = lock(&self.queue);
        let size = message.bytes.len() + OVERHEAD;
        let dropped = if !queue.is_up {
            Some(Dropped::Away)
        } else if queue.bytes > 0 && queue.bytes + size > self.limit {
            Some(Dropped::Full)
        } else {
            None
        };
        if let Some(dropped) = dropped {
            self.lose(&mut queue, place, kind, dropped);
            return Err(dropped);
        }
        queue.bytes += size;
        queue.waiting.push_back(Parcel { place, kind, message });
        drop(queue);
        self.post.metrics.bus_waiting_bytes.add(gauge(size));
        self.wake.notify_one();
        Ok(())
    }

    /// Something on this channel was lost, here or elsewhere: whoever listens has to know.
    pub(super) fn tell_missed(&self, place: Place) {
        self.lose(&mut lock(&self.queue), place, Kind::Missed, Dropped::Refused);
        self.wake.notify_one();
    }

    /// Channels with losses that this server does not have.
    pub(super) fn take_strays(&self) -> Vec<Channel> {
        std::mem::take(&mut lock(&self.queue).strays)
    }

    /// Connects, sends, and connects again, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        let mut counter = 0;
        loop {
            let began = Instant::now();
            let push: Option<tokio::sync::mpsc::UnboundedSender<redis::PushInfo>> = None;
            let trouble = match self.post.dialer.connect(&self.at, push).await {
                Ok(connection) => {
                    lock(&self.queue).is_up = true;
                    let trouble = self.serve(connection, &mut counter).await;
                    self.over();
                    trouble
                }
                Err(trouble) => trouble,
            };
            self.post.say(Side::Sending, &self.at, trouble);
            self.found.notify_one();
            if began.elapsed() > GOOD {
                backoff = Backoff::new();
            }
            tokio::time::sleep(backoff.pause()).await;
            self.post.metrics.bus_reconnects.with_label_values(&[Side::Sending.name()]).inc();
        }
    }

    /// Writes what waits and reads what Redis answers, until the connection is over.
    async fn serve(&self, connection: MultiplexedConnection, counter: &mut u64) -> RedisTrouble {
        let mut unanswered: VecDeque<Unanswered> = VecDeque::new();
        loop {
            while unanswered.len() < UNANSWERED {
                let Some(mut write) = self.write(&connection, counter) else { break };
                // Polled at once, so that writes reach the connection in this order.
                match (&mut write.answer).now_or_never() {
                    None => unanswered.push_back(write),
                    Some(answer) => {
                        if let Err(trouble) = self.settle(answer, &write.places, write.bytes) {
                            return self.lost(trouble, unanswered);
                        }
                    }
                }
            }
            let has_room = unanswered.len() < UNANSWERED;
            let Some(oldest) = unanswered.front_mut() else {
                self.wake.notified().await;
                continue;
            };
            let answer = tokio::select! {
                answer = &mut oldest.answer => answer,
                () = self.wake.notified(), if has_room => continue,
            };
            let Some(Unanswered { places, bytes, .. }) = unanswered.pop_front() else { continue };
            if let Err(trouble) = self.settle(answer, &places, bytes) {
                return self.lost(trouble, unanswered);
            }
        }
    }

    /// The next write, on its way, if anything waits.
    fn write(&self, connection: &MultiplexedConnection, counter: &mut u64) -> Option<Unanswered> {
        let Next { parcels, bytes, notices } = lock(&self.queue).next(&self.post.empty())?;
        self.post.metrics.bus_waiting_bytes.add(gauge(notices));
        let mut commands = redis::Pipeline::with_capacity(parcels.len());
        let mut places = Vec::with_capacity(parcels.len());
        let command = if self.post.sharded { "SPUBLISH" } else { "PUBLISH" };
        for Parcel { place, kind, message } in parcels {
            *counter += 1;
            let (name, sealed) = self.post.seal((self.lane, *counter), place, kind, &message);
            commands.cmd(command).arg(name).arg(sealed);
            places.push((place, kind));
        }
        let (mut connection, count) = (connection.clone(), places.len());
        // Without tokio's budget: the first poll must reach the connection's own queue, or writes could overtake.
        let answer = unconstrained(async move { connection.send_packed_commands(&commands, 0, count).await });
        Some(Unanswered { answer: Box::pin(answer), places, bytes })
    }

    /// Takes the answer to one write in.
    fn settle(
        &self,
        answer: RedisResult<Vec<Value>>,
        places: &[(Place, Kind)],
        bytes: usize,
    ) -> Result<(), RedisTrouble> {
        self.post.metrics.bus_waiting_bytes.sub(gauge(bytes));
        let mut queue = lock(&self.queue);
        queue.bytes -= bytes;
        let answers = match answer {
            Ok(answers) => answers,
            Err(error) => {
                places.iter().for_each(|(place, kind)| self.lose(&mut queue, *place, *kind, Dropped::Away));
                return Err(self.post.dialer.trouble(&self.at, &error));
            }
        };
        let mut refused = None;
        let stays = |trouble: &RedisTrouble| trouble.is_final() || !self.post.sharded;
        for ((place, kind), answer) in places.iter().zip(&answers) {
            if let Value::ServerError(error) = answer {
                let trouble = self.post.dialer.refusal(&self.at, error);
                match place {
                    Place::Channel(channel) if !stays(&trouble) && queue.strays.len() < LOSSES => {
                        self.count(*kind, Dropped::Refused);
                        queue.strays.push(*channel);
                    }
                    Place::Channel(_) | Place::Everyone | Place::Probe { .. } => {
                        self.lose(&mut queue, *place, *kind, Dropped::Refused);
                    }
                }
                refused = Some(trouble);
            } else if *kind == Kind::Message {
                self.post.metrics.bus_published.inc();
            }
        }
        drop(queue);
        match refused {
            Some(trouble) if stays(&trouble) => Err(trouble),
            // Slots moved, or are without a server.
            Some(_) => {
                self.found.notify_one();
                Ok(())
            }
            None => {
                self.post.well(Side::Sending, &self.at);
                Ok(())
            }
        }
    }

    /// The connection is over with these writes unanswered.
    fn lost(&self, trouble: RedisTrouble, unanswered: VecDeque<Unanswered>) -> RedisTrouble {
        let mut queue = lock(&self.queue);
        for Unanswered { places, bytes, .. } in unanswered {
            queue.bytes -= bytes;
            self.post.metrics.bus_waiting_bytes.sub(gauge(bytes));
            places.iter().for_each(|(place, kind)| self.lose(&mut queue, *place, *kind, Dropped::Away));
        }
        trouble
    }

    /// There is no connection: what waits for one is old when there is one again.
    fn over(&self) {
        let mut queue = lock(&self.queue);
        queue.is_up = false;
        let waiting = std::mem::take(&mut queue.waiting);
        for Parcel { place, kind, message } in waiting {
            let size = message.bytes.len() + OVERHEAD;
            queue.bytes -= size;
            self.post.metrics.bus_waiting_bytes.sub(gauge(size));
            self.lose(&mut queue, place, kind, Dropped::Away);
        }
    }

    fn count(&self, kind: Kind, why: Dropped) {
        if kind == Kind::Message {
            self.post.metrics.bus_dropped.with_label_values(&[why.reason()]).inc();
        }
    }

    fn lose(&self, queue: &mut Queue, place: Place, kind: Kind, why: Dropped) {
        self.count(kind, why);
        match (place, kind) {
            (Place::Channel(channel), Kind::Message | Kind::Missed) => {
                if queue.losses.len() < LOSSES {
                    queue.losses.insert(channel);
                } else if !queue.losses.contains(&channel) {
                    queue.too_many_losses = true;
                }
            }
            (Place::Everyone, _) => queue.too_many_losses = true,
            (Place::Probe { .. }, _) | (Place::Channel(_), Kind::Probe) => {}
        }
    }
}

impl Queue {
    /// What goes next; `empty` is what stands in a word about losses.
    fn next(&mut self, empty: &Message) -> Option<Next> {
        let mut parcels = Vec::new();
        if std::mem::take(&mut self.too_many_losses) {
            self.losses.clear();
            parcels.push(Parcel { place: Place::Everyone, kind: Kind::Missed, message: empty.clone() });
        }
        let told: Vec<Channel> = self.losses.iter().take(BATCH).copied().collect();
        for channel in told {
            self.losses.remove(&channel);
            parcels.push(Parcel { place: Place::Channel(channel), kind: Kind::Missed, message: empty.clone() });
        }
        let notices = parcels.len() * OVERHEAD;
        self.bytes += notices;
        let mut bytes = notices;
        while parcels.len() < BATCH
            && bytes < BATCH_BYTES
            && let Some(parcel) = self.waiting.pop_front()
        {
            bytes += parcel.message.bytes.len() + OVERHEAD;
            parcels.push(parcel);
        }
        (!parcels.is_empty()).then_some(Next { parcels, bytes, notices })
    }
}

fn gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
