//! Deliveries. Every member of a session is shown the same bytes, so a message is read and checked once; each further
//! copy of it is right if it is the same, and is the next that its connection was to get.

use super::state::State;
use crate::verify::{Heard, Source};
use crate::wire::{Msg, session_of_msg};

/// A message that was found right.
struct Known {
    seq: u64,
    due: u64,
    /// The sender's node when it came.
    node: u16,
    frame: Vec<u8>,
}

/// The last messages of a session that were found right.
pub(super) struct Recent(Vec<Known>);

impl Recent {
    pub(super) fn new(size: usize) -> Self {
        let nothing = || Known { seq: 0, due: 0, node: 0, frame: Vec::new() };
        Self(std::iter::repeat_with(nothing).take(size.max(1)).collect())
    }

    fn place(&self, seq: u64) -> usize {
        (seq % self.0.len() as u64) as usize
    }

    fn find(&self, seq: u64, frame: &[u8]) -> Option<&Known> {
        let known = &self.0[self.place(seq)];
        (known.seq == seq && known.frame == frame).then_some(known)
    }

    fn remember(&mut self, seq: u64, due: u64, node: u16, frame: &[u8]) {
        let place = self.place(seq);
        let known = &mut self.0[place];
        (known.seq, known.due, known.node) = (seq, due, node);
        known.frame.clear();
        known.frame.extend_from_slice(frame);
    }
}

impl State {
    /// Takes a frame that is the next of its session for this connection, and was checked before.
    pub(super) fn heard_before(&mut self, who: usize, json: &[u8]) -> bool {
        let Some(id) = session_of_msg(json) else { return false };
        let Some(place) = self.place(who, id) else { return false };
        let connection = &mut self.connections[who];
        let seat = &mut connection.seats[place];
        let seq = seat.delivered.last() + 1;
        let Some(known) = self.sessions[seat.session as usize].recent.find(seq, json) else { return false };
        seat.delivered.take(seq);
        self.tally.delivered += 1;
        self.measures.delivered(known.due, self.now, known.node == connection.node);
        true
    }

    /// Where a connection sits in a session.
    fn place(&self, who: usize, id: &[u8]) -> Option<usize> {
        let seats = &self.connections[who].seats;
        match seats.as_slice() {
            [] => None,
            [only] => (self.sessions[only.session as usize].id.as_bytes() == id).then_some(0),
            many => {
                let session = *self.by_id.get(std::str::from_utf8(id).ok()?)?;
                many.binary_search_by_key(&session, |seat| seat.session).ok()
            }
        }
    }

    /// A message that has to be looked at.
    pub(super) fn message(&mut self, who: usize, json: &[u8], msg: &Msg<'_>) {
        let Some(place) = self.place(who, msg.session_id.as_bytes()) else {
            self.astray(&msg.session_id);
            return;
        };
        let seat = &mut self.connections[who].seats[place];
        seat.delivered.take(msg.seq);
        let session = seat.session;
        self.tally.delivered += 1;
        let Some(source) = self.check(session, msg) else { return };
        self.ledger.seen(session, msg.seq, source);
        let node = self.connections[self.speakers[source.speaker as usize].connection].node;
        self.measures.delivered(source.due, self.now, node == self.connections[who].node);
        self.sessions[session as usize].recent.remember(msg.seq, source.due, node, json);
    }

    /// Which of the run's messages this is, if it is one and says what was said.
    pub(crate) fn check(&mut self, session: u32, msg: &Msg<'_>) -> Option<Source> {
        let Msg { sender_id, client_msg_id, .. } = msg;
        let client_msg_id = client_msg_id.as_deref();
        let source = self.ledger.identify(Heard { session, sender_id, client_msg_id })?;
        if self.texts.of(source.speaker, source.number) != msg.markdown_text {
            self.ledger.unreadable();
            return None;
        }
        Some(source)
    }

    /// An event that is no message: it has its place in the order, and nothing else is expected of it.
    pub(super) fn event(&mut self, who: usize, session_id: &str, seq: u64) {
        match self.place(who, session_id.as_bytes()) {
            Some(place) => self.connections[who].seats[place].delivered.take(seq),
            None => self.astray(session_id),
        }
    }

    /// Something of a session that the connection has no seat in.
    fn astray(&mut self, session_id: &str) {
        if self.by_id.contains_key(session_id) {
            self.fail("events of a session to who is no member of it");
        }
    }
}
