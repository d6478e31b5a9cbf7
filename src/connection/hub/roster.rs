//! The hub's books: its connections, by number, by user and by session, and what a publication does to them.
//!
//! Nothing in here waits, spawns or calls out: what is to be done next is left in [`After`].

use std::collections::HashMap;
use std::rc::Rc;

use crate::cluster::{Effect, Publication, Row, UserSignal};
use crate::connection::catch_up::Standing;
use crate::connection::link::{Link, Stage};
use crate::protocol::{CloseCode, Frame, InboxId, SessionId, UserId, encode_withdrawn};

use super::after::After;
use super::audience::{Audience, Run, Turn};
use super::mailbox::Found;

/// The books of one hub.
#[derive(Default)]
pub(super) struct Roster {
    pub(super) links: HashMap<u64, Rc<Link>>,
    users: HashMap<UserId, Vec<Rc<Link>>>,
    pub(super) sessions: HashMap<SessionId, Audience>,
}

impl Roster {
    /// A connection is a user's.
    pub(super) fn identify(&mut self, link: &Rc<Link>, user_id: UserId) {
        self.users.entry(user_id).or_default().push(Rc::clone(link));
    }

    /// A user's connections.
    pub(super) fn links_of(&self, user_id: UserId) -> &[Rc<Link>] {
        self.users.get(&user_id).map_or(&[], Vec::as_slice)
    }

    /// Takes a connection out of all books.
    pub(super) fn dismiss(&mut self, link: &Link, after: &mut After) {
        self.links.remove(&link.key.serial);
        if let Some(user_id) = link.user_id()
            && let Some(links) = self.users.get_mut(&user_id)
        {
            links.retain(|known| known.key != link.key);
            if links.is_empty() {
                self.users.remove(&user_id);
            }
        }
        self.unseat_all(link, after);
    }

    /// Takes a connection out of all audiences.
    pub(super) fn unseat_all(&mut self, link: &Link, after: &mut After) {
        let seats = std::mem::take(&mut *link.seats.borrow_mut());
        for session_id in seats {
            self.leave(link, session_id, after);
        }
    }

    /// Takes a connection out of one audience.
    pub(super) fn unseat(&mut self, link: &Link, session_id: SessionId, after: &mut After) {
        link.seats.borrow_mut().remove(&session_id);
        self.leave(link, session_id, after);
    }

    fn leave(&mut self, link: &Link, session_id: SessionId, after: &mut After) {
        if let Some(audience) = self.sessions.get_mut(&session_id) {
            audience.remove(link.key.serial);
            self.close_if_empty(session_id, after);
        }
    }

    fn close_if_empty(&mut self, session_id: SessionId, after: &mut After) {
        if self.sessions.get(&session_id).is_some_and(Audience::is_empty) {
            self.sessions.remove(&session_id);
            after.ignored.push(session_id);
        }
    }

    /// Takes a publication in: each row in turn, so that a key is there before the text that needs it.
    pub(super) fn publication(&mut self, publication: &Publication, after: &mut After) {
        let Publication { session_id, version, ref rows } = *publication;
        if version > 0
            && let Some(audience) = self.sessions.get_mut(&session_id)
        {
            match audience.turn(version) {
                Turn::Next => {}
                Turn::Old => return,
                Turn::Gap => {
                    after.gaps += 1;
                    audience.fall_back(session_id, after);
                }
            }
        }
        let mut rows = rows.as_slice();
        while let [row, others @ ..] = rows {
            rows = match Run::take(rows) {
                Some((run, rest)) => {
                    if let Some(audience) = self.sessions.get_mut(&session_id) {
                        audience.run(session_id, &run, after);
                    }
                    rest
                }
                None => {
                    self.row(session_id, version, row, after);
                    others
                }
            };
        }
        self.close_if_empty(session_id, after);
    }

    fn row(&mut self, session_id: SessionId, version: u64, row: &Row, after: &mut After) {
        match row {
            Row::Notice { user_id, inbox_id, holds_key, frame } => {
                self.notice(*user_id, (inbox_id, *holds_key), frame, after);
            }
            Row::Withdrawn { user_id, inbox_ids } => self.withdrawn(*user_id, inbox_ids, after),
            Row::Event { seq, effect, frame } => {
                self.take_effect(session_id, version, (*seq, *effect), after);
                if let Some(audience) = self.sessions.get_mut(&session_id) {
                    audience.event(session_id, (*seq, *effect), frame, after);
                }
            }
            Row::Head(version) => self.head(session_id, Some(*version), after),
            // The node's business, and not that of its hubs.
            Row::RollCall { .. } | Row::Released(_) => {}
            Row::Typing { by, frame } => {
                if let Some(audience) = self.sessions.get(&session_id) {
                    audience.typing(*by, frame, after);
                }
            }
        }
    }

    /// Where a session is known to stand: who listens here and has missed something reads it from the store.
    fn head(&mut self, session_id: SessionId, version: Option<u64>, after: &mut After) {
        if let Some(audience) = self.sessions.get_mut(&session_id)
            && audience.has_missed(version)
        {
            after.gaps += 1;
            audience.fall_back(session_id, after);
        }
    }

    /// Compares what the store has with what was heard of: the bus may have lost it.
    pub(super) fn swept(&mut self, found: &Found, after: &mut After) {
        for (session_id, version) in &found.heads {
            self.head(*session_id, *version, after);
        }
        for (user_id, sessions) in &found.memberships {
            for link in self.links_of(*user_id) {
                if sessions.iter().any(|session_id| !link.seats.borrow().contains(session_id)) {
                    after.memberships.push(Rc::clone(link));
                }
            }
        }
        for user_id in &found.inboxes {
            for link in self.links_of(*user_id) {
                link.inbox.borrow_mut().stir();
                after.inbox.push(Rc::clone(link));
            }
        }
    }

    /// Whom an event brings in, and whose memberships it changes.
    fn take_effect(&mut self, session_id: SessionId, version: u64, (seq, effect): (u64, Effect), after: &mut After) {
        let (Effect::Joined(user_id) | Effect::Left(user_id)) = effect else { return };
        let Some(links) = self.users.get(&user_id) else { return };
        for link in links {
            link.saw_change(session_id, version);
            if effect != Effect::Joined(user_id) || !link.is_open() || link.seats.borrow().contains(&session_id) {
                continue;
            }
            let standing = match link.stage.get() {
                Stage::Resumed => Standing::Live { last: seq.saturating_sub(1) },
                Stage::Unknown | Stage::Authenticating | Stage::Authenticated | Stage::Resuming => Standing::Held,
            };
            let audience = self.sessions.entry(session_id).or_insert_with(|| {
                after.listened.push(session_id);
                let mut audience = Audience::default();
                audience.turn(version);
                audience
            });
            audience.add(link, user_id, standing);
            link.seats.borrow_mut().insert(session_id);
        }
    }

    fn notice(&self, user_id: UserId, (id, holds_key): (&InboxId, bool), frame: &Frame, after: &mut After) {
        for link in self.links_of(user_id) {
            if link.inbox.borrow_mut().offer(id, holds_key) {
                after.notices += 1;
                self.push(link, frame, after);
            } else if link.inbox.borrow().is_behind() {
                after.inbox.push(Rc::clone(link));
            }
        }
    }

    fn withdrawn(&self, user_id: UserId, ids: &[InboxId], after: &mut After) {
        let links = self.links_of(user_id);
        if links.is_empty() || ids.is_empty() {
            return;
        }
        let frame = Frame::text(&encode_withdrawn(ids));
        for link in links {
            link.inbox.borrow_mut().settle(ids);
            if matches!(link.stage.get(), Stage::Authenticated | Stage::Resuming | Stage::Resumed) {
                self.push(link, &frame, after);
            }
            after.inbox.push(Rc::clone(link));
        }
    }

    fn push(&self, link: &Rc<Link>, frame: &Frame, after: &mut After) {
        if link.push(frame).is_err() {
            after.doomed.push(Rc::clone(link));
        }
    }

    /// Takes a signal in.
    pub(super) fn signal(&self, user_id: UserId, signal: &UserSignal, after: &mut After) {
        match signal {
            UserSignal::Wake => {
                for link in self.links_of(user_id) {
                    link.inbox.borrow_mut().stir();
                    after.inbox.push(Rc::clone(link));
                }
            }
            UserSignal::Joined(session_id, version) => {
                // A seat of an earlier membership may be there until the session's own news have come.
                let is_heard = self.sessions.get(session_id).is_some_and(|audience| audience.stands_at(*version));
                for link in self.links_of(user_id) {
                    link.inbox.borrow_mut().stir();
                    after.inbox.push(Rc::clone(link));
                    if !is_heard || !link.seats.borrow().contains(session_id) {
                        after.memberships.push(Rc::clone(link));
                    }
                }
            }
            UserSignal::Acked(ids) => {
                for link in self.links_of(user_id) {
                    link.inbox.borrow_mut().settle(ids);
                    after.inbox.push(Rc::clone(link));
                }
            }
            UserSignal::Withdrawn(ids) => self.withdrawn(user_id, ids, after),
            UserSignal::TokenDead(hash) => self.end_tokens(user_id, |token| token == *hash),
            UserSignal::TokensDead { except } => self.end_tokens(user_id, |token| Some(token) != *except),
        }
    }

    fn end_tokens(&self, user_id: UserId, dead: impl Fn(crate::store::TokenHash) -> bool) {
        for link in self.links_of(user_id) {
            if link.identity.get().is_some_and(|identity| dead(identity.token)) {
                link.close(CloseCode::Unauthenticated);
            }
        }
    }
}
