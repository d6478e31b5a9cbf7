//! Whom a session asks for keys, and how it knows who is connected on other nodes.
//!
//! While a session wants keys it calls the roll every few seconds: each node with members of it connected tells which of
//! those who may be asked are there. Asks that do not reach anybody, or of which nothing is heard, go out again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::future::BoxFuture;

use super::actor::{Life, SessionActor};
use super::router::Shared;
use super::state::AskFor;
use crate::cluster::{Asked, Nudge, Publication, Row};
use crate::connection::{ConnectionKey, Parcel, Presence};
use crate::protocol::{Ask, Frame, NodeId, SessionId, UserId};

/// The most names in one roll call; the next one goes on behind them.
const NAMES: usize = 1024;

/// The most members of whom is remembered that they are connected elsewhere.
const PRESENT: usize = 4096;

/// Roll calls after which who no longer answers counts as gone.
const SILENT_CALLS: u32 = 3;

/// Within which another node says that an ask has reached its member.
const REACHED_WITHIN: Duration = Duration::from_secs(2);

/// Members who are connected to other nodes, as far as this session has asked.
#[derive(Default)]
pub(super) struct Roll {
    present: HashMap<UserId, (ConnectionKey, Instant)>,
    /// When the roll was called last, and up to whom.
    called: Option<Instant>,
    up_to: Option<UserId>,
    /// Asks to other nodes of which nothing was heard yet.
    unheard: HashMap<UserId, Instant>,
}

/// Who is connected, here or elsewhere.
#[derive(Clone)]
pub(super) struct Everywhere {
    here: Arc<dyn Presence>,
    roll: Rc<RefCell<Roll>>,
    fresh: Duration,
}

impl Everywhere {
    pub(super) fn new(here: Arc<dyn Presence>, roll_call_every: Duration) -> Self {
        Self { here, roll: Rc::default(), fresh: roll_call_every * SILENT_CALLS }
    }

    pub(super) fn connection_of(&self, user_id: UserId) -> Option<ConnectionKey> {
        self.here.connection_of(user_id).or_else(|| {
            let roll = self.roll.borrow();
            let (connection, seen) = roll.present.get(&user_id)?;
            (seen.elapsed() < self.fresh).then_some(*connection)
        })
    }

    /// A member answered the roll call, or has just connected to another node.
    pub(super) fn saw(&self, user_id: UserId, connection: ConnectionKey) {
        let mut roll = self.roll.borrow_mut();
        if roll.present.len() >= PRESENT {
            let fresh = self.fresh;
            roll.present.retain(|_, (_, seen)| seen.elapsed() < fresh);
        }
        if roll.present.len() < PRESENT {
            roll.present.insert(user_id, (connection, Instant::now()));
        }
    }

    fn lost(&self, user_id: UserId, node: NodeId) {
        self.roll.borrow_mut().present.retain(|known, (connection, _)| *known != user_id || connection.node != node);
    }

    /// When the roll is to be called next.
    pub(super) fn due_in(&self, every: Duration) -> Duration {
        self.roll.borrow().called.map_or(Duration::ZERO, |called| every.saturating_sub(called.elapsed()))
    }
}

impl SessionActor {
    /// Adds the asks that are due: to the connection that just spoke, if it is whose user is asked.
    pub(super) fn ask(&mut self, speaker: Option<(UserId, ConnectionKey)>) {
        let Life::Live(live) = &mut self.life else { return };
        if !live.state.wants_keys() {
            return;
        }
        let everywhere = &self.everywhere;
        let online = |user_id| everywhere.connection_of(user_id).is_some();
        for ask in live.state.due_asks(self.shared.clock.now(), &online) {
            let to = ask.to();
            let spoke = speaker.filter(|(user_id, _)| *user_id == to);
            if spoke.is_some() {
                self.rotator_at = spoke;
            }
            let known = self.rotator_at.filter(|(user_id, _)| *user_id == to).map(|(_, connection)| connection);
            if let Some(connection) = known.or_else(|| everywhere.connection_of(to)) {
                if connection.node != self.shared.options.node_id {
                    everywhere.roll.borrow_mut().unheard.insert(to, Instant::now());
                }
                self.growing.asks.push((connection, ask));
            }
        }
        self.call_roll();
    }

    /// Asks all nodes who of those who may be asked for keys is connected there, if it is time for that.
    pub(super) fn call_roll(&mut self) {
        let Life::Live(live) = &mut self.life else { return };
        if !live.state.wants_keys() || !self.everywhere.due_in(self.shared.options.roll_call_every).is_zero() {
            return;
        }
        let mut roll = self.everywhere.roll.borrow_mut();
        roll.called = Some(Instant::now());
        roll.unheard.retain(|user_id, since| {
            let silent = since.elapsed() >= REACHED_WITHIN;
            if silent {
                live.state.member_connected(*user_id);
            }
            !silent
        });
        let behind = |name: &UserId| roll.up_to.is_none_or(|up_to| *name > up_to);
        let names: Vec<UserId> = live.state.may_be_asked().filter(behind).take(NAMES).collect();
        roll.up_to = if names.len() < NAMES { None } else { names.last().copied() };
        drop(roll);
        let row = Row::RollCall { owner: self.shared.options.node_id, names };
        self.publish(row);
    }

    /// Tells all nodes something of this session that is never stored.
    pub(super) fn publish(&self, row: Row) {
        actix_web::rt::spawn(tell_all_nodes(&self.shared, self.session_id, row));
    }

    fn asked_again(&mut self, user_id: UserId, connection: Option<ConnectionKey>, ctx: &mut Context<Self>) {
        let Life::Live(live) = &mut self.life else { return };
        live.state.member_connected(user_id);
        if self.rotator_at.is_some_and(|(rotator, _)| rotator == user_id) {
            self.rotator_at = connection.map(|connection| (user_id, connection));
        }
        self.ask(connection.map(|connection| (user_id, connection)));
        self.flush(ctx);
    }
}

/// Tells all nodes something of a session that is never stored; resolves when it is on its way.
pub(super) fn tell_all_nodes(shared: &Shared, session_id: SessionId, row: Row) -> BoxFuture<'static, ()> {
    let publication = Publication { session_id, version: 0, rows: vec![row] };
    shared.deliveries.deliver(Parcel { publication: Some(publication), ..Parcel::default() })
}

impl Message for Nudge {
    type Result = ();
}

impl Handler<Nudge> for SessionActor {
    type Result = ();

    fn handle(&mut self, nudge: Nudge, ctx: &mut Context<Self>) {
        match nudge {
            Nudge::Tasks => self.read_tasks(ctx),
            Nudge::MemberConnected(user_id, connection) => {
                if connection.node != self.shared.options.node_id {
                    self.everywhere.saw(user_id, connection);
                }
                self.asked_again(user_id, Some(connection), ctx);
            }
            Nudge::Present(present) => {
                present.into_iter().for_each(|(user_id, connection)| self.everywhere.saw(user_id, connection));
                self.ask(None);
                self.flush(ctx);
            }
            Nudge::Reached(user_id, node, reached) => {
                self.everywhere.roll.borrow_mut().unheard.remove(&user_id);
                if !reached {
                    self.everywhere.lost(user_id, node);
                    let elsewhere = self.everywhere.connection_of(user_id);
                    self.asked_again(user_id, elsewhere, ctx);
                }
            }
        }
        self.arm(ctx);
    }
}

/// Looks up the public keys that asks need and delivers them. Those who could not be asked, if that failed.
pub(super) async fn deliver_asks(
    shared: &Shared,
    session_id: SessionId,
    asks: Vec<(ConnectionKey, AskFor)>,
) -> Result<(), Vec<UserId>> {
    let members: Vec<UserId> = asks
        .iter()
        .filter_map(|(_, ask)| match ask {
            AskFor::Key { member, .. } => Some(*member),
            AskFor::NewKey { .. } => None,
        })
        .collect();
    let keys = if members.is_empty() { Ok(Vec::new()) } else { shared.store.public_keys(&members).await };
    let keys: HashMap<UserId, String> = match keys {
        Ok(keys) => keys.into_iter().collect(),
        Err(error) => {
            tracing::warn!(session = %session_id, %error, "public keys could not be read");
            return Err(asks.iter().map(|(_, ask)| ask.to()).collect());
        }
    };
    let mut parcel: Vec<Asked> = Vec::new();
    for (connection, ask) in asks {
        let user_id = ask.to();
        let ask = match ask {
            AskFor::NewKey { epoch, .. } => Ask::UpdateRoomKeyNotification { session_id, key_epoch: epoch },
            AskFor::Key { member, epoch, .. } => match keys.get(&member) {
                Some(public_key) => Ask::SendRoomKeyNotification {
                    session_id,
                    user_id: member,
                    public_key: public_key.clone(),
                    key_epoch: epoch,
                },
                // The account is closed: its task will take the member out.
                None => continue,
            },
        };
        let frame = Frame::text(&ask.encode());
        match parcel.last_mut() {
            Some(last) if last.connection == connection && last.user_id == user_id => last.frames.push(frame),
            Some(_) | None => {
                let owner = shared.options.node_id;
                parcel.push(Asked { session_id, owner, user_id, connection, frames: vec![frame] });
            }
        }
    }
    shared.deliveries.deliver(Parcel { asks: parcel, ..Parcel::default() }).await;
    Ok(())
}
