//! An encrypted session: made, invited to, asked into, and its room key replaced by rule.

use anyhow::{Context, ensure};
use conclave::client::crypto::KeyName;
use conclave::client::e2ee::{Asking, News};
use conclave::protocol::{ErrorCode, Happening, JoinStatus, KeyEpoch, KickUser, LeftReason, SessionId, UserId};

use crate::person::{Person, refused};
use crate::secrets::Secrets;
use crate::{Cast, chapter, step};

pub(crate) async fn encrypted_session(cast: &mut Cast, secrets: &Secrets) -> anyhow::Result<SessionId> {
    chapter("An end-to-end-encrypted session");
    let Cast { alice, bob, dave, .. } = cast;
    let created = alice.client.create_session(Some("the round table"), vec![], true).await.context("new_session")?;
    let table = created.session_id;
    ensure!(created.key_epoch == Some(KeyEpoch(1)), "an encrypted session starts at epoch 1");
    alice.sees_join(table, alice.user_id).await?;
    step("alice makes a session; its first room key is made on her device and stays there");

    refused("reading a session as an outsider", dave.client.info(table).await, ErrorCode::NotAMember)?;
    let nowhere = SessionId::from_bytes([0; 16]);
    refused("reading no session", dave.client.info(nowhere).await, ErrorCode::NotFound)?;
    step("an outsider learns nothing of it");

    let epoch = alice.brings_in(table, bob).await?;
    ensure!(epoch == KeyEpoch(1), "bob gets the current key");
    alice.sees_join(table, bob.user_id).await?;
    step("alice invites bob, bob accepts, alice's client wraps and signs the room key for him, bob's client checks it");

    let seq = alice.says(table, "the sword is in the lake", secrets).await?;
    let read = bob.reads("the sword is in the lake").await?;
    ensure!(read.seq == seq && read.sender_id == alice.user_id, "the message has its place and its sender");
    bob.says(table, "then we need a boat", secrets).await?;
    alice.reads("then we need a boat").await?;
    step("alice and bob write to each other; the server carries ciphertext only");
    Ok(table)
}

pub(crate) async fn join_requests(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("Asking to be let in");
    let Cast { alice, bob, carol, dave, .. } = cast;
    ask(alice, carol, table).await?;
    alice.client.decide_join(table, carol.user_id, true).await.context("allow_user_join_session")?;
    hears_decision(carol, true).await?;
    ensure!(carol.gets_key(table).await? == KeyEpoch(1), "the approval brings the room key");
    carol.sees_join(table, carol.user_id).await?;
    alice.says(table, "welcome, carol", secrets).await?;
    carol.reads("welcome, carol").await?;
    bob.reads("welcome, carol").await?;
    step("carol asks to be let in, alice approves, the room key comes with the approval, carol reads");

    let past = carol.client.history(table, None, 100).await?;
    ensure!(past.len() == 2, "carol sees her own coming and the welcome, nothing from before");
    step("carol's history begins with her own coming");

    ask(alice, dave, table).await?;
    alice.client.decide_join(table, dave.user_id, false).await.context("allow_user_join_session")?;
    hears_decision(dave, false).await?;
    let again = alice.client.decide_join(table, dave.user_id, true).await;
    refused("deciding on a request that is closed", again, ErrorCode::NotFound)?;
    refused("speaking as an outsider", dave.client.say_plain(table, "hello").await, ErrorCode::NotAMember)?;
    step("dave asks too and is turned away; a request is decided once");
    Ok(())
}

async fn ask(alice: &mut Person, who: &mut Person, table: SessionId) -> anyhow::Result<()> {
    let joining = who.client.join(table, Some("may I come in?")).await.context("join_session")?;
    ensure!(joining.status == JoinStatus::Pending, "a join request waits for a decision");
    let asker = who.user_id;
    let fingerprint = alice
        .hears("a join request", |news| match news {
            News::Asking(Asking::JoinRequest { user_id, fingerprint, .. }) if *user_id == asker => Some(*fingerprint),
            _ => None,
        })
        .await?;
    ensure!(fingerprint == Some(who.identity.public().fingerprint()), "the request shows the applicant's key");
    Ok(())
}

async fn hears_decision(who: &mut Person, expected: bool) -> anyhow::Result<()> {
    who.hears("the decision", |news| match news {
        News::Asking(Asking::JoinDecided { accepted, .. }) if *accepted == expected => Some(()),
        _ => None,
    })
    .await
}

pub(crate) async fn rotations(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("The room key is replaced");
    let Cast { alice, bob, carol, dave, .. } = cast;
    carol.client.leave(table, false).await.context("leave_session")?;
    sees_leave(carol, carol.user_id, LeftReason::Left).await?;
    sees_leave(alice, carol.user_id, LeftReason::Left).await?;
    sees_leave(bob, carol.user_id, LeftReason::Left).await?;
    step("carol leaves: the session is marked");
    bob.says(table, "is she gone?", secrets).await?;
    alice.reads("is she gone?").await?;
    alice.sees_rotation(table, KeyEpoch(2)).await?;
    bob.sees_rotation(table, KeyEpoch(2)).await?;
    alice.says(table, "carol cannot read this", secrets).await?;
    let read = bob.reads("carol cannot read this").await?;
    ensure!(!read.late, "the key was there before the text");
    ensure!(!holds(carol, table, 2), "carol was not given the new key");
    step("bob speaks first, so his client makes room key 2 and gives it to alice; carol never gets it");

    ensure!(alice.brings_in(table, dave).await? == KeyEpoch(2), "dave gets the current key");
    alice.client.call(KickUser { session_id: table, user_id: dave.user_id }).await.context("kick_user")?;
    sees_leave(dave, dave.user_id, LeftReason::Kicked).await?;
    sees_leave(alice, dave.user_id, LeftReason::Kicked).await?;
    alice.says(table, "dave was put out", secrets).await?;
    alice.sees_rotation(table, KeyEpoch(3)).await?;
    bob.sees_rotation(table, KeyEpoch(3)).await?;
    ensure!(!holds(dave, table, 3), "dave was not given the new key");
    step("dave comes in and is kicked: room key 3, without him");

    let epoch = alice.client.rotate(table).await.context("e2eeize_session")?;
    ensure!(epoch == KeyEpoch(4), "epochs count up");
    alice.sees_rotation(table, epoch).await?;
    bob.sees_rotation(table, epoch).await?;
    bob.says(table, "a fresh key for a fresh day", secrets).await?;
    alice.reads("a fresh key for a fresh day").await?;
    bob.reads("a fresh key for a fresh day").await?;
    step("alice has the room key replaced on demand: room key 4");
    Ok(())
}

pub(crate) fn holds(person: &Person, session_id: SessionId, epoch: u64) -> bool {
    person.client.with_core(|core| core.ring().key(&KeyName::new(session_id, KeyEpoch(epoch))).is_some())
}

pub(crate) async fn sees_leave(person: &mut Person, who: UserId, why: LeftReason) -> anyhow::Result<()> {
    person
        .sees("a MemberLeft", |_, what| match what {
            Happening::MemberLeft(left) if left.user_id == who && left.reason == why => Some(()),
            _ => None,
        })
        .await
}
