//! The task behind a [`Client`](super::Client): connects, resumes, reads frames, runs what the end-to-end core decides.
//!
//! Owns the connection, the cursors and the acknowledgements. Decides nothing about keys. It never waits for a reply
//! while it should read: requests of the core's own run beside it. Ends when the client is closed or the server says
//! that coming back is of no use.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connection::{Arrival, Backoff, Connection, Cursors, End, InFlight, Incoming};
use super::e2ee::{Effect, News, Purpose};
use super::handle::Shared;
use super::identity::PublicKey;
use super::profile::RingStore;
use super::{ClientError, ServerAddress, http::HttpClient};
use crate::protocol::{
    Ack, AckInbox, ErrorCode, Happening, InboxId, Refusal, Request, Resume, ServerFrame, SessionEvent, SessionId,
    UserId,
};

/// How often `ack` is sent, at most, per session.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// Frames handled before keys are given and notifications acknowledged.
const FRAMES_AT_ONCE: usize = 256;
/// How long to wait before a key ring that could not be written is tried again.
const SAVE_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The task's state.
pub(super) struct Driver {
    shared: Arc<Shared>,
    from_handles: mpsc::Receiver<Vec<Effect>>,
    news: mpsc::Sender<News>,
    store: Arc<RingStore>,
    stop: watch::Receiver<bool>,
    cursors: Cursors,
    backoff: Backoff,
    received: BTreeMap<SessionId, u64>,
    handled: Vec<InboxId>,
    saved: u64,
    save_again: Option<Instant>,
    under_way: FuturesUnordered<BoxFuture<'static, Finished>>,
}

/// Something that ran beside the reading.
enum Finished {
    Replied(Purpose, Result<Box<RawValue>, ClientError>),
    LookedUp(UserId, Result<Option<PublicKey>, ()>),
}

/// Why a connection is no longer served.
enum Over {
    Ended(End),
    /// The server broke its promise; a new connection reads from the last good event on.
    Gap,
    Stopped,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        from_handles: mpsc::Receiver<Vec<Effect>>,
        news: mpsc::Sender<News>,
        store: RingStore,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            shared,
            from_handles,
            news,
            store: Arc::new(store),
            stop,
            cursors: Cursors::default(),
            backoff: Backoff::default(),
            received: BTreeMap::new(),
            handled: Vec::new(),
            saved: 0,
            save_again: None,
            under_way: FuturesUnordered::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let why = self.stay_connected().await;
        self.save().await;
        self.shared.connection.send_replace(None);
        self.shared.stopped.send_replace(true);
        if let Some(why) = why {
            let _ = self.news.send(News::Stopped { why: why.to_string() }).await;
        }
    }

    /// Connects again and again; `Some` where that is of no use any more.
    ///
    /// An address where connecting fails is passed over, and so is one whose node says that it goes away. Where a
    /// connection only broke the same address has another try: it may have been the network.
    async fn stay_connected(&mut self) -> Option<ClientError> {
        let servers = self.shared.servers.clone();
        loop {
            let chosen = servers.current();
            let end = match self.connect(chosen.address).await {
                Ok((connection, incoming)) => {
                    let over = self.serve(&connection, incoming).await;
                    self.shared.connection.send_replace(None);
                    match over {
                        Over::Stopped => {
                            self.acknowledge(&connection).await;
                            connection.close().await;
                            return None;
                        }
                        Over::Gap => {
                            connection.close().await;
                            End::default()
                        }
                        Over::Ended(end) => {
                            if end.reconnect_after.is_some() {
                                servers.pass_over(chosen);
                            }
                            end
                        }
                    }
                }
                Err(error) if error.is_final() => return Some(error),
                Err(error) => {
                    tracing::debug!("no connection to {}: {error}", chosen.address);
                    servers.pass_over(chosen);
                    End::default()
                }
            };
            let ended = ClientError::Closed(end.code);
            if ended.is_final() {
                return Some(ended);
            }
            self.tell(News::Disconnected).await;
            let wait = self.backoff.after(end, rand::random());
            tokio::select! {
                () = sleep(wait) => {}
                () = stopped(&mut self.stop) => return None,
            }
        }
    }

    async fn connect(&mut self, address: &ServerAddress) -> Result<(Connection, Incoming), ClientError> {
        let shared = Arc::clone(&self.shared);
        let mut stop = self.stop.clone();
        let opening = async {
            let (connection, incoming) = Connection::open(address, &shared.options).await?;
            let authenticated = connection.authenticate(&shared.token()).await?;
            Ok::<_, ClientError>((connection, incoming, authenticated))
        };
        let (connection, incoming, authenticated) = tokio::select! {
            opened = opening => opened?,
            () = stopped(&mut stop) => return Err(ClientError::Stopped),
        };
        // What ran for the last connection has no meaning on this one.
        self.under_way.clear();
        let effects = self.shared.core().authenticated(&authenticated);
        self.perform(Some(&connection), effects).await;
        let cursors = Some(self.cursors.to_resume()).filter(|cursors| !cursors.is_empty());
        let resumed = connection.call(Resume { cursors }).await?;
        self.cursors.resumed(&authenticated, &resumed);
        for gone in resumed.gone {
            self.tell(News::Gone(gone)).await;
        }
        self.backoff.reset();
        self.shared.connection.send_replace(Some(connection.clone()));
        self.tell(News::Connected { node: authenticated.node, sessions: authenticated.sessions }).await;
        Ok((connection, incoming))
    }

    async fn serve(&mut self, connection: &Connection, mut incoming: Incoming) -> Over {
        let mut ticks = interval(ACK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                frame = incoming.next() => {
                    let Some(frame) = frame else { return Over::Ended(incoming.end().await) };
                    if let Some(over) = self.frames(connection, frame, &mut incoming).await {
                        return over;
                    }
                }
                Some(effects) = self.from_handles.recv() => self.perform(Some(connection), effects).await,
                Some(finished) = self.under_way.next(), if !self.under_way.is_empty() => {
                    self.finish(connection, finished).await;
                }
                _ = ticks.tick() => self.tick(connection).await,
                () = stopped(&mut self.stop) => return Over::Stopped,
            }
            let effects = self.shared.core().flush(&mut rand::rng());
            self.perform(Some(connection), effects).await;
            self.acknowledge_inbox(connection).await;
        }
    }

    /// Handles a frame and those that have come with it.
    async fn frames(&mut self, connection: &Connection, first: ServerFrame, incoming: &mut Incoming) -> Option<Over> {
        let mut next = Some(first);
        for _ in 0..FRAMES_AT_ONCE {
            let Some(frame) = next else { break };
            let effects = match frame {
                ServerFrame::Event(event) => match self.place(&event).await {
                    Some(Arrival::Gap { .. }) => return Some(Over::Gap),
                    Some(Arrival::Next) => self.shared.core().event(*event),
                    Some(Arrival::Duplicate) | None => Vec::new(),
                },
                ServerFrame::UnknownEvent { session_id, seq } => match self.arrived(session_id, seq, false).await {
                    Arrival::Gap { .. } => return Some(Over::Gap),
                    Arrival::Next | Arrival::Duplicate => Vec::new(),
                },
                ServerFrame::Inbox(notice) => self.shared.core().notice(*notice),
                ServerFrame::Ask(ask) => self.shared.core().ask(*ask, &mut rand::rng()),
                ServerFrame::Typing { session_id, user_id } => {
                    vec![Effect::Tell(News::Typing { session_id, user_id })]
                }
                ServerFrame::InboxWithdrawn(inbox_ids) => self.shared.core().withdrawn(&inbox_ids),
                ServerFrame::Reply { .. } | ServerFrame::GoingAway { .. } | ServerFrame::Unknown => Vec::new(),
            };
            self.perform(Some(connection), effects).await;
            next = incoming.try_next();
        }
        None
    }

    /// Where a session event belongs.
    async fn place(&mut self, event: &SessionEvent) -> Option<Arrival> {
        let me = self.shared.me;
        let own_join = matches!(&event.what, Happening::MemberJoined(joined) if joined.user_id == me);
        let arrival = self.arrived(event.session_id, event.seq, own_join).await;
        let last = match &event.what {
            Happening::MemberLeft(left) => left.user_id == me,
            Happening::SessionDeleted(_) => true,
            _ => false,
        };
        if last && arrival == Arrival::Next {
            self.cursors.left(event.session_id);
            self.received.remove(&event.session_id);
        }
        Some(arrival)
    }

    async fn arrived(&mut self, session_id: SessionId, seq: u64, own_join: bool) -> Arrival {
        let arrival = self.cursors.arrived(session_id, seq, own_join);
        match arrival {
            Arrival::Next => {
                self.received.insert(session_id, seq);
            }
            Arrival::Duplicate => {
                tracing::warn!(%session_id, seq, "an event came twice");
                self.tell(News::Repeated { session_id, seq }).await;
            }
            Arrival::Gap { expected } => {
                tracing::error!(%session_id, expected, seq, "events are missing");
                self.tell(News::Gap { session_id, expected, came: seq }).await;
            }
        }
        arrival
    }

    async fn finish(&mut self, connection: &Connection, finished: Finished) {
        let effects = match finished {
            Finished::Replied(purpose, outcome) => self.shared.core().replied(purpose, outcome),
            Finished::LookedUp(user_id, key) => self.shared.core().looked_up(user_id, key),
        };
        self.perform(Some(connection), effects).await;
    }

    /// Does what the core wants, in its order, and what follows from that.
    async fn perform(&mut self, connection: Option<&Connection>, effects: Vec<Effect>) {
        let mut todo = VecDeque::from(effects);
        while let Some(effect) = todo.pop_front() {
            match effect {
                Effect::Save => todo.extend(self.save().await),
                Effect::Request(purpose, request) => {
                    if let Some(connection) = connection {
                        let first = connection.submit(request.clone()).await;
                        let (shared, connection) = (Arc::clone(&self.shared), connection.clone());
                        self.under_way.push(Box::pin(async move {
                            let outcome = persist(shared, connection, &purpose, request, first).await;
                            Finished::Replied(purpose, outcome)
                        }));
                    }
                }
                Effect::LookUp(user_id) => {
                    let shared = Arc::clone(&self.shared);
                    self.under_way.push(Box::pin(async move {
                        Finished::LookedUp(user_id, look_up(&shared.http, &shared, user_id).await)
                    }));
                }
                Effect::AckInbox(inbox_id) => self.handled.push(inbox_id),
                Effect::Tell(news) => self.tell(news).await,
            }
        }
        self.shared.changed.send_modify(|count| *count += 1);
    }

    /// Writes the ring where it has changed; what follows from its being safe.
    async fn save(&mut self) -> Vec<Effect> {
        let (generation, ring) = self.shared.core().snapshot();
        if generation == self.saved {
            return Vec::new();
        }
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || store.save(&ring)).await {
            Ok(Ok(())) => {
                self.saved = generation;
                self.save_again = None;
                self.shared.core().saved(generation)
            }
            Ok(Err(error)) => {
                tracing::error!("the key ring could not be written: {error}");
                self.save_again = Some(Instant::now() + SAVE_AGAIN_AFTER);
                vec![Effect::Tell(News::SaveFailed)]
            }
            Err(error) => {
                tracing::error!("writing the key ring failed: {error}");
                Vec::new()
            }
        }
    }

    async fn tick(&mut self, connection: &Connection) {
        if self.save_again.is_some_and(|at| at <= Instant::now()) {
            let effects = self.save().await;
            self.perform(Some(connection), effects).await;
        }
        self.acknowledge(connection).await;
    }

    /// Says up to where events have come.
    async fn acknowledge(&mut self, connection: &Connection) {
        for (session_id, seq) in std::mem::take(&mut self.received) {
            // Its reply says nothing that matters: a lost one is made good by the next.
            drop(connection.submit(Ack { session_id, seq }).await);
        }
        self.acknowledge_inbox(connection).await;
    }

    async fn acknowledge_inbox(&mut self, connection: &Connection) {
        if !self.handled.is_empty() {
            let inbox_ids = std::mem::take(&mut self.handled);
            drop(connection.submit(AckInbox { inbox_ids }).await);
        }
    }

    /// Waits for room where the user is slow: the connection is not read meanwhile.
    async fn tell(&mut self, news: News) {
        let _ = self.news.send(news).await;
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender means that every handle is gone.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Waits for a reply, and repeats the request while the server is busy or says nothing, for as long as the connection is
/// served and the core still wants it.
async fn persist(
    shared: Arc<Shared>,
    connection: Connection,
    purpose: &Purpose,
    request: Request,
    first: Result<InFlight, ClientError>,
) -> Result<Box<RawValue>, ClientError> {
    let mut outcome = match first {
        Ok(in_flight) => in_flight.outcome().await,
        Err(error) => Err(error),
    };
    let mut backoff = Backoff::default();
    loop {
        let hint = match &outcome {
            Err(ClientError::Timeout) => None,
            Err(ClientError::Refused(Refusal { code, details, .. }))
                if code.retryable() && *code != ErrorCode::RoomKeyPending =>
            {
                Some(details.as_ref().and_then(|details| details.retry_after_ms).unwrap_or(0))
            }
            Ok(_) | Err(_) => return outcome,
        };
        sleep(Duration::from_millis(hint.unwrap_or(0).min(60_000)) + backoff.next(rand::random())).await;
        if !shared.core().still_wants(purpose, hint.is_some()) {
            return outcome;
        }
        outcome = connection.request(request.clone()).await;
    }
}

/// Asks who a user is, as long as that may help: keys that they sent wait for the answer.
async fn look_up(http: &HttpClient, shared: &Shared, user_id: UserId) -> Result<Option<PublicKey>, ()> {
    let mut backoff = Backoff::default();
    loop {
        match timeout(Duration::from_secs(30), http.user(&shared.token(), user_id)).await {
            Ok(Ok(user)) => return Ok(user.key().ok()),
            Ok(Err(error)) if error.code() == Some(ErrorCode::NotFound) => return Ok(None),
            Ok(Err(error)) if !error.retryable() => return Err(()),
            Ok(Err(_)) | Err(_) => sleep(backoff.next(rand::random())).await,
        }
    }
}
