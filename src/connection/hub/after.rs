//! What a delivery leaves to be done when the hub's books are closed again.

use std::rc::Rc;

use crate::connection::link::{Link, Queued};
use crate::protocol::SessionId;

/// Gathered while the roster is borrowed; acted upon after.
#[derive(Default)]
pub(super) struct After {
    /// Session events pushed.
    pub(super) pushed: u64,
    /// Inbox events pushed.
    pub(super) notices: u64,
    /// Publications before which others were lost.
    pub(super) gaps: u64,
    /// Connections whose outbox is full.
    pub(super) doomed: Vec<Rc<Link>>,
    /// Connections that have to catch up with a session.
    pub(super) behind: Vec<(Rc<Link>, SessionId)>,
    /// Connections whose inbox has to be read.
    pub(super) inbox: Vec<Rc<Link>>,
    /// Connections whose memberships have to be read.
    pub(super) memberships: Vec<Rc<Link>>,
    /// Sessions that an audience was made for by a join.
    pub(super) listened: Vec<SessionId>,
    /// Sessions whose audience is gone.
    pub(super) ignored: Vec<SessionId>,
    /// Requests that may go now.
    pub(super) freed: Vec<(Rc<Link>, Vec<Queued>)>,
}
