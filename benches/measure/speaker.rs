//! A member who speaks: keeps a number of messages in flight, and remembers what each was acknowledged with.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::wire::{Outgoing, Reply};

/// A message that has not been answered.
struct Waiting {
    id: u64,
    number: usize,
    since: Instant,
}

/// One sender in one session. Its messages are numbered from 0; the number is their `client_msg_id`.
pub(crate) struct Speaker {
    session_id: String,
    text: String,
    pub(crate) in_flight: usize,
    waiting: VecDeque<Waiting>,
    next: usize,
    /// It stops before this number.
    pub(crate) end: usize,
    /// What each message was acknowledged with.
    pub(crate) seqs: Vec<Option<u64>>,
    pub(crate) acknowledged: u64,
    pub(crate) latencies: Vec<Duration>,
}

#[derive(Deserialize)]
struct Sent {
    seq: u64,
}

impl Speaker {
    pub(crate) fn new(session_id: &str, text_bytes: usize, in_flight: usize) -> Self {
        Self {
            session_id: session_id.to_owned(),
            text: "x".repeat(text_bytes),
            in_flight,
            waiting: VecDeque::new(),
            next: 0,
            end: usize::MAX,
            seqs: Vec::new(),
            acknowledged: 0,
            latencies: Vec::new(),
        }
    }

    /// Says as much as may be in flight.
    pub(crate) fn speak(&mut self, outgoing: &mut Outgoing) {
        while self.waiting.len() < self.in_flight && self.next < self.end {
            let number = self.next;
            self.next += 1;
            if self.seqs.get(number).is_some_and(Option::is_some) {
                continue;
            }
            let body = format!(
                r#"{{"session_id":"{}","markdown_text":"{}","is_encrypted":false,"client_msg_id":"{number}"}}"#,
                self.session_id, self.text
            );
            let id = outgoing.request("send_msg", &body);
            self.waiting.push_back(Waiting { id, number, since: Instant::now() });
        }
    }

    /// Takes an acknowledgement and goes on speaking.
    pub(crate) fn answered(&mut self, reply: &Reply<'_>, outgoing: &mut Outgoing) -> Result<()> {
        let Sent { seq } = reply.body()?;
        let at = self.waiting.iter().position(|waiting| Some(waiting.id) == reply.reply_to);
        let waiting = at.and_then(|at| self.waiting.remove(at)).context("an answer that nobody asked for")?;
        if self.seqs.len() <= waiting.number {
            self.seqs.resize(waiting.number + 1, None);
        }
        self.seqs[waiting.number] = Some(seq);
        self.acknowledged += 1;
        self.latencies.push(waiting.since.elapsed());
        self.speak(outgoing);
        Ok(())
    }

    /// Says nothing new.
    pub(crate) fn stop(&mut self) {
        self.end = self.next;
    }

    /// Goes on after [`stop`](Self::stop).
    pub(crate) fn go_on(&mut self) {
        self.end = usize::MAX;
    }

    /// Forgets what was under way on a connection that has died: it will be said again, under the same ids.
    pub(crate) fn start_over(&mut self) {
        if let Some(first) = self.waiting.drain(..).map(|waiting| waiting.number).min() {
            self.next = first;
        }
    }

    /// Whether everything said was answered, and all was said.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.next >= self.end
    }

    /// The greatest `seq` that an answer named.
    pub(crate) fn head(&self) -> u64 {
        self.seqs.iter().flatten().copied().max().unwrap_or(0)
    }
}

/// Median and 99th percentile.
pub(crate) fn percentiles(mut latencies: Vec<Duration>) -> (Duration, Duration) {
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    (at(0.5), at(0.99))
}
