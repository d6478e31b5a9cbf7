//! What to answer to a request that cannot be read: the field that is wrong, and what would be right in it.
//!
//! Slow on purpose: it reads the text again, and only a client with a bug gets here. Its invariant: no text that it
//! makes repeats anything that came in. Fields are named from the contract's own list, never from the input, and what
//! serde says is used only where it is about one of those names.

use std::fmt::Write;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_path_to_error::Segment;

use super::codec::MAX_ID;
use super::{Refusal, Request};

const FRAME: &str = r#"expected a JSON object {"id": integer from 0 to 2^53-1, "type": string, "body": object}"#;

/// Why a frame is no request object.
pub(super) fn envelope(text: &str) -> Refusal {
    #[derive(Deserialize)]
    struct Slow {
        id: u64,
        #[serde(rename = "type")]
        _type: String,
        #[serde(rename = "body")]
        _body: Option<IgnoredAny>,
    }
    if !text.trim_start().starts_with('{') {
        return Refusal::invalid("frame", FRAME);
    }
    let mut slow = serde_json::Deserializer::from_str(text);
    match serde_path_to_error::deserialize::<_, Slow>(&mut slow) {
        Ok(frame) if frame.id > MAX_ID => Refusal::invalid("id", FRAME),
        // The object itself is right; something follows it.
        Ok(_) => Refusal::invalid("frame", FRAME),
        Err(error) => match (said_of_a_field(error.inner()), error.path().iter().next()) {
            (Some((problem, field @ ("id" | "type" | "body"))), _) => {
                Refusal::invalid(field, &format!("{problem}, {FRAME}"))
            }
            (_, Some(Segment::Map { key })) if key == "id" => Refusal::invalid("id", FRAME),
            (_, Some(Segment::Map { key })) if key == "type" => Refusal::invalid("type", FRAME),
            _ => Refusal::invalid("frame", FRAME),
        },
    }
}

/// Why the body of a request of a known type cannot be read.
pub(super) fn body(name: &str, body: &str) -> Refusal {
    let Some(error) = Request::explain(name, body) else {
        return Refusal::invalid("body", "expected an object");
    };
    let mut path = String::new();
    let mut last = "body";
    for segment in error.path() {
        match segment {
            Segment::Map { key } => match known(key) {
                Some(field) => last = push(&mut path, field),
                // A key of a map is the client's own text: the path is cut before it.
                None => break,
            },
            Segment::Seq { index } => {
                // A String takes every write.
                let _ = write!(path, "[{index}]");
            }
            Segment::Enum { .. } | Segment::Unknown => break,
        }
    }
    match said_of_a_field(error.inner()) {
        Some((problem, field)) => {
            if last != field || problem == MISSING {
                last = push(&mut path, field);
            }
            Refusal::invalid(&path, &format!("{problem}, expected {}", right(last)))
        }
        None => Refusal::invalid(if path.is_empty() { "body" } else { &path }, &format!("expected {}", right(last))),
    }
}

fn push(path: &mut String, field: &'static str) -> &'static str {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(field);
    field
}

const MISSING: &str = "missing";

/// What a message of serde's derive says of one of the contract's fields.
fn said_of_a_field(error: &serde_json::Error) -> Option<(&'static str, &'static str)> {
    let message = error.to_string();
    let (problem, rest) = match message.strip_prefix("missing field `") {
        Some(rest) => (MISSING, rest),
        None => ("given twice", message.strip_prefix("duplicate field `")?),
    };
    let (field, _) = rest.split_once('`')?;
    Some((problem, known(field)?))
}

fn known(name: &str) -> Option<&'static str> {
    FIELDS.iter().find(|(field, _)| *field == name).map(|(field, _)| *field)
}

fn right(field: &str) -> &'static str {
    FIELDS.iter().find(|(name, _)| *name == field).map_or("an object", |(_, right)| right)
}

const USER: &str = "a user id: a UUID as a lower-case hyphenated string";
const BASE64: &str = "padded base64 of at most 4096 characters";

/// Every field of a request and of its envelope, and what is right in it.
const FIELDS: &[(&str, &str)] = &[
    ("accepted", "true or false"),
    ("after", USER),
    ("after_epoch", "an integer from 0"),
    ("after_seq", "an integer from 0"),
    ("before_seq", "an integer from 1"),
    ("body", "an object"),
    ("client_msg_id", "a string of 1 to 64 bytes"),
    ("client_session_id", "a string of 1 to 64 bytes"),
    ("content_type", "a media type as a string"),
    ("cursors", "an object of session ids, each with {\"seq\": integer from 0, \"log\": string}"),
    ("description", "a string"),
    ("duration_s", "an integer from 1, in seconds"),
    ("e2ee_on", "true or false"),
    ("force", "true or false"),
    ("id", "an integer from 0 to 2^53-1"),
    ("inbox_ids", "a list of inbox ids as strings"),
    ("invitee", USER),
    ("inviter_id", USER),
    ("is_encrypted", "true or false"),
    ("join_policy", "`approval`, `open` or `closed`"),
    ("key_check", BASE64),
    ("key_epoch", "an integer from 1"),
    ("leave_message", "a string"),
    ("limit", "an integer from 1"),
    ("log", "a string, as `authenticate` told it"),
    ("markdown_text", "a string"),
    ("members", "a list of user ids: UUIDs as lower-case hyphenated strings"),
    ("name", "a string"),
    ("reason", "`lost` or `bad` for a room key, a short word for a withheld one"),
    ("require_encryption", "true or false"),
    ("role", "`owner`, `admin` or `member`"),
    ("room_key", BASE64),
    ("room_keys", "a list of {\"user_id\": user id, \"room_key\": base64}"),
    ("rotate_on_join", "true or false"),
    ("seq", "an integer from 0"),
    ("session_id", "a session id: a UUID as a lower-case hyphenated string"),
    ("signature", BASE64),
    ("token", "a token as `register` or `login` gave it"),
    ("type", "a string"),
    ("user_id", USER),
    ("withheld", "a list of {\"user_id\": user id, \"reason\": string}"),
];
