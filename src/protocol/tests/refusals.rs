//! What a client with a bug is told: which field, and what would be right in it.

use crate::protocol::*;

const SESSION: &str = "0198c0de-0000-7000-8000-000000000001";

fn refused(text: &str) -> Unreadable {
    match decode_request(text) {
        Err(unreadable) => unreadable,
        Ok(request) => panic!("taken: {text}: {request:?}"),
    }
}

/// Body, then the text of the refusal; `S` stands for a session's id, `U` for a user's.
#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn a_wrong_field_is_named_with_what_would_be_right() {
    const USER: &str = "expected a user id: a UUID as a lower-case hyphenated string";
    const SESSION_ID: &str = "expected a session id: a UUID as a lower-case hyphenated string";
    const BASE64: &str = "expected padded base64 of at most 4096 characters";
    let rows: &[(&str, &str, &str)] = &[
        // Missing.
        ("typing", r#"{}"#, &format!("session_id: missing, {SESSION_ID}")),
        ("send_msg", r#"{"session_id":"S","is_encrypted":false}"#, "markdown_text: missing, expected a string"),
        ("new_session", r#"{}"#, "e2ee_on: missing, expected true or false"),
        ("ack_inbox", r#"{}"#, "inbox_ids: missing, expected a list of inbox ids as strings"),
        // Of the wrong type.
        ("typing", r#"{"session_id":7}"#, &format!("session_id: {SESSION_ID}")),
        ("typing", r#"{"session_id":null}"#, &format!("session_id: {SESSION_ID}")),
        (
            "send_msg",
            r#"{"session_id":"S","markdown_text":["x"],"is_encrypted":false}"#,
            "markdown_text: expected a string",
        ),
        (
            "send_msg",
            r#"{"session_id":"S","markdown_text":"x","is_encrypted":"yes"}"#,
            "is_encrypted: expected true or false",
        ),
        ("ack_inbox", r#"{"inbox_ids":["a",2]}"#, "inbox_ids[1]: expected a list of inbox ids as strings"),
        ("new_session", r#"{"e2ee_on":0}"#, "e2ee_on: expected true or false"),
        (
            "new_session",
            r#"{"e2ee_on":true,"members":"U"}"#,
            "members: expected a list of user ids: UUIDs as lower-case hyphenated strings",
        ),
        // Not what the words allow.
        (
            "set_role",
            r#"{"session_id":"S","user_id":"U","role":"king"}"#,
            "role: expected `owner`, `admin` or `member`",
        ),
        (
            "set_role",
            r#"{"session_id":"S","user_id":"U","role":{"owner":null}}"#,
            "role: expected `owner`, `admin` or `member`",
        ),
        (
            "set_session_info",
            r#"{"session_id":"S","join_policy":"Open"}"#,
            "join_policy: expected `approval`, `open` or `closed`",
        ),
        (
            "request_room_key",
            r#"{"session_id":"S","reason":"gone"}"#,
            "reason: expected `lost` or `bad` for a room key, a short word for a withheld one",
        ),
        // Ids in any other form than the one.
        ("typing", r#"{"session_id":"0198C0DE-0000-7000-8000-000000000001"}"#, &format!("session_id: {SESSION_ID}")),
        ("typing", r#"{"session_id":"0198c0de000070008000000000000001"}"#, &format!("session_id: {SESSION_ID}")),
        ("kick_user", r#"{"session_id":"S","user_id":""}"#, &format!("user_id: {USER}")),
        ("invite_user_to_session", r#"{"session_id":"S","invitee":"bob"}"#, &format!("invitee: {USER}")),
        // Out of range.
        ("fetch_msgs", r#"{"session_id":"S","limit":0}"#, "limit: expected an integer from 1"),
        ("fetch_msgs", r#"{"session_id":"S","after_seq":-1}"#, "after_seq: expected an integer from 0"),
        ("fetch_msgs", r#"{"session_id":"S","after_seq":1.5}"#, "after_seq: expected an integer from 0"),
        ("ack", r#"{"session_id":"S","seq":18446744073709551616}"#, "seq: expected an integer from 0"),
        (
            "ban_user",
            r#"{"session_id":"S","user_id":"U","duration_s":0}"#,
            "duration_s: expected an integer from 1, in seconds",
        ),
        (
            "send_msg",
            r#"{"session_id":"S","markdown_text":"","is_encrypted":true,"key_epoch":0}"#,
            "key_epoch: expected an integer from 1",
        ),
        (
            "send_msg",
            r#"{"session_id":"S","markdown_text":"","is_encrypted":true,"client_msg_id":""}"#,
            "client_msg_id: expected a string of 1 to 64 bytes",
        ),
        (
            "new_session",
            r#"{"e2ee_on":false,"client_session_id":"ééééééééééééééééééééééééééééééééé"}"#,
            "client_session_id: expected a string of 1 to 64 bytes",
        ),
        // Base64 that is none: not padded, of the other alphabet, empty.
        ("send_room_key", r#"{"session_id":"S","user_id":"U","room_key":"a2V"}"#, &format!("room_key: {BASE64}")),
        ("send_room_key", r#"{"session_id":"S","user_id":"U","room_key":"a2V_"}"#, &format!("room_key: {BASE64}")),
        ("send_room_key", r#"{"session_id":"S","user_id":"U","room_key":""}"#, &format!("room_key: {BASE64}")),
        // Twice.
        ("typing", r#"{"session_id":"S","session_id":"S"}"#, &format!("session_id: given twice, {SESSION_ID}")),
        (
            "send_room_keys",
            r#"{"session_id":"S","room_keys":[{"user_id":"U","user_id":"U","room_key":"a2V5"}]}"#,
            &format!("room_keys[0].user_id: given twice, {USER}"),
        ),
        // Inside lists and objects.
        (
            "send_room_keys",
            r#"{"session_id":"S","room_keys":[K,K,K,{"user_id":"no","room_key":"a2V5"}]}"#,
            &format!("room_keys[3].user_id: {USER}"),
        ),
        (
            "send_room_keys",
            r#"{"session_id":"S","room_keys":[K,{"user_id":"U"}]}"#,
            &format!("room_keys[1].room_key: missing, {BASE64}"),
        ),
        (
            "send_room_keys",
            r#"{"session_id":"S","room_keys":[["U","a2V5"]]}"#,
            r#"room_keys[0]: expected a list of {"user_id": user id, "room_key": base64}"#,
        ),
        (
            "send_room_keys",
            r#"{"session_id":"S","room_keys":[],"withheld":[{"user_id":"U"}]}"#,
            "withheld[0].reason: missing, expected `lost` or `bad` for a room key, a short word for a withheld one",
        ),
        (
            "new_session",
            r#"{"e2ee_on":true,"members":["U",null]}"#,
            "members[1]: expected a list of user ids: UUIDs as lower-case hyphenated strings",
        ),
        (
            "resume",
            r#"{"cursors":{"S":{"seq":"1"}}}"#,
            r#"cursors: expected an object of session ids, each with {"seq": integer from 0, "log": string}"#,
        ),
        (
            "resume",
            r#"{"cursors":{"S":[1]}}"#,
            r#"cursors: expected an object of session ids, each with {"seq": integer from 0, "log": string}"#,
        ),
        (
            "resume",
            r#"{"cursors":{"x":{"seq":1}}}"#,
            r#"cursors: expected an object of session ids, each with {"seq": integer from 0, "log": string}"#,
        ),
        (
            "resume",
            r#"{"cursors":[]}"#,
            r#"cursors: expected an object of session ids, each with {"seq": integer from 0, "log": string}"#,
        ),
        // No object at all.
        ("ping", "[]", "body: expected an object"),
        ("ping", "7", "body: expected an object"),
        ("typing", r#"["S"]"#, "body: expected an object"),
        ("typing", r#""S""#, "body: expected an object"),
    ];
    for (name, body, message) in rows {
        let body = body
            .replace('K', r#"{"user_id":"U","room_key":"a2V5"}"#)
            .replace("\"S\"", &format!("\"{SESSION}\""))
            .replace("\"U\"", "\"0198c0de-0000-7000-8000-0000000000aa\"");
        let unreadable = refused(&format!(r#"{{"id":3,"type":"{name}","body":{body}}}"#));
        assert_eq!(unreadable.id, Some(3), "{name} {body}");
        assert_eq!(unreadable.refusal.code, ErrorCode::InvalidArgument, "{name} {body}");
        assert_eq!(unreadable.refusal.message, *message, "{name} {body}");
        assert_eq!(unreadable.refusal.details, None);
    }
}

#[test]
fn an_unknown_request_is_refused_with_its_id() {
    for text in [r#"{"id":9,"type":"marry_user","body":[]}"#, r#"{"id":9,"type":""}"#, r#"{"id":9,"type":"Ping"}"#] {
        let unreadable = refused(text);
        assert_eq!((unreadable.id, unreadable.refusal.code), (Some(9), ErrorCode::UnknownType));
    }
}

#[test]
fn a_frame_that_is_no_request_object_has_no_id_to_answer_to() {
    let rows = [
        ("", "frame: "),
        ("  ", "frame: "),
        ("nonsense", "frame: "),
        ("null", "frame: "),
        ("[]", "frame: "),
        (r#"[7,"ping",{}]"#, "frame: "),
        (r#""ping""#, "frame: "),
        (r#"{"id":1,"type":"ping"} {}"#, "frame: "),
        (r#"{"id":1,"type":"ping""#, "frame: "),
        (r#"{"id":1,"type":"ping","body":{}"#, "frame: "),
        ("{}", "id: missing, "),
        (r#"{"type":"ping"}"#, "id: missing, "),
        (r#"{"id":1}"#, "type: missing, "),
        (r#"{"id":1,"type":7}"#, "type: "),
        (r#"{"id":1,"type":null}"#, "type: "),
        (r#"{"id":null,"type":"ping"}"#, "id: "),
        (r#"{"id":"1","type":"ping"}"#, "id: "),
        (r#"{"id":-1,"type":"ping"}"#, "id: "),
        (r#"{"id":1.5,"type":"ping"}"#, "id: "),
        (r#"{"id":9007199254740992,"type":"ping"}"#, "id: "),
        (r#"{"id":18446744073709551616,"type":"ping"}"#, "id: "),
        (r#"{"id":1,"id":1,"type":"ping"}"#, "id: given twice, "),
        (r#"{"id":1,"type":"ping","type":"ping"}"#, "type: given twice, "),
        (r#"{"id":1,"type":"ping","body":{},"body":{}}"#, "body: given twice, "),
    ];
    for (text, start) in rows {
        let unreadable = refused(text);
        assert_eq!(unreadable.id, None, "{text}");
        assert_eq!(unreadable.refusal.code, ErrorCode::InvalidArgument, "{text}");
        let message = &unreadable.refusal.message;
        assert!(message.starts_with(start), "{text}: {message}");
        assert!(message.contains(r#"{"id": integer from 0 to 2^53-1, "type": string, "body": object}"#), "{message}");
    }
}

#[test]
fn arguments_over_their_limit_are_refused() {
    let limits = Limits { text: 4, name: 4, description: 4, leave_message: 4, word: 4, list: 2 };
    let rows: &[(&str, &str, ErrorCode, &str)] = &[
        ("send_msg", r#""markdown_text":"12345","is_encrypted":false"#, ErrorCode::TooLarge, "markdown_text: "),
        (
            "send_msg",
            r#""markdown_text":"","is_encrypted":false,"content_type":"12345""#,
            ErrorCode::InvalidArgument,
            "content_type: ",
        ),
        ("new_session", r#""e2ee_on":false,"name":"12345""#, ErrorCode::InvalidArgument, "name: "),
        ("new_session", r#""e2ee_on":false,"leave_message":"12345""#, ErrorCode::InvalidArgument, "leave_message: "),
        ("new_session", r#""e2ee_on":false,"members":[U,U,U]"#, ErrorCode::InvalidArgument, "members: "),
        ("join_session", r#""leave_message":"12345""#, ErrorCode::InvalidArgument, "leave_message: "),
        (
            "invite_user_to_session",
            r#""invitee":U,"leave_message":"12345""#,
            ErrorCode::InvalidArgument,
            "leave_message: ",
        ),
        ("set_session_info", r#""name":"12345""#, ErrorCode::InvalidArgument, "name: "),
        ("set_session_info", r#""description":"12345""#, ErrorCode::InvalidArgument, "description: "),
        ("send_room_keys", r#""room_keys":[K,K,K]"#, ErrorCode::InvalidArgument, "room_keys: "),
        ("send_room_keys", r#""room_keys":[],"withheld":[W,W,W]"#, ErrorCode::InvalidArgument, "withheld: "),
        (
            "send_room_keys",
            r#""room_keys":[],"withheld":[{"user_id":U,"reason":"12345"}]"#,
            ErrorCode::InvalidArgument,
            "withheld.reason: ",
        ),
        ("ack_inbox", r#""inbox_ids":["a","b","c"]"#, ErrorCode::InvalidArgument, "inbox_ids: "),
        ("fetch_msgs", r#""after_seq":1,"before_seq":2"#, ErrorCode::InvalidArgument, "before_seq: "),
        ("fetch_msgs", r#""before_seq":0"#, ErrorCode::InvalidArgument, "before_seq: "),
        ("recall_msg", r#""seq":0"#, ErrorCode::InvalidArgument, "seq: "),
    ];
    for (name, fields, code, start) in rows {
        let fields = fields
            .replace('K', r#"{"user_id":U,"room_key":"a2V5"}"#)
            .replace('W', r#"{"user_id":U,"reason":"x"}"#)
            .replace('U', "\"0198c0de-0000-7000-8000-0000000000aa\"");
        let text = format!(r#"{{"id":3,"type":"{name}","body":{{"session_id":"{SESSION}",{fields}}}}}"#);
        let (_, request) = decode_request(&text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let refusal = request.check(&limits).expect_err(&text);
        assert_eq!(refusal.code, *code, "{text}");
        assert!(refusal.message.starts_with(start), "{text}: {refusal}");
    }
}
