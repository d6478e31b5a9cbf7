//! Sessions to test with, made through the wire alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Client;

/// A UUIDv7 that no session and no user has.
pub(crate) const NOBODY: &str = "0198c0de-0000-7000-8000-00000000dead";

/// An opaque value of the wire: what the server never opens.
pub(crate) fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// The check value that the tests' room key of an epoch has.
pub(crate) fn check(epoch: u64) -> String {
    base64(&format!("check-{epoch}"))
}

/// A plain session of `owner` with these members; nothing is left unread or unacknowledged.
pub(crate) async fn plain(owner: &mut Client, members: &mut [&mut Client]) -> String {
    make(owner, members, json!({"e2ee_on": false})).await
}

/// An encrypted session at epoch 1, whose key every member has.
pub(crate) async fn encrypted(owner: &mut Client, members: &mut [&mut Client]) -> String {
    make(owner, members, json!({"e2ee_on": true, "key_check": check(1)})).await
}

async fn make(owner: &mut Client, members: &mut [&mut Client], new: Value) -> String {
    let encrypted = new["e2ee_on"] == true;
    let made = owner.ok("new_session", new).await;
    let sid = made["session_id"].as_str().expect("a session id").to_owned();
    for member in members.iter_mut() {
        admit(owner, member, &sid).await;
        if encrypted {
            let ask = owner.expect("SendRoomKeyNotification").await;
            assert_eq!(ask["user_id"], member.user_id);
            owner.ok("send_room_key", key_for(&sid, &member.user_id, 1)).await;
            member.expect("ReceiveRoomKeyNotification").await;
        }
    }
    settle(&sid, owner, members).await;
    sid
}

/// Invites and accepts. The newcomer may be without the room key afterwards.
pub(crate) async fn admit(owner: &mut Client, member: &mut Client, sid: &str) {
    owner.ok("invite_user_to_session", json!({"session_id": sid, "invitee": member.user_id})).await;
    let invited = member.expect_where("InviteUserToSession", |body| body["session_id"] == sid).await;
    let accept = json!({"session_id": sid, "inviter_id": invited["inviter_id"], "accepted": true});
    member.ok("accept_join_session_approval", accept).await;
    owner.expect_where("AcceptSessionNotification", |body| body["invitee_id"] == member.user_id).await;
}

/// A message that all see: everything of the session before it has come then, and is forgotten.
pub(crate) async fn settle(sid: &str, speaker: &mut Client, others: &mut [&mut Client]) -> u64 {
    let seq = mark(sid, speaker, others).await;
    speaker.ack_inbox().await;
    speaker.clear().await;
    for other in others.iter_mut() {
        other.ack_inbox().await;
        other.clear().await;
    }
    seq
}

/// A message that all wait for; what came before it stays to be looked at.
pub(crate) async fn mark(sid: &str, speaker: &mut Client, others: &mut [&mut Client]) -> u64 {
    let seq = speaker.ok("send_msg", text(sid, "a mark")).await["seq"].as_u64().expect("a seq");
    speaker.expect_where("Msg", |body| body["session_id"] == sid && body["seq"] == seq).await;
    for other in others.iter_mut() {
        other.expect_where("Msg", |body| body["session_id"] == sid && body["seq"] == seq).await;
    }
    seq
}

/// The body of a plain `send_msg`.
pub(crate) fn text(sid: &str, text: &str) -> Value {
    json!({"session_id": sid, "markdown_text": text, "is_encrypted": false})
}

/// The body of an encrypted `send_msg`.
pub(crate) fn cipher(sid: &str, epoch: u64) -> Value {
    json!({"session_id": sid, "markdown_text": base64("ciphertext"), "is_encrypted": true, "key_epoch": epoch})
}

/// The body of a `send_room_key`.
pub(crate) fn key_for(sid: &str, user_id: &str, epoch: u64) -> Value {
    json!({
        "session_id": sid, "user_id": user_id, "room_key": base64(&format!("{user_id} {epoch}")), "key_epoch": epoch,
        "key_check": check(epoch), "signature": base64("signature"),
    })
}

/// The body of a `send_room_keys`.
pub(crate) fn keys_for(sid: &str, user_ids: &[&str], epoch: u64) -> Value {
    let room_keys: Vec<Value> = user_ids
        .iter()
        .map(|user_id| json!({"user_id": user_id, "room_key": base64(&format!("{user_id} {epoch}"))}))
        .collect();
    json!({
        "session_id": sid, "key_epoch": epoch, "key_check": check(epoch), "signature": base64("signature"),
        "room_keys": room_keys,
    })
}

/// The body of a request about the session alone.
pub(crate) fn of(sid: &str) -> Value {
    json!({"session_id": sid})
}

/// The body of a request about a user of the session.
pub(crate) fn about(sid: &str, user_id: &str) -> Value {
    json!({"session_id": sid, "user_id": user_id})
}

/// What the session is, as its owner sees it.
pub(crate) async fn info(client: &mut Client, sid: &str) -> Value {
    client.ok("get_session_info", of(sid)).await
}

/// One member of `get_session_info`.
pub(crate) fn member<'a>(info: &'a Value, user_id: &str) -> &'a Value {
    let members = info["members"].as_array().expect("members");
    members.iter().find(|member| member["user_id"] == user_id).unwrap_or_else(|| panic!("{user_id} in {info}"))
}

/// Refused with the code, and the session is as it was, in everything that its owner can see.
pub(crate) async fn refused_and_unchanged(
    client: &mut Client,
    owner: &mut Client,
    sid: &str,
    name: &str,
    body: Value,
    code: &str,
) {
    let before = info(owner, sid).await;
    client.refused(name, body.clone(), code).await;
    assert_eq!(info(owner, sid).await, before, "{name} {body} was refused and changed the session");
}
