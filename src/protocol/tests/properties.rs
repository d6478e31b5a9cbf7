//! What no input may do: make the codec panic, or see itself again in a refusal.

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{golden, golden_names};
use crate::protocol::*;

/// No word of the contract, so that it can come into a refusal from the input alone.
const MARKER: &str = "zQxJk7";

fn goldens() -> Vec<String> {
    golden_names("requests").iter().map(|name| golden(&format!("requests/{name}.json"))).collect()
}

/// Reads it, and asserts what holds of every refusal: one line of plain text that repeats no marker.
fn read(text: &str) {
    if let Err(unreadable) = decode_request(text) {
        let message = unreadable.refusal.to_string();
        assert!(!message.contains(MARKER), "{text}\n{message}");
        assert!(message.len() < 300 && !message.ends_with('.'), "{message}");
    }
}

/// Any JSON, with markers among its keys and strings.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(Value::from(MARKER)),
        Just(Value::from("0198c0de-0000-7000-8000-000000000001")),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let key = prop_oneof![Just(MARKER.to_owned()), Just("session_id".to_owned()), Just("seq".to_owned()), ".{0,8}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a value: the way to it.
fn places(value: &Value, here: &str, found: &mut Vec<String>) {
    found.push(here.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{here}/{key}"), found)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| places(value, &format!("{here}/{index}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_of_json_tokens_makes_it_panic(
        text in r#"([\[\]{}:,]|"(id|type|body|ping|resume|cursors|seq|zQxJk7|\\u0000|\\ud800)"|-?[0-9]{1,20}|1e999|null|true| ){0,40}"#,
    ) {
        read(&text);
    }

    #[test]
    fn no_body_is_repeated(name in proptest::sample::select(Request::NAMES), body in any_json()) {
        read(&json!({"id": 1, "type": name, "body": body}).to_string());
    }

    #[test]
    fn no_mutated_request_is_repeated(
        text in proptest::sample::select(goldens()),
        place in any::<proptest::sample::Index>(),
        value in any_json(),
    ) {
        let mut frame: Value = serde_json::from_str(&text).expect("JSON");
        let mut found = Vec::new();
        places(&frame, "", &mut found);
        *frame.pointer_mut(place.get(&found[..]).as_str()).expect("a place that was found") = value;
        read(&frame.to_string());
    }

    #[test]
    fn no_cut_or_spliced_request_makes_it_panic(
        one in proptest::sample::select(goldens()),
        other in proptest::sample::select(goldens()),
        cut in any::<proptest::sample::Index>(),
        byte in any::<char>(),
    ) {
        // Goldens are ASCII, so that every index is a boundary.
        let (one, other) = (&one[..cut.index(one.len())], &other[cut.index(other.len())..]);
        read(one);
        read(&format!("{one}{byte}{other}"));
    }

    #[test]
    fn no_server_frame_makes_a_client_panic(name in ".{0,16}", body in any_json(), more in any_json()) {
        let _ = decode_server_frame(&json!({"type": name, "body": body, "inbox_id": more}).to_string());
        let _ = decode_server_frame(&json!({"type": "error", "reply_to": more, "body": body}).to_string());
    }

    #[test]
    fn ids_round_trip_and_have_one_spelling(bits in any::<u128>()) {
        let id = SessionId::new(Uuid::from_u128(bits));
        let text = id.to_string();
        prop_assert_eq!(text.parse::<SessionId>(), Ok(id));
        prop_assert_eq!(SessionId::from_bytes(*id.as_bytes()), id);
        prop_assert_eq!(serde_json::to_value(id).expect("a string"), Value::from(text.clone()));
        let upper = text.to_ascii_uppercase();
        prop_assert_eq!(upper == text, upper.parse::<SessionId>().is_ok());
        prop_assert!(text.replace('-', "").parse::<SessionId>().is_err());
    }

    #[test]
    fn request_ids_round_trip(id in 0_u64..(1 << 53)) {
        let text = json!({"id": id, "type": "ping"}).to_string();
        prop_assert_eq!(decode_request(&text).map(|(id, _)| id), Ok(id));
    }

    #[test]
    fn times_round_trip(millis in 0_i64..253_402_207_200_000) {
        let time = Timestamp::from_millis(millis);
        let text = time.to_string();
        prop_assert_eq!(text.len(), "2026-01-31T12:00:00.000Z".len());
        prop_assert!(text.ends_with('Z'));
        prop_assert_eq!(serde_json::from_value::<Timestamp>(Value::from(text)).expect("a time"), time);
    }

    #[test]
    fn frames_hold_their_text_whatever_its_length(len in prop_oneof![0_usize..300, 65_530_usize..65_540]) {
        let json = vec![b'x'; len];
        let frame = Frame::text(&json);
        prop_assert_eq!(frame.json(), &json[..]);
        prop_assert_eq!(&Frame::from_encoded(frame.bytes().clone()), &frame);
    }
}

/// A marker at every place of every request, as a value and as a key beside it.
#[test]
fn no_refusal_repeats_a_value_or_a_key() {
    let wrong = [json!(MARKER), json!([MARKER]), json!({MARKER: MARKER}), json!({MARKER: {"seq": MARKER}})];
    for text in goldens() {
        let frame: Value = serde_json::from_str(&text).expect("JSON");
        let mut found = Vec::new();
        places(&frame, "", &mut found);
        for place in found {
            for value in &wrong {
                let mut mutated = frame.clone();
                *mutated.pointer_mut(&place).expect("a place that was found") = value.clone();
                read(&mutated.to_string());
            }
        }
    }
}

#[test]
fn what_is_secret_or_said_is_not_shown_by_debug() {
    let shown = [
        format!("{:?}", Authenticate { token: Some(MARKER.to_owned()) }),
        format!("{:?}", Base64Text::encode(MARKER.as_bytes())),
        format!(
            "{:?}",
            SendMsg {
                session_id: SessionId::new(Uuid::nil()),
                markdown_text: MARKER.to_owned(),
                is_encrypted: false,
                key_epoch: None,
                client_msg_id: None,
                content_type: None,
            }
        ),
        format!("{:?}", Frame::text(MARKER.as_bytes())),
    ];
    for text in shown {
        assert!(!text.contains(MARKER) && !text.contains(Base64Text::encode(MARKER.as_bytes()).as_str()), "{text}");
    }
}

/// Nesting costs the reader no stack: a frame's worth of brackets is refused or skipped, not an overflow.
#[test]
fn deep_nesting_is_survived() {
    let deep = "[".repeat(500_000);
    read(&deep);
    read(&format!(r#"{{"id":1,"type":"ping","body":{{"x":{deep}"#));
    let closed = format!("{deep}{}", "]".repeat(500_000));
    let taken = decode_request(&format!(r#"{{"id":1,"type":"ping","body":{{"x":{closed}}}}}"#));
    assert!(taken.is_ok_and(|(id, _)| id == 1));
    read(&format!(r#"{{"id":1,"type":"typing","body":{{"session_id":{closed}}}}}"#));
}
