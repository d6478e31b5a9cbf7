//! Rows to records, whatever the dialect: each function reads the columns of one kind of row by their names.

use serde::{Deserialize, Serialize};

use super::column::{Columns, corrupt};
use super::{
    Access, InboxRow, Membership, NodeReport, NodeRow, Page, Position, SessionSummary, Standing, StoreResult, UserRow,
    UserSummary, WireVersions,
};
use crate::protocol::{
    ClientId, InboxId, InvitationView, JoinRequestView, KeyEpoch, MemberView, RoomKeyView, SessionId, SessionInfo,
    SessionOverview, UserId,
};
use crate::session::state::{
    E2ee, Head, Invitation, JoinRequest, Member, MemberKeys, RecentMsg, Restriction, Task, TaskKind, Until,
};

/// What is seldom there of [`MemberKeys`], as the `keys` column has it.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RareKeys {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exposed: Option<KeyEpoch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    withheld: Option<KeyEpoch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    withheld_by: Vec<UserId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notice: Option<InboxId>,
}

impl RareKeys {
    /// The column's text; none where there is nothing to tell.
    pub(super) fn column(keys: &MemberKeys) -> Option<String> {
        let MemberKeys { held: _, sent: _, exposed, withheld, withheld_by, notice } = keys.clone();
        let rare = Self { exposed, withheld, withheld_by, notice };
        (rare != Self::default()).then(|| super::column::json(&rare))
    }
}

/// The word of a task for a closed or disabled account.
pub(super) const CLOSED: &str = "closed";

/// The word of a task for a new public key.
pub(super) const NEW_KEY: &str = "public_key_changed";

/// The first `limit` of rows that one more was asked for.
pub(super) fn page<R, T>(rows: &[R], limit: u64, read: impl Fn(&R) -> StoreResult<T>) -> StoreResult<Page<T>> {
    let kept = usize::try_from(limit).unwrap_or(usize::MAX).min(rows.len());
    Ok(Page { rows: rows[..kept].iter().map(read).collect::<StoreResult<_>>()?, more: rows.len() > kept })
}

pub(super) fn user(row: &impl Columns) -> StoreResult<UserRow> {
    Ok(UserRow {
        user_id: row.user("user_id")?,
        name: row.string("name")?,
        display_name: row.text("display_name")?,
        password_hash: row.string("password_hash")?,
        public_key: row.string("public_key")?,
        fingerprint: row.string("fingerprint")?,
        created_at: row.time("created_at")?,
    })
}

pub(super) fn member(row: &impl Columns) -> StoreResult<Member> {
    let RareKeys { exposed, withheld, withheld_by, notice } = match row.text("keys")? {
        Some(_) => row.record("keys")?,
        None => RareKeys::default(),
    };
    let (held, sent) = (row.epoch("held")?, row.epoch("sent")?);
    Ok(Member {
        user_id: row.user("user_id")?,
        role: row.role()?,
        joined_at: row.time("joined_at")?,
        first_seq: row.count("first_seq")?,
        keys: MemberKeys { held, sent, exposed, withheld, withheld_by, notice },
    })
}

pub(super) fn restriction(row: &impl Columns) -> StoreResult<(UserId, Restriction)> {
    Ok((row.user("user_id")?, Restriction { muted: row.end("muted_until")?, banned: row.end("banned_until")? }))
}

pub(super) fn join_request(row: &impl Columns) -> StoreResult<JoinRequest> {
    Ok(JoinRequest {
        user_id: row.user("user_id")?,
        leave_message: row.words("leave_message")?,
        public_key: row.string("public_key")?,
        time: row.time("time")?,
        notices: row.record("notices")?,
    })
}

pub(super) fn join_request_view(row: &impl Columns) -> StoreResult<JoinRequestView> {
    let (user_id, leave_message, time) = (row.user("user_id")?, row.words("leave_message")?, row.time("time")?);
    Ok(JoinRequestView { user_id, leave_message, time })
}

pub(super) fn invitation(row: &impl Columns) -> StoreResult<Invitation> {
    Ok(Invitation {
        invitee: row.user("invitee")?,
        inviter: row.user("inviter")?,
        expires_at: row.time("expires_at")?,
        lapsed: row.flag("lapsed")?,
        notice: row.inbox_id("notice")?,
    })
}

pub(super) fn invitation_view(row: &impl Columns) -> StoreResult<InvitationView> {
    let (user_id, inviter_id) = (row.user("invitee")?, row.user("inviter")?);
    Ok(InvitationView { user_id, inviter_id, expire_timestamp: row.time("expires_at")? })
}

pub(super) fn recent(row: &impl Columns) -> StoreResult<RecentMsg> {
    Ok(RecentMsg {
        sender: row.user("sender")?,
        client_msg_id: ClientId(row.words("client_msg_id")?.ok_or_else(|| corrupt("client_msg_id"))?.into()),
        seq: row.count("seq")?,
        time: row.time("time")?,
    })
}

pub(super) fn task(row: &impl Columns) -> StoreResult<Task> {
    let kind = match (row.string("kind")?.as_str(), row.text("fingerprint")?) {
        (CLOSED, None) => TaskKind::Closed,
        (NEW_KEY, Some(fingerprint)) => TaskKind::PublicKeyChanged(fingerprint),
        _ => return Err(corrupt("kind")),
    };
    Ok(Task { id: row.integer("id")?, user_id: row.user("user_id")?, kind })
}

pub(super) fn position(row: &impl Columns) -> StoreResult<Position> {
    let (version, last_seq) = (row.count("version")?, row.count("last_seq")?);
    Ok(Position { session_id: row.session()?, version, last_seq })
}

pub(super) fn access(row: &impl Columns) -> StoreResult<Access> {
    if row.flag("banned")? {
        return Ok(Access::Banned);
    }
    if row.text("role")?.is_none() {
        return Ok(Access::Stranger);
    }
    Ok(Access::Member {
        role: row.role()?,
        first_seq: row.count("first_seq")?,
        last_seq: row.count("last_seq")?,
        key_epoch: row.epoch("key_epoch")?,
    })
}

pub(super) fn membership(row: &impl Columns, log: &str) -> StoreResult<Membership> {
    let key_epoch = row.epoch("key_epoch")?;
    let has_key = key_epoch.is_some() && (row.epoch("held")? == key_epoch || row.epoch("sent")? == key_epoch);
    Ok(Membership {
        overview: SessionOverview {
            session_id: row.session()?,
            name: row.words("name")?,
            e2ee_on: row.flag("e2ee_on")?,
            key_epoch,
            has_key,
            role: row.role()?,
            first_seq: row.count("first_seq")?,
            last_seq: row.count("last_seq")?,
            acked_seq: row.count("acked_seq")?,
            log: log.to_owned(),
        },
        version: row.count("version")?,
        wants_keys: row.flag("wants_keys")?,
    })
}

pub(super) fn member_view(row: &impl Columns) -> StoreResult<MemberView> {
    let muted = row.end("muted_until")?;
    Ok(MemberView {
        user_id: row.user("user_id")?,
        name: row.string("name")?,
        role: row.role()?,
        joined_at: row.time("joined_at")?,
        has_key: row.flag("has_key")?,
        muted_until: muted.and_then(Until::end),
        muted: muted.is_some(),
    })
}

pub(super) fn room_key(row: &impl Columns) -> StoreResult<RoomKeyView> {
    Ok(RoomKeyView {
        key_epoch: row.epoch("epoch")?.ok_or_else(|| corrupt("epoch"))?,
        user_id: row.user("sender")?,
        room_key: row.base64("room_key")?.ok_or_else(|| corrupt("room_key"))?,
        key_check: row.base64("key_check")?,
        signature: row.base64("signature")?,
    })
}

/// A session's answer to `get_session_info`, from the row with its record, and its parts.
pub(super) fn session_info<R: Columns>(
    session_id: SessionId,
    row: &R,
    members: &[R],
    join_requests: &[R],
    invitations: &[R],
) -> StoreResult<SessionInfo> {
    let head: Head = row.record("head")?;
    let key_epoch = match &head.e2ee {
        E2ee::Off { .. } => None,
        E2ee::On(keys) => keys.current.as_ref().map(|current| current.epoch),
    };
    Ok(SessionInfo {
        session_id,
        e2ee_on: matches!(head.e2ee, E2ee::On(_)),
        key_epoch,
        name: head.name,
        description: head.description,
        require_encryption: head.require_encryption,
        rotate_on_join: head.rotate_on_join,
        join_policy: head.join_policy,
        created_at: head.created_at,
        last_seq: row.count("last_seq")?,
        member_count: row.count("member_count")?,
        members: members.iter().map(member_view).collect::<StoreResult<_>>()?,
        join_requests: Some(join_requests.iter().map(join_request_view).collect::<StoreResult<_>>()?),
        invitations: Some(invitations.iter().map(invitation_view).collect::<StoreResult<_>>()?),
    })
}

pub(super) fn inbox_row(row: &impl Columns) -> StoreResult<InboxRow> {
    Ok(InboxRow {
        inbox_id: row.inbox_id("inbox_id")?,
        session_id: row.session()?,
        version: row.count("version")?,
        holds_key: row.flag("holds_key")?,
        json: row.string("json")?.into(),
    })
}

pub(super) fn node(row: &impl Columns) -> StoreResult<NodeRow> {
    let wire = |name| u16::try_from(row.integer(name)?).map_err(|_| corrupt(name));
    Ok(NodeRow {
        node_id: row.node("node_id")?.ok_or_else(|| corrupt("node_id"))?,
        started_at: row.time("started_at")?,
        expires_at: row.time("expires_at")?,
        bus_ok_at: row.moment("bus_ok_at")?,
        drain: row.flag("drain")?,
        report: NodeReport {
            program: row.string("program")?,
            wire: WireVersions { oldest: wire("wire_oldest")?, newest: wire("wire_newest")? },
            connections: row.count("connections")?,
            sessions: row.count("sessions")?,
            bus_ok: row.flag("bus_ok")?,
        },
    })
}

pub(super) fn session_summary(row: &impl Columns) -> StoreResult<SessionSummary> {
    let head: Head = row.record("head")?;
    Ok(SessionSummary {
        session_id: row.session()?,
        name: head.name,
        members: row.count("members")?,
        without_key: row.count("without_key")?,
        owner: row.node("owner_node")?,
        version: row.count("version")?,
        last_seq: row.count("last_seq")?,
        last_time: row.time("last_time")?,
        e2ee: head.e2ee,
    })
}

pub(super) fn user_summary(row: &impl Columns) -> StoreResult<UserSummary> {
    let standing = match (row.moment("closed_at")?, row.moment("disabled_at")?) {
        (Some(at), _) => Standing::Closed(at),
        (None, Some(at)) => Standing::Disabled(at),
        (None, None) => Standing::Live,
    };
    Ok(UserSummary {
        user_id: row.user("user_id")?,
        name: row.string("name")?,
        created_at: row.time("created_at")?,
        standing,
        sessions: row.count("sessions")?,
        tokens: row.count("tokens")?,
        inbox: row.count("inbox")?,
    })
}
