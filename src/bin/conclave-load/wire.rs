//! Frames as bytes: a client's requests out, a server's frames in, recognised with as little work as possible, since
//! this program often shares the machine with the node that it measures. What the quick look does not recognise is
//! parsed.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The longest frame of a server that is taken.
const LONGEST: usize = 16 << 20;

/// What a connection has to say: bytes for the socket, and the number of its next request.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Vec<u8>,
    next_id: u64,
}

impl Outgoing {
    /// Adds a request and tells its id.
    pub(crate) fn request(&mut self, kind: &str, body: &str) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.frame(0x1, format!(r#"{{"id":{id},"type":"{kind}","body":{body}}}"#).as_bytes());
        id
    }

    /// Adds a frame. Its mask is zero, which masks nothing and costs this side nothing; the other side cannot tell.
    pub(crate) fn frame(&mut self, opcode: u8, payload: &[u8]) {
        self.bytes.push(0x80 | opcode);
        match payload.len() {
            short @ 0..=125 => self.bytes.push(0x80 | short as u8),
            medium @ 126..=0xffff => {
                self.bytes.push(0x80 | 126);
                self.bytes.extend_from_slice(&(medium as u16).to_be_bytes());
            }
            long => {
                self.bytes.push(0x80 | 127);
                self.bytes.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(payload);
    }
}

/// Bytes that no server of the contract sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoFrame;

/// A frame of the server's, whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the first whole frame off `bytes`; `None` while it is not whole.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> Result<Option<Self>, NoFrame> {
        let &[first, second, ref rest @ ..] = *bytes else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            return Err(NoFrame); // a fragment, a reserved bit or a mask
        }
        let (len, rest) = match (second, rest) {
            (126, &[a, b, ref rest @ ..]) => (usize::from(u16::from_be_bytes([a, b])), rest),
            (127, rest) => match rest.split_first_chunk::<8>() {
                Some((len, rest)) => (usize::try_from(u64::from_be_bytes(*len)).map_err(|_| NoFrame)?, rest),
                None => return Ok(None),
            },
            (126, _) => return Ok(None),
            (short, rest) => (usize::from(short), rest),
        };
        if len > LONGEST {
            return Err(NoFrame);
        }
        let Some((payload, rest)) = rest.split_at_checked(len) else { return Ok(None) };
        *bytes = rest;
        Ok(Some(Self { opcode: first & 0x0f, payload }))
    }
}

/// What a text frame is.
#[derive(Debug)]
pub(crate) enum Text<'a> {
    /// A message of a session.
    Msg(Msg<'a>),
    /// Another event of a session.
    Event { session_id: Cow<'a, str>, seq: u64 },
    /// The answer to a request.
    Reply(Reply<'a>),
    /// The node is about to close the connection.
    GoingAway { reconnect_after_ms: u64 },
    /// Anything else: what has no number, or is of a user and not of a session.
    Aside,
}

/// A message, as it is shown to members and kept in the history.
#[derive(Debug, Deserialize)]
pub(crate) struct Msg<'a> {
    #[serde(borrow)]
    pub(crate) session_id: Cow<'a, str>,
    pub(crate) seq: u64,
    #[serde(borrow)]
    pub(crate) sender_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) markdown_text: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) client_msg_id: Option<Cow<'a, str>>,
}

/// The answer to a request: what was asked for, or a refusal.
#[derive(Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) to: Option<u64>,
    pub(crate) outcome: Result<&'a RawValue, Refusal<'a>>,
}

/// Why a request was not done.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal<'a> {
    #[serde(borrow)]
    pub(crate) code: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) message: Cow<'a, str>,
    pub(crate) retryable: bool,
    pub(crate) details: Option<Details>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Details {
    pub(crate) retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(default)]
    reply_to: Option<u64>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    session_id: Option<Cow<'a, str>>,
    seq: Option<u64>,
    reconnect_after_ms: Option<u64>,
}

/// Reads a text frame.
pub(crate) fn read(json: &[u8]) -> serde_json::Result<Text<'_>> {
    let envelope: Envelope<'_> = serde_json::from_slice(json)?;
    let body = envelope.body.map_or("{}", RawValue::get);
    if json.starts_with(br#"{"reply_to":"#) || envelope.reply_to.is_some() {
        let outcome = match (&*envelope.kind, envelope.body) {
            ("error", _) => Err(serde_json::from_str(body)?),
            (_, Some(body)) => Ok(body),
            (_, None) => return Ok(Text::Aside),
        };
        return Ok(Text::Reply(Reply { to: envelope.reply_to, outcome }));
    }
    if envelope.kind == "Msg" {
        return Ok(Text::Msg(serde_json::from_str(body)?));
    }
    let place: Place<'_> = serde_json::from_str(body)?;
    Ok(match (&*envelope.kind, place) {
        ("GoingAway", place) => Text::GoingAway { reconnect_after_ms: place.reconnect_after_ms.unwrap_or(0) },
        (_, Place { session_id: Some(session_id), seq: Some(seq), .. }) => Text::Event { session_id, seq },
        (_, _) => Text::Aside,
    })
}

/// Where a session's id stands in a message's frame, and how long it is.
const SESSION_AT: &[u8] = br#"{"type":"Msg","body":{"session_id":""#;
const ID: usize = 36;

/// The session of a frame that looks like a message, without reading it.
pub(crate) fn session_of_msg(json: &[u8]) -> Option<&[u8]> {
    json.strip_prefix(SESSION_AT)?.get(..ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x81];
        match payload.len() {
            short @ 0..=125 => bytes.push(short as u8),
            medium => {
                bytes.push(126);
                bytes.extend_from_slice(&(medium as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn frames_are_taken_when_they_are_whole() {
        let bytes = [framed(b"one"), framed(&[b'2'; 300])].concat();
        for cut in 0..bytes.len() {
            let mut rest = &bytes[..cut];
            let mut whole = 0;
            while let Some(frame) = Frame::take(&mut rest).unwrap() {
                whole += 1;
                assert!(matches!((whole, frame.payload.len()), (1, 3) | (2, 300)));
            }
            assert_eq!(whole, usize::from(cut >= 5));
        }
    }

    #[test]
    fn fragments_masks_and_giants_are_no_frames() {
        for wrong in [&[0x01, 0][..], &[0xc1, 0], &[0x81, 0x80, 0, 0, 0, 0], &[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(Frame::take(&mut &*wrong), Err(NoFrame), "{wrong:?}");
        }
    }

    #[test]
    fn texts_are_told_apart() {
        let msg = br#"{"type":"Msg","body":{"session_id":"0198c0de-0000-7000-8000-000000000001","seq":7,"time":"t","sender_id":"s","markdown_text":"\"","is_encrypted":false}}"#;
        assert_eq!(session_of_msg(msg), Some(&b"0198c0de-0000-7000-8000-000000000001"[..]));
        let Text::Msg(read) = read(msg).unwrap() else { panic!("a message") };
        assert_eq!((read.seq, &*read.sender_id, &*read.markdown_text, read.client_msg_id), (7, "s", "\"", None));

        let event = super::read(br#"{"type":"MemberJoined","body":{"session_id":"x","seq":2,"user_id":"u"}}"#).unwrap();
        assert!(matches!(event, Text::Event { session_id, seq: 2 } if session_id == "x"));
        let reply = super::read(br#"{"reply_to":3,"type":"ping","body":{"time":"t"}}"#).unwrap();
        assert!(matches!(reply, Text::Reply(Reply { to: Some(3), outcome: Ok(_) })));
        let refusal = br#"{"reply_to":null,"type":"error","body":{"code":"c","message":"m","retryable":true}}"#;
        let Text::Reply(Reply { to: None, outcome: Err(refusal) }) = super::read(refusal).unwrap() else {
            panic!("a refusal")
        };
        assert!(refusal.retryable && refusal.code == "c" && refusal.details.is_none());
        let going = super::read(br#"{"type":"GoingAway","body":{"reconnect_after_ms":12}}"#).unwrap();
        assert!(matches!(going, Text::GoingAway { reconnect_after_ms: 12 }));
        assert!(matches!(super::read(br#"{"type":"Typing","body":{"session_id":"x"}}"#).unwrap(), Text::Aside));
        assert!(super::read(b"{").is_err());
    }
}
