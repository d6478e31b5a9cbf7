//! Frames as bytes: a client's requests out, a server's frames in, recognised with as little work as possible, since
//! the client shares the machine with the node that it measures. What the quick look does not recognise is parsed.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What a connection has to say: bytes for the socket, and the number of its next request.
#[derive(Default)]
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

/// A frame of the server's, whole.
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the first whole frame off `bytes`; `None` while it is not whole.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> Result<Option<Self>> {
        let &[first, second, ref rest @ ..] = *bytes else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 != 0 {
            bail!("a fragment, a reserved bit or a mask in a server's frame");
        }
        let (len, rest) = match (second, rest) {
            (126, &[a, b, ref rest @ ..]) => (usize::from(u16::from_be_bytes([a, b])), rest),
            (127, rest) => match rest.split_first_chunk::<8>() {
                Some((len, rest)) => (usize::try_from(u64::from_be_bytes(*len))?, rest),
                None => return Ok(None),
            },
            (126, _) => return Ok(None),
            (short, rest) => (usize::from(short), rest),
        };
        let Some((payload, rest)) = rest.split_at_checked(len) else { return Ok(None) };
        *bytes = rest;
        Ok(Some(Self { opcode: first & 0x0f, payload }))
    }
}

/// What a connection hears.
pub(crate) enum Heard<'a> {
    /// A session's event.
    Event { seq: u64 },
    /// The answer to a request.
    Reply(Reply<'a>),
    /// Anything else: what has no number, or is of a user and not of a session.
    Aside,
    /// The connection is over.
    Closed { code: Option<u16> },
}

/// The answer to a request: what was asked for, or a refusal.
#[derive(Deserialize)]
pub(crate) struct Reply<'a> {
    pub(crate) reply_to: Option<u64>,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl<'a> Reply<'a> {
    /// The body, or the refusal as an error.
    pub(crate) fn body<T: Deserialize<'a>>(&self) -> Result<T> {
        if self.kind == "error" {
            bail!("the node refused: {}", self.body.get());
        }
        serde_json::from_str(self.body.get()).with_context(|| format!("an unexpected reply to {}", self.kind))
    }
}

/// Recognises text frames. All copies of a message are alike, so it looks for `seq` first where it last was.
#[derive(Default)]
pub(crate) struct Recogniser {
    seq_at: usize,
}

const SEQ: &[u8] = br#""seq":"#;

impl Recogniser {
    pub(crate) fn recognise<'a>(&mut self, json: &'a [u8]) -> Result<Heard<'a>> {
        if json.starts_with(br#"{"type":"Msg""#)
            && let Some(seq) = self.seq(json)
        {
            return Ok(Heard::Event { seq });
        }
        if json.starts_with(br#"{"reply_to":"#) {
            return Ok(Heard::Reply(serde_json::from_slice(json).context("an unreadable reply")?));
        }
        let value: serde_json::Value = serde_json::from_slice(json).context("an unreadable frame")?;
        if value.get("reply_to").is_some() {
            return Ok(Heard::Reply(serde_json::from_slice(json).context("an unreadable reply")?));
        }
        Ok(match value.pointer("/body/seq").and_then(serde_json::Value::as_u64) {
            Some(seq) => Heard::Event { seq },
            None => Heard::Aside,
        })
    }

    /// The first `seq` of an event. Our texts hold no quotes, so it cannot be in one.
    fn seq(&mut self, json: &[u8]) -> Option<u64> {
        if json.get(self.seq_at..).is_none_or(|rest| !rest.starts_with(SEQ)) {
            self.seq_at = json.windows(SEQ.len()).position(|window| window == SEQ)?;
        }
        let digits = json.get(self.seq_at + SEQ.len()..)?;
        let number = digits.iter().take_while(|byte| byte.is_ascii_digit());
        number.map(|digit| u64::from(digit - b'0')).reduce(|number, digit| number * 10 + digit)
    }
}
