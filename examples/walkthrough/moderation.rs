//! Taking back, roles, mutes, bans, switching encryption, repeats.

use anyhow::{Context, ensure};
use conclave::client::e2ee::{Body, News};
use conclave::client::{ClientError, Past};
use conclave::protocol::{
    BanUser, ClientId, DurationSecs, ErrorCode, Happening, JoinSession, KickUser, LeftReason, ListMembers, MuteUser,
    NewSession, PageLimit, Ping, RecallMsg, Role, SendMsg, SessionId, SetRole, SetSessionInfo, Typing, UnbanUser,
    UnmuteUser,
};

use crate::person::{Person, refused};
use crate::rooms::sees_leave;
use crate::secrets::Secrets;
use crate::{Cast, chapter, step};

pub(crate) async fn recall(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("Taking a message back");
    let Cast { alice, bob, .. } = cast;
    let seq = alice.says(table, "forget that I said this", secrets).await?;
    bob.reads("forget that I said this").await?;
    let of_alice = bob.client.call(RecallMsg { session_id: table, seq }).await;
    refused("taking back the owner's message", of_alice, ErrorCode::PermissionDenied)?;
    alice.client.call(RecallMsg { session_id: table, seq }).await.context("recall_msg")?;
    bob.sees("MsgRecalled", |_, what| match what {
        Happening::MsgRecalled(recalled) if recalled.recalled_seq == seq => Some(()),
        _ => None,
    })
    .await?;
    let past = bob.client.history(table, Some(seq + 1), 1).await?;
    let [Past::Message(message)] = &past[..] else { anyhow::bail!("the history has the message's place") };
    ensure!(message.body == Body::Recalled, "the history has no text any more");
    step("alice takes a message back: its place stays, its text is gone");
    Ok(())
}

pub(crate) async fn roles_and_mutes(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("Roles and mutes");
    let Cast { alice, bob, erin, .. } = cast;
    let by_bob = bob.client.call(MuteUser { session_id: table, user_id: erin.user_id, duration_s: None }).await;
    refused("muting as a member", by_bob, ErrorCode::PermissionDenied)?;
    let admin = SetRole { session_id: table, user_id: bob.user_id, role: Role::Admin };
    alice.client.call(admin).await.context("set_role")?;
    let user_id = bob.user_id;
    bob.sees("RoleChanged", |_, what| match what {
        Happening::RoleChanged(change) if change.user_id == user_id && change.role == Role::Admin => Some(()),
        _ => None,
    })
    .await?;
    step("alice makes bob an admin");
    let up = bob.client.call(KickUser { session_id: table, user_id: alice.user_id }).await;
    refused("kicking the owner", up, ErrorCode::PermissionDenied)?;
    let oneself = bob.client.call(KickUser { session_id: table, user_id: bob.user_id }).await;
    refused("kicking oneself", oneself, ErrorCode::InvalidArgument)?;
    step("an admin cannot put out the owner, nor themselves");

    let hour = Some(DurationSecs(3600));
    let mute = MuteUser { session_id: table, user_id: erin.user_id, duration_s: hour };
    bob.client.call(mute).await.context("mute_user")?;
    restricted(erin, true, false).await?;
    refused("speaking while muted", erin.client.say(table, "hello?").await, ErrorCode::Muted)?;
    bob.client.call(UnmuteUser { session_id: table, user_id: erin.user_id }).await.context("unmute_user")?;
    restricted(erin, false, false).await?;
    erin.says(table, "thank you", secrets).await?;
    alice.reads("thank you").await?;
    step("bob mutes erin for an hour and thinks better of it");
    Ok(())
}

/// Waits for one's own `MemberRestricted`.
async fn restricted(person: &mut Person, muted: bool, banned: bool) -> anyhow::Result<()> {
    let user_id = person.user_id;
    person
        .sees("MemberRestricted", |_, what| match what {
            Happening::MemberRestricted(change)
                if change.user_id == user_id && change.muted == muted && change.banned == banned =>
            {
                Some(())
            }
            _ => None,
        })
        .await
}

pub(crate) async fn bans(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("Bans");
    let Cast { alice, bob, erin, .. } = cast;
    let ban = BanUser { session_id: table, user_id: erin.user_id, duration_s: None };
    bob.client.call(ban.clone()).await.context("ban_user")?;
    sees_leave(erin, erin.user_id, LeftReason::Banned).await?;
    sees_leave(alice, erin.user_id, LeftReason::Banned).await?;
    bob.client.call(ban).await.context("ban_user, once more")?;
    let back = erin.client.call(JoinSession { session_id: table, leave_message: None }).await;
    refused("joining while banned", back, ErrorCode::Banned)?;
    step("bob bans erin, who cannot come back; a second ban changes nothing");
    alice.says(table, "a new key without erin", secrets).await?;
    let epoch = next_rotation(alice, table).await?;
    bob.sees_rotation(table, epoch).await?;
    step(&format!("the next to speak makes room key {} without her", epoch.0));
    bob.client.call(UnbanUser { session_id: table, user_id: erin.user_id }).await.context("unban_user")?;
    step("the ban is lifted");
    Ok(())
}

async fn next_rotation(person: &mut Person, table: SessionId) -> anyhow::Result<conclave::protocol::KeyEpoch> {
    person
        .sees("RoomKeyRotated", |event, what| match what {
            Happening::RoomKeyRotated(rotated) if event.session_id == table => Some(rotated.key_epoch),
            _ => None,
        })
        .await
}

pub(crate) async fn encryption_switched(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("Encryption off and on");
    let Cast { alice, bob, .. } = cast;
    alice.client.e2ee_off(table).await.context("dee2eeize_session")?;
    for person in [&mut *alice, &mut *bob] {
        e2ee_changed(person, false).await?;
    }
    let sealed = SendMsg {
        session_id: table,
        markdown_text: "AAAA".to_owned(),
        is_encrypted: true,
        key_epoch: None,
        client_msg_id: Some(ClientId("sealed".into())),
        content_type: None,
    };
    refused("an encrypted message", alice.client.call(sealed).await, ErrorCode::E2eeNotOn)?;
    alice.client.say(table, "the weather is public").await?;
    bob.hears("the plain message", |news| match news {
        News::Message(message) => (message.body == Body::Plain("the weather is public".to_owned())).then_some(()),
        _ => None,
    })
    .await?;
    step("alice switches encryption off: members are told, messages go in the clear, ciphertext is refused");

    let epoch = alice.client.rotate(table).await.context("e2eeize_session")?;
    for person in [&mut *alice, &mut *bob] {
        e2ee_changed(person, true).await?;
        person.sees_rotation(table, epoch).await?;
    }
    bob.says(table, "between us again", secrets).await?;
    alice.reads("between us again").await?;
    step(&format!("and on again, with room key {}: numbers are never used twice", epoch.0));

    let strict = SetSessionInfo {
        session_id: table,
        name: None,
        description: None,
        require_encryption: Some(true),
        rotate_on_join: None,
        join_policy: None,
    };
    alice.client.call(strict.clone()).await.context("set_session_info")?;
    refused("a plain message", bob.client.say_plain(table, "oops").await, ErrorCode::EncryptionRequired)?;
    alice.client.call(SetSessionInfo { require_encryption: Some(false), ..strict }).await?;
    step("a session that requires encryption refuses plain messages");
    Ok(())
}

async fn e2ee_changed(person: &mut Person, on: bool) -> anyhow::Result<()> {
    person
        .sees("SessionE2eeChanged", |_, what| match what {
            Happening::SessionE2eeChanged(change) if change.e2ee_on == on => Some(()),
            _ => None,
        })
        .await
}

pub(crate) async fn repeats(cast: &mut Cast, table: SessionId) -> anyhow::Result<()> {
    chapter("A retry is not a duplicate");
    let Cast { alice, bob, .. } = cast;
    let message = SendMsg {
        session_id: table,
        markdown_text: "once".to_owned(),
        is_encrypted: false,
        key_epoch: None,
        client_msg_id: Some(ClientId("only-once".into())),
        content_type: None,
    };
    let first = alice.client.call(message.clone()).await?;
    let second = alice.client.call(message).await?;
    ensure!(first == second, "the same message has the same place and time");
    alice.client.say_plain(table, "after it").await?;
    let is = |text: &'static str| {
        move |news: &News| match news {
            News::Message(message) if message.body.text() == Some(text) => Some(()),
            _ => None,
        }
    };
    bob.hears("the message after it", is("after it")).await?;
    bob.hears("the message", is("once")).await?;
    ensure!(!bob.has_heard(|news| is("once")(news).is_some()), "and it was delivered once");
    step("alice sends the same client_msg_id twice: one message, the same answer");
    let request = NewSession {
        name: Some("twice".to_owned()),
        members: None,
        e2ee_on: false,
        room_key: None,
        key_check: None,
        leave_message: None,
        client_session_id: Some(ClientId("made-once".into())),
    };
    let first = alice.client.call(request.clone()).await?;
    let second = alice.client.call(request).await?;
    ensure!(first.session_id == second.session_id, "the same client_session_id is one session");
    alice.client.leave(first.session_id, false).await.context("the last one out")?;
    step("and the same client_session_id twice: one session");
    Ok(())
}

pub(crate) async fn small_things(cast: &mut Cast, table: SessionId) -> anyhow::Result<()> {
    chapter("Small things");
    let Cast { alice, bob, .. } = cast;
    alice.client.call(Ping {}).await.context("ping")?;
    bob.client.call(Typing { session_id: table }).await.context("typing")?;
    let writer = bob.user_id;
    alice
        .hears("Typing", |news| match news {
            News::Typing { session_id, user_id } if *session_id == table && *user_id == writer => Some(()),
            _ => None,
        })
        .await?;
    step("bob is writing, and alice sees it");
    let mut seen = 0;
    let mut after = None;
    loop {
        let page = alice.client.call(ListMembers { session_id: table, after, limit: Some(PageLimit(1)) }).await?;
        seen += page.members.len();
        after = page.members.last().map(|member| member.user_id);
        if !page.more {
            break;
        }
    }
    let info = alice.client.info(table).await?;
    ensure!(info.member_count == seen as u64 && seen == 2, "members are listed page by page");
    step("members are listed page by page");
    let far = conclave::protocol::Ack { session_id: table, seq: info.last_seq + 1000 };
    refused("ack beyond the end", alice.client.call(far).await, ErrorCode::InvalidArgument)?;
    let rename = SetSessionInfo {
        session_id: table,
        name: Some("the square table".to_owned()),
        description: None,
        require_encryption: None,
        rotate_on_join: None,
        join_policy: None,
    };
    alice.client.call(rename).await.context("set_session_info")?;
    bob.sees("SessionInfoChanged", |_, what| match what {
        Happening::SessionInfoChanged(change) => (change.name.as_deref() == Some("the square table")).then_some(()),
        _ => None,
    })
    .await?;
    let stranger: Result<_, ClientError> = bob.client.call(RecallMsg { session_id: table, seq: 1 }).await;
    refused("taking back what is no message", stranger, ErrorCode::NotFound)?;
    step("the session is renamed");
    Ok(())
}
