//! One connection, as its actor, its body and its hub share it: all three live on the same worker thread.
//!
//! Invariants: who the connection is is set once; requests in flight are counted from when they were read until their
//! answer is queued, and reading stops at their limit; after the end has begun nothing is queued any more.

use std::cell::{Cell, OnceCell, RefCell, RefMut};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use prometheus::IntCounter;

use crate::protocol::{CloseCode, ErrorCode, Frame, Refusal, Reply, Request, RequestId, SessionId, UserId};
use crate::protocol::{encode_error, encode_reply};
use crate::store::{TokenHash, TokenOwner};

use super::ConnectionKey;
use super::inbox::InboxWindow;
use super::lanes::{Lanes, Pace};
use super::outbox::{Full, Outbox, close_frame, close_frame_with};
use super::people::AddressSlot;
use super::socket::Socket;
use super::throttle::Throttle;

/// Asks that may wait for the reply to `authenticate`: several sessions' windows of them.
const EARLY_ASKS: usize = 4096;

/// Who an authenticated connection is.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) user_id: UserId,
    pub(super) token: TokenHash,
    /// When the token dies by itself.
    pub(super) expires: Instant,
    /// Shared with the user's other connections to this node.
    pub(super) throttle: Arc<Throttle>,
}

/// A request that waits in its session's lane.
pub(super) type Queued = (RequestId, Request);

/// How far a connection's beginning has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Only `authenticate` and `ping` are answered.
    Unknown,
    /// Its token and memberships are being read; nothing else is.
    Authenticating,
    /// Requests are answered, no session event is sent.
    Authenticated,
    /// `resume` has come: memberships are being read again.
    Resuming,
    /// Session events flow.
    Resumed,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Not at all yet.
    Open,
    /// With a close frame behind what is queued.
    Closing(Instant),
    /// With a close frame at best.
    CutOff(Instant),
}

/// A command whose answer is to come: its id, its name, and its lane.
type Sent = (RequestId, &'static str, Option<SessionId>);

/// A join or leave of this user that the hub saw while memberships were being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SeenChange {
    pub(super) session_id: SessionId,
    pub(super) version: u64,
}

/// One connection.
pub(super) struct Link {
    pub(super) key: ConnectionKey,
    pub(super) socket: Socket,
    pub(super) opened: Instant,
    pub(super) bearer: Option<(TokenHash, TokenOwner)>,
    pub(super) identity: OnceCell<Identity>,
    pub(super) stage: Cell<Stage>,
    pub(super) inbox: RefCell<InboxWindow>,
    /// Sessions that this connection has a seat in.
    pub(super) seats: RefCell<HashSet<SessionId>>,
    /// Sessions to catch up with, in turn.
    pub(super) behind: RefCell<VecDeque<SessionId>>,
    /// Whether somebody works on `behind`.
    pub(super) reader_runs: Cell<bool>,
    /// Held while something large is read from the store: one page at a time per connection.
    pub(super) page: tokio::sync::Mutex<()>,
    /// Requests whose turn in their lane has come, and whether somebody sends them on their way.
    pub(super) freed: RefCell<VecDeque<Queued>>,
    pub(super) going: Cell<bool>,
    /// Asks that came before the reply to `authenticate`.
    early: RefCell<Vec<Frame>>,
    /// Whether missing seats are looked for, and whether that is to be done again when it is done.
    pub(super) looking: Cell<bool>,
    pub(super) look_again: Cell<bool>,
    /// Membership reads under way, and what the hub saw meanwhile.
    pub(super) membership_reads: Cell<u32>,
    pub(super) seen: RefCell<Vec<SeenChange>>,
    /// Whether the client was heard since the last look, and the pings since.
    pub(super) heard: Cell<bool>,
    pub(super) pulse: Cell<super::pulse::Pulse>,
    outbox: RefCell<Outbox>,
    lanes: RefCell<Lanes<SessionId, Queued>>,
    commands: RefCell<Vec<Sent>>,
    in_flight: Cell<usize>,
    in_flight_limit: usize,
    reader: RefCell<Option<Waker>>,
    violation: Cell<Option<CloseCode>>,
    peer_gone: Cell<bool>,
    peer_closed: Cell<bool>,
    /// When the close frame left, where it has.
    goodbye: Cell<Option<Instant>>,
    /// Whether the client's own close is no longer waited for.
    let_go: Cell<bool>,
    ending: Cell<Ending>,
    /// The code of the close frame, where there is one.
    ending_code: Cell<Option<u16>>,
    pub(super) slow_clients: IntCounter,
    _address: Option<AddressSlot>,
}

/// What a link is made of.
pub(super) struct LinkParts {
    pub(super) key: ConnectionKey,
    pub(super) socket: Socket,
    pub(super) bearer: Option<(TokenHash, TokenOwner)>,
    pub(super) address: Option<AddressSlot>,
    pub(super) outbox_bytes: usize,
    pub(super) inbox_window: usize,
    pub(super) requests_in_flight: usize,
    /// Counts it if it is cut off because its client does not read.
    pub(super) slow_clients: IntCounter,
}

impl Link {
    pub(super) fn new(parts: LinkParts) -> Self {
        Self {
            key: parts.key,
            socket: parts.socket,
            opened: Instant::now(),
            bearer: parts.bearer,
            identity: OnceCell::new(),
            stage: Cell::new(Stage::Unknown),
            inbox: RefCell::new(InboxWindow::new(parts.inbox_window)),
            seats: RefCell::default(),
            behind: RefCell::default(),
            reader_runs: Cell::new(false),
            page: tokio::sync::Mutex::new(()),
            freed: RefCell::default(),
            going: Cell::new(false),
            early: RefCell::default(),
            looking: Cell::new(false),
            look_again: Cell::new(false),
            membership_reads: Cell::new(0),
            seen: RefCell::default(),
            heard: Cell::new(false),
            pulse: Cell::default(),
            outbox: RefCell::new(Outbox::new(parts.outbox_bytes)),
            lanes: RefCell::default(),
            commands: RefCell::default(),
            in_flight: Cell::new(0),
            in_flight_limit: parts.requests_in_flight,
            reader: RefCell::default(),
            violation: Cell::new(None),
            peer_gone: Cell::new(false),
            peer_closed: Cell::new(false),
            goodbye: Cell::new(None),
            let_go: Cell::new(false),
            ending: Cell::new(Ending::Open),
            ending_code: Cell::new(None),
            slow_clients: parts.slow_clients,
            _address: parts.address,
        }
    }

    /// Who it is, once that is known.
    pub(super) fn user_id(&self) -> Option<UserId> {
        self.identity.get().map(|identity| identity.user_id)
    }

    pub(super) fn outbox(&self) -> RefMut<'_, Outbox> {
        self.outbox.borrow_mut()
    }

    // Writing.

    /// Queues a frame; the hub's fan-out, which asks for the overflow itself.
    pub(super) fn push(&self, frame: &Frame) -> Result<(), Full> {
        self.outbox.borrow_mut().push(frame)
    }

    /// Queues whole frames, joined.
    pub(super) fn push_bytes(&self, frames: &bytes::Bytes) -> Result<(), Full> {
        self.outbox.borrow_mut().push_bytes(frames)
    }

    /// Queues a frame; a connection that lags too far behind is cut off.
    pub(super) fn send(&self, frame: &Frame) {
        let pushed = self.push(frame);
        self.cut_off_if_full(pushed);
    }

    /// Queues a ping or a pong.
    pub(super) fn send_control(&self, frame: bytes::Bytes) {
        let pushed = self.outbox.borrow_mut().push_control(frame);
        self.cut_off_if_full(pushed);
    }

    fn cut_off_if_full(&self, pushed: Result<(), Full>) {
        if pushed == Err(Full) {
            self.cut_off(CloseCode::TooSlow);
        }
    }

    /// Queues asks, behind the reply to `authenticate`: a session may turn to a connection that is about to have it.
    pub(super) fn push_asks(&self, asks: Vec<Frame>) -> Result<(), Full> {
        match self.stage.get() {
            Stage::Unknown | Stage::Authenticating => {
                let mut early = self.early.borrow_mut();
                early.extend(asks);
                if early.len() > EARLY_ASKS { Err(Full) } else { Ok(()) }
            }
            Stage::Authenticated | Stage::Resuming | Stage::Resumed => asks.iter().try_for_each(|ask| self.push(ask)),
        }
    }

    /// The reply to `authenticate` is queued: requests are answered from now on.
    pub(super) fn authenticated(&self) {
        self.stage.set(Stage::Authenticated);
        self.inbox.borrow_mut().open();
        for ask in std::mem::take(&mut *self.early.borrow_mut()) {
            self.send(&ask);
        }
    }

    /// Answers a frame that was no request.
    pub(super) fn refuse_frame(&self, refusal: &Refusal) {
        self.send(&Frame::text(&encode_error(None, refusal)));
    }

    /// Queues an answer; the request is still in flight.
    pub(super) fn answer(&self, id: RequestId, name: &'static str, outcome: &Result<Reply, Refusal>) {
        let json = match outcome {
            Ok(reply) => encode_reply(id, name, reply),
            Err(refusal) => encode_error(Some(id), refusal),
        };
        let pushed = self.outbox.borrow_mut().push_reply(&Frame::text(&json));
        self.cut_off_if_full(pushed);
    }

    // Requests in flight.

    /// A request was read.
    pub(super) fn took_request(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// A request was answered.
    pub(super) fn request_done(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.wake_reader();
    }

    /// Takes a request into its session's lane; it comes back if it may go at once.
    pub(super) fn enter_lane(&self, session_id: SessionId, pace: Pace, queued: Queued) -> Option<Queued> {
        self.lanes.borrow_mut().enter(session_id, pace, queued)
    }

    /// A request whose look-up is over goes on as a command; those that may go now.
    pub(super) fn joined_lane(&self, session_id: SessionId) -> Vec<Queued> {
        self.lanes.borrow_mut().joined(&session_id)
    }

    /// A request of a session is answered; those that may go now.
    pub(super) fn left_lane(&self, session_id: SessionId) -> Vec<Queued> {
        self.lanes.borrow_mut().done(&session_id)
    }

    /// A command goes to its session; its answer comes through the hub.
    pub(super) fn command_sent(&self, id: RequestId, name: &'static str, session_id: Option<SessionId>) {
        self.commands.borrow_mut().push((id, name, session_id));
    }

    /// A command's answer has come: its name, and the requests that may go now. None if it was not under way.
    pub(super) fn command_answered(&self, id: RequestId) -> Option<(&'static str, Vec<Queued>)> {
        let mut commands = self.commands.borrow_mut();
        let index = commands.iter().position(|(command, ..)| *command == id)?;
        let (_, name, session_id) = commands.remove(index);
        if commands.is_empty() {
            *commands = Vec::new();
        }
        drop(commands);
        self.request_done();
        Some((name, session_id.map_or_else(Vec::new, |session_id| self.left_lane(session_id))))
    }

    // Reading.

    /// Whether the next frame may be read; else the reader is woken when it may.
    pub(super) fn may_read(&self, cx: &Context<'_>) -> bool {
        let busy = self.stage.get() == Stage::Authenticating || self.in_flight.get() >= self.in_flight_limit;
        // After the end has begun nothing is answered, but the client's own close is to be seen.
        let may = !busy || !self.is_open();
        if !may {
            *self.reader.borrow_mut() = Some(cx.waker().clone());
        }
        may
    }

    /// Whether silence is the node's own doing: it does not read.
    pub(super) fn is_paused(&self) -> bool {
        self.reader.borrow().is_some()
    }

    pub(super) fn wake_reader(&self) {
        if let Some(reader) = self.reader.borrow_mut().take() {
            reader.wake();
        }
    }

    /// The client broke the WebSocket's rules: remembered for the actor, which is told only that the stream ended.
    pub(super) fn set_violation(&self, code: CloseCode) {
        self.violation.set(Some(code));
    }

    pub(super) fn violation(&self) -> Option<CloseCode> {
        self.violation.get()
    }

    /// The socket ended or failed.
    pub(super) fn set_peer_gone(&self) {
        self.peer_gone.set(true);
    }

    pub(super) fn is_peer_gone(&self) -> bool {
        self.peer_gone.get()
    }

    /// Whether the client's own close frame has come.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed.get()
    }

    // The end.

    /// Whether it goes on.
    pub(super) fn is_open(&self) -> bool {
        self.ending.get() == Ending::Open
    }

    pub(super) fn is_cut_off(&self) -> bool {
        matches!(self.ending.get(), Ending::CutOff(_))
    }

    /// The close code that it ends with, if any.
    pub(super) fn ending_code(&self) -> Option<u16> {
        self.ending_code.get()
    }

    /// Since when it is ending, and whether by force.
    pub(super) fn ending_since(&self) -> Option<Instant> {
        match self.ending.get() {
            Ending::Open => None,
            Ending::Closing(since) | Ending::CutOff(since) => Some(since),
        }
    }

    /// The close frame has left.
    pub(super) fn said_goodbye(&self) {
        if self.goodbye.get().is_none() {
            self.goodbye.set(Some(Instant::now()));
        }
    }

    /// When the close frame left, where it has.
    pub(super) fn goodbye(&self) -> Option<Instant> {
        self.goodbye.get()
    }

    /// Whether the client's own close may still come.
    pub(super) fn awaits_close(&self) -> bool {
        !(self.peer_closed() || self.is_peer_gone() || self.let_go.get())
    }

    /// No longer waits for the client's own close.
    pub(super) fn let_go(&self) {
        self.let_go.set(true);
        self.outbox.borrow_mut().wake();
    }

    /// Ends it with a close frame, behind what is queued.
    pub(super) fn close(&self, code: CloseCode) {
        self.begin_close(Some(code.code()), close_frame(code));
    }

    /// Answers the client's close frame with the same code.
    pub(super) fn close_back(&self, code: Option<u16>) {
        self.peer_closed.set(true);
        // The client's own code is not counted: it could be any of thousands.
        self.begin_close(Some(CloseCode::Normal.code()), close_frame_with(code, ""));
        self.outbox.borrow_mut().wake();
    }

    fn begin_close(&self, code: Option<u16>, frame: bytes::Bytes) {
        if self.is_open() {
            self.ending_code.set(code);
            self.ending.set(Ending::Closing(Instant::now()));
            self.outbox.borrow_mut().close(frame);
            self.release();
        }
    }

    /// Ends it without what is queued: that memory is free at once.
    pub(super) fn cut_off(&self, code: CloseCode) {
        if !self.is_cut_off() {
            if code == CloseCode::TooSlow {
                self.slow_clients.inc();
            }
            tracing::debug!(code = code.code(), "a connection was cut off");
            self.ending.set(Ending::CutOff(Instant::now()));
            self.ending_code.set(Some(code.code()));
            self.outbox.borrow_mut().cut_off(close_frame(code));
            self.release();
        }
    }

    /// Nothing more is written: the body is gone.
    pub(super) fn abandon(&self) {
        if self.is_open() {
            self.ending.set(Ending::Closing(Instant::now()));
        }
        self.outbox.borrow_mut().abandon();
        self.release();
    }

    /// Lets go of what no longer matters.
    fn release(&self) {
        self.lanes.borrow_mut().clear();
        *self.behind.borrow_mut() = VecDeque::new();
        self.wake_reader();
    }

    // Membership reads.

    /// Memberships are about to be read: joins and leaves are remembered until that is over.
    pub(super) fn membership_read_begins(&self) {
        self.membership_reads.set(self.membership_reads.get() + 1);
    }

    /// The hub saw this user join or leave.
    pub(super) fn saw_change(&self, session_id: SessionId, version: u64) {
        if self.membership_reads.get() > 0 {
            let mut seen = self.seen.borrow_mut();
            seen.retain(|change| change.session_id != session_id);
            seen.push(SeenChange { session_id, version });
        }
    }

    /// Whether the hub saw a later join or leave than a membership read at `version`.
    pub(super) fn saw_later(&self, session_id: SessionId, version: u64) -> bool {
        self.seen.borrow().iter().any(|change| change.session_id == session_id && change.version > version)
    }

    pub(super) fn membership_read_ends(&self) {
        self.membership_reads.set(self.membership_reads.get().saturating_sub(1));
        if self.membership_reads.get() == 0 {
            *self.seen.borrow_mut() = Vec::new();
        }
    }
}

/// The refusal for a request that came too early.
pub(super) fn unauthenticated() -> Refusal {
    Refusal::new(ErrorCode::Unauthenticated, "expected authenticate first")
}
