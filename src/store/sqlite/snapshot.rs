//! A whole session as its new owner needs it, and the tasks that wait for it.

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::column::{Columns, failed};
use crate::protocol::{ClientId, InboxId, KeyEpoch, SessionId, UserId};
use crate::session::state::{
    Invitation, JoinRequest, Member, MemberKeys, RecentMsg, Restriction, Snapshot, Task, TaskKind,
};
use crate::store::{StoreError, StoreResult};
use serde::{Deserialize, Serialize};

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

impl SqliteStore {
    /// Reads a session at one moment.
    pub(super) async fn read_snapshot(&self, session_id: SessionId) -> StoreResult<Snapshot> {
        let mut connection = self.readers.acquire().await.map_err(failed)?;
        let mut read = connection.begin().await.map_err(failed)?;
        let id = &session_id.as_bytes()[..];
        let row = sqlx::query(
            "SELECT last_seq, last_time, key_messages, head FROM sessions JOIN session_heads USING (session_id)
             WHERE session_id = ?1",
        )
        .bind(id)
        .fetch_optional(&mut *read)
        .await
        .map_err(failed)?;
        let row = row.ok_or_else(|| StoreError::Corrupt("a session has no record".to_owned()))?;
        let snapshot = Snapshot {
            head: row.record("head")?,
            last_seq: row.count("last_seq")?,
            last_time: row.time("last_time")?,
            key_messages: row.count("key_messages")?,
            members: all(&mut read, "SELECT * FROM members WHERE session_id = ?1", id, member).await?,
            restrictions: all(&mut read, "SELECT * FROM restrictions WHERE session_id = ?1", id, restriction).await?,
            join_requests: all(&mut read, "SELECT * FROM join_requests WHERE session_id = ?1", id, join_request)
                .await?,
            invitations: all(&mut read, "SELECT * FROM invitations WHERE session_id = ?1", id, invitation).await?,
            recent: all(&mut read, "SELECT * FROM recent_msgs WHERE session_id = ?1 ORDER BY time, seq", id, recent)
                .await?,
        };
        read.commit().await.map_err(failed)?;
        Ok(snapshot)
    }

    pub(super) async fn find_tasks(&self, session_id: SessionId) -> StoreResult<Vec<Task>> {
        let mut connection = self.readers.acquire().await.map_err(failed)?;
        let sql = "SELECT * FROM tasks WHERE session_id = ?1 ORDER BY id";
        all(&mut connection, sql, session_id.as_bytes(), task).await
    }

    pub(super) async fn find_sessions_with_tasks(&self, limit: u64) -> StoreResult<Vec<SessionId>> {
        let rows = sqlx::query("SELECT DISTINCT session_id FROM tasks ORDER BY session_id LIMIT ?1")
            .bind(super::column::int(limit))
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
        rows.iter().map(SqliteRow::session).collect()
    }
}

async fn all<T>(
    connection: &mut SqliteConnection,
    sql: &'static str,
    session_id: &[u8],
    read: fn(&SqliteRow) -> StoreResult<T>,
) -> StoreResult<Vec<T>> {
    let rows = sqlx::query(sql).bind(session_id).fetch_all(connection).await.map_err(failed)?;
    rows.iter().map(read).collect()
}

fn member(row: &SqliteRow) -> StoreResult<Member> {
    let RareKeys { exposed, withheld, withheld_by, notice } = match row.col::<Option<&str>>("keys")? {
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

fn restriction(row: &SqliteRow) -> StoreResult<(UserId, Restriction)> {
    Ok((row.user("user_id")?, Restriction { muted: row.end("muted_until")?, banned: row.end("banned_until")? }))
}

fn join_request(row: &SqliteRow) -> StoreResult<JoinRequest> {
    Ok(JoinRequest {
        user_id: row.user("user_id")?,
        leave_message: row.col("leave_message")?,
        public_key: row.col("public_key")?,
        time: row.time("time")?,
        notices: row.record("notices")?,
    })
}

fn invitation(row: &SqliteRow) -> StoreResult<Invitation> {
    Ok(Invitation {
        invitee: row.user("invitee")?,
        inviter: row.user("inviter")?,
        expires_at: row.time("expires_at")?,
        lapsed: row.col("lapsed")?,
        notice: row.inbox_id("notice")?,
    })
}

fn recent(row: &SqliteRow) -> StoreResult<RecentMsg> {
    Ok(RecentMsg {
        sender: row.user("sender")?,
        client_msg_id: ClientId(row.col::<String>("client_msg_id")?.into()),
        seq: row.count("seq")?,
        time: row.time("time")?,
    })
}

/// The word of a task for a closed account.
pub(super) const CLOSED: &str = "closed";

/// The word of a task for a new public key.
pub(super) const NEW_KEY: &str = "public_key_changed";

fn task(row: &SqliteRow) -> StoreResult<Task> {
    let kind = match (row.col("kind")?, row.col::<Option<String>>("fingerprint")?) {
        (CLOSED, None) => TaskKind::Closed,
        (NEW_KEY, Some(fingerprint)) => TaskKind::PublicKeyChanged(fingerprint),
        _ => return Err(StoreError::Corrupt("column kind does not read".to_owned())),
    };
    Ok(Task { id: row.col("id")?, user_id: row.user("user_id")?, kind })
}
