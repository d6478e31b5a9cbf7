//! Requests that the store answers, and those that only touch what this node gathers: `ack`, `ack_inbox`, `typing`.

use std::rc::Rc;

use serde_json::value::RawValue;

use crate::cluster::{Publication, Row, UserSignal};
use crate::protocol::{
    ErrorCode, FetchMsgs, FetchRoomKeys, Frame, GetSessionInfo, ListMembers, MembersPage, MsgsPage, Refusal, Reply,
    Request, RequestId, Role, RoomKeysPage, SessionId, UserId, encode_typing,
};
use crate::store::{Access, EventRange, StoreError};

use super::dispatch::finish;
use super::hub::Hub;
use super::link::Link;
use super::node::refusal_of;
use super::reader::room;
use super::{Connections, Parcel};

/// Members that `get_session_info` shows.
const INFO_MEMBERS: u64 = 1000;

/// Answers a request from the store.
pub(super) fn start(hub: &Rc<Hub>, link: &Rc<Link>, id: RequestId, request: Request) {
    let Some(user_id) = link.user_id() else { return };
    let (name, session_id) = (request.name(), request.session_id());
    if let Some(reply) = known_here(hub, link, user_id, &request) {
        return finish(hub, link, (id, name), session_id, &Ok(reply));
    }
    let (hub, link) = (Rc::clone(hub), Rc::clone(link));
    actix_web::rt::spawn(async move {
        let outcome = {
            let _page = link.page.lock().await;
            room(&link).await;
            answer(&hub, user_id, request).await
        };
        if link.is_open() {
            finish(&hub, &link, (id, name), session_id, &outcome);
        }
    });
}

/// What needs no look into the store: an `ack` of what was sent on this very connection.
fn known_here(hub: &Hub, link: &Link, user_id: UserId, request: &Request) -> Option<Reply> {
    let Request::Ack(body) = request else { return None };
    if hub.is_live(link, body.session_id)? < body.seq {
        return None;
    }
    hub.node.acks.take(user_id, body.session_id, body.seq);
    Some(Reply::Done {})
}

async fn answer(hub: &Hub, user_id: UserId, request: Request) -> Result<Reply, Refusal> {
    let node = &*hub.node;
    match request {
        Request::FetchRoomKeys(body) => fetch_room_keys(node, user_id, &body).await,
        Request::GetSessionInfo(body) => get_session_info(node, user_id, &body).await,
        Request::ListMembers(body) => list_members(node, user_id, &body).await,
        Request::FetchMsgs(body) => fetch_msgs(node, user_id, &body).await,
        Request::Ack(body) => {
            let (_, _, last_seq) = access(node, body.session_id, user_id).await?;
            if body.seq > last_seq {
                return Err(Refusal::invalid("seq", "expected at most the session's latest"));
            }
            node.acks.take(user_id, body.session_id, body.seq);
            Ok(Reply::Done {})
        }
        Request::AckInbox(body) => {
            node.store.ack_inbox(user_id, &body.inbox_ids).await.map_err(refused)?;
            node.subscriptions.signal(user_id, UserSignal::Acked(body.inbox_ids)).await;
            Ok(Reply::Done {})
        }
        Request::Typing(body) => {
            access(node, body.session_id, user_id).await?;
            node.deliveries.deliver(typing(body.session_id, user_id)).await;
            Ok(Reply::Done {})
        }
        Request::Authenticate(_)
        | Request::Resume(_)
        | Request::NewSession(_)
        | Request::JoinSession(_)
        | Request::AllowUserJoinSession(_)
        | Request::InviteUserToSession(_)
        | Request::AcceptJoinSessionApproval(_)
        | Request::SendRoomKey(_)
        | Request::SendRoomKeys(_)
        | Request::RequestRoomKey(_)
        | Request::SendMsg(_)
        | Request::E2eeizeSession(_)
        | Request::Dee2eeizeSession(_)
        | Request::LeaveSession(_)
        | Request::DeleteSession(_)
        | Request::KickUser(_)
        | Request::BanUser(_)
        | Request::UnbanUser(_)
        | Request::MuteUser(_)
        | Request::UnmuteUser(_)
        | Request::SetRole(_)
        | Request::SetSessionInfo(_)
        | Request::RecallMsg(_)
        | Request::Ping(_) => Err(Refusal::new(ErrorCode::Internal, "the request failed in the server")),
    }
}

fn refused(error: StoreError) -> Refusal {
    refusal_of(&error)
}

/// The caller's role, the first event that they may see and the session's latest; or why they may not.
pub(super) async fn access(
    node: &Connections,
    session_id: SessionId,
    user_id: UserId,
) -> Result<(Role, u64, u64), Refusal> {
    match node.store.access(session_id, user_id, node.now()).await.map_err(refused)? {
        Access::NoSession => Err(Refusal::no_session()),
        Access::Banned => Err(Refusal::new(ErrorCode::Banned, "banned from this session")),
        Access::Stranger => Err(Refusal::not_a_member()),
        Access::Member { role, first_seq, last_seq, .. } => Ok((role, first_seq, last_seq)),
    }
}

fn typing(session_id: SessionId, by: UserId) -> Parcel {
    let frame = Frame::text(&encode_typing(session_id, by));
    let publication = Publication { session_id, version: 0, rows: vec![Row::Typing { by, frame }] };
    Parcel { publication: Some(publication), ..Parcel::default() }
}

async fn fetch_room_keys(node: &Connections, user_id: UserId, body: &FetchRoomKeys) -> Result<Reply, Refusal> {
    access(node, body.session_id, user_id).await?;
    let after = body.after_epoch.unwrap_or_default();
    let limit = node.page_rows(body.limit);
    let page = node.store.room_keys(body.session_id, user_id, after, limit).await.map_err(refused)?;
    Ok(Reply::FetchRoomKeys(RoomKeysPage { room_keys: page.rows, more: page.more }))
}

async fn get_session_info(node: &Connections, user_id: UserId, body: &GetSessionInfo) -> Result<Reply, Refusal> {
    let (role, ..) = access(node, body.session_id, user_id).await?;
    let info = node.store.session_info(body.session_id, INFO_MEMBERS, node.now()).await.map_err(refused)?;
    let mut info = info.ok_or_else(Refusal::no_session)?;
    match role {
        Role::Owner | Role::Admin => {}
        Role::Member => {
            info.join_requests = None;
            info.invitations = None;
        }
    }
    Ok(Reply::SessionInfo(Box::new(info)))
}

async fn list_members(node: &Connections, user_id: UserId, body: &ListMembers) -> Result<Reply, Refusal> {
    access(node, body.session_id, user_id).await?;
    let limit = node.page_rows(body.limit);
    let page = node.store.members(body.session_id, body.after, limit, node.now()).await.map_err(refused)?;
    Ok(Reply::Members(MembersPage { members: page.rows, more: page.more }))
}

async fn fetch_msgs(node: &Connections, user_id: UserId, body: &FetchMsgs) -> Result<Reply, Refusal> {
    let (_, first_seq, last_seq) = access(node, body.session_id, user_id).await?;
    let range = match (body.after_seq, body.before_seq) {
        // Not past what the caller was a member for when they were asked about.
        (Some(after), _) => EventRange::After { after: after.max(first_seq.saturating_sub(1)), up_to: Some(last_seq) },
        (None, Some(before)) => EventRange::Before { before: before.min(last_seq + 1), from: first_seq },
        (None, None) => EventRange::Before { before: last_seq + 1, from: first_seq },
    };
    let (limit, bytes) = (node.page_rows(body.limit), node.settings.catch_up_bytes);
    let page = node.store.events(body.session_id, range, limit, bytes).await.map_err(refused)?;
    let events = page.rows.into_iter().map(|row| RawValue::from_string(row.json.into()));
    let events = events.collect::<Result<_, _>>();
    let events = events.map_err(|_| refused(StoreError::Corrupt("an event that cannot be read".to_owned())))?;
    Ok(Reply::Msgs(MsgsPage { events, more: page.more }))
}
