//! How a connection begins: `authenticate`, `resume`, and sessions that are joined on the way.
//!
//! A connection is among its user's first, then listens, and reads after that: whatever happens meanwhile comes by the
//! hub or is in the store. Until `resume` its seats are held and no session event is sent.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::protocol::{
    Authenticate, Authenticated, CloseCode, Cursor, ErrorCode, Gone, Refusal, Reply, RequestId, Resume, Resumed,
    SessionId, UserId,
};
use crate::store::{Membership, StoreResult, TokenHash, TokenOwner};
use crate::telemetry::Limit;

use super::catch_up::{Standing, plan};
use super::hub::Hub;
use super::link::{Identity, Link, Stage};
use super::node::refusal_of;
use super::reader;

/// Whose a token is.
pub(super) async fn owner_of(node: &super::Connections, token: &str) -> Result<(TokenHash, TokenOwner), Refusal> {
    let dead = || Refusal::new(ErrorCode::Unauthenticated, "the token is not valid, log in again");
    let hash = (node.token_hash)(token).ok_or_else(dead)?;
    let now = node.store.now().await.map_err(|error| refusal_of(&error))?;
    let owner = node.store.token_owner(hash, now).await.map_err(|error| refusal_of(&error))?;
    owner.map(|owner| (hash, owner)).ok_or_else(dead)
}

/// `authenticate`.
pub(super) fn authenticate(hub: &Rc<Hub>, link: &Rc<Link>, id: RequestId, body: Authenticate) {
    link.stage.set(Stage::Authenticating);
    let (hub, link) = (Rc::clone(hub), Rc::clone(link));
    actix_web::rt::spawn(async move {
        let introduced = introduce(&hub, &link, body).await;
        let refused = introduced.as_ref().err().map(|refusal| refusal.code);
        hub.node.metrics.command("authenticate", refused);
        match introduced {
            Ok((reply, wants_keys)) => {
                link.answer(id, "authenticate", &Ok(reply));
                link.authenticated();
                link.request_done();
                reader::read_inbox(&hub, &link);
                if let Some(user_id) = link.user_id() {
                    for session_id in wants_keys {
                        hub.node.sessions.member_connected(session_id, user_id, link.key);
                    }
                }
            }
            Err(refusal) => {
                link.answer(id, "authenticate", &Err(refusal.clone()));
                // A token that is no good will not become so; a limit or a store that is away may pass.
                if refusal.code == ErrorCode::Unauthenticated {
                    link.close(CloseCode::Unauthenticated);
                }
                link.stage.set(Stage::Unknown);
                link.request_done();
            }
        }
    });
}

async fn introduce(hub: &Rc<Hub>, link: &Rc<Link>, body: Authenticate) -> Result<(Reply, Vec<SessionId>), Refusal> {
    let node = &hub.node;
    let (token, owner) = match (body.token, &link.bearer) {
        (Some(token), _) => owner_of(node, &token).await?,
        (None, Some(bearer)) => bearer.clone(),
        (None, None) => {
            return Err(Refusal::new(ErrorCode::Unauthenticated, "token: missing, and the upgrade carried none"));
        }
    };
    let user_id = owner.user_id;
    let memberships = enter(hub, link, token, &owner).await?;
    let wants_keys = memberships.iter().filter(|one| one.wants_keys).map(|one| one.overview.session_id).collect();
    let sessions = memberships
        .into_iter()
        .map(|Membership { mut overview, .. }| {
            overview.acked_seq = acked(hub, user_id, overview.session_id, overview.acked_seq);
            overview
        })
        .collect();
    let limits = node.limits.public();
    let reply = Authenticated { user_id, node: node.node.to_string(), limits, sessions };
    Ok((Reply::Authenticated(Box::new(reply)), wants_keys))
}

/// Makes the connection one of its user's, and gives it its seats.
async fn enter(
    hub: &Rc<Hub>,
    link: &Rc<Link>,
    token: TokenHash,
    owner: &TokenOwner,
) -> Result<Vec<Membership>, Refusal> {
    let node = &hub.node;
    let user_id = owner.user_id;
    if !link.is_open() {
        return Err(Refusal::new(ErrorCode::Unavailable, "the connection is ending"));
    }
    if node.subscriptions.is_shut() {
        return Err(Refusal::new(ErrorCode::Unavailable, "the node serves nobody now, try another one"));
    }
    let left = owner.expires_at.millis_since(node.now()).max(0);
    let expires = Instant::now() + Duration::from_millis(left.unsigned_abs()).min(Duration::from_secs(86_400 * 365));
    if let Some(known) = link.identity.get() {
        // An earlier attempt came this far and failed behind it.
        if known.user_id != user_id || known.token != token {
            return Err(Refusal::invalid("token", "expected the same one as before"));
        }
    } else {
        let throttle =
            node.subscriptions.people().arrive(user_id, link.key, token, node.limits.connections_per_user).map_err(
                |_| {
                    node.metrics.limited(Limit::ConnectionsPerUser);
                    Refusal::rate_limited("too many connections of this user", 1000)
                },
            )?;
        // Nobody else sets it: one `authenticate` is answered at a time, and none after the one that succeeded.
        let _ = link.identity.set(Identity { user_id, token, expires, throttle });
        hub.identify(link, user_id);
    }
    node.subscriptions.confirm_user(user_id).await.map_err(|error| {
        tracing::warn!(%error, "a connection could not listen");
        Refusal::new(ErrorCode::Unavailable, "the node is cut off, try again")
    })?;
    // The token may have died while nobody listened for that.
    let alive = node.store.dead_tokens(&[token], node.now()).await.map_err(|error| refusal_of(&error))?.is_empty();
    if !alive {
        return Err(Refusal::new(ErrorCode::Unauthenticated, "the token is not valid, log in again"));
    }
    let memberships = memberships(hub, link, user_id).await.map_err(|error| refusal_of(&error))?;
    for membership in &memberships {
        take_seat(hub, link, membership.overview.session_id, Standing::Held).await?;
    }
    Ok(memberships)
}

/// The user's memberships, but for those that the hub has seen end since.
async fn memberships(hub: &Rc<Hub>, link: &Rc<Link>, user_id: UserId) -> StoreResult<Vec<Membership>> {
    link.membership_read_begins();
    let mut read = hub.node.store.sessions_of(user_id).await;
    if let Ok(list) = &mut read {
        // A join that was seen later has brought its seat with it.
        list.retain(|one| {
            let id = one.overview.session_id;
            link.seats.borrow().contains(&id) || !link.saw_later(id, one.version)
        });
    }
    link.membership_read_ends();
    read
}

/// Gives a connection a seat that the bus has confirmed.
async fn take_seat(hub: &Rc<Hub>, link: &Rc<Link>, session_id: SessionId, standing: Standing) -> Result<(), Refusal> {
    hub.seat(link, session_id, standing);
    hub.node.subscriptions.confirm_session(session_id).await.map_err(|error| {
        tracing::warn!(%error, "a connection could not listen");
        Refusal::new(ErrorCode::Unavailable, "the node is cut off, try again")
    })
}

fn acked(hub: &Hub, user_id: UserId, session_id: SessionId, stored: u64) -> u64 {
    stored.max(hub.node.acks.pending(user_id, session_id).unwrap_or_default())
}

/// `resume`.
pub(super) fn resume(hub: &Rc<Hub>, link: &Rc<Link>, id: RequestId, body: Resume) {
    link.stage.set(Stage::Resuming);
    let (hub, link) = (Rc::clone(hub), Rc::clone(link));
    actix_web::rt::spawn(async move {
        let cursors = body.cursors.unwrap_or_default();
        let Some(user_id) = link.user_id() else { return };
        let planned = plan_all(&hub, &link, user_id, &cursors).await;
        hub.node.metrics.command("resume", planned.as_ref().err().map(|refusal| refusal.code));
        match planned {
            Ok((resumed, memberships)) => {
                let starts: Vec<_> = resumed.sessions.iter().map(|one| (one.session_id, one.from_seq)).collect();
                link.answer(id, "resume", &Ok(Reply::Resumed(resumed)));
                link.stage.set(Stage::Resumed);
                start_all(&hub, &link, &starts, &memberships);
            }
            Err(refusal) => {
                link.stage.set(Stage::Authenticated);
                link.answer(id, "resume", &Err(refusal));
            }
        }
        link.request_done();
    });
}

async fn plan_all(
    hub: &Rc<Hub>,
    link: &Rc<Link>,
    user_id: UserId,
    cursors: &BTreeMap<SessionId, Cursor>,
) -> Result<(Resumed, Vec<Membership>), Refusal> {
    let memberships = memberships(hub, link, user_id).await.map_err(|error| refusal_of(&error))?;
    let mut sessions = Vec::with_capacity(memberships.len());
    for Membership { overview, .. } in &memberships {
        let session_id = overview.session_id;
        let mut overview = overview.clone();
        overview.acked_seq = acked(hub, user_id, session_id, overview.acked_seq);
        sessions.push(plan(&overview, cursors.get(&session_id)));
    }
    let members: HashSet<SessionId> = memberships.iter().map(|one| one.overview.session_id).collect();
    let lost: Vec<SessionId> = cursors.keys().filter(|id| !members.contains(id)).copied().collect();
    let gone = if lost.is_empty() {
        Vec::new()
    } else {
        hub.node.store.departures(user_id, &lost).await.map_err(|error| refusal_of(&error))?
    };
    let gone = gone.into_iter().map(|(session_id, reason)| Gone { session_id, reason }).collect();
    Ok((Resumed { sessions, gone }, memberships))
}

/// Lets the events flow. Runs without a wait, right behind the reply.
fn start_all(hub: &Rc<Hub>, link: &Rc<Link>, starts: &[(SessionId, u64)], memberships: &[Membership]) {
    let held = link.seats.borrow().clone();
    for ((session_id, from_seq), membership) in starts.iter().zip(memberships) {
        let (session_id, cursor) = (*session_id, from_seq - 1);
        let listened = held.contains(&session_id);
        hub.seat(link, session_id, Standing::Held);
        let known = hub.baseline(session_id, membership.version).max(membership.overview.last_seq);
        // Nothing was missed, and whatever comes next comes by: there is no page to be read.
        let nothing_missed = listened && cursor >= known && !link.inbox.borrow().is_behind();
        if nothing_missed {
            hub.set_standing(link, session_id, Standing::Live { last: cursor });
        } else {
            hub.set_standing(link, session_id, Standing::CatchingUp { cursor });
            catch_up_when_listening(hub, link, session_id, listened);
        }
    }
    // Seats that the reply does not name: joined since (they start with that), or left before.
    let named: HashSet<SessionId> = starts.iter().map(|(session_id, _)| *session_id).collect();
    let unnamed: Vec<SessionId> = held.difference(&named).copied().collect();
    for session_id in &unnamed {
        hub.unseat(link, *session_id);
    }
    if !unnamed.is_empty() {
        look_again(hub, link);
    }
}

fn catch_up_when_listening(hub: &Rc<Hub>, link: &Rc<Link>, session_id: SessionId, listened: bool) {
    if listened {
        reader::catch_up(hub, link, session_id);
        return;
    }
    let (hub, link) = (Rc::clone(hub), Rc::clone(link));
    actix_web::rt::spawn(async move {
        while link.is_open() && hub.node.subscriptions.confirm_session(session_id).await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        reader::catch_up(&hub, &link, session_id);
    });
}

/// An audience was made by a join that came by: listens, and reads what may have been lost before it did.
pub(super) fn listen(hub: &Rc<Hub>, session_id: SessionId) {
    if hub.node.subscriptions.listen(session_id, hub.worker) {
        return;
    }
    let hub = Rc::clone(hub);
    actix_web::rt::spawn(async move {
        if let Err(error) = hub.node.subscriptions.confirm_session(session_id).await {
            tracing::warn!(%error, "a session could not be listened to");
        }
        for link in hub.audience(session_id) {
            if let Some(Standing::Live { last }) = hub.standing(&link, session_id) {
                hub.set_standing(&link, session_id, Standing::CatchingUp { cursor: last });
                reader::catch_up(&hub, &link, session_id);
            }
        }
    });
}

/// Reads the user's memberships, and takes the seats that are missing. What calls for it while they are read has them
/// read once more, and not once for each call.
pub(super) fn look_again(hub: &Rc<Hub>, link: &Rc<Link>) {
    let Some(user_id) = link.user_id() else { return };
    if !matches!(link.stage.get(), Stage::Authenticated | Stage::Resuming | Stage::Resumed) || !link.is_open() {
        return;
    }
    link.look_again.set(true);
    if link.looking.replace(true) {
        return;
    }
    let (hub, link) = (Rc::clone(hub), Rc::clone(link));
    actix_web::rt::spawn(async move {
        while link.look_again.replace(false) && link.is_open() {
            match memberships(&hub, &link, user_id).await {
                Ok(memberships) => join_missing(&hub, &link, &memberships),
                // The next sweep or the next connection finds them.
                Err(error) => tracing::warn!(%error, "memberships could not be read"),
            }
        }
        link.looking.set(false);
    });
}

fn join_missing(hub: &Rc<Hub>, link: &Rc<Link>, memberships: &[Membership]) {
    for Membership { overview, .. } in memberships {
        let session_id = overview.session_id;
        let resumed = link.stage.get() == Stage::Resumed;
        let cursor = overview.first_seq.saturating_sub(1);
        let standing = if resumed { Standing::CatchingUp { cursor } } else { Standing::Held };
        if !hub.seat(link, session_id, standing) {
            continue;
        }
        if resumed {
            catch_up_when_listening(hub, link, session_id, false);
        } else {
            listen(hub, session_id);
        }
    }
}
