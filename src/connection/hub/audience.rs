//! The connections of one worker thread that hear one session.
//!
//! Invariant: `known_seq` is the greatest `seq` that came by; a seat that is live has been pushed every event up to its
//! own last one.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::cluster::{Effect, Row};
use crate::connection::catch_up::{Offer, Standing};
use crate::connection::link::Link;
use crate::protocol::{Frame, SessionId, UserId};

use super::after::After;

/// The audience of one session.
#[derive(Default)]
pub(super) struct Audience {
    /// The version of the last publication that came by.
    delivered: Option<u64>,
    /// A version that the store had when this thread listened already.
    baseline: Option<u64>,
    pub(super) known_seq: u64,
    seats: BTreeMap<u64, Seat>,
}

/// One connection's place in an audience.
pub(super) struct Seat {
    pub(super) link: Rc<Link>,
    pub(super) user_id: UserId,
    pub(super) standing: Standing,
}

/// The most that is joined: the server copies a piece for each socket that does not take it at once.
const RUN_BYTES: usize = 16 * 1024;

/// Events that follow each other and change nobody's seat.
pub(super) struct Run<'a> {
    first: u64,
    frames: Vec<&'a Frame>,
    bytes: usize,
}

impl<'a> Run<'a> {
    /// The events that `rows` begin with, if there are several that go as one; and the rows behind them.
    pub(super) fn take(rows: &'a [Row]) -> Option<(Self, &'a [Row])> {
        let mut run = Self { first: 0, frames: Vec::new(), bytes: 0 };
        for row in rows {
            let Row::Event { seq, effect: Effect::None, frame } = row else { break };
            if run.frames.is_empty() {
                run.first = *seq;
            } else if *seq != run.last() + 1 || run.bytes + frame.len() > RUN_BYTES {
                break;
            }
            run.frames.push(frame);
            run.bytes += frame.len();
        }
        let rest = &rows[run.frames.len()..];
        (run.frames.len() > 1).then_some((run, rest))
    }

    fn last(&self) -> u64 {
        self.first + self.frames.len() as u64 - 1
    }

    fn joined(&self) -> Bytes {
        let mut joined = BytesMut::with_capacity(self.bytes);
        self.frames.iter().for_each(|frame| joined.extend_from_slice(frame.bytes()));
        joined.freeze()
    }
}

/// What a publication's version says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Next,
    Old,
    /// Some before it were lost.
    Gap,
}

impl Audience {
    /// Takes a publication's version in.
    pub(super) fn turn(&mut self, version: u64) -> Turn {
        let turn = match (self.delivered, self.baseline) {
            (Some(delivered), _) if version <= delivered => return Turn::Old,
            (Some(delivered), _) if version == delivered + 1 => Turn::Next,
            (Some(_), _) => Turn::Gap,
            // What the baseline includes may still be on its way with rows that no one has read.
            (None, Some(baseline)) if version > baseline + 1 => Turn::Gap,
            (None, _) => Turn::Next,
        };
        self.delivered = Some(version);
        turn
    }

    /// The store has the session at `version`, and this thread listens.
    pub(super) fn set_baseline(&mut self, version: u64) {
        self.baseline = Some(self.baseline.map_or(version, |known| known.max(version)));
    }

    /// The session is known to stand at `version` (none: it has ended); whether something before that was missed.
    pub(super) fn has_missed(&mut self, version: Option<u64>) -> bool {
        let missed = version.is_none_or(|version| !self.stands_at(version));
        if missed {
            self.delivered = self.delivered.max(version);
        }
        missed
    }

    /// Whether the session is known to stand at `version` or later.
    pub(super) fn stands_at(&self, version: u64) -> bool {
        self.delivered.max(self.baseline) >= Some(version)
    }

    /// Whether everything up to `version` came by here.
    pub(super) fn has_delivered(&self, version: u64) -> bool {
        self.delivered.is_some_and(|delivered| delivered >= version)
    }

    pub(super) fn seat(&mut self, link: &Link) -> Option<&mut Seat> {
        self.seats.get_mut(&link.key.serial)
    }

    pub(super) fn add(&mut self, link: &Rc<Link>, user_id: UserId, standing: Standing) {
        self.seats.insert(link.key.serial, Seat { link: Rc::clone(link), user_id, standing });
    }

    pub(super) fn remove(&mut self, serial: u64) {
        self.seats.remove(&serial);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Sends every live seat back to the store.
    pub(super) fn fall_back(&mut self, session_id: SessionId, after: &mut After) {
        for seat in self.seats.values_mut() {
            if seat.standing.fall_back() {
                after.behind.push((Rc::clone(&seat.link), session_id));
            }
            seat.link.inbox.borrow_mut().stir();
            after.inbox.push(Rc::clone(&seat.link));
        }
    }

    /// Pushes an event to whoever is live, and lets go of those whose last one it is.
    pub(super) fn event(
        &mut self,
        session_id: SessionId,
        (seq, effect): (u64, Effect),
        frame: &Frame,
        after: &mut After,
    ) {
        self.known_seq = self.known_seq.max(seq);
        let mut over = Vec::new();
        for (serial, seat) in &mut self.seats {
            match seat.standing.offer(seq) {
                Offer::Push => {
                    after.pushed += 1;
                    if seat.link.push(frame).is_err() {
                        after.doomed.push(Rc::clone(&seat.link));
                    }
                    let last = match effect {
                        Effect::None | Effect::Joined(_) => false,
                        Effect::Left(user_id) => seat.user_id == user_id,
                        Effect::Ended => true,
                    };
                    if last {
                        over.push(*serial);
                    }
                }
                Offer::Missing => after.behind.push((Rc::clone(&seat.link), session_id)),
                Offer::Drop => {}
            }
        }
        for serial in over {
            if let Some(seat) = self.seats.remove(&serial) {
                seat.link.seats.borrow_mut().remove(&session_id);
            }
        }
    }

    /// Pushes events that follow each other and change nobody's seat: to whoever is live as one piece, so that a burst
    /// costs each of them no more than a single event does.
    pub(super) fn run(&mut self, session_id: SessionId, run: &Run<'_>, after: &mut After) {
        let (first, last) = (run.first, run.last());
        self.known_seq = self.known_seq.max(last);
        let joined = run.joined();
        for seat in self.seats.values_mut() {
            match seat.standing.offer_run(first, last) {
                Some(Offer::Push) => {
                    after.pushed += run.frames.len() as u64;
                    if seat.link.push_bytes(&joined).is_err() {
                        after.doomed.push(Rc::clone(&seat.link));
                    }
                }
                Some(Offer::Missing) => after.behind.push((Rc::clone(&seat.link), session_id)),
                Some(Offer::Drop) => {}
                None => {
                    for (seq, frame) in (first..).zip(&run.frames) {
                        if seat.standing.offer(seq) == Offer::Push {
                            after.pushed += 1;
                            if seat.link.push(frame).is_err() {
                                after.doomed.push(Rc::clone(&seat.link));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Pushes what is never stored to everyone who is live but `by`.
    pub(super) fn typing(&self, by: UserId, frame: &Frame, after: &mut After) {
        for seat in self.seats.values() {
            if seat.user_id != by && matches!(seat.standing, Standing::Live { .. }) && seat.link.push(frame).is_err() {
                after.doomed.push(Rc::clone(&seat.link));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_one_by_one_or_a_gap_is_seen() {
        let mut audience = Audience::default();
        assert_eq!(audience.turn(7), Turn::Next, "the first one says where things are");
        assert_eq!(audience.turn(7), Turn::Old);
        assert_eq!(audience.turn(6), Turn::Old);
        assert_eq!(audience.turn(8), Turn::Next);
        assert_eq!(audience.turn(10), Turn::Gap);
        assert_eq!(audience.turn(9), Turn::Old);
        assert_eq!(audience.turn(11), Turn::Next);
    }

    #[test]
    fn where_a_session_stands_shows_what_was_lost() {
        let mut audience = Audience::default();
        audience.set_baseline(5);
        assert!(!audience.has_missed(Some(5)), "read from the store");
        assert_eq!(audience.turn(6), Turn::Next);
        assert!(!audience.has_missed(Some(6)));
        assert!(audience.has_missed(Some(8)));
        assert_eq!(audience.turn(8), Turn::Old, "read from the store by now");
        assert_eq!(audience.turn(9), Turn::Next);
        assert!(audience.has_missed(None), "it has ended, and nobody said so");
    }

    #[test]
    fn a_baseline_shows_what_was_lost_before_the_first() {
        let mut audience = Audience::default();
        audience.set_baseline(5);
        assert_eq!(audience.turn(7), Turn::Gap);
        let mut audience = Audience::default();
        audience.set_baseline(5);
        assert_eq!(audience.turn(5), Turn::Next, "on its way while the store was read");
        assert_eq!(audience.turn(6), Turn::Next);
        assert!(audience.has_delivered(6) && !audience.has_delivered(7));
    }
}
