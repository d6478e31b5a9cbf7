//! How commands for a session reach the one node that it lives on: in order, and each at most once as far as that is
//! known. PURE.
//!
//! A node's calls to one session are a line: each names the one before it, so that the receiver sees what was lost, and
//! what came twice. A receiver that did not take a call takes no more of that line, and the sender begins another one.
//! [`Calls`] is the sender's end, [`Line`] the receiver's. The numbers of calls only grow, in the order in which the
//! commands were submitted, and so do those of lines.
//!
//! Invariants: a receiver takes each call once, and only behind the one before it; an answer is given to the caller
//! once; what may have been taken by one owner is told to the next one only where that does no harm. Assumed: no message
//! is under way for so long that its session moves away from the receiver and back to it.

use std::collections::{BTreeMap, VecDeque};

use super::call::CallId;
use crate::protocol::NodeId;

/// Milliseconds without an answer after which a call is sent again.
pub const RESEND_MS: u64 = 1000;

/// Milliseconds without an answer after which the store is asked who owns the session.
pub const DOUBT_MS: u64 = 1500;

/// Milliseconds in which the answer of a former owner may still be on its way.
pub const LATE_MS: u64 = 1000;

/// One command that waits for its answer, or for its turn.
#[derive(Debug)]
pub struct Pending<T> {
    /// Its number.
    pub id: CallId,
    /// The command, and whom to answer.
    pub item: T,
    /// Milliseconds, by the node's own clock, when it was submitted.
    pub since: u64,
    /// Where it was sent, if it may have been taken there.
    sent: Option<Sent>,
    /// A former owner may have taken it, and it must not be told twice: it only waits for that answer, until then.
    late: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    owner: NodeId,
    line: CallId,
    after: CallId,
    /// When last.
    at: u64,
}

/// The line that calls are sent in.
#[derive(Clone, Copy, Debug)]
struct Course {
    owner: NodeId,
    line: CallId,
    last: CallId,
}

/// A node's commands for one session that it does not own, in the order of their numbers.
#[derive(Debug)]
pub struct Calls<T> {
    pending: VecDeque<Pending<T>>,
    course: Option<Course>,
}

impl<T> Default for Calls<T> {
    fn default() -> Self {
        Self { pending: VecDeque::new(), course: None }
    }
}

/// A call's place in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// Its number.
    pub id: CallId,
    /// The number of its line.
    pub line: CallId,
    /// The number of the call before it in its line; 0: it is the first.
    pub after: CallId,
    /// All calls of the sender to this session up to here are answered.
    pub settled: CallId,
}

/// A call to be sent now.
#[derive(Debug, PartialEq, Eq)]
pub struct ToSend<'a, T> {
    /// Its place.
    pub ticket: Ticket,
    /// The command.
    pub item: &'a T,
}

impl<T> Calls<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes a command in; its number is greater than all before.
    pub fn push(&mut self, id: CallId, item: T, now: u64) {
        self.pending.push_back(Pending { id, item, since: now, sent: None, late: None });
    }

    /// What waits, in order.
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Pending<T>> {
        self.pending.iter_mut()
    }

    /// The calls that have not been sent to `owner`, now on their way, in order. `new_line`: the number of the line that
    /// they begin, if they begin one.
    pub fn send_to(&mut self, owner: NodeId, now: u64, new_line: CallId) -> Vec<ToSend<'_, T>> {
        let settled = self.settled();
        let course = self.course.filter(|course| course.owner == owner);
        let mut course = course.unwrap_or(Course { owner, line: new_line, last: 0 });
        let mut sending = Vec::new();
        for call in self.pending.iter_mut().filter(|call| call.sent.is_none() && call.late.is_none()) {
            let (line, after) = (course.line, course.last);
            call.sent = Some(Sent { owner, line, after, at: now });
            sending.push(ToSend { ticket: Ticket { id: call.id, line, after, settled }, item: &call.item });
            course.last = call.id;
        }
        self.course = Some(course).filter(|course| course.last > 0);
        sending
    }

    /// Everything before the first that waits is answered.
    fn settled(&self) -> CallId {
        self.pending.front().map_or(CallId::MAX, |first| first.id - 1)
    }

    /// The answer to a call has come; none if it had come before.
    pub fn answered(&mut self, id: CallId) -> Option<Pending<T>> {
        let index = self.pending.binary_search_by_key(&id, |call| call.id).ok()?;
        self.pending.remove(index)
    }

    /// `owner` says that of this line it did not take the calls from `from` on: they wait for their turn again. Whether
    /// there are any.
    pub fn not_taken(&mut self, owner: NodeId, line: CallId, from: CallId) -> bool {
        self.course.take_if(|course| course.owner == owner && course.line == line);
        let mut any = false;
        for call in self.pending.iter_mut().filter(|call| call.id >= from) {
            if call.sent.is_some_and(|sent| sent.owner == owner && sent.line == line) {
                call.sent = None;
                any = true;
            }
        }
        any
    }

    /// The session's owner is `now_owner` and not whom calls were sent to before. What may have been taken there and is
    /// not `repeatable` only waits for that answer; the rest waits for its turn again.
    pub fn moved(&mut self, now_owner: NodeId, now: u64, repeatable: impl Fn(&T) -> bool) {
        self.course.take_if(|course| course.owner != now_owner);
        for call in &mut self.pending {
            if call.sent.is_some_and(|sent| sent.owner != now_owner) {
                call.sent = None;
                if !repeatable(&call.item) {
                    call.late = Some(now + LATE_MS);
                }
            }
        }
    }

    /// The session lives here now: takes out, in order, what is to be told to it.
    pub fn take_home(&mut self) -> Vec<T> {
        self.course = None;
        let (home, late) = std::mem::take(&mut self.pending).into_iter().partition(|call| call.late.is_none());
        self.pending = late;
        let home: VecDeque<Pending<T>> = home;
        home.into_iter().map(|call| call.item).collect()
    }

    /// Takes out those that have waited `deadline` milliseconds, or whose late answer did not come.
    pub fn expire(&mut self, now: u64, deadline: u64) -> Vec<Pending<T>> {
        let over =
            |call: &Pending<T>| now.saturating_sub(call.since) >= deadline || call.late.is_some_and(|at| at <= now);
        if !self.pending.iter().any(over) {
            return Vec::new();
        }
        let (expired, left) = std::mem::take(&mut self.pending).into_iter().partition(over);
        self.pending = left;
        let expired: VecDeque<Pending<T>> = expired;
        expired.into()
    }

    /// The oldest call if it has gone unanswered for long: to be sent again as it was. The receiver knows what it has.
    pub fn resend(&mut self, now: u64) -> Option<(NodeId, ToSend<'_, T>)> {
        let settled = self.settled();
        let call = self.pending.iter_mut().find(|call| call.sent.is_some())?;
        let sent = call.sent.as_mut()?;
        if now.saturating_sub(sent.at) < RESEND_MS {
            return None;
        }
        sent.at = now;
        let Sent { owner, line, after, .. } = *sent;
        Some((owner, ToSend { ticket: Ticket { id: call.id, line, after, settled }, item: &call.item }))
    }

    /// How long the oldest call that was sent waits, in milliseconds.
    pub fn unanswered_for(&self, now: u64) -> Option<u64> {
        self.pending.iter().find(|call| call.sent.is_some()).map(|call| now.saturating_sub(call.since))
    }

    /// Takes out everything.
    pub fn drain(&mut self) -> Vec<T> {
        self.course = None;
        std::mem::take(&mut self.pending).into_iter().map(|call| call.item).collect()
    }

    /// Takes out what `which` says, in order.
    pub fn extract(&mut self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let (out, left) = std::mem::take(&mut self.pending).into_iter().partition(|call| which(&call.item));
        self.pending = left;
        let out: VecDeque<Pending<T>> = out;
        out.into_iter().map(|call| call.item).collect()
    }
}

/// What the receiver makes of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival<A> {
    /// To be taken.
    New,
    /// It was taken, and this was answered.
    Answered(A),
    /// It was taken, and is not answered yet or was long ago.
    Known,
    /// Calls of its line, from this number on, are not taken: the sender begins another line with them.
    Refused(CallId),
}

/// The receiver's end: one node's calls to one session.
#[derive(Debug)]
pub struct Line<A> {
    /// The number of the line.
    line: CallId,
    /// Whether a call of it was not taken: then no further one is.
    broken: bool,
    /// The last call that was taken.
    last: CallId,
    /// The sender is done with everything up to here.
    settled: CallId,
    answers: BTreeMap<CallId, Option<A>>,
    /// Milliseconds, by the node's own clock, when a call came last.
    pub heard: u64,
}

impl<A> Default for Line<A> {
    fn default() -> Self {
        Self { line: 0, broken: false, last: 0, settled: 0, answers: BTreeMap::new(), heard: 0 }
    }
}

impl<A: Clone> Line<A> {
    /// A call has come.
    pub fn arrive(&mut self, ticket: Ticket, now: u64) -> Arrival<A> {
        let Ticket { id, line, after, settled } = ticket;
        self.heard = now;
        self.settled = self.settled.max(settled.min(id - 1));
        while self.answers.first_key_value().is_some_and(|(known, _)| *known <= self.settled) {
            self.answers.pop_first();
        }
        if id <= self.last.max(self.settled) {
            return match self.answers.get(&id) {
                Some(Some(answer)) => Arrival::Answered(answer.clone()),
                Some(None) | None => Arrival::Known,
            };
        }
        if line < self.line {
            // Late: the sender was told that it was not taken, and has begun another line.
            return Arrival::Known;
        }
        let next = if line > self.line { after == 0 } else { !self.broken && after == self.last };
        self.line = line;
        self.broken = !next;
        if !next {
            return Arrival::Refused(self.last + 1);
        }
        self.last = id;
        self.answers.insert(id, None);
        Arrival::New
    }

    /// The call's answer is on its way: kept, in case it is lost.
    pub fn answer(&mut self, id: CallId, answer: A) {
        if let Some(place) = self.answers.get_mut(&id) {
            *place = Some(answer);
        }
    }

    /// The call was not taken after all, nor any behind it.
    pub fn give_back(&mut self, id: CallId) {
        self.last = self.last.min(id - 1);
        self.broken = true;
        self.answers.split_off(&id);
    }
}

#[cfg(test)]
mod tests;
