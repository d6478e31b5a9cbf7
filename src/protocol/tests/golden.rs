//! Every frame of the contract as literal text, both ways.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{golden, golden_names};
use crate::protocol::*;

fn parsed(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).expect("JSON")
}

fn user(last: u8) -> UserId {
    format!("0198c0de-0000-7000-8000-0000000000{last:02x}").parse().expect("a UUID")
}

fn session() -> SessionId {
    "0198c0de-0000-7000-8000-000000000001".parse().expect("a UUID")
}

fn base64(text: &str) -> Base64Text {
    Base64Text::from_stored(text.to_owned())
}

fn noon() -> Timestamp {
    Timestamp::from_millis(1_769_860_800_000)
}

fn a_week_later() -> Timestamp {
    Timestamp::from_millis(1_770_465_600_250)
}

#[test]
fn there_is_one_golden_request_for_each_that_is_known() {
    let mut names = Request::NAMES.to_vec();
    names.sort_unstable();
    assert_eq!(golden_names("requests"), names);
}

#[test]
fn requests_are_read_and_written_as_they_stand_in_the_contract() {
    for name in Request::NAMES {
        let text = golden(&format!("requests/{name}.json"));
        let frame = parsed(&text);
        let (id, request) = decode_request(&text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(json!(id), frame["id"], "{name}");
        assert_eq!(request.name(), *name);
        let body = request.body().expect("a body");
        assert_eq!(parsed(body.get()), frame["body"], "{name}");
    }
}

#[test]
fn requests_take_null_for_left_out_and_write_what_is_left_out_not_at_all() {
    let optional: &[(&str, &[&str])] = &[
        ("authenticate", &["token"]),
        ("resume", &["cursors"]),
        ("new_session", &["name", "members", "room_key", "key_check", "leave_message", "client_session_id"]),
        ("join_session", &["leave_message"]),
        ("allow_user_join_session", &["room_key", "key_epoch", "key_check", "signature"]),
        ("invite_user_to_session", &["leave_message"]),
        ("send_room_key", &["key_epoch", "key_check", "signature"]),
        ("send_room_keys", &["key_epoch", "key_check", "signature", "withheld"]),
        ("fetch_room_keys", &["after_epoch", "limit"]),
        ("send_msg", &["key_epoch", "client_msg_id", "content_type"]),
        ("leave_session", &["force"]),
        ("ban_user", &["duration_s"]),
        ("mute_user", &["duration_s"]),
        ("list_members", &["after", "limit"]),
        ("set_session_info", &["name", "description", "require_encryption", "rotate_on_join", "join_policy"]),
        ("fetch_msgs", &["after_seq", "before_seq", "limit"]),
    ];
    for name in Request::NAMES {
        let fields = optional.iter().find(|(request, _)| request == name).map_or(&[][..], |(_, fields)| fields);
        let full = parsed(golden(&format!("requests/{name}.json")));
        let mut left_out = full.clone();
        let mut null = full.clone();
        for field in fields {
            left_out["body"].as_object_mut().expect("an object").remove(*field);
            null["body"][field] = Value::Null;
        }
        let (_, from_left_out) = decode_request(&left_out.to_string()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let (_, from_null) = decode_request(&null.to_string()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(from_left_out, from_null, "{name}");
        assert_eq!(parsed(from_null.body().expect("a body").get()), left_out["body"], "{name}");

        let required =
            full["body"].as_object().expect("an object").keys().filter(|key| !fields.contains(&key.as_str()));
        for field in required {
            for value in [None, Some(Value::Null)] {
                let mut frame = full.clone();
                match value {
                    Some(value) => frame["body"][field] = value,
                    None => drop(frame["body"].as_object_mut().expect("an object").remove(field)),
                }
                let refused = decode_request(&frame.to_string()).expect_err("a required field");
                assert_eq!(refused.id, full["id"].as_u64());
                assert_eq!(refused.refusal.code, ErrorCode::InvalidArgument);
                assert!(refused.refusal.message.starts_with(&format!("{field}: ")), "{name}: {}", refused.refusal);
            }
        }
    }
}

#[test]
fn requests_may_have_fields_that_the_server_does_not_know() {
    for name in Request::NAMES {
        let known = golden(&format!("requests/{name}.json"));
        let mut frame = parsed(&known);
        frame["later"] = json!({"deep": [1, 2]});
        frame["body"]["later"] = json!([null, {"x": 1e300}]);
        assert_eq!(decode_request(&frame.to_string()), decode_request(&known), "{name}");
    }
}

#[test]
fn a_body_may_be_left_out_or_null_where_nothing_is_required() {
    for text in [
        r#"{"id":1,"type":"ping"}"#,
        r#"{"id":1,"type":"ping","body":null}"#,
        r#" { "body" : { } , "type" : "pi\u006eg" , "id" : 1 } "#,
    ] {
        assert_eq!(decode_request(text), Ok((1, Request::Ping(Ping {}))), "{text}");
    }
}

fn reply(file: &str, name: &'static str, reply: &Reply) {
    let text = golden(&format!("replies/{file}.json"));
    assert_eq!(parsed(encode_reply(7, name, reply)), parsed(&text), "{file}");
    match decode_server_frame(&text).expect("a frame") {
        ServerFrame::Reply { reply_to: Some(7), outcome: Ok(body) } => {
            assert_eq!(parsed(body.get()), parsed(&text)["body"], "{file}");
        }
        other => panic!("{file}: {other:?}"),
    }
}

/// The reply's body, as a client reads it.
fn read<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_value(parsed(golden(&format!("replies/{file}.json")))["body"].take()).expect("a body")
}

#[test]
fn small_replies_stand_as_in_the_contract() {
    let failed = |reason| vec![FailedMember { user_id: user(0xbb), reason }];
    reply("done", "ack", &Reply::Done {});
    reply(
        "new_session",
        "new_session",
        &Reply::NewSession {
            session_id: session(),
            key_epoch: Some(KeyEpoch::FIRST),
            failed_members: failed(ErrorCode::NotFound),
        },
    );
    reply("join_session", "join_session", &Reply::Join { status: JoinStatus::Pending });
    reply("send_room_keys", "send_room_keys", &Reply::RoomKeys { failed_members: failed(ErrorCode::AlreadyExists) });
    reply("send_msg", "send_msg", &Reply::Sent { seq: 42, time: noon() });
    reply("e2eeize_session", "e2eeize_session", &Reply::E2eeized { key_epoch: KeyEpoch(4) });
    reply("ping", "ping", &Reply::Pong { time: noon() });
    let joined = encode_reply(1, "join_session", &Reply::Join { status: JoinStatus::Joined });
    assert_eq!(parsed(joined)["body"], json!({"status": "joined"}));
}

#[test]
fn large_replies_stand_as_in_the_contract_both_ways() {
    let authenticated: Authenticated = read("authenticate");
    assert_eq!(authenticated.user_id, user(0xaa));
    assert_eq!(authenticated.sessions[0].key_epoch, Some(KeyEpoch(3)));
    assert_eq!(authenticated.sessions[1].role, Role::Member);
    reply("authenticate", "authenticate", &Reply::Authenticated(Box::new(authenticated)));

    let resumed: Resumed = read("resume");
    assert!(!resumed.sessions[0].reset && resumed.sessions[1].reset);
    assert_eq!(resumed.gone[0].reason, GoneReason::Kicked);
    reply("resume", "resume", &Reply::Resumed(resumed));

    let keys: RoomKeysPage = read("fetch_room_keys");
    assert_eq!(keys.room_keys[0].key_check, Some(base64("Y2hlY2s=")));
    reply("fetch_room_keys", "fetch_room_keys", &Reply::FetchRoomKeys(keys));

    let info: SessionInfo = read("get_session_info");
    assert_eq!(info.members[1].muted_until, Some(a_week_later()));
    assert_eq!(info.join_requests.as_ref().map(Vec::len), Some(1));
    reply("get_session_info", "get_session_info", &Reply::SessionInfo(Box::new(info)));

    let members: MembersPage = read("list_members");
    assert_eq!(members.members[0].role, Role::Admin);
    reply("list_members", "list_members", &Reply::Members(members));

    let msgs: MsgsPage = read("fetch_msgs");
    assert!(msgs.more);
    reply("fetch_msgs", "fetch_msgs", &Reply::Msgs(msgs));
}

#[test]
fn what_is_not_there_is_left_out_of_replies() {
    let mut info: SessionInfo = read("get_session_info");
    info.name = None;
    info.description = None;
    info.key_epoch = None;
    info.join_requests = None;
    info.invitations = None;
    let text =
        String::from_utf8(encode_reply(7, "get_session_info", &Reply::SessionInfo(Box::new(info)))).expect("text");
    assert!(!text.contains("null"), "{text}");
    assert!(!text.contains("join_requests") && !text.contains("description"), "{text}");
    let plain = Reply::NewSession { session_id: session(), key_epoch: None, failed_members: vec![] };
    let body = parsed(encode_reply(7, "new_session", &plain))["body"].take();
    assert_eq!(body, json!({"session_id": session().to_string(), "failed_members": []}));
}

#[test]
fn events_stand_as_in_the_contract_both_ways() {
    let who = user(0xbb);
    let all = [
        Happening::Msg(Msg {
            sender_id: user(0xaa),
            markdown_text: "Zm9vYmFy".to_owned(),
            is_encrypted: true,
            key_epoch: Some(KeyEpoch(3)),
            client_msg_id: Some(ClientId("m-1".into())),
            content_type: Some("text/plain".to_owned()),
            recalled: false,
        }),
        Happening::MemberJoined(MemberJoined { user_id: who, role: Role::Member }),
        Happening::MemberLeft(MemberLeft { user_id: who, reason: LeftReason::Kicked }),
        Happening::RoleChanged(RoleChanged { user_id: who, role: Role::Admin }),
        Happening::MemberRestricted(MemberRestricted {
            user_id: who,
            muted: true,
            muted_until: Some(a_week_later()),
            banned: true,
            banned_until: Some(a_week_later()),
        }),
        Happening::SessionInfoChanged(SessionInfoChanged {
            name: Some("Tea".to_owned()),
            description: Some("leaves".to_owned()),
            require_encryption: Some(true),
            rotate_on_join: Some(false),
            join_policy: Some(JoinPolicy::Closed),
        }),
        Happening::SessionE2eeChanged(SessionE2eeChanged { e2ee_on: true }),
        Happening::RoomKeyRotated(RoomKeyRotated { key_epoch: KeyEpoch(4), key_check: Some(base64("Y2hlY2s=")) }),
        Happening::MsgRecalled(MsgRecalled { recalled_seq: 41 }),
        Happening::PublicKeyChanged(PublicKeyChanged { user_id: who, fingerprint: "0f".repeat(32) }),
        Happening::SessionDeleted(SessionDeleted {}),
    ];
    let names: BTreeSet<String> = all.iter().map(|what| what.name().to_owned()).collect();
    assert_eq!(names, golden_names("events").into_iter().collect());
    for what in all {
        let name = what.name();
        let by =
            if matches!(what, Happening::Msg(_) | Happening::PublicKeyChanged(_)) { None } else { Some(user(0xaa)) };
        let event = SessionEvent { session_id: session(), seq: 42, time: noon(), by, what };
        let text = golden(&format!("events/{name}.json"));
        assert_eq!(parsed(event.encode()), parsed(&text), "{name}");
        match decode_server_frame(&text).expect("a frame") {
            ServerFrame::Event(read) => assert_eq!(*read, event),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_recalled_message_says_so_and_has_no_text() {
    let text = r#"{"type":"Msg","body":{"session_id":"0198c0de-0000-7000-8000-000000000001","seq":42,"time":"2026-01-31T12:00:00.000Z","sender_id":"0198c0de-0000-7000-8000-0000000000aa","markdown_text":"","is_encrypted":false,"recalled":true}}"#;
    let ServerFrame::Event(event) = decode_server_frame(text).expect("a frame") else { panic!("no event") };
    assert!(matches!(&event.what, Happening::Msg(msg) if msg.recalled && msg.markdown_text.is_empty()));
    assert_eq!(parsed(event.encode()), parsed(text));
}

#[test]
fn inbox_notices_stand_as_in_the_contract_both_ways() {
    let room_key = || base64("a2V5");
    let all = [
        NoticeBody::JoinSessionApproval {
            session_id: session(),
            user_id: user(0xbb),
            leave_message: Some("let me in".to_owned()),
            public_key: Some("c3BraQ==".to_owned()),
        },
        NoticeBody::AllowUserJoinSessionNotification {
            session_id: session(),
            user_id: user(0xaa),
            accepted: true,
            room_key: Some(room_key()),
            key_epoch: Some(KeyEpoch(3)),
            key_check: Some(base64("Y2hlY2s=")),
            signature: Some(base64("c2ln")),
        },
        NoticeBody::InviteUserToSession {
            session_id: session(),
            inviter_id: user(0xaa),
            leave_message: Some("come in".to_owned()),
            expire_timestamp: a_week_later(),
        },
        NoticeBody::AcceptSessionNotification {
            session_id: session(),
            invitee_id: user(0xbb),
            accepted: true,
            public_key: Some("c3BraQ==".to_owned()),
            key_epoch: Some(KeyEpoch(3)),
        },
        NoticeBody::ReceiveRoomKeyNotification {
            session_id: session(),
            user_id: user(0xaa),
            room_key: room_key(),
            key_epoch: KeyEpoch(3),
            key_check: Some(base64("Y2hlY2s=")),
            signature: Some(base64("c2ln")),
        },
    ];
    let mut names = Vec::new();
    for body in all {
        let notice = InboxNotice { inbox_id: InboxId("i-1".to_owned()), body };
        let encoded = parsed(notice.encode());
        let name = encoded["type"].as_str().expect("a type").to_owned();
        let text = golden(&format!("inbox/{name}.json"));
        assert_eq!(encoded, parsed(&text));
        match decode_server_frame(&text).expect("a frame") {
            ServerFrame::Inbox(read) => assert_eq!(*read, notice),
            other => panic!("{name}: {other:?}"),
        }
        names.push(name);
    }
    names.sort_unstable();
    assert_eq!(names, golden_names("inbox"));
}

#[test]
fn asks_stand_as_in_the_contract_both_ways() {
    let asks = [
        ("UpdateRoomKeyNotification", Ask::UpdateRoomKeyNotification { session_id: session(), key_epoch: KeyEpoch(4) }),
        (
            "SendRoomKeyNotification",
            Ask::SendRoomKeyNotification {
                session_id: session(),
                user_id: user(0xbb),
                public_key: "c3BraQ==".to_owned(),
                key_epoch: KeyEpoch(4),
            },
        ),
    ];
    for (name, ask) in asks {
        let text = golden(&format!("asks/{name}.json"));
        assert_eq!(parsed(ask.encode()), parsed(&text));
        match decode_server_frame(&text).expect("a frame") {
            ServerFrame::Ask(read) => assert_eq!(*read, ask),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(golden_names("asks").len(), 2);
}

#[test]
fn frames_without_a_place_stand_as_in_the_contract() {
    let typing = golden("Typing.json");
    assert_eq!(parsed(encode_typing(session(), user(0xbb))), parsed(&typing));
    assert!(matches!(decode_server_frame(&typing), Ok(ServerFrame::Typing { user_id, .. }) if user_id == user(0xbb)));

    let withdrawn = golden("InboxWithdrawn.json");
    let ids = [InboxId("i-1".to_owned()), InboxId("i-2".to_owned())];
    assert_eq!(parsed(encode_withdrawn(&ids)), parsed(&withdrawn));
    assert!(matches!(decode_server_frame(&withdrawn), Ok(ServerFrame::InboxWithdrawn(read)) if read == ids));

    let going = golden("GoingAway.json");
    assert_eq!(parsed(encode_going_away(1234)), parsed(&going));
    assert!(matches!(decode_server_frame(&going), Ok(ServerFrame::GoingAway { reconnect_after_ms: 1234 })));
}

#[test]
fn refusals_stand_as_in_the_contract_both_ways() {
    let all = parsed(golden("refusals.json"));
    let all = all.as_array().expect("a list");
    let codes: Vec<&str> = all.iter().filter_map(|frame| frame["body"]["code"].as_str()).collect();
    assert_eq!(codes, ErrorCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>());
    for (frame, code) in all.iter().zip(ErrorCode::ALL) {
        let Ok(ServerFrame::Reply { reply_to, outcome: Err(refusal) }) = decode_server_frame(&frame.to_string()) else {
            panic!("{frame}")
        };
        assert_eq!(refusal.code, *code);
        assert_eq!(&parsed(encode_error(reply_to, &refusal)), frame);
    }
}

#[test]
fn a_code_of_a_later_server_is_judged_by_retryable() {
    for (retryable, code) in [(true, ErrorCode::Unavailable), (false, ErrorCode::Internal)] {
        let body = json!({"code": "from_later", "message": "m", "retryable": retryable, "details": {"more": 1}});
        let refusal: Refusal = serde_json::from_value(body).expect("a refusal");
        assert_eq!(refusal.code, code);
    }
}

#[test]
fn close_codes_stand_as_in_the_contract() {
    use CloseCode::*;
    let all = [
        Normal,
        GoingAway,
        Protocol,
        Unsupported,
        InvalidText,
        TooLarge,
        Restart,
        Unauthenticated,
        AuthenticateTimeout,
        Unreadable,
        TooSlow,
        CutOff,
        NoPong,
    ];
    let ours: Vec<Value> = all.map(|one| json!({"code": one.code(), "reconnect": one.reconnect()})).to_vec();
    assert_eq!(Value::from(ours), parsed(golden("close_codes.json")));
    assert!(all.iter().all(|code| code.reason().len() <= 123), "a close frame holds no longer reason");
}

#[test]
fn what_a_later_server_sends_is_no_error_to_a_client() {
    let event = r#"{"type":"Later","body":{"session_id":"0198c0de-0000-7000-8000-000000000001","seq":9,"x":{}}}"#;
    assert!(matches!(decode_server_frame(event), Ok(ServerFrame::UnknownEvent { seq: 9, .. })));
    for text in
        [r#"{"type":"Later","inbox_id":"i","body":{}}"#, r#"{"type":"Later"}"#, r#"{"type":"Later","body":{"a":1}}"#]
    {
        assert!(matches!(decode_server_frame(text), Ok(ServerFrame::Unknown)), "{text}");
    }
}
