//! Where a connection's events of a session go on: the rules of `resume`, and of live events. PURE.
//!
//! Invariant: `seq` by `seq`, each event is pushed once, after the one before it; whatever is missing in between is
//! read from the store.

use crate::protocol::{Cursor, ResumedSession, SessionOverview, UserId};
use crate::store::EventRow;

/// Where the events of one session of the user go on after `resume`.
pub(super) fn plan(session: &SessionOverview, cursor: Option<&Cursor>) -> ResumedSession {
    let SessionOverview { session_id, first_seq, last_seq, acked_seq, .. } = *session;
    let from_start = first_seq.max(1);
    let (have, foreign) = match cursor {
        Some(cursor) => (cursor.seq, cursor.log.as_ref().is_some_and(|log| *log != session.log)),
        None => (acked_seq, false),
    };
    // An `acked_seq` ahead of the session is of a history that a restored backup does not have.
    let reset = foreign || have > last_seq;
    let from_seq = if reset { from_start } else { (have + 1).max(from_start) };
    ResumedSession { session_id, from_seq, reset }
}

/// How a connection stands to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Before `resume`: nothing is sent.
    Held,
    /// Events after `cursor` are read from the store.
    CatchingUp {
        /// The last event that was pushed.
        cursor: u64,
    },
    /// Events are pushed as they come.
    Live {
        /// The last event that was pushed.
        last: u64,
    },
}

/// What to do with an event that has just come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// It was pushed before, or will be read from the store.
    Drop,
    /// Push it.
    Push,
    /// Events before it are missing: the store has them, and this one.
    Missing,
}

impl Standing {
    /// Offers the event `seq`.
    pub(super) fn offer(&mut self, seq: u64) -> Offer {
        match self {
            Self::Held | Self::CatchingUp { .. } => Offer::Drop,
            Self::Live { last } if seq <= *last => Offer::Drop,
            Self::Live { last } if seq == *last + 1 => {
                *last = seq;
                Offer::Push
            }
            Self::Live { last } => {
                *self = Self::CatchingUp { cursor: *last };
                Offer::Missing
            }
        }
    }

    /// Offers the events from `first` to `last` as one; `None` where some of them were pushed before, and others not.
    pub(super) fn offer_run(&mut self, first: u64, last: u64) -> Option<Offer> {
        match self {
            Self::Live { last: pushed } if *pushed + 1 == first => {
                *pushed = last;
                Some(Offer::Push)
            }
            Self::Live { last: pushed } if (first..last).contains(pushed) => None,
            Self::Live { .. } | Self::Held | Self::CatchingUp { .. } => Some(self.offer(last)),
        }
    }

    /// A page was pushed whose last event is `cursor`; `known` is the greatest `seq` that the hub has seen.
    pub(super) fn advance(&mut self, cursor: u64, more: bool, known: u64) {
        *self = if more || known > cursor { Self::CatchingUp { cursor } } else { Self::Live { last: cursor } };
    }

    /// Goes back to the store, if live.
    pub(super) fn fall_back(&mut self) -> bool {
        let Self::Live { last } = *self else { return false };
        *self = Self::CatchingUp { cursor: last };
        true
    }
}

/// The index of the event in `rows` that is the last one for `user_id`: their own leaving, or the session's end.
pub(super) fn own_ending(rows: &[EventRow], user_id: UserId) -> Option<usize> {
    #[derive(serde::Deserialize)]
    struct Wire {
        body: Body,
    }
    #[derive(serde::Deserialize)]
    struct Body {
        user_id: UserId,
    }
    rows.iter().position(|row| {
        // The type is what every event's text begins with: a message cannot look like another type.
        row.json.starts_with(r#"{"type":"SessionDeleted""#)
            || (row.json.starts_with(r#"{"type":"MemberLeft""#)
                && serde_json::from_str(&row.json).is_ok_and(|wire: Wire| wire.body.user_id == user_id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        Happening, LeftReason, MemberLeft, Role, SessionDeleted, SessionEvent, SessionId, Timestamp,
    };

    fn overview(first_seq: u64, last_seq: u64, acked_seq: u64) -> SessionOverview {
        SessionOverview {
            session_id: SessionId::from_bytes([1; 16]),
            name: None,
            e2ee_on: false,
            key_epoch: None,
            has_key: false,
            role: Role::Member,
            first_seq,
            last_seq,
            acked_seq,
            log: "a".into(),
        }
    }

    #[test]
    fn where_resume_goes_on() {
        let cursor = |seq, log: Option<&str>| Some(Cursor { seq, log: log.map(str::to_owned) });
        // (first, last, acked), cursor -> from, reset
        let cases = [
            ((10, 20, 9), None, 10, false),
            ((10, 20, 15), None, 16, false),
            ((10, 20, 20), None, 21, false),
            ((10, 20, 3), None, 10, false),
            ((10, 20, 25), None, 10, true),
            ((10, 20, 15), cursor(12, None), 13, false),
            ((10, 20, 15), cursor(12, Some("a")), 13, false),
            ((10, 20, 15), cursor(0, Some("a")), 10, false),
            ((10, 20, 15), cursor(8, None), 10, false),
            ((10, 20, 15), cursor(9, None), 10, false),
            ((10, 20, 15), cursor(20, Some("a")), 21, false),
            ((10, 20, 15), cursor(21, Some("a")), 10, true),
            ((10, 20, 15), cursor(12, Some("b")), 10, true),
            ((1, 1, 0), cursor(u64::MAX, None), 1, true),
        ];
        for ((first, last, acked), cursor, from_seq, reset) in cases {
            let plan = plan(&overview(first, last, acked), cursor.as_ref());
            assert_eq!((plan.from_seq, plan.reset), (from_seq, reset), "{first} {last} {acked} {cursor:?}");
        }
    }

    #[test]
    fn live_events_come_once_and_in_order() {
        let mut standing = Standing::Live { last: 5 };
        assert_eq!(standing.offer(5), Offer::Drop);
        assert_eq!(standing.offer(6), Offer::Push);
        assert_eq!(standing.offer(6), Offer::Drop);
        assert_eq!(standing.offer(8), Offer::Missing);
        assert_eq!(standing, Standing::CatchingUp { cursor: 6 });
        assert_eq!(standing.offer(7), Offer::Drop);
        standing.advance(7, false, 8);
        assert_eq!(standing, Standing::CatchingUp { cursor: 7 }, "the hub has seen more than the page had");
        standing.advance(8, true, 8);
        assert_eq!(standing, Standing::CatchingUp { cursor: 8 });
        standing.advance(8, false, 8);
        assert_eq!(standing, Standing::Live { last: 8 });
        let mut held = Standing::Held;
        assert_eq!(held.offer(1), Offer::Drop);
        assert_eq!(held, Standing::Held);
    }

    #[test]
    fn a_run_comes_whole_or_one_by_one() {
        let run = |last| {
            let mut standing = Standing::Live { last };
            (standing.offer_run(5, 8), standing)
        };
        assert_eq!(run(4), (Some(Offer::Push), Standing::Live { last: 8 }));
        assert_eq!(run(3), (Some(Offer::Missing), Standing::CatchingUp { cursor: 3 }));
        for last in 5..8 {
            assert_eq!(run(last), (None, Standing::Live { last }), "from {last} on");
        }
        assert_eq!(run(8), (Some(Offer::Drop), Standing::Live { last: 8 }));
        assert_eq!(run(9), (Some(Offer::Drop), Standing::Live { last: 9 }));
        for mut standing in [Standing::Held, Standing::CatchingUp { cursor: 4 }] {
            let before = standing;
            assert_eq!(standing.offer_run(5, 8), Some(Offer::Drop));
            assert_eq!(standing, before);
        }
    }

    fn row(seq: u64, what: Happening) -> EventRow {
        let session_id = SessionId::from_bytes([1; 16]);
        let event = SessionEvent { session_id, seq, time: Timestamp::from_millis(0), by: None, what };
        EventRow { seq, version: seq, json: String::from_utf8(event.encode()).unwrap().into() }
    }

    #[test]
    fn ones_own_leaving_is_found_in_what_is_stored() {
        let (me, other) = (UserId::from_bytes([2; 16]), UserId::from_bytes([3; 16]));
        let left = |user_id| Happening::MemberLeft(MemberLeft { user_id, reason: LeftReason::Kicked });
        let rows = [row(1, left(other)), row(2, left(me)), row(3, left(other))];
        assert_eq!(own_ending(&rows, me), Some(1));
        assert_eq!(own_ending(&rows[2..], me), None);
        assert_eq!(own_ending(&[row(4, Happening::SessionDeleted(SessionDeleted {}))], me), Some(0));
    }
}
