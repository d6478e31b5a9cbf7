//! Endings: of a session, a token, a password, an account.

use anyhow::{Context, ensure};
use conclave::client::HttpClient;
use conclave::client::e2ee::News;
use conclave::protocol::{DeleteSession, ErrorCode, Happening, LeftReason, SessionId};

use crate::person::{Person, refused};
use crate::rooms::sees_leave;
use crate::secrets::Secrets;
use crate::{Cast, chapter, step};

pub(crate) async fn endings(cast: Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    let Cast { mut alice, mut bob, mut carol, mut dave, mut erin } = cast;
    for person in [&alice, &bob, &carol, &dave, &erin] {
        secrets.room_keys(&person.client);
    }

    chapter("Leaving for good");
    alice.brings_in(table, &mut dave).await?;
    let http = HttpClient::new(alice.server.clone());
    let wrong = http.close_account(&dave.token, "not the password").await;
    refused("closing an account with a wrong password", wrong, ErrorCode::PermissionDenied)?;
    http.close_account(&dave.token, &dave.password).await.context("DELETE /v1/me")?;
    sees_leave(&mut alice, dave.user_id, LeftReason::Left).await?;
    stopped(&mut dave).await?;
    refused(
        "logging in to a closed account",
        http.login(&dave.name, &dave.password).await,
        ErrorCode::Unauthenticated,
    )?;
    let reborn = http.register(&dave.name, "a good new password", dave.identity.public(), None).await;
    refused("taking a closed account's name", reborn, ErrorCode::AlreadyExists)?;
    step("dave closes his account: he has left every session, and his name is not given out again");

    http.logout(&carol.token).await.context("POST /v1/logout")?;
    stopped(&mut carol).await?;
    refused("using a dead token", http.user(&carol.token, alice.user_id).await, ErrorCode::Unauthenticated)?;
    step("carol logs out: her token is dead, on her open connection too");

    let new_password = format!("{} and a new one", erin.password);
    secrets.password(&new_password);
    let other = http.login(&erin.name, &erin.password).await?;
    secrets.token(other.token.expose());
    http.set_password(&erin.token, &erin.password, &new_password).await.context("PUT /v1/me/password")?;
    refused("another token of hers", http.user(&other.token, alice.user_id).await, ErrorCode::Unauthenticated)?;
    refused("the old password", http.login(&erin.name, &erin.password).await, ErrorCode::Unauthenticated)?;
    secrets.token(http.login(&erin.name, &new_password).await?.token.expose());
    erin.password = new_password;
    step("erin changes her password: her other tokens and the old password are dead");

    alice.client.call(DeleteSession { session_id: table }).await.context("delete_session")?;
    for person in [&mut alice, &mut bob] {
        person
            .sees("SessionDeleted", |event, what| match what {
                Happening::SessionDeleted(_) if event.session_id == table => Some(()),
                _ => None,
            })
            .await?;
    }
    let after = alice.client.info(table).await;
    ensure!(after.as_ref().is_err_and(|error| error.code().is_some()), "a deleted session is not there any more");
    step("alice ends the session for everybody");

    for person in [alice, bob, erin] {
        person.client.close().await;
    }
    Ok(())
}

/// Waits until a person's client is told not to come back.
async fn stopped(person: &mut Person) -> anyhow::Result<()> {
    person
        .hears("the end of the connection", |news| match news {
            News::Stopped { .. } => Some(()),
            _ => None,
        })
        .await
}
