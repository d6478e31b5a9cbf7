//! Reading from the store for connections: stored events for those that catch up, and inbox events.
//!
//! Everything here runs as tasks of the connection's own thread, one page at a time per connection and only when its
//! outbox has room. Invariant: between the moment a page is pushed and the moment the hub learns of it nothing else
//! runs, so live events follow without a gap and without a repetition.

use std::rc::Rc;
use std::time::Duration;

use crate::protocol::{Frame, SessionId, UserId};
use crate::store::{Access, EventRange, InboxRow, StoreResult};

use super::catch_up::{Standing, own_ending};
use super::hub::Hub;
use super::link::Link;

/// Events of one page.
const PAGE_ROWS: u64 = 500;

/// After a read that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// When the store does not have yet what the hub has heard of.
const BREATH: Duration = Duration::from_millis(50);

/// How often the store is asked whether somebody is back.
const ASKED: u32 = 20;

/// What a page leaves to be done.
enum Next {
    More,
    /// More, but not at once.
    Later,
    Done,
}

/// Has a connection catch up with a session, beside others that it may have to catch up with.
pub(super) fn catch_up(hub: &Rc<Hub>, link: &Rc<Link>, session_id: SessionId) {
    if !link.is_open() {
        return;
    }
    come_back_to(link, session_id);
    if !link.reader_runs.replace(true) {
        let (hub, link) = (Rc::clone(hub), Rc::clone(link));
        actix_web::rt::spawn(async move {
            catch_up_all(&hub, &link).await;
            link.reader_runs.set(false);
        });
    }
}

async fn catch_up_all(hub: &Rc<Hub>, link: &Rc<Link>) {
    while link.is_open() {
        let Some(session_id) = link.behind.borrow_mut().pop_front() else { return };
        let (next, pause) = match page(hub, link, session_id).await {
            Ok(next @ (Next::More | Next::Done)) => (next, None),
            Ok(Next::Later) => (Next::More, Some(BREATH)),
            Err(error) => {
                tracing::warn!(%error, "a connection cannot catch up");
                (Next::More, Some(PAUSE))
            }
        };
        match next {
            Next::More | Next::Later => come_back_to(link, session_id),
            Next::Done => {}
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

fn come_back_to(link: &Link, session_id: SessionId) {
    let mut behind = link.behind.borrow_mut();
    if link.is_open() && !behind.contains(&session_id) {
        behind.push_back(session_id);
    }
}

/// Reads and pushes one page of a session.
async fn page(hub: &Rc<Hub>, link: &Rc<Link>, session_id: SessionId) -> StoreResult<Next> {
    let Some(user_id) = link.user_id() else { return Ok(Next::Done) };
    let _page = link.page.lock().await;
    room(link).await;
    let Some(Standing::CatchingUp { cursor }) = hub.standing(link, session_id) else { return Ok(Next::Done) };
    let range = EventRange::After { after: cursor, up_to: None };
    let store = &hub.node.store;
    let mut page = store.events(session_id, range, PAGE_ROWS, hub.node.settings.catch_up_bytes).await?;
    hub.node.metrics.catch_ups.inc();
    let ending = own_ending(&page.rows, user_id);
    if let Some(last) = ending {
        page.rows.truncate(last + 1);
    }
    let version = page.rows.iter().map(|row| row.version).max().unwrap_or_default();
    send_keys(hub, link, user_id, session_id, version).await?;
    if !link.is_open() {
        return Ok(Next::Done);
    }
    hub.node.metrics.deliveries.inc_by(page.rows.len() as u64);
    for row in &page.rows {
        link.send(&Frame::text(row.json.as_bytes()));
    }
    let last = page.rows.last().map_or(cursor, |row| row.seq);
    if ending.is_some() {
        hub.set_standing(link, session_id, Standing::CatchingUp { cursor: last });
        return after_ending(hub, link, user_id, (session_id, last, version)).await;
    }
    Ok(match hub.advance(link, session_id, last, page.more) {
        Some(Standing::CatchingUp { .. }) if page.rows.is_empty() => Next::Later,
        Some(Standing::CatchingUp { .. }) => Next::More,
        Some(Standing::Held | Standing::Live { .. }) | None => Next::Done,
    })
}

/// Sends the user's unacknowledged room keys of a session, where they may not have gone yet: they are needed for the
/// text that comes next.
async fn send_keys(
    hub: &Rc<Hub>,
    link: &Rc<Link>,
    user_id: UserId,
    session_id: SessionId,
    version: u64,
) -> StoreResult<()> {
    let sent = !link.inbox.borrow().is_behind() && hub.has_delivered(session_id, version);
    if sent {
        return Ok(());
    }
    let keys = hub.node.store.inbox_keys(user_id, session_id, i64::MAX as u64).await?;
    for row in keys {
        if link.inbox.borrow_mut().ahead(&row.inbox_id) {
            hub.node.metrics.inbox_deliveries.inc();
            link.send(&Frame::text(row.json.as_bytes()));
        }
    }
    Ok(())
}

/// The user's own leaving was pushed: it is the last event, unless they are back already.
async fn after_ending(
    hub: &Rc<Hub>,
    link: &Rc<Link>,
    user_id: UserId,
    (session_id, last, version): (SessionId, u64, u64),
) -> StoreResult<Next> {
    for _ in 0..ASKED {
        link.membership_read_begins();
        let access = hub.node.store.access(session_id, user_id, hub.node.now()).await;
        let back_since = link.saw_later(session_id, version);
        link.membership_read_ends();
        match access? {
            Access::Member { first_seq, .. } if first_seq > last => {
                hub.set_standing(link, session_id, Standing::CatchingUp { cursor: first_seq - 1 });
                return Ok(Next::More);
            }
            // The hub saw them come back while the store was asked.
            Access::Member { .. } | Access::NoSession | Access::Banned | Access::Stranger if back_since => {
                tokio::time::sleep(BREATH).await;
            }
            Access::Member { .. } | Access::NoSession | Access::Banned | Access::Stranger => break,
        }
    }
    hub.unseat(link, session_id);
    Ok(Next::Done)
}

/// Reads the inbox for a connection, if there may be something for it and it has room.
pub(super) fn read_inbox(hub: &Rc<Hub>, link: &Rc<Link>) {
    let (Some(user_id), true) = (link.user_id(), link.is_open()) else { return };
    let Some(asked) = link.inbox.borrow_mut().begin() else { return };
    let (hub, link) = (Rc::clone(hub), Rc::clone(link));
    actix_web::rt::spawn(async move {
        let mut next = Some(asked);
        while let Some(asked) = next {
            let failed = !inbox_page(&hub, &link, user_id, asked).await;
            if failed {
                tokio::time::sleep(PAUSE).await;
            }
            next = if link.is_open() { link.inbox.borrow_mut().begin() } else { None };
        }
    });
}

/// Reads and sends one page of the inbox; whether it could be read.
async fn inbox_page(hub: &Rc<Hub>, link: &Rc<Link>, user_id: UserId, asked: u64) -> bool {
    let _page = link.page.lock().await;
    room(link).await;
    let rows = match hub.node.store.inbox(user_id, asked, hub.node.now()).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(%error, "an inbox cannot be read");
            link.inbox.borrow_mut().failed();
            return false;
        }
    };
    let send: Vec<InboxRow> = link.inbox.borrow_mut().page(rows, asked);
    hub.node.metrics.inbox_deliveries.inc_by(send.len() as u64);
    for row in send {
        link.send(&Frame::text(row.json.as_bytes()));
    }
    true
}

/// Waits until the outbox has room for a page.
pub(super) async fn room(link: &Link) {
    std::future::poll_fn(|cx| {
        if link.outbox().has_room(cx.waker()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
