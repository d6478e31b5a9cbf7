//! Accounts and tokens.

use rusqlite::{Connection, Row, params};
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::SqliteStore;
use super::column::{Cells, Columns, Hex, failed, json};
use super::readers::row;
use crate::protocol::{SessionId, Timestamp, UserId};
use crate::store::records::{self, CLOSED, NEW_KEY};
use crate::store::{NewPublicKey, StoreError, StoreResult, TokenHash, TokenOwner, UserRow};

impl SqliteStore {
    pub(super) async fn insert_user(&self, user: &UserRow) -> StoreResult<()> {
        let mut write = self.writer.begin().await?;
        let added = sqlx::query(
            "INSERT INTO users (user_id, name, display_name, password_hash, public_key, fingerprint, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )
        .bind(&user.user_id.as_bytes()[..])
        .bind(user.name.as_str())
        .bind(user.display_name.as_deref())
        .bind(user.password_hash.as_str())
        .bind(user.public_key.as_str())
        .bind(user.fingerprint.as_str())
        .bind(user.created_at.as_millis())
        .execute(write.connection())
        .await
        .map_err(failed)?;
        if added.rows_affected() == 0 {
            write.undo().await;
            return Err(StoreError::Conflict("the name of an account"));
        }
        Ok(write.commit().await?)
    }

    pub(super) async fn find_user_by_name(&self, name: &str) -> StoreResult<Option<UserRow>> {
        let row = sqlx::query("SELECT * FROM users WHERE name = ?1 AND closed_at IS NULL AND disabled_at IS NULL")
            .bind(name)
            .fetch_optional(&self.readers)
            .await
            .map_err(failed)?;
        row.as_ref().map(records::user).transpose()
    }

    pub(super) async fn find_user_by_id(&self, user_id: UserId) -> StoreResult<Option<UserRow>> {
        let row = sqlx::query("SELECT * FROM users WHERE user_id = ?1 AND closed_at IS NULL AND disabled_at IS NULL")
            .bind(&user_id.as_bytes()[..])
            .fetch_optional(&self.readers)
            .await
            .map_err(failed)?;
        row.as_ref().map(records::user).transpose()
    }

    pub(super) async fn find_public_keys(&self, users: &[UserId]) -> StoreResult<Vec<(UserId, String)>> {
        let users: Vec<Hex> = users.iter().copied().map(Hex::from).collect();
        let rows = sqlx::query(
            "SELECT user_id, public_key FROM json_each(?1) AS asked CROSS JOIN users ON user_id = unhex(asked.value)
             WHERE closed_at IS NULL AND disabled_at IS NULL",
        )
        .bind(json(&users))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| Ok((row.user("user_id")?, row.col("public_key")?))).collect()
    }

    pub(super) async fn insert_token(&self, hash: TokenHash, owner: &TokenOwner, keep: u32) -> StoreResult<()> {
        let user = &owner.user_id.as_bytes()[..];
        let mut write = self.writer.begin().await?;
        sqlx::query("INSERT INTO tokens (hash, user_id, expires_at) VALUES (?1, ?2, ?3)")
            .bind(&hash.0[..])
            .bind(user)
            .bind(owner.expires_at.as_millis())
            .execute(write.connection())
            .await
            .map_err(failed)?;
        sqlx::query(
            "DELETE FROM tokens WHERE user_id = ?1 AND (expires_at <= ?2 OR id NOT IN
                (SELECT id FROM tokens WHERE user_id = ?1 AND expires_at > ?2 ORDER BY id DESC LIMIT ?3))",
        )
        .bind(user)
        .bind(self.clock.now().as_millis())
        .bind(i64::from(keep))
        .execute(write.connection())
        .await
        .map_err(failed)?;
        Ok(write.commit().await?)
    }

    pub(super) async fn find_token(&self, hash: TokenHash, now: Timestamp) -> StoreResult<Option<TokenOwner>> {
        const SQL: &str = "
            SELECT user_id, expires_at FROM tokens JOIN users USING (user_id)
            WHERE hash = ?1 AND expires_at > ?2 AND closed_at IS NULL AND disabled_at IS NULL";
        let owner =
            |row: &Row<'_>| Ok(TokenOwner { user_id: row.user("user_id")?, expires_at: row.time("expires_at")? });
        let find = move |connection: &mut Connection| row(connection, SQL, params![hash.0, now.as_millis()], owner);
        self.reading.read(find).await
    }

    pub(super) async fn delete_token(&self, hash: TokenHash) -> StoreResult<Option<UserId>> {
        let mut write = self.writer.begin().await?;
        let row = sqlx::query("DELETE FROM tokens WHERE hash = ?1 RETURNING user_id")
            .bind(&hash.0[..])
            .fetch_optional(write.connection())
            .await
            .map_err(failed)?;
        let owner = row.map(|row| row.user("user_id")).transpose()?;
        write.commit().await?;
        Ok(owner)
    }

    pub(super) async fn find_dead_tokens(&self, hashes: &[TokenHash], now: Timestamp) -> StoreResult<Vec<TokenHash>> {
        const SQL: &str = "
            SELECT 1 FROM tokens JOIN users USING (user_id)
            WHERE hash = ?1 AND expires_at > ?2 AND closed_at IS NULL AND disabled_at IS NULL";
        let mut hashes = hashes.to_vec();
        let find = move |connection: &mut Connection| {
            let mut live = connection.prepare_cached(SQL)?;
            let mut dead = Vec::new();
            for hash in hashes.drain(..) {
                if !live.exists(params![hash.0, now.as_millis()])? {
                    dead.push(hash);
                }
            }
            Ok(dead)
        };
        self.reading.read(find).await
    }

    pub(super) async fn update_password(
        &self,
        user_id: UserId,
        password_hash: &str,
        keep: TokenHash,
    ) -> StoreResult<()> {
        let mut write = self.writer.begin().await?;
        sqlx::query("UPDATE users SET password_hash = ?2 WHERE user_id = ?1 AND closed_at IS NULL")
            .bind(&user_id.as_bytes()[..])
            .bind(password_hash)
            .execute(write.connection())
            .await
            .map_err(failed)?;
        sqlx::query("DELETE FROM tokens WHERE user_id = ?1 AND hash <> ?2")
            .bind(&user_id.as_bytes()[..])
            .bind(&keep.0[..])
            .execute(write.connection())
            .await
            .map_err(failed)?;
        Ok(write.commit().await?)
    }

    pub(super) async fn update_public_key(&self, user_id: UserId, key: &NewPublicKey) -> StoreResult<Vec<SessionId>> {
        let mut write = self.writer.begin().await?;
        let changed =
            sqlx::query("UPDATE users SET public_key = ?2, fingerprint = ?3 WHERE user_id = ?1 AND closed_at IS NULL")
                .bind(&user_id.as_bytes()[..])
                .bind(key.public_key.as_str())
                .bind(key.fingerprint.as_str())
                .execute(write.connection())
                .await
                .map_err(failed)?;
        if changed.rows_affected() == 0 {
            write.undo().await;
            return Ok(Vec::new());
        }
        const TELL: &str = "
            INSERT INTO tasks (session_id, user_id, kind, fingerprint)
            SELECT session_id, user_id, ?2, ?3 FROM members WHERE user_id = ?1
            RETURNING session_id";
        let sessions = add_tasks(write.connection(), TELL, user_id, NEW_KEY, Some(&key.fingerprint)).await?;
        write.commit().await?;
        Ok(sessions)
    }

    pub(super) async fn end_account(&self, user_id: UserId, now: Timestamp) -> StoreResult<Vec<SessionId>> {
        let mut write = self.writer.begin().await?;
        let closed = sqlx::query(
            "UPDATE users SET closed_at = ?2, password_hash = '', display_name = NULL
             WHERE user_id = ?1 AND closed_at IS NULL",
        )
        .bind(&user_id.as_bytes()[..])
        .bind(now.as_millis())
        .execute(write.connection())
        .await
        .map_err(failed)?;
        if closed.rows_affected() == 0 {
            write.undo().await;
            return Ok(Vec::new());
        }
        for sql in [DELETE_TOKENS, "DELETE FROM inbox WHERE user_id = ?1"] {
            sqlx::query(sql).bind(&user_id.as_bytes()[..]).execute(write.connection()).await.map_err(failed)?;
        }
        let sessions = add_tasks(write.connection(), TELL_OF_LEAVING, user_id, CLOSED, None).await?;
        write.commit().await?;
        Ok(sessions)
    }

    pub(super) async fn suspend_account(&self, user_id: UserId, now: Timestamp) -> StoreResult<Vec<SessionId>> {
        let mut write = self.writer.begin().await?;
        let disabled = sqlx::query(
            "UPDATE users SET disabled_at = ?2 WHERE user_id = ?1 AND closed_at IS NULL AND disabled_at IS NULL",
        )
        .bind(&user_id.as_bytes()[..])
        .bind(now.as_millis())
        .execute(write.connection())
        .await
        .map_err(failed)?;
        if disabled.rows_affected() == 0 {
            write.undo().await;
            return Ok(Vec::new());
        }
        remove_tokens(write.connection(), user_id).await?;
        let sessions = add_tasks(write.connection(), TELL_OF_LEAVING, user_id, CLOSED, None).await?;
        write.commit().await?;
        Ok(sessions)
    }

    pub(super) async fn resume_account(&self, user_id: UserId) -> StoreResult<bool> {
        let mut write = self.writer.begin().await?;
        let enabled = sqlx::query(
            "UPDATE users SET disabled_at = NULL
             WHERE user_id = ?1 AND closed_at IS NULL AND disabled_at IS NOT NULL",
        )
        .bind(&user_id.as_bytes()[..])
        .execute(write.connection())
        .await
        .map_err(failed)?;
        let enabled = enabled.rows_affected() > 0;
        if enabled {
            // A login that was under way when the account was disabled may have left one.
            remove_tokens(write.connection(), user_id).await?;
        }
        write.commit().await?;
        Ok(enabled)
    }

    pub(super) async fn delete_tokens(&self, user_id: UserId) -> StoreResult<u64> {
        let mut write = self.writer.begin().await?;
        let removed = remove_tokens(write.connection(), user_id).await?;
        write.commit().await?;
        Ok(removed)
    }
}

const DELETE_TOKENS: &str = "DELETE FROM tokens WHERE user_id = ?1";

/// For each session in which somebody is a member, applicant or invitee.
const TELL_OF_LEAVING: &str = "
    INSERT INTO tasks (session_id, user_id, kind, fingerprint)
    SELECT session_id, ?1, ?2, ?3 FROM (
        SELECT session_id FROM members WHERE user_id = ?1
        UNION SELECT session_id FROM join_requests WHERE user_id = ?1
        UNION SELECT session_id FROM invitations WHERE invitee = ?1)
    RETURNING session_id";

async fn remove_tokens(connection: &mut SqliteConnection, user_id: UserId) -> StoreResult<u64> {
    let removed = sqlx::query(DELETE_TOKENS).bind(&user_id.as_bytes()[..]).execute(connection).await.map_err(failed)?;
    Ok(removed.rows_affected())
}

async fn add_tasks(
    connection: &mut SqliteConnection,
    sql: &'static str,
    user_id: UserId,
    kind: &str,
    fingerprint: Option<&str>,
) -> StoreResult<Vec<SessionId>> {
    let rows = sqlx::query(sql)
        .bind(&user_id.as_bytes()[..])
        .bind(kind)
        .bind(fingerprint)
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    rows.iter().map(SqliteRow::session).collect()
}
