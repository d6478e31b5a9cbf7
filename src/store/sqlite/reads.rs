//! What connections read of sessions without asking their actors.

use rusqlite::{Connection, params};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::column::{Columns, Hex, failed, int, json};
use super::readers::{row, rows};
use crate::protocol::{GoneReason, MemberView, RoomKeyView, SessionId, SessionInfo, Timestamp, UserId};
use crate::store::{Access, EventRange, EventRow, Membership, Page, StoreResult, records};

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
        const SQL: &str = "
            SELECT s.last_seq, iif(s.e2ee_on, s.key_epoch, NULL) AS key_epoch, m.role, m.first_seq,
                (r.banned_until IS NOT NULL) AS banned
            FROM sessions AS s
            LEFT JOIN members AS m ON m.session_id = s.session_id AND m.user_id = ?2
            LEFT JOIN restrictions AS r
                ON r.session_id = s.session_id AND r.user_id = ?2 AND r.banned_until > ?3
            WHERE s.session_id = ?1 AND s.ended_at IS NULL";
        let find = move |connection: &mut Connection| {
            let params = params![session_id.as_bytes(), user_id.as_bytes(), now.as_millis()];
            row(connection, SQL, params, |row| records::access(row))
        };
        Ok(self.reading.read(find).await?.unwrap_or(Access::NoSession))
    }

    pub(super) async fn find_sessions_of(&self, user_id: UserId) -> StoreResult<Vec<Membership>> {
        const SQL: &str = "
            SELECT m.session_id, m.role, m.first_seq, m.acked_seq, m.held, m.sent, s.version, s.last_seq, s.e2ee_on,
                iif(s.e2ee_on, s.key_epoch, NULL) AS key_epoch, h.head->>'name' AS name, s.wants_keys
            FROM members AS m JOIN sessions AS s USING (session_id) JOIN session_heads AS h USING (session_id)
            WHERE m.user_id = ?1 ORDER BY m.session_id";
        let log = self.log.clone();
        let find = move |connection: &mut Connection| {
            rows(connection, SQL, [user_id.as_bytes()], |row| records::membership(row, &log))
        };
        self.reading.read(find).await
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
        let find = move |connection: &mut Connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let more_than = int(limit.saturating_add(1));
            let mut found = statement.query(params![session_id.as_bytes(), int(from), int(to), more_than])?;
            let (mut rows, mut size, mut more) = (Vec::new(), 0_usize, false);
            while let Some(row) = found.next()? {
                let json = row.string("json")?;
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
        };
        self.reading.read(find).await
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
        records::page(&rows, limit, records::room_key)
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
        records::page(&rows, limit, records::member_view)
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
        records::session_info(session_id, &found, &views, &join_requests, &invitations).map(Some)
    }
}

async fn open_requests(connection: &mut SqliteConnection, session_id: &[u8]) -> StoreResult<Vec<SqliteRow>> {
    sqlx::query("SELECT * FROM join_requests WHERE session_id = ?1 ORDER BY time, user_id")
        .bind(session_id)
        .fetch_all(connection)
        .await
        .map_err(failed)
}

async fn open_invitations(
    connection: &mut SqliteConnection,
    session_id: &[u8],
    now: Timestamp,
) -> StoreResult<Vec<SqliteRow>> {
    sqlx::query(
        "SELECT * FROM invitations WHERE session_id = ?1 AND NOT lapsed AND expires_at > ?2
         ORDER BY expires_at, invitee, inviter",
    )
    .bind(session_id)
    .bind(now.as_millis())
    .fetch_all(connection)
    .await
    .map_err(failed)
}
