//! The frames of the wire contract as a table: every frame that a test's client gets is held against it.
//!
//! A field that is not in the table, one that is missing, a `null`, or a value of another kind fails the test that met
//! it, whatever that test is about. The server may grow; then the table grows with it.

use serde_json::Value;

/// What is in the body of the reply to each request: names, `?` behind those that may be left out.
const REPLIES: &[(&str, &str)] = &[
    ("authenticate", "user_id node limits sessions"),
    ("resume", "sessions gone"),
    ("ping", "time"),
    ("new_session", "session_id key_epoch? failed_members"),
    ("join_session", "status"),
    ("send_room_keys", "failed_members"),
    ("fetch_room_keys", "room_keys more"),
    ("send_msg", "seq time"),
    ("e2eeize_session", "key_epoch"),
    (
        "get_session_info",
        "session_id name? description? e2ee_on key_epoch? require_encryption rotate_on_join join_policy created_at \
         last_seq member_count members join_requests? invitations?",
    ),
    ("list_members", "members more"),
    ("fetch_msgs", "events more"),
    ("allow_user_join_session", ""),
    ("invite_user_to_session", ""),
    ("accept_join_session_approval", ""),
    ("send_room_key", ""),
    ("request_room_key", ""),
    ("dee2eeize_session", ""),
    ("leave_session", ""),
    ("delete_session", ""),
    ("kick_user", ""),
    ("ban_user", ""),
    ("unban_user", ""),
    ("mute_user", ""),
    ("unmute_user", ""),
    ("set_role", ""),
    ("set_session_info", ""),
    ("recall_msg", ""),
    ("ack", ""),
    ("ack_inbox", ""),
    ("typing", ""),
    ("error", "code message retryable details?"),
];

/// Events of a session, which all have `session_id seq time by?` besides.
const EVENTS: &[(&str, &str)] = &[
    ("Msg", "sender_id markdown_text is_encrypted key_epoch? client_msg_id? content_type? recalled?"),
    ("MemberJoined", "user_id role"),
    ("MemberLeft", "user_id reason"),
    ("RoleChanged", "user_id role"),
    ("MemberRestricted", "user_id muted muted_until? banned banned_until?"),
    ("SessionInfoChanged", "name? description? require_encryption? rotate_on_join? join_policy?"),
    ("SessionE2eeChanged", "e2ee_on"),
    ("RoomKeyRotated", "key_epoch key_check?"),
    ("MsgRecalled", "recalled_seq"),
    ("PublicKeyChanged", "user_id fingerprint"),
    ("SessionDeleted", ""),
];

/// What is kept until acknowledged: these have an `inbox_id`.
const NOTICES: &[(&str, &str)] = &[
    ("JoinSessionApproval", "session_id user_id leave_message? public_key?"),
    ("AllowUserJoinSessionNotification", "session_id user_id accepted room_key? key_epoch? key_check? signature?"),
    ("InviteUserToSession", "session_id inviter_id leave_message? expire_timestamp"),
    ("AcceptSessionNotification", "session_id invitee_id accepted public_key? key_epoch?"),
    ("ReceiveRoomKeyNotification", "session_id user_id room_key key_epoch key_check? signature?"),
];

/// Everything else that comes without being asked for.
const OTHERS: &[(&str, &str)] = &[
    ("UpdateRoomKeyNotification", "session_id key_epoch"),
    ("SendRoomKeyNotification", "session_id user_id public_key key_epoch"),
    ("Typing", "session_id user_id"),
    ("InboxWithdrawn", "inbox_ids"),
    ("GoingAway", "reconnect_after_ms"),
];

/// What the elements of lists, and objects within bodies, have. By the body's type where a name means several things.
const PARTS: &[(&str, &str)] = &[
    ("limits", "frame_bytes requests_in_flight requests_per_s"),
    ("authenticate.sessions", "session_id name? e2ee_on key_epoch? has_key role first_seq last_seq acked_seq log"),
    ("resume.sessions", "session_id from_seq reset?"),
    ("gone", "session_id reason"),
    ("failed_members", "user_id reason"),
    ("room_keys", "key_epoch user_id room_key key_check? signature?"),
    ("members", "user_id name role joined_at has_key muted_until? muted"),
    ("join_requests", "user_id leave_message? time"),
    ("invitations", "user_id inviter_id expire_timestamp"),
];

/// Asserts that a frame is one of the contract's, in every field.
#[track_caller]
pub(crate) fn assert_frame(frame: &Value) {
    if let Err(wrong) = check_frame(frame) {
        panic!("{wrong}, in {frame}");
    }
}

fn check_frame(frame: &Value) -> Result<(), String> {
    let name = frame["type"].as_str().ok_or("a frame without a type")?;
    let row =
        |table: &'static [(&str, &str)]| table.iter().find(|(known, _)| *known == name).map(|(_, fields)| *fields);
    let envelope = |expected: &[&str]| {
        let mut has: Vec<&str> = frame.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        has.sort_unstable();
        if has == expected { Ok(()) } else { Err(format!("an envelope of {has:?}")) }
    };
    let body = &frame["body"];
    if frame.get("reply_to").is_some() {
        envelope(&["body", "reply_to", "type"])?;
        return check_object(name, body, row(REPLIES).ok_or("a reply of no known type")?);
    }
    if let Some(fields) = row(EVENTS) {
        envelope(&["body", "type"])?;
        return check_object(name, body, &format!("session_id seq time by? {fields}"));
    }
    if let Some(fields) = row(NOTICES) {
        envelope(&["body", "inbox_id", "type"])?;
        text(&frame["inbox_id"])?;
        return check_object(name, body, fields);
    }
    envelope(&["body", "type"])?;
    check_object(name, body, row(OTHERS).ok_or("a type of no table")?)
}

fn check_object(within: &str, object: &Value, fields: &str) -> Result<(), String> {
    let object = object.as_object().ok_or_else(|| format!("{within} is no object"))?;
    let known = |key: &str| fields.split_whitespace().any(|field| field.trim_end_matches('?') == key);
    if let Some(key) = object.keys().find(|key| !known(key)) {
        return Err(format!("{within} has {key}, which is in no table"));
    }
    for field in fields.split_whitespace() {
        let name = field.trim_end_matches('?');
        match object.get(name) {
            Some(value) => check_value(within, name, value).map_err(|wrong| format!("{within}: {name}: {wrong}"))?,
            None if field.ends_with('?') => {}
            None => return Err(format!("{within} lacks {name}")),
        }
    }
    Ok(())
}

fn check_value(within: &str, name: &str, value: &Value) -> Result<(), String> {
    let parts = |of: &str| PARTS.iter().find(|(known, _)| *known == of).map(|(_, fields)| *fields);
    if let Some(fields) = parts(&format!("{within}.{name}")).or_else(|| parts(name)) {
        return match value {
            Value::Array(elements) => elements.iter().try_for_each(|element| check_object(name, element, fields)),
            object => check_object(name, object, fields),
        };
    }
    match name {
        "session_id" | "user_id" | "sender_id" | "inviter_id" | "invitee_id" | "by" => uuid(value),
        "seq" | "first_seq" | "last_seq" | "from_seq" | "recalled_seq" | "key_epoch" | "member_count" => {
            number(value, 1)
        }
        "acked_seq" | "frame_bytes" | "requests_in_flight" | "requests_per_s" | "reconnect_after_ms" => {
            number(value, 0)
        }
        "time" | "created_at" | "joined_at" | "muted_until" | "banned_until" | "expire_timestamp" => time(value),
        "public_key" | "room_key" | "key_check" | "signature" => base64(value),
        "role" => one_of(value, &["owner", "admin", "member"]),
        "join_policy" => one_of(value, &["approval", "open", "closed"]),
        "status" => one_of(value, &["joined", "pending"]),
        "reason" if within == "MemberLeft" => one_of(value, &["left", "kicked", "banned"]),
        "reason" if within == "gone" => one_of(value, &["left", "kicked", "banned", "deleted"]),
        "recalled" | "reset" => {
            if value == true {
                Ok(())
            } else {
                Err("left out or true".to_owned())
            }
        }
        "e2ee_on" | "has_key" | "is_encrypted" | "muted" | "banned" | "accepted" | "more" | "retryable"
        | "require_encryption" | "rotate_on_join" => value.as_bool().map(|_| ()).ok_or_else(|| "no boolean".to_owned()),
        "events" => value.as_array().ok_or("no list")?.iter().try_for_each(check_frame),
        "inbox_ids" => value.as_array().ok_or("no list")?.iter().try_for_each(text),
        "details" => value.as_object().map(|_| ()).ok_or_else(|| "no object".to_owned()),
        "fingerprint" => {
            let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
            value.as_str().filter(|text| hex(text)).map(|_| ()).ok_or_else(|| "no hex SHA-256".to_owned())
        }
        _ => text(value),
    }
}

fn text(value: &Value) -> Result<(), String> {
    value.as_str().map(|_| ()).ok_or_else(|| "no string".to_owned())
}

fn number(value: &Value, least: u64) -> Result<(), String> {
    value.as_u64().filter(|number| *number >= least).map(|_| ()).ok_or_else(|| format!("no integer from {least}"))
}

fn one_of(value: &Value, words: &[&str]) -> Result<(), String> {
    value.as_str().filter(|word| words.contains(word)).map(|_| ()).ok_or_else(|| format!("none of {words:?}"))
}

/// Whether each character is as in the pattern: `9` a digit, `f` a lower-case hex digit, others themselves.
fn looks_like(text: &str, pattern: &str) -> bool {
    text.len() == pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, like)| match like {
            b'9' => byte.is_ascii_digit(),
            b'f' => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            like => byte == like,
        })
}

fn uuid(value: &Value) -> Result<(), String> {
    let version_7 = |text: &&str| looks_like(text, "ffffffff-ffff-7fff-ffff-ffffffffffff");
    value.as_str().filter(version_7).map(|_| ()).ok_or_else(|| "no UUID of version 7".to_owned())
}

fn time(value: &Value) -> Result<(), String> {
    let form = |text: &&str| looks_like(text, "9999-99-99T99:99:99.999Z");
    value.as_str().filter(form).map(|_| ()).ok_or_else(|| "no time in UTC with milliseconds".to_owned())
}

fn base64(value: &Value) -> Result<(), String> {
    let standard = |text: &&str| {
        let data = text.trim_end_matches('=');
        let alphabet = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        !text.is_empty() && text.len().is_multiple_of(4) && text.len() - data.len() <= 2 && data.bytes().all(alphabet)
    };
    value.as_str().filter(standard).map(|_| ()).ok_or_else(|| "no padded base64".to_owned())
}

#[test]
fn the_table_refuses_what_the_contract_does() {
    use serde_json::json;
    const ID: &str = "0198c0de-0000-7000-8000-000000000001";
    let good = json!({"type": "Typing", "body": {"session_id": ID, "user_id": ID}});
    assert_eq!(check_frame(&good), Ok(()));
    let bad = [
        json!({"type": "Typing", "body": {"session_id": ID}}),
        json!({"type": "Typing", "body": {"session_id": ID, "user_id": null}}),
        json!({"type": "Typing", "body": {"session_id": ID, "user_id": ID, "more": true}}),
        json!({"type": "Typing", "inbox_id": "1", "body": {"session_id": ID, "user_id": ID}}),
        json!({"type": "Typing", "body": {"session_id": ID, "user_id": "0198C0DE-0000-7000-8000-000000000001"}}),
        json!({"type": "Nothing", "body": {}}),
        json!({"reply_to": 1, "type": "ping", "body": {"time": "2026-01-31T12:00:00Z"}}),
        json!({"reply_to": 1, "type": "e2eeize_session", "body": {"key_epoch": 0}}),
        json!({"reply_to": 1, "type": "resume", "body": {"sessions": [{"session_id": ID, "from_seq": 1, "reset": false}], "gone": []}}),
    ];
    for frame in bad {
        assert!(check_frame(&frame).is_err(), "{frame}");
    }
}
