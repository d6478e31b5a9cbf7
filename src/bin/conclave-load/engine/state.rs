//! What the engine knows: connections, sessions, who speaks where; and where what comes goes to.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use super::Clock;
use super::asking::Asks;
use super::hearing::Recent;
use super::pace::{Pace, Schedule};
use crate::crowd::{Ears, End, Heard};
use crate::measures::Measures;
use crate::tally::Tally;
use crate::verify::{Delivered, Ledger, Texts};
use crate::wire::{Outgoing, Reply, Text};

/// How an engine behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Connections, all users together.
    pub(crate) connections: usize,
    /// Whether connections may end without that being a failure.
    pub(crate) expect_restarts: bool,
    /// How long an answer may take before its connection counts as dead.
    pub(crate) timeout: Duration,
    /// How long a connection tries to come back.
    pub(crate) give_up: Duration,
    pub(crate) payload: usize,
    /// Sets this run's messages apart.
    pub(crate) run: String,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not there, and not wanted.
    Absent,
    /// To be dialled when its time has come.
    Waiting,
    Dialling,
    Authenticating,
    /// Authenticated, and told nothing of its sessions yet.
    Idle,
    Resuming,
    /// In service.
    Live,
    /// It could not come back.
    GivenUp,
}

/// A user's place in a session, as one connection sees it.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) session: u32,
    pub(super) delivered: Delivered,
}

/// What a request was for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Authenticate,
    Resume,
    Say {
        speaker: u32,
        number: u32,
    },
    Ask {
        ticket: u64,
    },
    /// To hear whether anybody is still there.
    Probe,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) sent: u64,
    pub(super) purpose: Purpose,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) token: String,
    pub(super) phase: Phase,
    /// When the phase began.
    pub(super) since: u64,
    /// When anything came of it last.
    pub(super) heard: u64,
    /// When it was dialled first, since it was in service last.
    pub(super) dialled: Option<u64>,
    /// When it was lost.
    pub(super) lost: Option<u64>,
    /// Where it is, or was last.
    pub(super) endpoint: usize,
    pub(super) attempt: u32,
    /// Which node it is on.
    pub(super) node: u16,
    /// When the node wants to be called again.
    pub(super) call_again: Option<u64>,
    /// Requests that the node takes at once.
    pub(super) limit: usize,
    pub(super) pending: VecDeque<Pending>,
    /// Messages to be sent, oldest first.
    pub(super) unsent: VecDeque<(u32, u32)>,
    /// Retryable refusals without an acknowledgement between them.
    pub(super) refused_in_row: u32,
    pub(super) seats: Vec<Seat>,
    /// Whether it is in `State::dirty`.
    pub(super) dirty: bool,
    /// The sessions that the server named when it was authenticated: id and role. Kept while setting up.
    pub(super) named_sessions: Vec<(String, String)>,
}

pub(super) struct Session {
    pub(super) id: String,
    pub(super) recent: Recent,
}

#[derive(Debug)]
pub(super) struct Speaker {
    pub(super) connection: usize,
    pub(super) session: u32,
}

/// All that is known.
pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(super) settings: Settings,
    pub(super) now: u64,
    pub(super) endpoints: usize,
    pub(super) connections: Vec<Connection>,
    pub(super) sessions: Vec<Session>,
    pub(super) by_id: HashMap<String, u32>,
    pub(super) speakers: Vec<Speaker>,
    pub(crate) ledger: Ledger,
    pub(crate) measures: Measures,
    pub(crate) tally: Tally,
    /// Why the run cannot go on.
    pub(crate) fatal: Option<String>,
    /// Why a connection was lost last; empty if none was.
    pub(crate) trouble: String,
    pub(super) texts: Texts,
    pub(super) nodes: Vec<String>,
    pub(super) pace: Option<Pace>,
    pub(super) schedule: Option<Schedule>,
    /// Messages that were neither acknowledged nor turned away.
    pub(super) open: u64,
    /// Connections resume when they have authenticated; before, they wait for that. Before, one that cannot come back is
    /// fatal.
    pub(super) serving: bool,
    pub(super) to_dial: BinaryHeap<Reverse<(u64, usize)>>,
    pub(super) in_progress: usize,
    pub(super) to_repeat: BinaryHeap<Reverse<(u64, u32, u32)>>,
    pub(super) dirty: Vec<usize>,
    pub(super) lost: Vec<usize>,
    pub(super) to_probe: Vec<usize>,
    pub(super) asks: Asks,
}

impl State {
    pub(super) fn new(settings: Settings, endpoints: usize) -> Self {
        Self {
            clock: Clock::start(),
            now: 0,
            endpoints,
            connections: Vec::with_capacity(settings.connections),
            sessions: Vec::new(),
            by_id: HashMap::new(),
            speakers: Vec::new(),
            ledger: Ledger::new(&settings.run),
            measures: Measures::new(),
            tally: Tally::default(),
            fatal: None,
            trouble: String::new(),
            texts: Texts::new(settings.payload),
            nodes: Vec::new(),
            pace: None,
            schedule: None,
            open: 0,
            serving: false,
            to_dial: BinaryHeap::new(),
            in_progress: 0,
            to_repeat: BinaryHeap::new(),
            dirty: Vec::new(),
            lost: Vec::new(),
            to_probe: Vec::new(),
            asks: Asks::default(),
            settings,
        }
    }

    /// Adds a connection of the user with this token; it is dialled when it is wanted.
    pub(crate) fn add_connection(&mut self, token: &str) -> usize {
        let who = self.connections.len();
        self.connections.push(Connection {
            token: token.to_owned(),
            phase: Phase::Absent,
            since: 0,
            heard: 0,
            dialled: None,
            lost: None,
            endpoint: who % self.endpoints,
            attempt: 0,
            node: 0,
            call_again: None,
            limit: 1,
            pending: VecDeque::new(),
            unsent: VecDeque::new(),
            refused_in_row: 0,
            seats: Vec::new(),
            dirty: false,
            named_sessions: Vec::new(),
        });
        who
    }

    /// Adds a session, whose last event so far is `base`. `recent`: frames that are remembered to be compared.
    pub(crate) fn add_session(&mut self, id: &str, base: u64, recent: usize) -> u32 {
        let session = self.ledger.add_session(base);
        self.sessions.push(Session { id: id.to_owned(), recent: Recent::new(recent) });
        self.by_id.insert(id.to_owned(), session);
        session
    }

    /// Gives a connection a seat in a session. Sessions in the order in which they were added.
    pub(crate) fn seat(&mut self, who: usize, session: u32) {
        let delivered = Delivered::after(self.ledger.base(session));
        self.connections[who].seats.push(Seat { session, delivered });
    }

    /// Lets a connection speak in a session.
    pub(crate) fn add_speaker(&mut self, who: usize, session: u32, user_id: &str) {
        self.ledger.add_speaker(session, user_id);
        self.speakers.push(Speaker { connection: who, session });
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    pub(crate) fn phase(&self, who: usize) -> Phase {
        self.connections[who].phase
    }

    /// How many connections are in this phase.
    pub(crate) fn in_phase(&self, phase: Phase) -> usize {
        self.connections.iter().filter(|connection| connection.phase == phase).count()
    }

    /// Whether nobody is there, and nobody will come back.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.connections.iter().all(|connection| connection.phase == Phase::GivenUp)
    }

    /// The sessions that the server named when this connection was authenticated.
    pub(crate) fn take_named_sessions(&mut self, who: usize) -> Vec<(String, String)> {
        std::mem::take(&mut self.connections[who].named_sessions)
    }

    /// The session's id on the wire.
    pub(crate) fn session_id(&self, session: u32) -> &str {
        &self.sessions[session as usize].id
    }

    /// The connections with a seat in each session, and where each stands.
    pub(crate) fn seats(&self) -> impl Iterator<Item = (usize, u32, &Delivered)> {
        (0..)
            .zip(&self.connections)
            .flat_map(|(who, connection)| connection.seats.iter().map(move |seat| (who, seat.session, &seat.delivered)))
    }

    /// Nodes that were met.
    pub(crate) fn nodes(&self) -> &[String] {
        &self.nodes
    }

    pub(crate) const fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn look_at_the_clock(&mut self) {
        self.now = self.clock.now();
    }

    /// Something that must not be made the run fail.
    pub(crate) fn fail(&mut self, why: &str) {
        self.tally.fail(why);
    }

    /// How long until there is something to do, in microseconds; `None` if nothing is planned.
    pub(super) fn next_due(&self) -> Option<u64> {
        let said = self.schedule.as_ref().and_then(Schedule::due);
        let again = self.to_repeat.peek().map(|Reverse((at, ..))| *at);
        let dial = self.to_dial.peek().map(|Reverse((at, _))| *at).filter(|_| self.may_dial());
        let due = [said, again, dial].into_iter().flatten().min()?;
        Some(due.saturating_sub(self.clock.now()))
    }

    /// Connections with something to say; they are asked once.
    pub(super) fn take_dirty(&mut self) -> Vec<usize> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.iter().for_each(|&who| self.connections[who].dirty = false);
        dirty
    }

    /// Connections whose sockets are to be dropped.
    pub(super) fn take_lost(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.lost)
    }

    /// A connection has something to say.
    pub(super) fn mark_dirty(&mut self, who: usize) {
        let connection = &mut self.connections[who];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(who);
        }
    }

    fn text(&mut self, who: usize, json: &[u8], outgoing: &mut Outgoing) {
        if self.heard_before(who, json) {
            return;
        }
        match crate::wire::read(json) {
            Ok(Text::Msg(msg)) => self.message(who, json, &msg),
            Ok(Text::Event { session_id, seq }) => self.event(who, &session_id, seq),
            Ok(Text::Reply(reply)) => self.reply(who, &reply, outgoing),
            Ok(Text::GoingAway { reconnect_after_ms }) => {
                self.connections[who].call_again = Some(self.now + reconnect_after_ms.min(60_000) * 1000);
            }
            Ok(Text::Aside) => {}
            Err(_) => self.ledger.unreadable(),
        }
    }

    fn reply(&mut self, who: usize, reply: &Reply<'_>, outgoing: &mut Outgoing) {
        let pending = &mut self.connections[who].pending;
        let at = pending.iter().position(|pending| Some(pending.id) == reply.to);
        let Some(Pending { purpose, .. }) = at.and_then(|at| pending.remove(at)) else {
            self.fail("answers that nobody asked for");
            return;
        };
        match purpose {
            Purpose::Authenticate => self.authenticated(who, &reply.outcome, outgoing),
            Purpose::Resume => self.resumed(who, &reply.outcome),
            Purpose::Say { speaker, number } => self.answered(who, speaker, number, &reply.outcome),
            Purpose::Ask { ticket } => self.asks.answer(ticket, &reply.outcome),
            Purpose::Probe => {}
        }
        self.speak(who, outgoing);
    }

    /// Sends a request, and remembers what for.
    pub(super) fn send(&mut self, who: usize, kind: &str, body: &str, purpose: Purpose, outgoing: &mut Outgoing) {
        let id = outgoing.request(kind, body);
        self.connections[who].pending.push_back(Pending { id, sent: self.now, purpose });
    }
}

impl Ears for State {
    fn wake(&mut self, who: usize) {
        self.look_at_the_clock();
        self.connections[who].heard = self.now;
    }

    fn hear(&mut self, who: usize, heard: Heard<'_>, outgoing: &mut Outgoing) {
        match heard {
            Heard::Open => self.opened(who, outgoing),
            Heard::Text(json) => self.text(who, json, outgoing),
            Heard::Ended(end) => match end {
                End::Unreachable(why) | End::NotUpgraded(why) => self.unreachable(who, &why),
                End::Closed(code) => self.closed(who, code),
                End::Broken => self.broken(who),
            },
        }
    }
}
