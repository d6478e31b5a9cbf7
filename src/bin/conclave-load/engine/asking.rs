//! Requests of a scenario's own, to make sessions and to read histories, and their answers.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::value::RawValue;

use super::Engine;
use super::state::{Phase, Purpose};
use crate::stop;
use crate::wire::Refusal;

/// Requests under way at once: fewer than a session's mailbox holds.
const AT_ONCE: usize = 256;
/// How often a request is sent while it is refused for now.
const ATTEMPTS: u32 = 20;
/// How long such a request waits.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A request of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) who: usize,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    #[error("{message} ({code})")]
    Refused { code: String, message: String, retryable: bool },
    /// The connection is not there, or ended before the answer.
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
            Err(Refusal { code, message, retryable, .. }) => {
                Err(AskError::Refused { code: code.to_string(), message: message.to_string(), retryable: *retryable })
            }
        };
        self.answered.insert(ticket, answer);
    }

    pub(super) fn end(&mut self, ticket: u64) {
        self.answered.insert(ticket, Err(AskError::Ended));
    }
}

impl Engine {
    /// Sends a request; its answer comes under the ticket.
    fn ask(&mut self, ask: &Ask) -> Result<u64> {
        let Ask { who, kind, ref body } = *ask;
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
            | Phase::GivenUp => self.state.asks.end(ticket),
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

    /// Asks many things, and gives their answers in the same order. What is refused for now is asked again; anything
    /// else that goes wrong ends it.
    pub(crate) fn ask_all(&mut self, asks: &[Ask]) -> Result<Vec<Box<RawValue>>> {
        let mut answers: Vec<Option<Box<RawValue>>> = Vec::new();
        answers.resize_with(asks.len(), || None);
        let mut waiting: VecDeque<(usize, u32)> = (0..asks.len()).map(|nth| (nth, 1)).collect();
        let mut open: HashMap<u64, (usize, u32)> = HashMap::new();
        let mut pause = 0;
        while !(waiting.is_empty() && open.is_empty()) {
            if stop::asked() {
                bail!("stopped while setting up");
            }
            while open.len() < AT_ONCE
                && self.state.now() >= pause
                && let Some((nth, attempt)) = waiting.pop_front()
            {
                open.insert(self.ask(&asks[nth])?, (nth, attempt));
            }
            self.step()?;
            for (ticket, answer) in std::mem::take(&mut self.state.asks.answered) {
                let Some((nth, attempt)) = open.remove(&ticket) else { continue };
                match answer {
                    Ok(body) => answers[nth] = Some(body),
                    Err(AskError::Refused { retryable: true, .. }) if attempt < ATTEMPTS => {
                        waiting.push_back((nth, attempt + 1));
                        pause = self.state.now() + AGAIN_AFTER.as_micros() as u64;
                    }
                    Err(error) => bail!("{} was refused: {error}", asks[nth].kind),
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}
