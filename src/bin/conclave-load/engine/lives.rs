//! A connection's life: dialled, authenticated, resumed where it stood, lost, dialled again, elsewhere if nobody
//! answers.

use std::cmp::Reverse;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::state::{Pending, Phase, Purpose, State};
use crate::wire::{Outgoing, Refusal};

/// Connections that are on their way to service at once.
const AT_ONCE: usize = 256;
/// How long after a loss a connection is tried again: at first, and at most.
const AGAIN_AFTER_US: (u64, u64) = (50_000, 2_000_000);
/// The most nodes that are told apart.
const NODES: usize = 1024;
/// The close code of a node that is cut off from its cluster.
const CUT_OFF: u16 = 4005;
/// The close code of a token that died.
const NOT_AUTHENTICATED: u16 = 4001;

#[derive(Deserialize)]
struct Authenticated {
    node: String,
    limits: Limits,
    sessions: Vec<Named>,
}

#[derive(Deserialize)]
struct Limits {
    requests_in_flight: usize,
}

#[derive(Deserialize)]
struct Named {
    session_id: String,
    role: String,
}

#[derive(Deserialize)]
struct Resumed {
    sessions: Vec<Place>,
    #[serde(default)]
    gone: Vec<Gone>,
}

#[derive(Deserialize)]
struct Place {
    session_id: String,
    #[serde(default)]
    reset: bool,
}

#[derive(Deserialize)]
struct Gone {
    session_id: String,
    reason: String,
}

impl State {
    /// Wants all connections to be there.
    pub(crate) fn want_all(&mut self) {
        self.look_at_the_clock();
        for who in 0..self.connections.len() {
            if self.connections[who].phase == Phase::Absent {
                self.enter(who, Phase::Waiting);
                self.to_dial.push(Reverse((self.now, who)));
            }
        }
    }

    /// From now on connections come back by themselves, and resume. Those that are idle resume now.
    pub(crate) fn serve(&mut self) {
        self.serving = true;
        for who in 0..self.connections.len() {
            if self.connections[who].phase == Phase::Idle {
                self.mark_dirty(who);
            }
        }
    }

    pub(super) fn may_dial(&self) -> bool {
        self.in_progress < AT_ONCE
    }

    /// Who is to be dialled now, and where.
    pub(super) fn next_to_dial(&mut self) -> Option<(usize, usize)> {
        let &Reverse((at, who)) = self.to_dial.peek()?;
        if at > self.now || !self.may_dial() {
            return None;
        }
        self.to_dial.pop();
        self.enter(who, Phase::Dialling);
        let connection = &mut self.connections[who];
        connection.dialled.get_or_insert(self.now);
        Some((who, connection.endpoint))
    }

    /// Moves a connection to another phase. It is in progress between being dialled and being authenticated or, if it
    /// resumes at once, in service.
    fn enter(&mut self, who: usize, phase: Phase) {
        let under_way = |phase| match phase {
            Phase::Dialling | Phase::Authenticating | Phase::Resuming => 1,
            Phase::Absent | Phase::Waiting | Phase::Idle | Phase::Live | Phase::GivenUp => 0,
        };
        let connection = &mut self.connections[who];
        self.in_progress = self.in_progress + under_way(phase) - under_way(connection.phase);
        connection.phase = phase;
        connection.since = self.now;
    }

    pub(super) fn opened(&mut self, who: usize, outgoing: &mut Outgoing) {
        self.enter(who, Phase::Authenticating);
        let body = format!(r#"{{"token":"{}"}}"#, self.connections[who].token);
        self.send(who, "authenticate", &body, Purpose::Authenticate, outgoing);
    }

    pub(super) fn authenticated(
        &mut self,
        who: usize,
        outcome: &Result<&RawValue, Refusal<'_>>,
        outgoing: &mut Outgoing,
    ) {
        let body = match outcome {
            Ok(body) => body.get(),
            Err(refusal) if refusal.retryable => return self.lose(who, "authenticate was refused for now"),
            Err(refusal) => return self.dismiss(who, &format!("authenticate was refused: {}", refusal.message)),
        };
        let Ok(Authenticated { node, limits, sessions }) = serde_json::from_str(body) else {
            return self.dismiss(who, "the answer to authenticate is not that of the contract");
        };
        let node = self.number_of(node);
        let connection = &mut self.connections[who];
        connection.node = node;
        connection.limit = limits.requests_in_flight.max(1);
        if self.serving {
            self.resume(who, outgoing);
        } else {
            (connection.attempt, connection.call_again) = (0, None);
            (connection.dialled, connection.lost) = (None, None);
            connection.named_sessions =
                sessions.into_iter().map(|Named { session_id, role }| (session_id, role)).collect();
            self.enter(who, Phase::Idle);
        }
    }

    fn number_of(&mut self, node: String) -> u16 {
        let known = self.nodes.iter().position(|known| *known == node);
        let number = known.unwrap_or_else(|| {
            if self.nodes.len() < NODES {
                self.nodes.push(node);
            }
            self.nodes.len() - 1
        });
        number as u16
    }

    /// Goes on where the connection stands in each of its sessions.
    pub(super) fn resume(&mut self, who: usize, outgoing: &mut Outgoing) {
        let mut cursors = String::new();
        for seat in &self.connections[who].seats {
            let comma = if cursors.is_empty() { "" } else { "," };
            let id = &self.sessions[seat.session as usize].id;
            let written = write!(cursors, r#"{comma}"{id}":{{"seq":{}}}"#, seat.delivered.last());
            written.expect("a string takes all that is written to it");
        }
        self.enter(who, Phase::Resuming);
        self.send(who, "resume", &format!(r#"{{"cursors":{{{cursors}}}}}"#), Purpose::Resume, outgoing);
    }

    pub(super) fn resumed(&mut self, who: usize, outcome: &Result<&RawValue, Refusal<'_>>) {
        let body = match outcome {
            Ok(body) => body.get(),
            Err(refusal) if refusal.retryable => return self.lose(who, "resume was refused for now"),
            Err(refusal) => return self.dismiss(who, &format!("resume was refused: {}", refusal.message)),
        };
        let Ok(Resumed { sessions, gone }) = serde_json::from_str(body) else {
            return self.dismiss(who, "the answer to resume is not that of the contract");
        };
        for Gone { session_id, reason } in &gone {
            if self.by_id.contains_key(session_id) {
                self.fail(&format!("a session is gone for a member of it: {reason}"));
            }
        }
        if sessions.iter().any(|place| place.reset && self.by_id.contains_key(&place.session_id)) {
            self.fail("the server has another history of a session than before");
        }
        self.enter(who, Phase::Live);
        let connection = &mut self.connections[who];
        (connection.attempt, connection.call_again) = (0, None);
        let dialled = connection.dialled.take();
        if connection.lost.take().is_some()
            && let Some(dialled) = dialled
        {
            self.measures.resumed(self.now - dialled);
        }
        self.mark_dirty(who);
    }

    /// The server cannot be reached, or does not want a WebSocket.
    pub(super) fn unreachable(&mut self, who: usize, why: &str) {
        self.lose(who, why);
    }

    /// The server ended the connection.
    pub(super) fn closed(&mut self, who: usize, code: Option<u16>) {
        match code {
            Some(NOT_AUTHENTICATED) => self.dismiss(who, "a connection was closed with 4001: its token died"),
            Some(CUT_OFF) => {
                self.connections[who].attempt += 1;
                self.lose(who, "a connection was closed with 4005");
            }
            Some(code) => self.lose(who, &format!("a connection was closed with {code}")),
            None => self.lose(who, "a connection broke"),
        }
    }

    pub(super) fn broken(&mut self, who: usize) {
        self.fail("what came is no frame of RFC 6455 that this side agreed to");
        self.lose(who, "a connection was ended here after bytes that are no frame");
    }

    /// This side has cut a live connection.
    pub(super) fn cut(&mut self, who: usize) {
        self.look_at_the_clock();
        self.take_back(who);
        self.connections[who].lost = Some(self.now);
        self.enter(who, Phase::Waiting);
        self.to_dial.push(Reverse((self.now, who)));
    }

    /// A connection is over, and was not meant to be. It is tried again.
    fn lose(&mut self, who: usize, why: &str) {
        let phase = self.connections[who].phase;
        if matches!(phase, Phase::Absent | Phase::Waiting | Phase::GivenUp) {
            return;
        }
        self.take_back(who);
        if matches!(phase, Phase::Live | Phase::Idle) {
            self.tally.reconnects += 1;
            self.measures.reconnected();
            if !self.settings.expect_restarts {
                self.fail(why);
            }
        }
        why.clone_into(&mut self.trouble);
        self.enter(who, Phase::Waiting);
        let (first, most) = AGAIN_AFTER_US;
        let connection = &mut self.connections[who];
        let lost = *connection.lost.get_or_insert(self.now);
        if self.now - lost > self.settings.give_up.as_micros() as u64 {
            return self.dismiss(who, "a connection did not come back");
        }
        if connection.attempt > 0 {
            connection.endpoint = (connection.endpoint + 1) % self.endpoints;
        }
        let wait = (first << connection.attempt.min(10)).min(most);
        connection.attempt += 1;
        // Spread, so that not all come at once.
        let spread = wait * (who as u64 * 7919 % 1000) / 1000;
        let at = connection.call_again.take().unwrap_or(0).max(self.now + wait / 2 + spread / 2);
        self.to_dial.push(Reverse((at, who)));
    }

    /// A connection is of no use any more.
    fn dismiss(&mut self, who: usize, why: &str) {
        self.take_back(who);
        self.enter(who, Phase::GivenUp);
        self.fail(why);
        if !self.serving {
            self.fatal.get_or_insert_with(|| format!("{why} (last: {})", self.trouble));
        }
    }

    /// Forgets what was under way on a connection: messages are to be said again, first of all.
    fn take_back(&mut self, who: usize) {
        self.lost.push(who);
        let connection = &mut self.connections[who];
        while let Some(Pending { purpose, .. }) = connection.pending.pop_back() {
            match purpose {
                Purpose::Say { speaker, number } => {
                    self.ledger.repeat(speaker, number);
                    connection.unsent.push_front((speaker, number));
                }
                Purpose::Ask { ticket } => self.asks.end(ticket),
                Purpose::Authenticate | Purpose::Resume | Purpose::Probe => {}
            }
        }
    }

    /// Asks a silent connection whether anybody is there.
    pub(super) fn probe(&mut self, who: usize, outgoing: &mut Outgoing) {
        self.send(who, "ping", "{}", Purpose::Probe, outgoing);
    }

    /// Ends connections that owe an answer for too long; where restarts are expected, asks those that have been silent
    /// for as long whether they are still there, since nobody says so of a node that lost its power.
    pub(super) fn sweep(&mut self) {
        let timeout = self.settings.timeout.as_micros() as u64;
        for who in 0..self.connections.len() {
            let connection = &self.connections[who];
            let since = match connection.phase {
                Phase::Dialling | Phase::Authenticating | Phase::Resuming => connection.since,
                Phase::Live | Phase::Idle => match connection.pending.front() {
                    Some(oldest) => oldest.sent,
                    None => {
                        let silent = self.now.saturating_sub(connection.heard) > timeout;
                        if silent && self.settings.expect_restarts && connection.phase == Phase::Live {
                            self.to_probe.push(who);
                        }
                        continue;
                    }
                },
                Phase::Absent | Phase::Waiting | Phase::GivenUp => continue,
            };
            if self.now.saturating_sub(since) > timeout {
                self.lose(who, "a connection owed an answer for too long and was ended here");
            }
        }
    }
}
