//! The connection that listens to one server of Redis, and what it listens to.
//!
//! Invariants: a channel counts as confirmed only after Redis said so on the connection of now; one that was ever
//! without confirmation while it was wanted is told to have missed something as soon as it is confirmed again; who wants
//! a channel that this server does not have loses nothing but time: it is asked for again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::dial::{Address, Backoff, RedisTrouble};
use super::names::Place;
use super::post::{Asks, Post, Side, lock};

/// Channels asked for in one go.
const BATCH: usize = 500;

/// How often the connection is looked at when there is nothing to do.
const LOOK: Duration = Duration::from_secs(1);

/// A connection that lived this long was a good one: the next attempt comes at once.
pub(super) const GOOD: Duration = Duration::from_secs(5);

/// Listens to one server. Made by its link, which runs [`Listener::run`] and ends it.
pub(super) struct Listener {
    at: Address,
    post: Arc<Post>,
    state: Mutex<State>,
    /// There is something to do, or the connection is over.
    wake: Notify,
    /// Told when there is something to do for who knows all servers.
    found: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// Which connection is the one of now; 0 where there is none.
    life: u64,
    lives: u64,
    seats: HashMap<Place, Seat>,
    /// To be asked for; places that are no longer wanted may be among them.
    asking: VecDeque<Place>,
    /// To be let go of; none of them is wanted.
    leaving: HashSet<Place>,
    /// Everything on every server missed something.
    all_missed: bool,
}

/// A channel that somebody wants.
#[derive(Default)]
struct Seat {
    confirmed: bool,
    /// To be told on confirmation.
    missed: bool,
    waiters: Vec<oneshot::Sender<()>>,
}

/// What the connection is to be used for next.
enum Todo {
    Ask(Vec<Place>),
    Leave(Vec<Place>),
    /// See whether it still answers, and ask for what was not confirmed.
    Look,
    Wait,
    End,
}

/// Whether a channel is listened to.
pub(super) enum Listening {
    Confirmed,
    /// Resolves on confirmation; fails if the connection is lost first.
    Soon(oneshot::Receiver<()>),
    /// Redis is away. It is asked for when it is back.
    Away,
}

impl Listener {
    pub(super) fn new(at: Address, post: Arc<Post>, found: Arc<Notify>) -> Self {
        Self { at, post, state: Mutex::default(), wake: Notify::new(), found }
    }

    /// Wants a channel. `missed` if something may be lost already.
    pub(super) fn want(&self, place: Place, missed: bool) -> Listening {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.leaving.remove(&place);
        let is_away = state.life == 0;
        let seat = state.seats.entry(place).or_insert_with(|| {
            state.asking.push_back(place);
            Seat::default()
        });
        if seat.confirmed {
            return Listening::Confirmed;
        }
        seat.missed |= missed || is_away;
        if is_away {
            return Listening::Away;
        }
        let (waiter, confirmed) = oneshot::channel();
        seat.waiters.push(waiter);
        self.wake.notify_one();
        Listening::Soon(confirmed)
    }

    /// Whoever wanted it did not wait long enough; `true` if it is confirmed by now.
    pub(super) fn gave_up_waiting(&self, place: Place) -> bool {
        let mut state = lock(&self.state);
        let Some(seat) = state.seats.get_mut(&place) else { return false };
        seat.missed |= !seat.confirmed;
        seat.confirmed
    }

    /// Wants a channel no longer; whether it was wanted.
    pub(super) fn forget(&self, place: Place) -> bool {
        let mut state = lock(&self.state);
        let was_wanted = state.seats.remove(&place).is_some();
        if was_wanted && state.life > 0 {
            state.leaving.insert(place);
            self.wake.notify_one();
        }
        was_wanted
    }

    /// All that is wanted here.
    pub(super) fn wanted(&self) -> Vec<Place> {
        lock(&self.state).seats.keys().copied().collect()
    }

    /// Tells every channel that is confirmed here that it missed something.
    pub(super) fn miss_everything(&self) {
        let confirmed: Vec<Place> =
            lock(&self.state).seats.iter().filter(|(_, seat)| seat.confirmed).map(|(place, _)| *place).collect();
        confirmed.into_iter().for_each(|place| self.tell(place));
    }

    /// Whether everything everywhere missed something, since this was asked last.
    pub(super) fn take_all_missed(&self) -> bool {
        std::mem::take(&mut lock(&self.state).all_missed)
    }

    /// Connects, listens, and connects again, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        loop {
            let began = Instant::now();
            let trouble = match self.connect().await {
                Ok((connection, life)) => {
                    let trouble = self.serve(connection, life).await;
                    self.over();
                    trouble
                }
                Err(trouble) => trouble,
            };
            self.post.say(Side::Listening, &self.at, trouble);
            self.found.notify_one();
            if began.elapsed() > GOOD {
                backoff = Backoff::new();
            }
            tokio::time::sleep(backoff.pause()).await;
            self.post.metrics.bus_reconnects.with_label_values(&[Side::Listening.name()]).inc();
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<(MultiplexedConnection, u64), RedisTrouble> {
        let life = {
            let mut state = lock(&self.state);
            state.lives += 1;
            state.lives
        };
        let this = Arc::clone(self);
        let push = move |info: PushInfo| {
            this.pushed(life, info);
            Ok::<(), ()>(())
        };
        let connection = self.post.dialer.connect(&self.at, Some(push)).await?;
        let mut state = lock(&self.state);
        state.life = life;
        state.leaving.clear();
        state.asking = state.seats.keys().copied().collect();
        Ok((connection, life))
    }

    /// The connection is gone, and what it listened to with it.
    fn over(&self) {
        let mut state = lock(&self.state);
        state.life = 0;
        for seat in state.seats.values_mut() {
            *seat = Seat { confirmed: false, missed: true, waiters: Vec::new() };
        }
    }

    /// Asks for what is wanted and lets go of what is not, until the connection is over.
    async fn serve(&self, mut connection: MultiplexedConnection, life: u64) -> RedisTrouble {
        let [subscribe, unsubscribe] =
            if self.post.sharded { ["SSUBSCRIBE", "SUNSUBSCRIBE"] } else { ["SUBSCRIBE", "UNSUBSCRIBE"] };
        let mut look = Instant::now() + LOOK;
        loop {
            let todo = match lock(&self.state).todo(life) {
                Todo::Wait if Instant::now() >= look => Todo::Look,
                todo => todo,
            };
            let result = match todo {
                Todo::Ask(places) => self.tell_redis(&mut connection, subscribe, &places).await,
                Todo::Leave(places) => self.tell_redis(&mut connection, unsubscribe, &places).await,
                Todo::Look => {
                    look = Instant::now() + LOOK;
                    lock(&self.state).ask_again();
                    self.ping(&mut connection).await
                }
                Todo::Wait => {
                    let _ = timeout_at(look, self.wake.notified()).await;
                    Ok(())
                }
                Todo::End => Err(self.closed()),
            };
            if let Err(trouble) = result {
                return trouble;
            }
        }
    }

    /// One command for each channel, in one go. What is confirmed comes by [`Listener::pushed`] before this returns.
    async fn tell_redis(
        &self,
        connection: &mut MultiplexedConnection,
        command: &str,
        places: &[Place],
    ) -> Result<(), RedisTrouble> {
        let mut commands = redis::Pipeline::with_capacity(places.len());
        for place in places {
            commands.cmd(command).arg(self.post.names.name(*place));
        }
        let answers = connection
            .send_packed_commands(&commands, 0, places.len())
            .await
            .map_err(|error| self.post.dialer.trouble(&self.at, &error))?;
        let refused = answers.iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(self.post.dialer.refusal(&self.at, error)),
            _ => None,
        });
        match refused {
            Some(trouble) if trouble.is_final() || !self.post.sharded => Err(trouble),
            // Slots moved, or are without a server: the channels are asked for again, here or elsewhere.
            Some(_) => {
                self.found.notify_one();
                Ok(())
            }
            None => {
                self.post.well(Side::Listening, &self.at);
                Ok(())
            }
        }
    }

    async fn ping(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisTrouble> {
        let answer = connection.send_packed_command(&redis::cmd("PING")).await;
        answer.map(|_| ()).map_err(|error| self.post.dialer.trouble(&self.at, &error))
    }

    fn closed(&self) -> RedisTrouble {
        RedisTrouble::Away { at: self.at.to_string(), why: "the connection was closed".to_owned() }
    }

    /// What Redis says unasked. Runs on the connection's own task and must not block.
    fn pushed(&self, life: u64, info: PushInfo) {
        let PushInfo { kind, data } = info;
        match kind {
            PushKind::Message | PushKind::SMessage => {
                let mut data = data.into_iter();
                if let (Some(Value::BulkString(name)), Some(Value::BulkString(message))) = (data.next(), data.next()) {
                    self.message(&name, message);
                }
            }
            PushKind::Subscribe | PushKind::SSubscribe => {
                if let Some(place) = self.place(data.first()) {
                    self.confirmed(life, place);
                }
            }
            // Of itself Redis says this when a slot moves away.
            PushKind::SUnsubscribe => {
                if let Some(place) = self.place(data.first()) {
                    self.moved_away(place);
                }
            }
            PushKind::Disconnection => {
                let mut state = lock(&self.state);
                if state.life == life {
                    state.life = 0;
                    self.wake.notify_one();
                }
            }
            _ => {}
        }
    }

    fn moved_away(&self, place: Place) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        if let Some(seat) = state.seats.get_mut(&place)
            && seat.confirmed
        {
            *seat = Seat { confirmed: false, missed: true, waiters: Vec::new() };
            self.found.notify_one();
        }
    }

    fn place(&self, name: Option<&Value>) -> Option<Place> {
        let Some(Value::BulkString(name)) = name else { return None };
        self.post.names.place(std::str::from_utf8(name).ok()?)
    }

    fn message(&self, name: &[u8], message: Vec<u8>) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        let Some(place) = self.post.names.place(name) else { return };
        if !lock(&self.state).seats.contains_key(&place) {
            return;
        }
        match self.post.message(place, name, message) {
            Asks::Nothing => {}
            Asks::EverythingMissed => self.all_missed(),
        }
    }

    fn confirmed(&self, life: u64, place: Place) {
        let mut state = lock(&self.state);
        if life != state.life {
            return;
        }
        let Some(seat) = state.seats.get_mut(&place) else { return };
        seat.confirmed = true;
        let missed = std::mem::take(&mut seat.missed);
        let waiters = std::mem::take(&mut seat.waiters);
        drop(state);
        if missed {
            self.tell(place);
        }
        for waiter in waiters {
            let _ = waiter.send(());
        }
    }

    fn tell(&self, place: Place) {
        match place {
            Place::Channel(channel) => self.post.missed(channel),
            // What this channel lost may have been about any, and another server's did not have to notice.
            Place::Everyone if self.post.hears_everyone() && self.post.sharded => self.all_missed(),
            Place::Everyone | Place::Probe { .. } => {}
        }
    }

    fn all_missed(&self) {
        lock(&self.state).all_missed = true;
        self.found.notify_one();
    }
}

impl State {
    fn todo(&mut self, life: u64) -> Todo {
        if self.life != life {
            return Todo::End;
        }
        let asking = self.next_to_ask();
        if !asking.is_empty() {
            return Todo::Ask(asking);
        }
        let leaving = self.next_to_leave();
        if leaving.is_empty() { Todo::Wait } else { Todo::Leave(leaving) }
    }

    fn next_to_ask(&mut self) -> Vec<Place> {
        let mut places = Vec::new();
        while places.len() < BATCH
            && let Some(place) = self.asking.pop_front()
        {
            if self.seats.get(&place).is_some_and(|seat| !seat.confirmed) {
                places.push(place);
            }
        }
        places
    }

    fn next_to_leave(&mut self) -> Vec<Place> {
        let places: Vec<Place> = self.leaving.iter().take(BATCH).copied().collect();
        for place in &places {
            self.leaving.remove(place);
        }
        places
    }

    /// What was asked for and never confirmed is asked for again.
    fn ask_again(&mut self) {
        self.asking = self.seats.iter().filter(|(_, seat)| !seat.confirmed).map(|(place, _)| *place).collect();
    }
}
