//! Messages: due, sent, acknowledged, refused, said again.
//!
//! A message that has no answer when its connection ends is said again on the next one under the same `client_msg_id`,
//! before what came later; so is one that was refused for now, after a while.

use std::cmp::Reverse;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::pace::{Pace, Schedule};
use super::state::{Phase, Purpose, State};
use crate::wire::{Outgoing, Refusal};

/// Messages without an answer; beyond it the next ones wait, and are late.
const MOST_OPEN: u64 = 200_000;
/// How long a refused message waits without a hint of the server; doubles up to the second number.
const REPEAT_AFTER_US: (u64, u64) = (100_000, 2_000_000);

#[derive(Deserialize)]
struct Sent {
    seq: u64,
}

impl State {
    /// Begins to speak.
    pub(crate) fn start_speaking(&mut self, pace: Pace) {
        self.look_at_the_clock();
        self.pace = Some(pace);
        self.schedule = Schedule::of(pace, self.now);
        if let Pace::Closed { in_flight } = pace {
            for speaker in 0..self.speakers.len() as u32 {
                (0..in_flight).for_each(|_| self.say(speaker, self.now));
            }
        }
    }

    /// Says nothing new.
    pub(crate) fn stop_speaking(&mut self) {
        (self.pace, self.schedule) = (None, None);
    }

    /// Messages that are neither acknowledged nor turned away.
    pub(crate) const fn open(&self) -> u64 {
        self.open
    }

    /// Says what is due by now.
    pub(super) fn pace(&mut self) {
        while self.open < MOST_OPEN
            && let Some(schedule) = &mut self.schedule
            && let Some((number, due)) = schedule.take(self.now)
        {
            self.measures.paced(due, self.now);
            let speakers = self.speakers.len() as u64;
            if speakers > 0 {
                self.say((number % speakers) as u32, due);
            }
        }
    }

    fn say(&mut self, speaker: u32, due: u64) {
        let number = self.ledger.say(speaker, due);
        self.open += 1;
        let who = self.speakers[speaker as usize].connection;
        self.connections[who].unsent.push_back((speaker, number));
        self.mark_dirty(who);
    }

    /// Sends what a connection has to say, as far as the node takes it; one that is idle resumes first.
    pub(super) fn speak(&mut self, who: usize, outgoing: &mut Outgoing) {
        match self.connections[who].phase {
            Phase::Live => {}
            Phase::Idle if self.serving => return self.resume(who, outgoing),
            Phase::Idle
            | Phase::Absent
            | Phase::Waiting
            | Phase::Dialling
            | Phase::Authenticating
            | Phase::Resuming
            | Phase::GivenUp => return,
        }
        while self.connections[who].pending.len() < self.connections[who].limit
            && let Some((speaker, number)) = self.connections[who].unsent.pop_front()
        {
            let session_id = &self.sessions[self.speakers[speaker as usize].session as usize].id;
            let text = self.texts.of(speaker, number);
            let client_msg_id = self.ledger.client_msg_id(speaker, number);
            let body = format!(
                r#"{{"session_id":"{session_id}","markdown_text":"{text}","is_encrypted":false,"client_msg_id":"{client_msg_id}"}}"#
            );
            if self.ledger.send(speaker, number) {
                self.tally.sent += 1;
                self.measures.sent();
            }
            self.send(who, "send_msg", &body, Purpose::Say { speaker, number }, outgoing);
        }
    }

    pub(super) fn answered(&mut self, who: usize, speaker: u32, number: u32, outcome: &Result<&RawValue, Refusal<'_>>) {
        match outcome {
            Ok(body) => match serde_json::from_str(body.get()) {
                Ok(Sent { seq }) => self.acknowledged(who, speaker, number, seq),
                Err(_) => self.turned_away("answers to send_msg without a seq"),
            },
            Err(refusal) => self.refused(who, speaker, number, refusal),
        }
    }

    fn acknowledged(&mut self, who: usize, speaker: u32, number: u32, seq: u64) {
        self.connections[who].refused_in_row = 0;
        let waited = self.ledger.acknowledge(speaker, number, seq, self.now);
        self.measures.acknowledged(self.now - waited, waited);
        self.tally.acknowledged += 1;
        self.open -= 1;
        self.say_next(speaker);
    }

    fn say_next(&mut self, speaker: u32) {
        if matches!(self.pace, Some(Pace::Closed { .. })) {
            self.say(speaker, self.now);
        }
    }

    fn turned_away(&mut self, why: &str) {
        self.fail(why);
        self.tally.turned_away += 1;
        self.open -= 1;
    }

    fn refused(&mut self, who: usize, speaker: u32, number: u32, refusal: &Refusal<'_>) {
        self.ledger.repeat(speaker, number);
        self.measures.refused();
        self.tally.refuse(&refusal.code);
        if !refusal.retryable {
            self.turned_away(&format!("send_msg was refused with {}", refusal.code));
            self.say_next(speaker);
            return;
        }
        let connection = &mut self.connections[who];
        let (first, most) = REPEAT_AFTER_US;
        let wait = (first << connection.refused_in_row.min(10)).min(most);
        connection.refused_in_row += 1;
        let hint = refusal.details.as_ref().and_then(|details| details.retry_after_ms).unwrap_or(0);
        let at = self.now + wait.max(hint.min(60_000) * 1000);
        self.to_repeat.push(Reverse((at, speaker, number)));
    }

    /// Says again what was refused and has waited long enough.
    pub(super) fn say_again(&mut self) {
        while let Some(&Reverse((at, speaker, number))) = self.to_repeat.peek()
            && at <= self.now
        {
            self.to_repeat.pop();
            let who = self.speakers[speaker as usize].connection;
            self.connections[who].unsent.push_back((speaker, number));
            self.mark_dirty(who);
        }
    }
}
