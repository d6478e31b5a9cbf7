//! Accounts and tokens.

use std::collections::HashSet;

use super::PostgresStore;
use super::column::{AsUuid, Columns, cell, hashes, uuids};
use crate::protocol::{SessionId, Timestamp, UserId};
use crate::store::{NewPublicKey, StoreError, StoreResult, TokenHash, TokenOwner, UserRow, records};

impl PostgresStore {
    pub(super) async fn insert_user(&self, user: &UserRow) -> StoreResult<()> {
        let query = sqlx::query(
            "INSERT INTO users (user_id, name, display_name, password_hash, public_key, fingerprint, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING user_id",
        )
        .bind(user.user_id.uuid())
        .bind(user.name.as_str())
        .bind(user.display_name.as_deref())
        .bind(user.password_hash.as_str())
        .bind(user.public_key.as_str())
        .bind(user.fingerprint.as_str())
        .bind(user.created_at.as_millis());
        match self.daily.row(query).await? {
            Some(_) => Ok(()),
            None => Err(StoreError::Conflict("the name of an account")),
        }
    }

    pub(super) async fn find_user_by_name(&self, name: &str) -> StoreResult<Option<UserRow>> {
        if name.contains('\0') {
            return Ok(None);
        }
        let sql = "SELECT * FROM users WHERE name = $1 AND closed_at IS NULL AND disabled_at IS NULL";
        self.daily.row(sqlx::query(sql).bind(name)).await?.as_ref().map(records::user).transpose()
    }

    pub(super) async fn find_user_by_id(&self, user_id: UserId) -> StoreResult<Option<UserRow>> {
        let sql = "SELECT * FROM users WHERE user_id = $1 AND closed_at IS NULL AND disabled_at IS NULL";
        self.daily.row(sqlx::query(sql).bind(user_id.uuid())).await?.as_ref().map(records::user).transpose()
    }

    pub(super) async fn find_public_keys(&self, users: &[UserId]) -> StoreResult<Vec<(UserId, String)>> {
        let sql = "SELECT user_id, public_key FROM users
            WHERE user_id = ANY ($1) AND closed_at IS NULL AND disabled_at IS NULL";
        let rows = self.daily.rows(sqlx::query(sql).bind(uuids(users))).await?;
        rows.iter().map(|row| Ok((row.user("user_id")?, row.string("public_key")?))).collect()
    }

    pub(super) async fn insert_token(&self, hash: TokenHash, owner: &TokenOwner, keep: u32) -> StoreResult<()> {
        // The parts of a statement do not see each other's rows: the new token is one of those that are kept.
        let query = sqlx::query(
            "WITH added AS (INSERT INTO tokens (hash, user_id, expires_at) VALUES ($1, $2, $3))
             DELETE FROM tokens WHERE user_id = $2 AND (expires_at <= conclave_now() OR id NOT IN
                (SELECT id FROM tokens WHERE user_id = $2 AND expires_at > conclave_now() ORDER BY id DESC LIMIT $4))",
        )
        .bind(&hash.0[..])
        .bind(owner.user_id.uuid())
        .bind(owner.expires_at.as_millis())
        .bind(i64::from(keep) - 1);
        self.daily.rows(query).await?;
        Ok(())
    }

    pub(super) async fn find_token(&self, hash: TokenHash, now: Timestamp) -> StoreResult<Option<TokenOwner>> {
        let query = sqlx::query(
            "SELECT user_id, expires_at FROM tokens JOIN users USING (user_id)
             WHERE hash = $1 AND expires_at > $2 AND closed_at IS NULL AND disabled_at IS NULL",
        )
        .bind(&hash.0[..])
        .bind(now.as_millis());
        let row = self.daily.row(query).await?;
        row.map(|row| Ok(TokenOwner { user_id: row.user("user_id")?, expires_at: row.time("expires_at")? })).transpose()
    }

    pub(super) async fn delete_token(&self, hash: TokenHash) -> StoreResult<Option<UserId>> {
        let query = sqlx::query("DELETE FROM tokens WHERE hash = $1 RETURNING user_id").bind(&hash.0[..]);
        self.daily.row(query).await?.map(|row| row.user("user_id")).transpose()
    }

    pub(super) async fn find_dead_tokens(&self, tokens: &[TokenHash], now: Timestamp) -> StoreResult<Vec<TokenHash>> {
        let query = sqlx::query(
            "SELECT hash FROM tokens JOIN users USING (user_id)
             WHERE hash = ANY ($1) AND expires_at > $2 AND closed_at IS NULL AND disabled_at IS NULL",
        )
        .bind(hashes(tokens))
        .bind(now.as_millis());
        let rows = self.daily.rows(query).await?;
        let live = rows.iter().map(|row| cell::<&[u8]>(row, "hash")).collect::<StoreResult<HashSet<_>>>()?;
        Ok(tokens.iter().copied().filter(|token| !live.contains(&token.0[..])).collect())
    }

    pub(super) async fn update_password(
        &self,
        user_id: UserId,
        password_hash: &str,
        keep: TokenHash,
    ) -> StoreResult<()> {
        let query = sqlx::query(
            "WITH changed AS (UPDATE users SET password_hash = $2
                WHERE user_id = $1 AND closed_at IS NULL AND disabled_at IS NULL)
             DELETE FROM tokens WHERE user_id = $1 AND hash <> $3",
        )
        .bind(user_id.uuid())
        .bind(password_hash)
        .bind(&keep.0[..]);
        self.daily.rows(query).await?;
        Ok(())
    }

    pub(super) async fn update_public_key(&self, user_id: UserId, key: &NewPublicKey) -> StoreResult<Vec<SessionId>> {
        let query = sqlx::query("SELECT conclave_set_public_key($1, $2, $3) AS session_id")
            .bind(user_id.uuid())
            .bind(key.public_key.as_str())
            .bind(key.fingerprint.as_str());
        self.daily.rows(query).await?.iter().map(Columns::session).collect()
    }

    pub(super) async fn end_account(&self, user_id: UserId, now: Timestamp) -> StoreResult<Vec<SessionId>> {
        let query = sqlx::query("SELECT conclave_close_account($1, $2) AS session_id");
        let rows = self.daily.rows(query.bind(user_id.uuid()).bind(now.as_millis())).await?;
        rows.iter().map(Columns::session).collect()
    }

    pub(super) async fn suspend_account(&self, user_id: UserId, now: Timestamp) -> StoreResult<Vec<SessionId>> {
        let query = sqlx::query("SELECT conclave_disable_user($1, $2) AS session_id");
        let rows = self.daily.rows(query.bind(user_id.uuid()).bind(now.as_millis())).await?;
        rows.iter().map(Columns::session).collect()
    }

    pub(super) async fn resume_account(&self, user_id: UserId) -> StoreResult<bool> {
        // A login that was under way when the account was disabled may have left a token.
        let query = sqlx::query(
            "WITH enabled AS (UPDATE users SET disabled_at = NULL
                WHERE user_id = $1 AND closed_at IS NULL AND disabled_at IS NOT NULL RETURNING user_id),
             gone AS (DELETE FROM tokens USING enabled WHERE tokens.user_id = enabled.user_id)
             SELECT user_id FROM enabled",
        );
        Ok(self.daily.row(query.bind(user_id.uuid())).await?.is_some())
    }

    pub(super) async fn delete_tokens(&self, user_id: UserId) -> StoreResult<u64> {
        let query = sqlx::query("DELETE FROM tokens WHERE user_id = $1 RETURNING id").bind(user_id.uuid());
        Ok(self.daily.rows(query).await?.len() as u64)
    }
}
