//! Commands whose session needs to know something that only the store knows: it is looked up here, and goes with them.

use std::collections::HashSet;
use std::rc::Rc;

use crate::protocol::{
    ErrorCode, FailedMember, NewSession, Refusal, Request, RequestId, ServerFrame, SessionEvent, SessionId, UserId,
    decode_server_frame,
};
use crate::session::state::Command;
use crate::store::{EventRange, StoreError};

use super::Connections;
use super::dispatch::{finish, slot};
use super::hub::Hub;
use super::link::Link;
use super::node::refusal_of;

/// Looks up what a command needs, and hands it to its session.
pub(super) fn start(hub: &Rc<Hub>, link: &Rc<Link>, id: RequestId, request: Request) {
    let Some(user_id) = link.user_id() else { return };
    let (hub, link) = (Rc::clone(hub), Rc::clone(link));
    actix_web::rt::spawn(async move {
        let (name, session_id) = (request.name(), request.session_id());
        let command = match room_for_one_more(&hub, &link, &request) {
            Ok(()) => look_up(&hub.node, user_id, request).await,
            Err(refusal) => Err(refusal),
        };
        if !link.is_open() {
            return;
        }
        let command = match command {
            Ok(command) => command,
            Err(refusal) => return finish(&hub, &link, (id, name), session_id, &Err(refusal)),
        };
        let Some(slot) = slot(&hub, &link, (id, name), session_id) else { return };
        match session_id {
            Some(session_id) => {
                hub.node.sessions.submit(session_id, command, slot);
                let freed = link.joined_lane(session_id);
                hub.go(&link, freed);
            }
            None => hub.node.sessions.create(command, slot),
        }
    });
}

/// Whether the user may come into one session more. One too many that comes by an approval is let be.
fn room_for_one_more(hub: &Hub, link: &Link, request: &Request) -> Result<(), Refusal> {
    let comes_in =
        matches!(request, Request::NewSession(_) | Request::JoinSession(_) | Request::AcceptJoinSessionApproval(_));
    let sessions = link.seats.borrow().len() as u64;
    if comes_in && sessions >= hub.node.limits.sessions_per_user {
        return Err(Refusal::new(ErrorCode::TooLarge, "the user is in as many sessions as one may be"));
    }
    Ok(())
}

async fn look_up(node: &Connections, user_id: UserId, request: Request) -> Result<Command, Refusal> {
    match request {
        Request::NewSession(body) => new_session(node, user_id, body).await,
        Request::JoinSession(body) => {
            let public_key = own_key(node, user_id).await?;
            Ok(Command::Join { leave_message: body.leave_message, public_key })
        }
        Request::AcceptJoinSessionApproval(body) => {
            let public_key = own_key(node, user_id).await?;
            Ok(Command::Accept { body, public_key })
        }
        Request::InviteUserToSession(body) => {
            let known = is_live(node, body.invitee).await?;
            Ok(Command::Invite { body, known })
        }
        Request::BanUser(body) => {
            let known = is_live(node, body.user_id).await?;
            let duration_s = body.duration_s.map(|duration| duration.0);
            Ok(Command::Ban { user_id: body.user_id, duration_s, known })
        }
        Request::RecallMsg(body) => {
            let original = event(node, body.session_id, body.seq).await?;
            Ok(Command::Recall { seq: body.seq, original })
        }
        Request::Authenticate(_)
        | Request::Resume(_)
        | Request::AllowUserJoinSession(_)
        | Request::SendRoomKey(_)
        | Request::SendRoomKeys(_)
        | Request::FetchRoomKeys(_)
        | Request::RequestRoomKey(_)
        | Request::SendMsg(_)
        | Request::E2eeizeSession(_)
        | Request::Dee2eeizeSession(_)
        | Request::LeaveSession(_)
        | Request::DeleteSession(_)
        | Request::KickUser(_)
        | Request::UnbanUser(_)
        | Request::MuteUser(_)
        | Request::UnmuteUser(_)
        | Request::SetRole(_)
        | Request::GetSessionInfo(_)
        | Request::ListMembers(_)
        | Request::SetSessionInfo(_)
        | Request::FetchMsgs(_)
        | Request::Ack(_)
        | Request::AckInbox(_)
        | Request::Typing(_)
        | Request::Ping(_) => Err(Refusal::new(ErrorCode::Internal, "the request failed in the server")),
    }
}

fn refused(error: StoreError) -> Refusal {
    refusal_of(&error)
}

async fn own_key(node: &Connections, user_id: UserId) -> Result<String, Refusal> {
    let keys = node.store.public_keys(&[user_id]).await.map_err(refused)?;
    let key = keys.into_iter().find(|(owner, _)| *owner == user_id).map(|(_, key)| key);
    key.ok_or_else(|| Refusal::new(ErrorCode::Unauthenticated, "the account is closed"))
}

async fn is_live(node: &Connections, user_id: UserId) -> Result<bool, Refusal> {
    Ok(!node.store.public_keys(&[user_id]).await.map_err(refused)?.is_empty())
}

/// Tells those who can be invited from those who cannot; each is named once, the creator is in anyhow.
async fn new_session(node: &Connections, creator: UserId, mut body: NewSession) -> Result<Command, Refusal> {
    let mut failed = Vec::new();
    if let Some(members) = &mut body.members {
        let mut named = HashSet::new();
        members.retain(|member| named.insert(*member));
        let live = node.store.public_keys(members).await.map_err(refused)?;
        let live: HashSet<UserId> = live.into_iter().map(|(user_id, _)| user_id).collect();
        members.retain(|member| {
            let reason = match *member {
                member if member == creator => ErrorCode::AlreadyExists,
                member if live.contains(&member) => return true,
                _ => ErrorCode::NotFound,
            };
            failed.push(FailedMember { user_id: *member, reason });
            false
        });
    }
    Ok(Command::Create { body, failed })
}

/// The event with this `seq`, as it is stored.
async fn event(node: &Connections, session_id: SessionId, seq: u64) -> Result<Option<Box<SessionEvent>>, Refusal> {
    let range = EventRange::After { after: seq.saturating_sub(1), up_to: Some(seq) };
    let page = node.store.events(session_id, range, 1, 1).await.map_err(refused)?;
    let Some(row) = page.rows.into_iter().find(|row| row.seq == seq) else { return Ok(None) };
    match decode_server_frame(&row.json) {
        Ok(ServerFrame::Event(event)) => Ok(Some(event)),
        Ok(_) | Err(_) => Err(refusal_of(&StoreError::Corrupt("an event that cannot be read".to_owned()))),
    }
}
