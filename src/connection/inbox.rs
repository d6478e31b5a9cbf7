//! Which inbox events are under way to one connection. PURE.
//!
//! At most `window` of them wait for their acknowledgement; the rest stay in the store until there is room. An event
//! with a room key is sent beyond the window: text that needs it may be next. Invariants: nothing is offered before the
//! reply to `authenticate` has gone; an id is sent once per connection until it is acknowledged or withdrawn.

use std::collections::HashSet;

use crate::protocol::InboxId;
use crate::store::InboxRow;

/// The window of one connection.
#[derive(Debug)]
pub(super) struct InboxWindow {
    window: usize,
    phase: Phase,
    under_way: HashSet<InboxId>,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Before the reply to `authenticate`: whatever comes is in the store.
    Shut,
    /// A page is being read; `again`: something came meanwhile that it may lack.
    Reading { again: bool },
    /// Nothing is being read; `behind`: the store has more than was sent.
    Open { behind: bool },
}

impl InboxWindow {
    /// For a connection that has not authenticated.
    pub(super) fn new(window: usize) -> Self {
        Self { window, phase: Phase::Shut, under_way: HashSet::new() }
    }

    /// The reply to `authenticate` has gone: events may follow.
    pub(super) fn open(&mut self) {
        if self.phase == Phase::Shut {
            self.phase = Phase::Open { behind: true };
        }
    }

    /// A new event. Whether to send it now; else it is found in the store later.
    pub(super) fn offer(&mut self, id: &InboxId, holds_key: bool) -> bool {
        let room = self.under_way.len() < self.window;
        match &mut self.phase {
            Phase::Shut => return false,
            Phase::Reading { again } if !holds_key => {
                *again = true;
                return false;
            }
            Phase::Open { behind } if !holds_key && (*behind || !room) => {
                *behind = true;
                return false;
            }
            Phase::Reading { .. } | Phase::Open { .. } => {}
        }
        self.under_way.insert(id.clone())
    }

    /// The store may have something that was not offered.
    pub(super) const fn stir(&mut self) {
        match &mut self.phase {
            Phase::Shut => {}
            Phase::Reading { again } => *again = true,
            Phase::Open { behind } => *behind = true,
        }
    }

    /// Whether the store may have events that were not sent here.
    pub(super) const fn is_behind(&self) -> bool {
        match self.phase {
            Phase::Shut | Phase::Reading { .. } => true,
            Phase::Open { behind } => behind,
        }
    }

    /// Begins to read a page, if there is need and room for one: how many rows to ask for.
    pub(super) fn begin(&mut self) -> Option<u64> {
        if self.phase == (Phase::Open { behind: true }) && self.under_way.len() < self.window {
            self.phase = Phase::Reading { again: false };
            // The oldest rows are those under way already: they are asked for again and left out.
            return Some((self.under_way.len() + self.window) as u64);
        }
        None
    }

    /// Ends the reading: of the page's rows (`asked` at most), those to be sent now.
    pub(super) fn page(&mut self, rows: Vec<InboxRow>, asked: u64) -> Vec<InboxRow> {
        let full = rows.len() as u64 >= asked;
        let mut left_out = false;
        let mut send = Vec::new();
        for row in rows {
            if self.under_way.contains(&row.inbox_id) {
                continue;
            }
            if self.under_way.len() >= self.window {
                left_out = true;
                continue;
            }
            self.under_way.insert(row.inbox_id.clone());
            send.push(row);
        }
        let again = self.phase == (Phase::Reading { again: true });
        self.phase = Phase::Open { behind: again || full || left_out };
        send
    }

    /// The page could not be read.
    pub(super) fn failed(&mut self) {
        self.phase = Phase::Open { behind: true };
    }

    /// An event with a key that is sent ahead of its turn. Whether it was not sent before.
    pub(super) fn ahead(&mut self, id: &InboxId) -> bool {
        self.under_way.insert(id.clone())
    }

    /// These are no longer under way.
    pub(super) fn settle(&mut self, ids: &[InboxId]) {
        for id in ids {
            self.under_way.remove(id);
        }
        if self.under_way.is_empty() {
            self.under_way = HashSet::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::SessionId;

    fn id(number: u64) -> InboxId {
        InboxId(number.to_string())
    }

    fn row(number: u64) -> InboxRow {
        let session_id = SessionId::from_bytes([0; 16]);
        InboxRow { inbox_id: id(number), session_id, version: number, holds_key: false, json: "{}".into() }
    }

    fn numbers(rows: &[InboxRow]) -> Vec<u64> {
        rows.iter().map(|row| row.version).collect()
    }

    /// A store's oldest rows.
    fn read(store: &[u64], asked: u64) -> Vec<InboxRow> {
        store.iter().take(asked as usize).map(|number| row(*number)).collect()
    }

    #[test]
    fn nothing_goes_before_the_reply_to_authenticate() {
        let mut inbox = InboxWindow::new(2);
        assert!(!inbox.offer(&id(1), true));
        assert_eq!(inbox.begin(), None);
        inbox.open();
        let asked = inbox.begin().unwrap();
        assert_eq!(numbers(&inbox.page(read(&[1], asked), asked)), [1]);
        assert!(!inbox.is_behind());
    }

    #[test]
    fn the_window_holds_and_acks_move_it() {
        let mut inbox = InboxWindow::new(2);
        inbox.open();
        let asked = inbox.begin().unwrap();
        assert_eq!(numbers(&inbox.page(read(&[1, 2, 3, 4, 5], asked), asked)), [1, 2]);
        assert_eq!(inbox.begin(), None, "the window is full");
        assert!(!inbox.offer(&id(6), false));
        assert!(inbox.offer(&id(7), true), "a key goes ahead");
        assert!(!inbox.offer(&id(7), true), "and once");
        inbox.settle(&[id(1), id(2)]);
        let asked = inbox.begin().unwrap();
        assert_eq!(numbers(&inbox.page(read(&[3, 4, 5, 6, 7], asked), asked)), [3]);
        inbox.settle(&[id(3), id(7)]);
        let asked = inbox.begin().unwrap();
        assert_eq!(numbers(&inbox.page(read(&[4, 5, 6], asked), asked)), [4, 5]);
        inbox.settle(&[id(4), id(5)]);
        let asked = inbox.begin().unwrap();
        assert_eq!(numbers(&inbox.page(read(&[6], asked), asked)), [6]);
        assert_eq!(inbox.begin(), None, "nothing is left");
        assert!(inbox.offer(&id(8), false), "live again");
    }

    #[test]
    fn what_comes_while_a_page_is_read_is_read_after_it() {
        let mut inbox = InboxWindow::new(10);
        inbox.open();
        let asked = inbox.begin().unwrap();
        assert!(!inbox.offer(&id(2), false));
        assert_eq!(numbers(&inbox.page(read(&[1], asked), asked)), [1]);
        assert!(inbox.is_behind());
        let asked = inbox.begin().unwrap();
        assert_eq!(numbers(&inbox.page(read(&[1, 2], asked), asked)), [2]);
        assert!(!inbox.is_behind());
    }

    #[test]
    fn a_failed_page_is_read_again() {
        let mut inbox = InboxWindow::new(10);
        inbox.open();
        assert!(inbox.begin().is_some());
        inbox.failed();
        assert!(inbox.begin().is_some());
    }
}
