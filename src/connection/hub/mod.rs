//! The hub of one worker thread: it knows the thread's connections and hands them what comes from sessions.
//!
//! It is made with the thread's first connection and lives on that thread only. [`mailbox`] is the way to it from
//! others; [`roster`] are its books; what takes time (reading from the store) is done by tasks of the thread, outside
//! of it. Invariant: the books are never borrowed across a wait or a call to the outside.

mod after;
mod audience;
mod mailbox;
mod roster;
mod sweep;

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;

pub use mailbox::Found;
pub(super) use mailbox::{Batch, CloseAll, HubHandle};

use crate::protocol::{CloseCode, Frame, SessionId, UserId, encode_going_away};

use super::catch_up::Standing;
use super::link::{Link, Queued};
use super::{ConnectionKey, Connections, dispatch, members, reader};
use after::After;
use audience::Audience;
use roster::Roster;

/// The hub of one worker thread.
pub(super) struct Hub {
    pub(super) worker: u16,
    pub(super) node: Arc<Connections>,
    handle: Arc<HubHandle>,
    roster: RefCell<Roster>,
}

thread_local! {
    /// The hubs of this thread: one for each node (a test may run several).
    static HUBS: RefCell<Vec<Weak<Hub>>> = const { RefCell::new(Vec::new()) };
}

impl Hub {
    /// This thread's hub of `node`, made if need be; none when there are too many threads.
    pub(super) fn here(node: &Arc<Connections>) -> Option<Rc<Self>> {
        HUBS.with_borrow_mut(|hubs| {
            hubs.retain(|hub| hub.strong_count() > 0);
            let known = hubs.iter().filter_map(Weak::upgrade).find(|hub| Arc::ptr_eq(&hub.node, node));
            if known.is_some() {
                return known;
            }
            let handle = Arc::<HubHandle>::default();
            let worker = node.subscriptions.register(&handle)?;
            let roster = RefCell::default();
            let hub = Rc::new(Self { worker, node: Arc::clone(node), handle: Arc::clone(&handle), roster });
            handle.start(&hub);
            sweep::start(&hub);
            hubs.push(Rc::downgrade(&hub));
            Some(hub)
        })
    }

    /// A number for a new connection.
    pub(super) fn next_key(&self) -> ConnectionKey {
        ConnectionKey { node: self.node.node, worker: self.worker, serial: self.node.subscriptions.next_serial() }
    }

    /// A connection begins.
    pub(super) fn enlist(&self, link: &Rc<Link>) {
        self.roster.borrow_mut().links.insert(link.key.serial, Rc::clone(link));
        self.node.metrics.connections.inc();
        self.node.metrics.connections_opened.inc();
    }

    /// A connection is over.
    pub(super) fn dismiss(&self, link: &Rc<Link>) {
        let mut after = After::default();
        let was_known = {
            let mut roster = self.roster.borrow_mut();
            let was_known = roster.links.contains_key(&link.key.serial);
            roster.dismiss(link, &mut after);
            was_known
        };
        link.abandon();
        if let Some(user_id) = link.user_id() {
            self.node.subscriptions.depart(user_id, link.key);
        }
        if was_known {
            self.node.metrics.connections.dec();
            self.node.metrics.closed(link.ending_code());
        }
        self.ignore(&after.ignored);
    }

    /// A connection is a user's.
    pub(super) fn identify(&self, link: &Rc<Link>, user_id: UserId) {
        self.roster.borrow_mut().identify(link, user_id);
    }

    // Seats.

    /// Gives a connection a seat, if it has none; whether it has got one. The bus has to confirm the session after.
    pub(super) fn seat(&self, link: &Rc<Link>, session_id: SessionId, standing: Standing) -> bool {
        let Some(user_id) = link.user_id() else { return false };
        if !link.is_open() || !link.seats.borrow_mut().insert(session_id) {
            return false;
        }
        let mut roster = self.roster.borrow_mut();
        roster.sessions.entry(session_id).or_default().add(link, user_id, standing);
        drop(roster);
        self.node.subscriptions.listen(session_id, self.worker);
        true
    }

    /// Takes a connection's seat.
    pub(super) fn unseat(&self, link: &Link, session_id: SessionId) {
        let mut after = After::default();
        self.roster.borrow_mut().unseat(link, session_id, &mut after);
        self.ignore(&after.ignored);
    }

    fn with_audience<T>(&self, session_id: SessionId, act: impl FnOnce(&mut Audience) -> T) -> Option<T> {
        self.roster.borrow_mut().sessions.get_mut(&session_id).map(act)
    }

    /// How a connection stands to a session.
    pub(super) fn standing(&self, link: &Link, session_id: SessionId) -> Option<Standing> {
        self.with_audience(session_id, |audience| audience.seat(link).map(|seat| seat.standing)).flatten()
    }

    /// Sets how a connection stands to a session.
    pub(super) fn set_standing(&self, link: &Link, session_id: SessionId, standing: Standing) {
        self.with_audience(session_id, |audience| {
            if let Some(seat) = audience.seat(link) {
                seat.standing = standing;
            }
        });
    }

    /// A page up to `cursor` was pushed; how the connection stands now.
    pub(super) fn advance(&self, link: &Link, session_id: SessionId, cursor: u64, more: bool) -> Option<Standing> {
        self.with_audience(session_id, |audience| {
            let known = audience.known_seq;
            audience.seat(link).map(|seat| {
                seat.standing.advance(cursor, more, known);
                seat.standing
            })
        })
        .flatten()
    }

    /// The store had the session at `version` while this thread listened; the greatest `seq` that came by since.
    pub(super) fn baseline(&self, session_id: SessionId, version: u64) -> u64 {
        self.with_audience(session_id, |audience| {
            audience.set_baseline(version);
            audience.known_seq
        })
        .unwrap_or_default()
    }

    /// Whether all directed rows up to `version` of the session came by here.
    pub(super) fn has_delivered(&self, session_id: SessionId, version: u64) -> bool {
        self.with_audience(session_id, |audience| audience.has_delivered(version)).unwrap_or_default()
    }

    /// Whether a connection hears the session now.
    pub(super) fn is_live(&self, link: &Link, session_id: SessionId) -> Option<u64> {
        match self.standing(link, session_id)? {
            Standing::Live { last } => Some(last),
            Standing::Held | Standing::CatchingUp { .. } => None,
        }
    }

    // Delivering.

    /// Takes a batch in.
    pub(super) fn deliver(self: &Rc<Self>, batch: Batch) {
        let mut after = After::default();
        {
            let mut roster = self.roster.borrow_mut();
            for answer in batch.answers {
                let Some(link) = roster.links.get(&answer.connection.serial) else { continue };
                if link.push(&answer.frame).is_err() {
                    after.doomed.push(Rc::clone(link));
                }
                let Some((name, freed)) = link.command_answered(answer.request_id) else { continue };
                self.node.metrics.command(name, answer.refused);
                if !freed.is_empty() {
                    after.freed.push((Rc::clone(link), freed));
                }
            }
            if let Some(publication) = &batch.publication {
                roster.publication(publication, &mut after);
            }
            for (user_id, signal) in &batch.signals {
                roster.signal(*user_id, signal, &mut after);
            }
            roster.swept(&batch.found, &mut after);
            for (connection, frames) in batch.asks {
                let Some(link) = roster.links.get(&connection.serial) else { continue };
                if link.push_asks(frames).is_err() {
                    after.doomed.push(Rc::clone(link));
                }
            }
        }
        self.act(after);
    }

    fn act(self: &Rc<Self>, after: After) {
        self.node.metrics.deliveries.inc_by(after.pushed);
        self.node.metrics.inbox_deliveries.inc_by(after.notices);
        self.node.metrics.bus_gaps.inc_by(after.gaps);
        for link in after.doomed {
            self.cut_off(&link, CloseCode::TooSlow);
        }
        for session_id in after.listened {
            members::listen(self, session_id);
        }
        self.ignore(&after.ignored);
        for (link, session_id) in after.behind {
            reader::catch_up(self, &link, session_id);
        }
        for link in after.inbox {
            reader::read_inbox(self, &link);
        }
        for link in after.memberships {
            members::look_again(self, &link);
        }
        for (link, freed) in after.freed {
            self.go(&link, freed);
        }
    }

    /// Lets requests go that waited in their lane. One that is answered at once frees the next one: they go in a row
    /// here, and not one inside of the other.
    pub(super) fn go(self: &Rc<Self>, link: &Rc<Link>, freed: Vec<Queued>) {
        link.freed.borrow_mut().extend(freed);
        if link.going.replace(true) {
            return;
        }
        loop {
            let next = link.freed.borrow_mut().pop_front();
            let Some((id, request)) = next else { break };
            dispatch::go(self, link, id, request);
        }
        link.going.set(false);
    }

    fn ignore(&self, sessions: &[SessionId]) {
        for session_id in sessions {
            self.node.subscriptions.ignore(*session_id, self.worker);
        }
    }

    /// Every connection that goes on or comes to its end.
    fn links(&self) -> Vec<Rc<Link>> {
        self.roster.borrow().links.values().cloned().collect()
    }

    /// Every connection of the session's audience.
    pub(super) fn audience(&self, session_id: SessionId) -> Vec<Rc<Link>> {
        self.links().into_iter().filter(|link| link.seats.borrow().contains(&session_id)).collect()
    }

    // The end.

    /// Ends a connection that is too slow or gone: what waits for it is freed at once, and nobody pushes to it again.
    pub(super) fn cut_off(&self, link: &Rc<Link>, code: CloseCode) {
        link.cut_off(code);
        let mut after = After::default();
        self.roster.borrow_mut().unseat_all(link, &mut after);
        self.ignore(&after.ignored);
    }

    /// Ends all connections, with a hint when to come back.
    fn close_all(&self, order: CloseAll) {
        for link in self.links() {
            let after_ms = if order.spread_ms == 0 { 0 } else { rand::random_range(0..=order.spread_ms) };
            link.send(&Frame::text(&encode_going_away(after_ms)));
            link.close(order.code);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.node.subscriptions.unregister(self.worker, &self.handle);
    }
}

#[cfg(test)]
mod tests;
