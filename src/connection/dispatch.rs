//! Where each request goes: to its session as a command, after a look-up where the session needs one, or to the store.
//!
//! Requests of one connection to one session take effect in the order sent: [`super::lanes`] keeps it. Invariant:
//! every request that was counted in is answered once, here or by its session, and counted out then.

use std::rc::Rc;
use std::sync::Arc;

use crate::protocol::{ErrorCode, Refusal, Reply, Request, RequestId, SessionId};
use crate::session::state::Command;
use crate::telemetry::Limit;

use super::hub::Hub;
use super::lanes::Pace;
use super::link::{Link, Stage, unauthenticated};
use super::{Caller, ReplySlot, lookups, members, reads};

/// Takes a request that was just read.
pub(super) fn take(hub: &Rc<Hub>, link: &Rc<Link>, id: RequestId, request: Request) {
    link.took_request();
    if let Err(refusal) = admit(hub, link, &request) {
        return finish(hub, link, (id, request.name()), None, &Err(refusal));
    }
    match request {
        Request::Authenticate(body) => members::authenticate(hub, link, id, body),
        Request::Resume(body) => members::resume(hub, link, id, body),
        Request::Ping(_) => {
            let reply = Reply::Pong { time: hub.node.now() };
            finish(hub, link, (id, "ping"), None, &Ok(reply));
        }
        request => match request.session_id() {
            Some(session_id) => {
                let pace = pace(&request);
                if let Some((id, request)) = link.enter_lane(session_id, pace, (id, request)) {
                    go(hub, link, id, request);
                }
            }
            None => go(hub, link, id, request),
        },
    }
}

/// What is refused before anybody asks what it is about.
fn admit(hub: &Hub, link: &Link, request: &Request) -> Result<(), Refusal> {
    match (request, link.stage.get()) {
        (Request::Ping(_), Stage::Unknown | Stage::Authenticating) => return Ok(()),
        (Request::Authenticate(_), Stage::Unknown) => return request.check(&hub.node.arguments),
        (_, Stage::Unknown | Stage::Authenticating) => return Err(unauthenticated()),
        (Request::Authenticate(_), _) => {
            return Err(Refusal::new(ErrorCode::InvalidArgument, "authenticate: the connection is authenticated"));
        }
        (Request::Resume(_), Stage::Resuming | Stage::Resumed) => {
            return Err(Refusal::new(ErrorCode::InvalidArgument, "resume: the connection has resumed"));
        }
        (_, Stage::Authenticated | Stage::Resuming | Stage::Resumed) => {}
    }
    not_too_many(hub, link)?;
    request.check(&hub.node.arguments)
}

/// Counts a request against what the user may send in a second, readable or not.
pub(super) fn not_too_many(hub: &Hub, link: &Link) -> Result<(), Refusal> {
    let Some(identity) = link.identity.get() else { return Ok(()) };
    identity.throttle.admit(hub.node.nanos(), hub.node.limits.requests_per_s).map_err(|wait| {
        hub.node.metrics.limited(Limit::Requests);
        Refusal::rate_limited("too many requests", wait.div_ceil(1_000_000).max(1))
    })
}

/// Whether a request goes straight to its session, or has something read first.
const fn pace(request: &Request) -> Pace {
    match request {
        Request::AllowUserJoinSession(_)
        | Request::SendRoomKey(_)
        | Request::SendRoomKeys(_)
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
        | Request::SetSessionInfo(_) => Pace::Together,
        Request::Authenticate(_)
        | Request::Resume(_)
        | Request::NewSession(_)
        | Request::JoinSession(_)
        | Request::InviteUserToSession(_)
        | Request::AcceptJoinSessionApproval(_)
        | Request::FetchRoomKeys(_)
        | Request::BanUser(_)
        | Request::GetSessionInfo(_)
        | Request::ListMembers(_)
        | Request::FetchMsgs(_)
        | Request::RecallMsg(_)
        | Request::Ack(_)
        | Request::AckInbox(_)
        | Request::Typing(_)
        | Request::Ping(_) => Pace::Alone,
    }
}

/// Lets a request go whose turn it is.
pub(super) fn go(hub: &Rc<Hub>, link: &Rc<Link>, id: RequestId, request: Request) {
    let name = request.name();
    match request {
        Request::AllowUserJoinSession(body) => {
            submit(hub, link, (id, name), body.session_id, Command::Allow(body));
        }
        Request::SendRoomKey(body) => submit(hub, link, (id, name), body.session_id, Command::SendRoomKey(body)),
        Request::SendRoomKeys(body) => submit(hub, link, (id, name), body.session_id, Command::SendRoomKeys(body)),
        Request::RequestRoomKey(body) => {
            submit(hub, link, (id, name), body.session_id, Command::RequestRoomKey(body.reason));
        }
        Request::SendMsg(body) => submit(hub, link, (id, name), body.session_id, Command::SendMsg(body)),
        Request::E2eeizeSession(body) => submit(hub, link, (id, name), body.session_id, Command::E2eeize),
        Request::Dee2eeizeSession(body) => submit(hub, link, (id, name), body.session_id, Command::Dee2eeize),
        Request::LeaveSession(body) => {
            let force = body.force.unwrap_or_default();
            submit(hub, link, (id, name), body.session_id, Command::Leave { force });
        }
        Request::DeleteSession(body) => submit(hub, link, (id, name), body.session_id, Command::Delete),
        Request::KickUser(body) => submit(hub, link, (id, name), body.session_id, Command::Kick(body.user_id)),
        Request::UnbanUser(body) => submit(hub, link, (id, name), body.session_id, Command::Unban(body.user_id)),
        Request::MuteUser(body) => {
            let duration_s = body.duration_s.map(|duration| duration.0);
            submit(hub, link, (id, name), body.session_id, Command::Mute { user_id: body.user_id, duration_s });
        }
        Request::UnmuteUser(body) => submit(hub, link, (id, name), body.session_id, Command::Unmute(body.user_id)),
        Request::SetRole(body) => {
            let command = Command::SetRole { user_id: body.user_id, role: body.role };
            submit(hub, link, (id, name), body.session_id, command);
        }
        Request::SetSessionInfo(body) => submit(hub, link, (id, name), body.session_id, Command::SetInfo(body)),
        Request::NewSession(_)
        | Request::JoinSession(_)
        | Request::InviteUserToSession(_)
        | Request::AcceptJoinSessionApproval(_)
        | Request::BanUser(_)
        | Request::RecallMsg(_) => lookups::start(hub, link, id, request),
        Request::FetchRoomKeys(_)
        | Request::GetSessionInfo(_)
        | Request::ListMembers(_)
        | Request::FetchMsgs(_)
        | Request::Ack(_)
        | Request::AckInbox(_)
        | Request::Typing(_) => reads::start(hub, link, id, request),
        // Answered in `take`; they never wait in a lane.
        Request::Authenticate(_) | Request::Resume(_) | Request::Ping(_) => {}
    }
}

/// Hands a command to its session, which answers through the hub.
pub(super) fn submit(
    hub: &Hub,
    link: &Link,
    (id, name): (RequestId, &'static str),
    session_id: SessionId,
    command: Command,
) {
    if let Some(slot) = slot(hub, link, (id, name), Some(session_id)) {
        hub.node.sessions.submit(session_id, command, slot);
    }
}

/// The duty to answer a request that goes to a session.
pub(super) fn slot(
    hub: &Hub,
    link: &Link,
    (id, name): (RequestId, &'static str),
    session_id: Option<SessionId>,
) -> Option<ReplySlot> {
    let user_id = link.user_id()?;
    link.command_sent(id, name, session_id);
    let caller = Caller { user_id, connection: link.key, request_id: id, request: name };
    Some(ReplySlot::new(caller, Arc::clone(&hub.node.deliveries)))
}

/// Answers a request here, and lets those go that waited for it.
pub(super) fn finish(
    hub: &Rc<Hub>,
    link: &Rc<Link>,
    (id, name): (RequestId, &'static str),
    session_id: Option<SessionId>,
    outcome: &Result<Reply, Refusal>,
) {
    link.answer(id, name, outcome);
    hub.node.metrics.command(name, outcome.as_ref().err().map(|refusal| refusal.code));
    link.request_done();
    if let Some(session_id) = session_id {
        let freed = link.left_lane(session_id);
        hub.go(link, freed);
    }
}
