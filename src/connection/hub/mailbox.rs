//! The way to a hub from other threads: an actor's bounded mailbox for data, and beside it a path for what must neither
//! wait nor be lost behind data.

use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};

use actix::{Actor, Addr, Context, Handler, Message};
use tokio::sync::Notify;

use crate::cluster::{Publication, UserSignal};
use crate::connection::shards::lock;
use crate::connection::{Answer, ConnectionKey};
use crate::protocol::{CloseCode, Frame, SessionId, UserId};

use super::Hub;

/// Batches that may wait for one hub; beyond, whoever delivers waits.
const MAILBOX: usize = 256;

/// All that one hub gets at once.
#[derive(Default)]
pub(in crate::connection) struct Batch {
    pub(in crate::connection) answers: Vec<Answer>,
    pub(in crate::connection) publication: Option<Arc<Publication>>,
    pub(in crate::connection) signals: Vec<(UserId, UserSignal)>,
    pub(in crate::connection) asks: Vec<(ConnectionKey, Vec<Frame>)>,
    pub(in crate::connection) found: Found,
}

/// What a look into the store has found: compared with what this hub has heard of.
#[derive(Default)]
pub struct Found {
    /// Sessions and their versions; none: it has ended.
    pub heads: Vec<(SessionId, Option<u64>)>,
    /// Users and all their sessions.
    pub memberships: Vec<(UserId, Vec<SessionId>)>,
    /// Users who have inbox events.
    pub inboxes: Vec<UserId>,
}

impl Message for Batch {
    type Result = ();
}

/// The end of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::connection) struct CloseAll {
    pub(in crate::connection) code: CloseCode,
    /// Clients are asked to spread their coming back over so long.
    pub(in crate::connection) spread_ms: u64,
}

/// What does not go through the mailbox.
#[derive(Default)]
struct Urgent {
    /// Bounded by the requests in flight.
    answers: Vec<Answer>,
    close_all: Option<CloseAll>,
}

/// A hub, from any thread.
#[derive(Default)]
pub(in crate::connection) struct HubHandle {
    addr: OnceLock<Addr<HubActor>>,
    urgent: Mutex<Urgent>,
    bell: Notify,
}

impl HubHandle {
    /// Hands a batch over; resolves when the mailbox has taken it.
    pub(in crate::connection) async fn hand(&self, batch: Batch) {
        let Some(addr) = self.addr.get() else { return };
        if let Err(refused) = addr.try_send(batch) {
            match refused {
                // Waits for a place. An error means that the hub is gone, and its connections with it.
                actix::dev::SendError::Full(batch) => drop(addr.send(batch).await),
                actix::dev::SendError::Closed(_) => {}
            }
        }
    }

    /// Hands an answer over at once.
    pub(in crate::connection) fn answer_now(&self, answer: Answer) {
        lock(&self.urgent).answers.push(answer);
        self.bell.notify_one();
    }

    /// Ends all of the hub's connections.
    pub(in crate::connection) fn close_all(&self, order: CloseAll) {
        lock(&self.urgent).close_all = Some(order);
        self.bell.notify_one();
    }

    /// Starts the actor and the path beside it, on the hub's thread.
    pub(super) fn start(self: &Arc<Self>, hub: &Rc<Hub>) {
        let addr = HubActor { hub: Rc::clone(hub) }.start();
        if self.addr.set(addr).is_ok() {
            let (handle, hub) = (Arc::clone(self), Rc::downgrade(hub));
            actix_web::rt::spawn(async move {
                loop {
                    handle.bell.notified().await;
                    let Some(hub) = hub.upgrade() else { return };
                    let Urgent { answers, close_all } = std::mem::take(&mut *lock(&handle.urgent));
                    hub.deliver(Batch { answers, ..Batch::default() });
                    if let Some(order) = close_all {
                        hub.close_all(order);
                    }
                }
            });
        }
    }
}

/// The hub as an actor. Made with the first connection of a worker thread, and ends with the thread; if it panics, the
/// thread's connections hear nothing more until their heartbeat ends them.
struct HubActor {
    hub: Rc<Hub>,
}

impl Actor for HubActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Batch> for HubActor {
    type Result = ();

    fn handle(&mut self, batch: Batch, _: &mut Self::Context) {
        self.hub.deliver(batch);
    }
}
