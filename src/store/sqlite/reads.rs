//! What connections read of sessions without asking their actors.

use futures_util::TryStreamExt;
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::column::{Columns, Hex, failed, int, json};
use crate::protocol::{
    GoneReason, InvitationView, JoinRequestView, KeyEpoch, MemberView, RoomKeyView, SessionId, SessionInfo,
    SessionOverview, Timestamp, UserId,
};
use crate::session::state::{E2ee, Head, Until};
use crate::store::{Access, EventRange, EventRow, Membership, Page, StoreError, StoreResult};

pub(super) const EVENTS_AFTER: &str = "
    SELECT e.seq, e.version, iif(e.json = '', r.json, e.json) AS json
    FROM events AS e LEFT JOIN recalled AS r ON e.json = '' AND r.session_id = e.session_id AND r.seq = e.seq
    WHERE e.session_id = ?1 AND e.seq > ?2 AND e.seq <= ?3 ORDER BY e.seq LIMIT ?4";

pub(super) const EVENTS_BEFORE: &str = "
    SELECT e.seq, e.version, iif(e.json = '', r.json, e.json) AS json
    FROM events AS e LEFT JOIN recalled AS r ON e.json = '' AND r.session_id = e.session_id AND r.seq = e.seq
    WHERE e.session_id = ?1 AND e.seq < ?2 AND e.seq >= ?3 ORDER BY e.seq DESC LIMIT ?4";

/// A member as others see them; ?2 is now.
macro_rules! member_view {
    ($rest:literal) => {
        concat!(
            "SELECT m.user_id, m.role, m.joined_at, coalesce(u.name, '') AS name, r.muted_until,
                (s.e2ee_on AND s.key_epoch IS NOT NULL AND (m.held IS s.key_epoch OR m.sent IS s.key_epoch)) AS has_key
             FROM members AS m JOIN sessions AS s USING (session_id) LEFT JOIN users AS u USING (user_id)
             LEFT JOIN restrictions AS r
                ON r.session_id = m.session_id AND r.user_id = m.user_id AND r.muted_until > ?2
             WHERE m.session_id = ?1 ",
            $rest
        )
    };
}

impl SqliteStore {
    pub(super) async fn find_access(
        &self,
        session_id: SessionId,
        user_id: UserId,
        now: Timestamp,
    ) -> StoreResult<Access> {
        let row = sqlx::query(
            "SELECT s.last_seq, iif(s.e2ee_on, s.key_epoch, NULL) AS key_epoch, m.role, m.first_seq,
                (r.banned_until IS NOT NULL) AS banned
             FROM sessions AS s
             LEFT JOIN members AS m ON m.session_id = s.session_id AND m.user_id = ?2
             LEFT JOIN restrictions AS r
                ON r.session_id = s.session_id AND r.user_id = ?2 AND r.banned_until > ?3
             WHERE s.session_id = ?1 AND s.ended_at IS NULL",
        )
        .bind(&session_id.as_bytes()[..])
        .bind(&user_id.as_bytes()[..])
        .bind(now.as_millis())
        .fetch_optional(&self.readers)
        .await
        .map_err(failed)?;
        let Some(row) = row else { return Ok(Access::NoSession) };
        if row.col("banned")? {
            return Ok(Access::Banned);
        }
        if row.col::<Option<&str>>("role")?.is_none() {
            return Ok(Access::Stranger);
        }
        Ok(Access::Member {
            role: row.role()?,
            first_seq: row.count("first_seq")?,
            last_seq: row.count("last_seq")?,
            key_epoch: row.epoch("key_epoch")?,
        })
    }

    pub(super) async fn find_sessions_of(&self, user_id: UserId) -> StoreResult<Vec<Membership>> {
        let rows = sqlx::query(
            "SELECT m.session_id, m.role, m.first_seq, m.acked_seq, m.held, m.sent, s.version, s.last_seq, s.e2ee_on,
                iif(s.e2ee_on, s.key_epoch, NULL) AS key_epoch, h.head->>'name' AS name, s.wants_keys
             FROM members AS m JOIN sessions AS s USING (session_id) JOIN session_heads AS h USING (session_id)
             WHERE m.user_id = ?1 ORDER BY m.session_id",
        )
        .bind(&user_id.as_bytes()[..])
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| membership(row, &self.log)).collect()
    }

    pub(super) async fn find_departures(
        &self,
        user_id: UserId,
        sessions: &[SessionId],
    ) -> StoreResult<Vec<(SessionId, GoneReason)>> {
        let sessions: Vec<Hex> = sessions.iter().copied().map(Hex::from).collect();
        let rows = sqlx::query(
            "SELECT d.session_id, d.reason
             FROM json_each(?2) AS asked
             CROSS JOIN departures AS d ON d.user_id = ?1 AND d.session_id = unhex(asked.value)
             WHERE NOT EXISTS (SELECT 1 FROM members AS m WHERE m.session_id = d.session_id AND m.user_id = ?1)",
        )
        .bind(&user_id.as_bytes()[..])
        .bind(json(&sessions))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| Ok((row.session()?, row.gone()?))).collect()
    }

    pub(super) async fn find_events(
        &self,
        session_id: SessionId,
        range: EventRange,
        limit: u64,
        bytes: usize,
    ) -> StoreResult<Page<EventRow>> {
        let (sql, from, to) = match range {
            EventRange::After { after, up_to } => (EVENTS_AFTER, after, up_to.unwrap_or(u64::MAX)),
            EventRange::Before { before, from } => (EVENTS_BEFORE, before, from),
        };
        let mut found = sqlx::query(sql)
            .bind(&session_id.as_bytes()[..])
            .bind(int(from))
            .bind(int(to))
            .bind(int(limit.saturating_add(1)))
            .fetch(&self.readers);
        let (mut rows, mut size, mut more) = (Vec::new(), 0_usize, false);
        while let Some(row) = found.try_next().await.map_err(failed)? {
            let json: String = row.col("json")?;
            size = size.saturating_add(json.len());
            more = rows.len() as u64 >= limit || (size > bytes && !rows.is_empty());
            if more {
                break;
            }
            rows.push(EventRow { seq: row.count("seq")?, version: row.count("version")?, json: json.into() });
        }
        if matches!(range, EventRange::Before { .. }) {
            rows.reverse();
        }
        Ok(Page { rows, more })
    }

    pub(super) async fn find_room_keys(
        &self,
        session_id: SessionId,
        user_id: UserId,
        after_epoch: u64,
        limit: u64,
    ) -> StoreResult<Page<RoomKeyView>> {
        let rows = sqlx::query(
            "SELECT * FROM room_keys WHERE session_id = ?1 AND user_id = ?2 AND epoch > ?3 ORDER BY epoch LIMIT ?4",
        )
        .bind(&session_id.as_bytes()[..])
        .bind(&user_id.as_bytes()[..])
        .bind(int(after_epoch))
        .bind(int(limit.saturating_add(1)))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        page(&rows, limit, room_key)
    }

    pub(super) async fn find_members(
        &self,
        session_id: SessionId,
        after: Option<UserId>,
        limit: u64,
        now: Timestamp,
    ) -> StoreResult<Page<MemberView>> {
        let rows = sqlx::query(member_view!("AND (?3 IS NULL OR m.user_id > ?3) ORDER BY m.user_id LIMIT ?4"))
            .bind(&session_id.as_bytes()[..])
            .bind(now.as_millis())
            .bind(after.map(|user| user.as_bytes().to_vec()))
            .bind(int(limit.saturating_add(1)))
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        page(&rows, limit, member)
    }

    pub(super) async fn find_session_info(
        &self,
        session_id: SessionId,
        members: u64,
        now: Timestamp,
    ) -> StoreResult<Option<SessionInfo>> {
        let id = &session_id.as_bytes()[..];
        let mut connection = self.readers.acquire().await.map_err(failed)?;
        // One transaction: the parts are of one moment.
        let mut read = connection.begin().await.map_err(failed)?;
        let found = sqlx::query(
            "SELECT head, last_seq, (SELECT count(*) FROM members AS m WHERE m.session_id = ?1) AS member_count
             FROM sessions JOIN session_heads USING (session_id) WHERE session_id = ?1 AND ended_at IS NULL",
        )
        .bind(id)
        .fetch_optional(&mut *read)
        .await
        .map_err(failed)?;
        let Some(found) = found else { return Ok(None) };
        let views = sqlx::query(member_view!("ORDER BY m.first_seq LIMIT ?3"))
            .bind(id)
            .bind(now.as_millis())
            .bind(int(members))
            .fetch_all(&mut *read)
            .await
            .map_err(failed)?;
        let join_requests = open_requests(&mut read, id).await?;
        let invitations = open_invitations(&mut read, id, now).await?;
        read.commit().await.map_err(failed)?;
        let head: Head = found.record("head")?;
        Ok(Some(SessionInfo {
            session_id,
            e2ee_on: matches!(head.e2ee, E2ee::On(_)),
            key_epoch: current_epoch(&head),
            name: head.name,
            description: head.description,
            require_encryption: head.require_encryption,
            rotate_on_join: head.rotate_on_join,
            join_policy: head.join_policy,
            created_at: head.created_at,
            last_seq: found.count("last_seq")?,
            member_count: found.count("member_count")?,
            members: views.iter().map(member).collect::<StoreResult<_>>()?,
            join_requests: Some(join_requests),
            invitations: Some(invitations),
        }))
    }
}

fn current_epoch(head: &Head) -> Option<KeyEpoch> {
    match &head.e2ee {
        E2ee::Off { .. } => None,
        E2ee::On(keys) => keys.current.as_ref().map(|current| current.epoch),
    }
}

async fn open_requests(connection: &mut SqliteConnection, session_id: &[u8]) -> StoreResult<Vec<JoinRequestView>> {
    let rows = sqlx::query("SELECT * FROM join_requests WHERE session_id = ?1 ORDER BY time, user_id")
        .bind(session_id)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    let view = |row: &SqliteRow| {
        let (user_id, leave_message, time) = (row.user("user_id")?, row.col("leave_message")?, row.time("time")?);
        Ok(JoinRequestView { user_id, leave_message, time })
    };
    rows.iter().map(view).collect()
}

async fn open_invitations(
    connection: &mut SqliteConnection,
    session_id: &[u8],
    now: Timestamp,
) -> StoreResult<Vec<InvitationView>> {
    let rows = sqlx::query(
        "SELECT * FROM invitations WHERE session_id = ?1 AND NOT lapsed AND expires_at > ?2
         ORDER BY expires_at, invitee, inviter",
    )
    .bind(session_id)
    .bind(now.as_millis())
    .fetch_all(connection)
    .await
    .map_err(failed)?;
    let view = |row: &SqliteRow| {
        let (user_id, inviter_id) = (row.user("invitee")?, row.user("inviter")?);
        Ok(InvitationView { user_id, inviter_id, expire_timestamp: row.time("expires_at")? })
    };
    rows.iter().map(view).collect()
}

pub(super) fn page<T>(rows: &[SqliteRow], limit: u64, read: fn(&SqliteRow) -> StoreResult<T>) -> StoreResult<Page<T>> {
    let kept = usize::try_from(limit).unwrap_or(usize::MAX).min(rows.len());
    Ok(Page { rows: rows[..kept].iter().map(read).collect::<StoreResult<_>>()?, more: rows.len() > kept })
}

fn member(row: &SqliteRow) -> StoreResult<MemberView> {
    let muted = row.end("muted_until")?;
    Ok(MemberView {
        user_id: row.user("user_id")?,
        name: row.col("name")?,
        role: row.role()?,
        joined_at: row.time("joined_at")?,
        has_key: row.col("has_key")?,
        muted_until: muted.and_then(Until::end),
        muted: muted.is_some(),
    })
}

fn room_key(row: &SqliteRow) -> StoreResult<RoomKeyView> {
    let lost = || StoreError::Corrupt("a room key has no epoch or no key".to_owned());
    Ok(RoomKeyView {
        key_epoch: row.epoch("epoch")?.ok_or_else(lost)?,
        user_id: row.user("sender")?,
        room_key: row.base64("room_key")?.ok_or_else(lost)?,
        key_check: row.base64("key_check")?,
        signature: row.base64("signature")?,
    })
}

fn membership(row: &SqliteRow, log: &str) -> StoreResult<Membership> {
    let key_epoch = row.epoch("key_epoch")?;
    let has_key = key_epoch.is_some() && (row.epoch("held")? == key_epoch || row.epoch("sent")? == key_epoch);
    Ok(Membership {
        overview: SessionOverview {
            session_id: row.session()?,
            name: row.col("name")?,
            e2ee_on: row.col("e2ee_on")?,
            key_epoch,
            has_key,
            role: row.role()?,
            first_seq: row.count("first_seq")?,
            last_seq: row.count("last_seq")?,
            acked_seq: row.count("acked_seq")?,
            log: log.to_owned(),
        },
        version: row.count("version")?,
        wants_keys: row.col("wants_keys")?,
    })
}
