//! Requests of a scenario's own, to make sessions and to read histories, and their answers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use anyhow::{Result, bail};
use serde_json::value::RawValue;

use super::Engine;
use super::state::{Phase, Purpose};
use crate::stop;
use crate::wire::Refusal;

/// Requests under way at once: fewer than a session's mailbox holds.
const AT_ONCE: usize = 256;
/// How long a request waits that was refused for now, or has lost its connection: at first, and at most without a hint of
/// the server.
const AGAIN_AFTER_US: (u64, u64) = (50_000, 2_000_000);

/// A request of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) who: usize,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
    /// The refusal that says, of a request that was repeated because its answer was lost, that it had been done.
    pub(crate) done_if: Option<&'static str>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    #[error("{message} ({code})")]
    Refused { code: String, message: String, retryable: bool, retry_after_ms: u64 },
    /// The connection was not there.
    #[error("the connection is not there")]
    Absent,
    /// The connection ended before the answer.
    #[error("the connection ended")]
    Ended,
}

/// The questions that are open.
#[derive(Debug, Default)]
pub(super) struct Asks {
    next: u64,
    answered: HashMap<u64, Result<Box<RawValue>, AskError>>,
}

impl Asks {
    pub(super) fn answer(&mut self, ticket: u64, outcome: &Result<&RawValue, Refusal<'_>>) {
        let answer = match outcome {
            Ok(body) => Ok((*body).to_owned()),
            Err(Refusal { code, message, retryable, details }) => Err(AskError::Refused {
                code: code.to_string(),
                message: message.to_string(),
                retryable: *retryable,
                retry_after_ms: details.as_ref().and_then(|details| details.retry_after_ms).unwrap_or(0),
            }),
        };
        self.answered.insert(ticket, answer);
    }

    fn not_asked(&mut self, ticket: u64) {
        self.answered.insert(ticket, Err(AskError::Absent));
    }

    pub(super) fn end(&mut self, ticket: u64) {
        self.answered.insert(ticket, Err(AskError::Ended));
    }
}

impl Engine {
    /// Sends a request; its answer comes under the ticket.
    fn ask(&mut self, ask: &Ask) -> Result<u64> {
        let Ask { who, kind, ref body, .. } = *ask;
        let ticket = self.state.asks.next;
        self.state.asks.next += 1;
        match self.state.phase(who) {
            Phase::Idle | Phase::Live => {
                let outgoing = self.crowd.outgoing(who);
                self.state.send(who, kind, body, Purpose::Ask { ticket }, outgoing);
                self.crowd.flush(who)?;
            }
            Phase::Absent
            | Phase::Waiting
            | Phase::Dialling
            | Phase::Authenticating
            | Phase::Resuming
            | Phase::GivenUp => self.state.asks.not_asked(ticket),
        }
        Ok(ticket)
    }

    /// Asks, and waits for the answer.
    pub(crate) fn ask_one(&mut self, ask: &Ask) -> Result<Result<Box<RawValue>, AskError>> {
        let ticket = self.ask(ask)?;
        loop {
            if let Some(answer) = self.state.asks.answered.remove(&ticket) {
                return Ok(answer);
            }
            self.step()?; // which ends a connection that owes an answer for too long
        }
    }

    /// Asks many things, and gives their answers in the same order. What is refused for now or has lost its connection is
    /// asked again, for as long as a connection tries to come back; anything else that goes wrong ends it.
    pub(crate) fn ask_all(&mut self, asks: &[Ask]) -> Result<Vec<Box<RawValue>>> {
        let mut answers: Vec<Option<Box<RawValue>>> = Vec::new();
        answers.resize_with(asks.len(), || None);
        let mut waiting: BinaryHeap<Reverse<(u64, usize)>> = (0..asks.len()).map(|nth| Reverse((0, nth))).collect();
        let mut open: HashMap<u64, usize> = HashMap::new();
        let mut troubles: HashMap<usize, Trouble> = HashMap::new();
        while !(waiting.is_empty() && open.is_empty()) {
            if stop::asked() {
                bail!("stopped while setting up");
            }
            while open.len() < AT_ONCE
                && let Some(&Reverse((at, nth))) = waiting.peek()
                && at <= self.state.now()
            {
                waiting.pop();
                open.insert(self.ask(&asks[nth])?, nth);
            }
            self.step()?;
            for (ticket, answer) in std::mem::take(&mut self.state.asks.answered) {
                let Some(nth) = open.remove(&ticket) else { continue };
                let Ask { who, kind, done_if, .. } = asks[nth];
                let was_lost = troubles.get(&nth).is_some_and(|trouble| trouble.answer_lost);
                match answer {
                    Ok(body) => answers[nth] = Some(body),
                    Err(AskError::Refused { code, .. }) if was_lost && done_if == Some(code.as_str()) => {
                        answers[nth] = Some(RawValue::from_string("{}".to_owned())?);
                    }
                    Err(error @ AskError::Refused { retryable: false, .. }) => bail!("{kind} was refused: {error}"),
                    Err(error) => {
                        let now = self.state.now();
                        let trouble = troubles.entry(nth).or_insert_with(|| Trouble::begun(now));
                        let patience = self.state.settings.give_up;
                        let over = now > trouble.since + patience.as_micros() as u64;
                        if over || self.state.phase(who) == Phase::GivenUp {
                            bail!("{kind} could not be done within {} s: {error}", patience.as_secs_f64());
                        }
                        waiting.push(Reverse((trouble.again(&error, now), nth)));
                    }
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

/// What a request has met with that is not answered yet.
struct Trouble {
    since: u64,
    attempt: u32,
    /// Its connection ended, and nobody knows whether it was done.
    answer_lost: bool,
}

impl Trouble {
    const fn begun(since: u64) -> Self {
        Self { since, attempt: 0, answer_lost: false }
    }

    /// When to ask again.
    fn again(&mut self, error: &AskError, now: u64) -> u64 {
        let (first, most) = AGAIN_AFTER_US;
        let wait = (first << self.attempt.min(10)).min(most);
        self.attempt += 1;
        match error {
            AskError::Refused { retry_after_ms, .. } => now + wait.max((*retry_after_ms).min(60_000) * 1000),
            AskError::Absent => now + wait,
            AskError::Ended => {
                self.answer_lost = true;
                now + wait
            }
        }
    }
}
