//! Where a client stands in each of its sessions: what comes twice is dropped, what is missing is seen. Pure.

use std::collections::BTreeMap;

use crate::protocol::{Authenticated, Cursor, Resumed, SessionId};

/// How an event fits behind the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is the next.
    Next,
    /// It was here before.
    Duplicate,
    /// Something between is missing: the server broke its promise, and the cursor stays where it is.
    Gap {
        /// What should have come.
        expected: u64,
    },
}

#[derive(Clone, Debug)]
struct Place {
    /// The last event that came.
    seq: u64,
    log: Option<String>,
}

/// The last event of each session.
#[derive(Clone, Debug, Default)]
pub struct Cursors(BTreeMap<SessionId, Place>);

impl Cursors {
    /// What to send with `resume`.
    pub fn to_resume(&self) -> BTreeMap<SessionId, Cursor> {
        self.0.iter().map(|(id, place)| (*id, Cursor { seq: place.seq, log: place.log.clone() })).collect()
    }

    /// The reply to `resume` says where each session goes on; other sessions are no longer this user's.
    pub fn resumed(&mut self, authenticated: &Authenticated, reply: &Resumed) {
        let log = |id: SessionId| {
            authenticated.sessions.iter().find(|session| session.session_id == id).map(|session| session.log.clone())
        };
        self.0 = reply
            .sessions
            .iter()
            .map(|session| {
                let id = session.session_id;
                (id, Place { seq: session.from_seq.saturating_sub(1), log: log(id) })
            })
            .collect();
    }

    /// An event came. `own_join`: it is this user's own `MemberJoined`, where a membership's events begin.
    pub fn arrived(&mut self, session_id: SessionId, seq: u64, own_join: bool) -> Arrival {
        match self.0.get_mut(&session_id) {
            Some(place) if seq <= place.seq => Arrival::Duplicate,
            Some(place) if seq == place.seq + 1 || own_join => {
                place.seq = seq;
                Arrival::Next
            }
            Some(place) => Arrival::Gap { expected: place.seq + 1 },
            None if own_join => {
                self.0.insert(session_id, Place { seq, log: None });
                Arrival::Next
            }
            None => Arrival::Gap { expected: 1 },
        }
    }

    /// The last event of a session.
    pub fn last(&self, session_id: SessionId) -> Option<u64> {
        self.0.get(&session_id).map(|place| place.seq)
    }

    /// The session is no longer this user's.
    pub fn left(&mut self, session_id: SessionId) {
        self.0.remove(&session_id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ResumedSession;

    const S: SessionId = SessionId::from_bytes([1; 16]);

    #[test]
    fn events_are_counted_from_ones_own_join() {
        let mut cursors = Cursors::default();
        assert_eq!(cursors.arrived(S, 7, false), Arrival::Gap { expected: 1 });
        assert_eq!(cursors.arrived(S, 7, true), Arrival::Next);
        assert_eq!(cursors.arrived(S, 8, false), Arrival::Next);
        assert_eq!(cursors.arrived(S, 8, false), Arrival::Duplicate);
        assert_eq!(cursors.arrived(S, 10, false), Arrival::Gap { expected: 9 });
        assert_eq!(cursors.arrived(S, 9, false), Arrival::Next, "the cursor waits for what is missing");
        cursors.left(S);
        assert_eq!(cursors.arrived(S, 20, true), Arrival::Next, "back in");
        assert_eq!(cursors.last(S), Some(20));
    }

    #[test]
    fn a_reset_starts_again() {
        let mut cursors = Cursors::default();
        cursors.arrived(S, 7, true);
        let authenticated: Authenticated = serde_json::from_str(
            r#"{"user_id":"01010101-0101-0101-0101-010101010101","node":"n",
                "limits":{"frame_bytes":1,"requests_in_flight":1,"requests_per_s":1},"sessions":[]}"#,
        )
        .unwrap();
        let sessions = vec![ResumedSession { session_id: S, from_seq: 3, reset: true }];
        cursors.resumed(&authenticated, &Resumed { sessions, gone: vec![] });
        assert_eq!(cursors.arrived(S, 3, false), Arrival::Next);
    }
}
