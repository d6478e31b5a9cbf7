//! Devices that lose keys, sleep, are new, or get a new key pair.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use conclave::client::calls::Joining;
use conclave::client::e2ee::{Body, KeyNews, News};
use conclave::client::identity::Identity;
use conclave::client::profile::Profile;
use conclave::client::vault::Cost;
use conclave::client::{Connection, ConnectionOptions, Past};
use conclave::protocol::{
    Cursor, ErrorCode, Happening, JoinSession, KeyEpoch, LostReason, RequestRoomKey, Resume, ServerFrame, SessionId,
};

use crate::person::{Person, refused};
use crate::rooms::holds;
use crate::secrets::Secrets;
use crate::{Cast, chapter, step};

pub(crate) async fn lost_key(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("A lost room key");
    let Cast { alice, bob, .. } = cast;
    bob.clears();
    bob.client.forget_keys(table);
    ensure!(!holds(bob, table, 4), "bob's device has lost its keys");
    let lost = RequestRoomKey { session_id: table, reason: LostReason::Lost };
    bob.client.call(lost).await.context("request_room_key")?;
    while !holds(bob, table, 4) {
        bob.gets_key(table).await?;
    }
    alice.says(table, "can you read again?", secrets).await?;
    bob.reads("can you read again?").await?;
    step("bob's device loses its room keys and asks; alice's client is asked by the server and gives it again");
    Ok(())
}

pub(crate) async fn offline_member(cast: Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<Cast> {
    chapter("A member who sleeps");
    let Cast { mut alice, mut bob, carol, dave, erin } = cast;
    // Erin's keys are in files, as a person's are.
    let dir = tempfile::tempdir()?;
    let home = dir.path().join("erin");
    let passphrase = "erin's passphrase";
    secrets.password(passphrase);
    let identity = Identity::from_pkcs8_der(&erin.identity.to_pkcs8_der()?)?;
    let token = erin.token.clone();
    erin.client.clone().close().await;
    let profile = Profile::create(&home, passphrase, Cost::CHEAP, identity)?;
    let mut erin = erin.device(token.clone(), profile).await?;
    ensure!(alice.brings_in(table, &mut erin).await? == KeyEpoch(4), "erin gets the current key");
    alice.says(table, "sleep well, erin", secrets).await?;
    erin.reads("sleep well, erin").await?;
    erin.client.clone().close().await;
    step("erin comes in, reads, and goes offline");

    let epoch = alice.client.rotate(table).await.context("e2eeize_session")?;
    alice.sees_rotation(table, epoch).await?;
    bob.sees_rotation(table, epoch).await?;
    alice.says(table, "first thing while erin sleeps", secrets).await?;
    bob.says(table, "second thing while erin sleeps", secrets).await?;
    step("meanwhile the room key is replaced, and alice and bob talk");

    let profile = Profile::open(&home, passphrase)?;
    let mut erin = erin.device(token, profile).await?;
    while !holds(&erin, table, epoch.0) {
        erin.gets_key(table).await?;
    }
    let first = erin.reads("first thing while erin sleeps").await?;
    let second = erin.reads("second thing while erin sleeps").await?;
    ensure!(!first.late && !second.late, "the key came before the text");
    erin.says(table, "good morning", secrets).await?;
    alice.reads("good morning").await?;
    step("erin returns, opens her key files with her passphrase, gets the key that waited, and reads all of it");
    secrets.room_keys(&erin.client);
    erin.home = Some(dir);
    Ok(Cast { alice, bob, carol, dave, erin })
}

pub(crate) async fn second_device(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("A second device");
    let Cast { alice, bob, .. } = cast;
    let login = bob.http().login(&bob.name, &bob.password).await?;
    secrets.token(login.token.expose());
    let mut tablet = bob.device(login.token, Profile::in_memory(Arc::clone(&bob.identity))).await?;
    while !holds(&tablet, table, 5) {
        tablet.gets_key(table).await?;
    }
    let read = |past: &[Past], text: &str| {
        past.iter().any(|past| match past {
            Past::Message(message) => message.body == Body::Decrypted(text.to_owned()),
            Past::Event(_) => false,
        })
    };
    let past = tablet.client.history(table, None, 200).await?;
    for text in ["first thing while erin sleeps", "second thing while erin sleeps", "welcome, carol"] {
        ensure!(read(&past, text), "the second device reads {text:?} in the history");
    }
    step("bob's tablet has his key pair and no room keys: it fetches the wrapped ones and reads the history");
    alice.says(table, "hello to both of bob's devices", secrets).await?;
    bob.reads("hello to both of bob's devices").await?;
    tablet.reads("hello to both of bob's devices").await?;
    let epoch = tablet_rotates(alice, bob, &mut tablet, table, secrets).await?;
    step(&format!("both devices read; room key {} goes to both, whichever of them is asked", epoch.0));
    tablet.client.close().await;
    Ok(())
}

/// Somebody leaves, and the tablet speaks first: it makes the key, and bob's other device gets it too.
async fn tablet_rotates(
    alice: &mut Person,
    bob: &mut Person,
    tablet: &mut Person,
    table: SessionId,
    secrets: &Secrets,
) -> anyhow::Result<KeyEpoch> {
    let epoch = alice.client.rotate(table).await.context("e2eeize_session")?;
    for person in [&mut *alice, &mut *bob, &mut *tablet] {
        person.sees_rotation(table, epoch).await?;
    }
    tablet.says(table, "from the tablet", secrets).await?;
    alice.reads("from the tablet").await?;
    bob.reads("from the tablet").await?;
    Ok(epoch)
}

/// A bare connection, without the client's own reconnecting: what `resume` promises, seen as it is.
pub(crate) async fn catch_up(cast: &mut Cast, table: SessionId) -> anyhow::Result<()> {
    chapter("Catching up");
    let Cast { alice, .. } = cast;
    let (connection, mut incoming) = Connection::open(&alice.server, &ConnectionOptions::default()).await?;
    let early = connection.call(JoinSession { session_id: table, leave_message: None }).await;
    refused("a request before authenticate", early.map(|joining: Joining| joining), ErrorCode::Unauthenticated)?;
    let authenticated = connection.authenticate(&alice.token).await?;
    let overview = authenticated.sessions.iter().find(|session| session.session_id == table);
    let overview = overview.context("alice's session is in the reply to authenticate")?.clone();
    let cursor = Cursor { seq: 3, log: Some(overview.log.clone()) };
    let resumed = connection.call(Resume { cursors: Some([(table, cursor)].into()) }).await?;
    let place = resumed.sessions.iter().find(|session| session.session_id == table);
    ensure!(place.is_some_and(|place| place.from_seq == 4 && !place.reset), "events go on after the cursor");
    let mut next = 4;
    while next <= overview.last_seq {
        let frame = tokio::time::timeout(std::time::Duration::from_secs(20), incoming.next()).await;
        match frame.context("waiting for the events that were missed")? {
            Some(ServerFrame::Event(event)) if event.session_id == table => {
                ensure!(event.seq == next, "expected event {next}, got {}", event.seq);
                next += 1;
            }
            Some(_) => {}
            None => bail!("the connection ended during catch-up"),
        }
    }
    connection.close().await;
    step(&format!("a connection that has seen 3 events gets 4 to {} in order, without a gap", next - 1));
    Ok(())
}

pub(crate) async fn new_key_pair(cast: &mut Cast, table: SessionId, secrets: &Secrets) -> anyhow::Result<()> {
    chapter("A new key pair");
    let Cast { alice, bob, .. } = cast;
    let before = bob.identity.public().fingerprint();
    let identity = tokio::task::spawn_blocking(|| Identity::generate(2048, &mut rand::rng())).await??;
    secrets.identity(&identity)?;
    let identity = Arc::new(identity);
    let wrong = bob.client.replace_identity("not the password", Arc::clone(&identity)).await;
    refused("replacing the key with a wrong password", wrong, ErrorCode::PermissionDenied)?;
    bob.clears();
    alice.clears();
    bob.client.replace_identity(&bob.password, Arc::clone(&identity)).await.context("PUT /v1/me/public_key")?;
    let after = identity.public().fingerprint();
    bob.identity = identity;
    let user_id = bob.user_id;
    alice
        .sees("PublicKeyChanged", |_, what| match what {
            Happening::PublicKeyChanged(change) if change.user_id == user_id => Some(change.fingerprint.clone()),
            _ => None,
        })
        .await?;
    alice
        .hears("the changed fingerprint", |news| match news {
            News::Keys(KeyNews::FingerprintChanged { user_id: who, pinned, offered })
                if *who == user_id && *pinned == before && *offered == after =>
            {
                Some(())
            }
            _ => None,
        })
        .await?;
    alice
        .hears("that the key is withheld", |news| match news {
            News::Keys(KeyNews::Given { withheld: 1, .. }) => Some(()),
            _ => None,
        })
        .await?;
    step("bob gets a new key pair: alice is warned, and her client gives it no room key");
    let info = alice.client.info(table).await?;
    let bobs = info.members.iter().find(|member| member.user_id == user_id);
    ensure!(bobs.is_some_and(|bob| !bob.has_key), "bob counts as without the room key");

    bob.client.forget_keys(table);
    alice.client.agree(user_id, after).await.context("agreeing to the fingerprint")?;
    bob.gets_key(table).await?;
    alice.says(table, "it is really you", secrets).await?;
    bob.reads("it is really you").await?;
    step("alice compares fingerprints with bob and agrees: the room key is given, bob reads again");
    Ok(())
}
