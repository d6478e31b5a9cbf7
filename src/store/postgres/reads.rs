//! What connections read of sessions without asking their actors.

use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::column::{AsUuid, Columns, cell, int, uuids};
use crate::protocol::{GoneReason, MemberView, RoomKeyView, SessionId, SessionInfo, Timestamp, UserId};
use crate::store::{Access, EventRange, EventRow, Membership, Page, StoreResult, records};

/// Events of a range up to a number of rows and bytes; `found` is how many there were within the number.
macro_rules! events {
    ($range:literal, $order:literal) => {
        concat!(
            "SELECT seq, version, json, found FROM (
                SELECT seq, version, json, count(*) OVER () AS found,
                    row_number() OVER (ORDER BY seq ",
            $order,
            ") AS place, sum(octet_length(json)) OVER (ORDER BY seq ",
            $order,
            ") AS total
                FROM (SELECT seq, version, json FROM events WHERE session_id = $1 AND ",
            $range,
            " ORDER BY seq ",
            $order,
            " LIMIT $4 + 1) AS ranged) AS placed
             WHERE place <= $4 AND (place = 1 OR total <= $5) ORDER BY seq"
        )
    };
}

pub(super) const EVENTS_AFTER: &str = events!("seq > $2 AND seq <= $3", "ASC");
pub(super) const EVENTS_BEFORE: &str = events!("seq < $2 AND seq >= $3", "DESC");

/// A member as others see them; $2 is now.
macro_rules! member_view {
    ($rest:literal) => {
        concat!(
            "SELECT m.user_id, m.role, m.joined_at, coalesce(u.name, '') AS name, r.muted_until,
                (s.e2ee_on AND s.key_epoch IS NOT NULL AND (m.held IS NOT DISTINCT FROM s.key_epoch
                    OR m.sent IS NOT DISTINCT FROM s.key_epoch)) AS has_key
             FROM members AS m JOIN sessions AS s USING (session_id) LEFT JOIN users AS u ON u.user_id = m.user_id
             LEFT JOIN restrictions AS r
                ON r.session_id = m.session_id AND r.user_id = m.user_id AND r.muted_until > $2
             WHERE m.session_id = $1 ",
            $rest
        )
    };
}

impl PostgresStore {
    pub(super) async fn find_access(
        &self,
        session_id: SessionId,
        user_id: UserId,
        now: Timestamp,
    ) -> StoreResult<Access> {
        let query = sqlx::query(
            "SELECT s.last_seq, CASE WHEN s.e2ee_on THEN s.key_epoch END AS key_epoch, m.role, m.first_seq,
                (r.banned_until IS NOT NULL) AS banned
             FROM sessions AS s
             LEFT JOIN members AS m ON m.session_id = s.session_id AND m.user_id = $2
             LEFT JOIN restrictions AS r
                ON r.session_id = s.session_id AND r.user_id = $2 AND r.banned_until > $3
             WHERE s.session_id = $1 AND s.ended_at IS NULL",
        );
        let query = query.bind(session_id.uuid()).bind(user_id.uuid()).bind(now.as_millis());
        match self.daily.row(query).await? {
            Some(row) => records::access(&row),
            None => Ok(Access::NoSession),
        }
    }

    pub(super) async fn find_sessions_of(&self, user_id: UserId) -> StoreResult<Vec<Membership>> {
        let query = sqlx::query(
            "SELECT m.session_id, m.role, m.first_seq, m.acked_seq, m.held, m.sent, s.version, s.last_seq, s.e2ee_on,
                CASE WHEN s.e2ee_on THEN s.key_epoch END AS key_epoch, h.name, s.wants_keys
             FROM members AS m JOIN sessions AS s USING (session_id) JOIN session_heads AS h USING (session_id)
             WHERE m.user_id = $1 ORDER BY m.session_id",
        );
        let rows = self.daily.rows(query.bind(user_id.uuid())).await?;
        let log = self.history.name();
        rows.iter().map(|row| records::membership(row, &log)).collect()
    }

    pub(super) async fn find_departures(
        &self,
        user_id: UserId,
        sessions: &[SessionId],
    ) -> StoreResult<Vec<(SessionId, GoneReason)>> {
        let query = sqlx::query(
            "SELECT d.session_id, d.reason FROM departures AS d
             WHERE d.user_id = $1 AND d.session_id = ANY ($2)
                AND NOT EXISTS (SELECT 1 FROM members AS m WHERE m.session_id = d.session_id AND m.user_id = $1)",
        );
        let rows = self.daily.rows(query.bind(user_id.uuid()).bind(uuids(sessions))).await?;
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
        let query = sqlx::query(sql)
            .bind(session_id.uuid())
            .bind(int(from))
            .bind(int(to))
            .bind(int(limit).min(i64::MAX - 1))
            .bind(int(bytes as u64));
        let rows = self.daily.rows(query).await?;
        let found = rows.first().map_or(Ok(0), |row| row.count("found"))?;
        let event = |row: &PgRow| {
            let json: String = cell(row, "json")?;
            Ok(EventRow { seq: row.count("seq")?, version: row.count("version")?, json: json.into() })
        };
        Ok(Page { more: found > rows.len() as u64, rows: rows.iter().map(event).collect::<StoreResult<_>>()? })
    }

    pub(super) async fn find_room_keys(
        &self,
        session_id: SessionId,
        user_id: UserId,
        after_epoch: u64,
        limit: u64,
    ) -> StoreResult<Page<RoomKeyView>> {
        let query = sqlx::query(
            "SELECT * FROM room_keys WHERE session_id = $1 AND user_id = $2 AND epoch > $3 ORDER BY epoch LIMIT $4",
        )
        .bind(session_id.uuid())
        .bind(user_id.uuid())
        .bind(int(after_epoch))
        .bind(int(limit.saturating_add(1)));
        records::page(&self.daily.rows(query).await?, limit, records::room_key)
    }

    pub(super) async fn find_members(
        &self,
        session_id: SessionId,
        after: Option<UserId>,
        limit: u64,
        now: Timestamp,
    ) -> StoreResult<Page<MemberView>> {
        let sql = member_view!("AND ($3::uuid IS NULL OR m.user_id > $3) ORDER BY m.user_id LIMIT $4");
        let query = sqlx::query(sql)
            .bind(session_id.uuid())
            .bind(now.as_millis())
            .bind(after.map(|user| user.uuid()))
            .bind(int(limit.saturating_add(1)));
        records::page(&self.daily.rows(query).await?, limit, records::member_view)
    }

    pub(super) async fn find_session_info(
        &self,
        session_id: SessionId,
        members: u64,
        now: Timestamp,
    ) -> StoreResult<Option<SessionInfo>> {
        let id = session_id.uuid();
        let mut lane = self.daily.lane().await?;
        // The parts may be of moments that lie a little apart: what changed between them comes as an event.
        let found = sqlx::query(
            "SELECT head, last_seq, (SELECT count(*) FROM members AS m WHERE m.session_id = $1) AS member_count
             FROM sessions JOIN session_heads USING (session_id) WHERE session_id = $1 AND ended_at IS NULL",
        );
        let Some(found) = lane.rows(found.bind(id)).await?.pop() else { return Ok(None) };
        let views = sqlx::query(member_view!("ORDER BY m.first_seq LIMIT $3"));
        let views = lane.rows(views.bind(id).bind(now.as_millis()).bind(int(members))).await?;
        let requests = sqlx::query("SELECT * FROM join_requests WHERE session_id = $1 ORDER BY time, user_id");
        let requests = lane.rows(requests.bind(id)).await?;
        let invitations = sqlx::query(
            "SELECT * FROM invitations WHERE session_id = $1 AND NOT lapsed AND expires_at > $2
             ORDER BY expires_at, invitee, inviter",
        );
        let invitations = lane.rows(invitations.bind(id).bind(now.as_millis())).await?;
        records::session_info(session_id, &found, &views, &requests, &invitations).map(Some)
    }
}
