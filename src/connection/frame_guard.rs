//! What RFC 6455 allows a client to send, checked header by header before anything is buffered. PURE.
//!
//! The codec behind it checks a frame's size only when all of it has arrived, and leaves reserved opcodes and the order
//! of fragments to be found out late; so every byte passes through here first. Payloads are not looked at, but for
//! close frames, whose codes have rules of their own. Invariant: a data frame's payload is let through only if it and
//! the message that it is part of fit the limit.

use bytes::{Buf, Bytes, BytesMut};

use crate::protocol::CloseCode;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// The longest header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// Reads what a client sends.
#[derive(Debug)]
pub(super) struct FrameGuard {
    limit: u64,
    /// A header, or a whole control frame, of which not all has come.
    pending: BytesMut,
    /// Bytes of the current data frame's payload that are to come, and whether it ends a message.
    payload: Option<u64>,
    /// Bytes of the message under way, where it is in fragments.
    message: Option<u64>,
    closed: bool,
}

/// What may go on to the codec.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) bytes: Bytes,
    /// Whether a frame ends with these bytes. They never hold more than one frame's end.
    pub(super) frame_ends: bool,
}

#[derive(Clone, Copy)]
struct Header {
    size: usize,
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    len: u64,
}

impl FrameGuard {
    /// Lets messages of at most `limit` bytes through.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit: limit as u64, pending: BytesMut::new(), payload: None, message: None, closed: false }
    }

    /// Takes from the front of `input` what may go on: at most up to the end of one frame. Nothing is passed only
    /// when `input` is used up, or after a close frame, behind which everything is dropped.
    pub(super) fn pass(&mut self, input: &mut Bytes) -> Result<Passed, CloseCode> {
        if self.closed {
            input.clear();
            return Ok(Passed { bytes: Bytes::new(), frame_ends: false });
        }
        if let Some(left) = self.payload {
            return Ok(self.pass_payload(left, input));
        }
        // The common case: the whole header is there, in one piece.
        if self.pending.is_empty()
            && let Some(header) = parse(input)?
            && header.opcode < CLOSE
        {
            self.check_data(&header)?;
            let head = input.split_to(header.size);
            return Ok(self.after_header(head, &header));
        }
        self.pass_pending(input)
    }

    fn pass_payload(&mut self, left: u64, input: &mut Bytes) -> Passed {
        let here = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes = input.split_to(here);
        let left = left - here as u64;
        self.payload = (left > 0).then_some(left);
        Passed { bytes, frame_ends: left == 0 }
    }

    fn after_header(&mut self, head: Bytes, header: &Header) -> Passed {
        self.payload = (header.len > 0).then_some(header.len);
        Passed { bytes: head, frame_ends: header.len == 0 }
    }

    /// Gathers a header, or a control frame, byte by byte: rare, and at most 139 bytes.
    fn pass_pending(&mut self, input: &mut Bytes) -> Result<Passed, CloseCode> {
        while input.has_remaining() {
            self.pending.extend_from_slice(&[input.get_u8()]);
            let Some(header) = parse(&self.pending)? else { continue };
            if header.opcode < CLOSE {
                self.check_data(&header)?;
                let head = self.pending.split().freeze();
                return Ok(self.after_header(head, &header));
            }
            // A control frame's length is at most 125: `parse` has refused any other.
            if self.pending.len() as u64 == header.size as u64 + header.len {
                if header.opcode == CLOSE {
                    check_close(&self.pending[header.size..], header.mask)?;
                    self.closed = true;
                }
                return Ok(Passed { bytes: self.pending.split().freeze(), frame_ends: true });
            }
        }
        Ok(Passed { bytes: Bytes::new(), frame_ends: false })
    }

    /// The order of fragments, and the sizes.
    fn check_data(&mut self, header: &Header) -> Result<(), CloseCode> {
        let before = match (header.opcode, self.message) {
            (CONTINUATION, Some(before)) => before,
            (CONTINUATION, None) | (_, Some(_)) => return Err(CloseCode::Protocol),
            (BINARY, None) => return Err(CloseCode::Unsupported),
            (_, None) => 0,
        };
        // `len` is below 2^63, and so is `before`: both are within the limit or a refused header.
        let message = before.saturating_add(header.len);
        if message > self.limit {
            return Err(CloseCode::TooLarge);
        }
        self.message = (!header.fin).then_some(message);
        Ok(())
    }
}

/// Reads a header, refusing what can be refused with the bytes that are there; `None`: more are needed.
fn parse(bytes: &[u8]) -> Result<Option<Header>, CloseCode> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (fin, reserved, opcode) = (first & 0x80 != 0, first & 0x70, first & 0x0F);
    let control = opcode >= CLOSE;
    let known = matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
    if reserved != 0 || !known || (control && !fin) {
        return Err(CloseCode::Protocol);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    let short = second & 0x7F;
    if second & 0x80 == 0 || (control && short > 125) {
        return Err(CloseCode::Protocol);
    }
    let extra = match short {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(extended) = bytes.get(2..2 + extra) else { return Ok(None) };
    let number = extended.iter().fold(0, |number: u64, &byte| number << 8 | u64::from(byte));
    let len = match short {
        // The shortest form must be used, and the highest bit be 0 (section 5.2).
        126 if number < 126 => return Err(CloseCode::Protocol),
        127 if number <= 0xFFFF || number >> 63 != 0 => return Err(CloseCode::Protocol),
        126 | 127 => number,
        short => u64::from(short),
    };
    let size = 2 + extra + 4;
    debug_assert!(size <= MAX_HEADER, "a header has its parts and no more");
    let Some(mask) = bytes.get(2 + extra..size) else {
        // The length alone may be reason enough; the mask does not change it.
        return Ok(None);
    };
    let mask = [mask[0], mask[1], mask[2], mask[3]];
    Ok(Some(Header { size, fin, opcode, mask, len }))
}

/// Section 7.4: no payload, or a code that may be sent, and a reason in UTF-8.
fn check_close(masked: &[u8], mask: [u8; 4]) -> Result<(), CloseCode> {
    let payload: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
    match payload.as_slice() {
        [] => Ok(()),
        [_] => Err(CloseCode::Protocol),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            1000..=1003 | 1007..=1014 | 3000..=4999 => match std::str::from_utf8(reason) {
                Ok(_) => Ok(()),
                Err(_) => Err(CloseCode::InvalidText),
            },
            _ => Err(CloseCode::Protocol),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            short @ 0..=125 => out.push(0x80 | short as u8),
            medium @ 126..=0xFFFF => {
                out.push(0x80 | 126);
                out.extend((medium as u16).to_be_bytes());
            }
            long => {
                out.push(0x80 | 127);
                out.extend((long as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    /// Everything that passes, and the code it ends with, if it does.
    fn run(limit: usize, chunks: &[&[u8]]) -> (Vec<u8>, usize, Option<CloseCode>) {
        let mut guard = FrameGuard::new(limit);
        let (mut out, mut frames) = (Vec::new(), 0);
        for chunk in chunks {
            let mut input = Bytes::copy_from_slice(chunk);
            while !input.is_empty() {
                match guard.pass(&mut input) {
                    Ok(passed) => {
                        out.extend_from_slice(&passed.bytes);
                        frames += usize::from(passed.frame_ends);
                    }
                    Err(code) => return (out, frames, Some(code)),
                }
            }
        }
        (out, frames, None)
    }

    #[test]
    fn what_rfc_6455_allows_passes_unchanged() {
        let cases: &[&[Vec<u8>]] = &[
            &[frame(0x81, b"hello")],
            &[frame(0x81, b"")],
            &[frame(0x81, &[b'x'; 125])],
            &[frame(0x81, &[b'x'; 126])],
            &[frame(0x81, &[b'x'; 65_535])],
            &[frame(0x81, &[b'x'; 65_536])],
            &[frame(0x01, b"a"), frame(0x00, b"b"), frame(0x80, b"c")],
            &[frame(0x01, b"a"), frame(0x89, b"ping"), frame(0x8A, b"pong"), frame(0x80, b"c"), frame(0x81, b"d")],
            &[frame(0x01, b""), frame(0x00, b""), frame(0x80, b"")],
            &[frame(0x89, &[0xFF; 125])],
            &[frame(0x88, b"")],
            &[frame(0x88, &[3, 232])],
            &[frame(0x88, &[&[3, 232][..], "gr\u{fc}\u{df}e".as_bytes()].concat())],
        ];
        for frames in cases {
            let bytes = frames.concat();
            assert_eq!(run(100_000, &[&bytes]), (bytes.clone(), frames.len(), None));
        }
    }

    #[test]
    fn what_it_forbids_is_named() {
        use CloseCode::{InvalidText, Protocol, TooLarge, Unsupported};
        let cases: Vec<(&str, Vec<u8>, CloseCode)> = vec![
            ("reserved bit 1", frame(0xC1, b""), Protocol),
            ("reserved bit 2", frame(0xA1, b""), Protocol),
            ("reserved bit 3 on a ping", frame(0x99, b""), Protocol),
            ("reserved data opcode", frame(0x83, b""), Protocol),
            ("reserved data opcode 7", frame(0x87, b"x"), Protocol),
            ("reserved control opcode", frame(0x8B, b""), Protocol),
            ("reserved control opcode 15", frame(0x8F, b"x"), Protocol),
            ("not masked", vec![0x81, 0x05], Protocol),
            ("a ping in fragments", frame(0x09, b""), Protocol),
            ("a close in fragments", frame(0x08, b""), Protocol),
            ("a ping of 126 bytes", frame(0x89, &[0; 126]), Protocol),
            ("a continuation of nothing", frame(0x80, b"x"), Protocol),
            ("a continuation of nothing, not the last", frame(0x00, b"x"), Protocol),
            ("a message within a message", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), Protocol),
            ("a first fragment within a message", [frame(0x01, b"a"), frame(0x01, b"b")].concat(), Protocol),
            ("after the last fragment", [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x80, b"c")].concat(), Protocol),
            ("binary", frame(0x82, b"x"), Unsupported),
            ("binary in fragments", frame(0x02, b"x"), Unsupported),
            ("a close of one byte", frame(0x88, &[3]), Protocol),
            ("an invalid reason", frame(0x88, &[3, 232, 0xCE, 0xBA, 0xED, 0xA0, 0x80]), InvalidText),
            ("one byte too many", frame(0x81, &[b'x'; 1001]), TooLarge),
            ("too many in fragments", [frame(0x01, &[b'x'; 600]), frame(0x80, &[b'x'; 401])].concat(), TooLarge),
            ("1 TiB declared", vec![0x81, 0xFF, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], TooLarge),
            ("the highest bit", vec![0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], Protocol),
            ("two bytes of length for 125", vec![0x81, 0xFE, 0, 125, 0, 0, 0, 0], Protocol),
            ("eight bytes of length for 65535", vec![0x81, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0], Protocol),
        ];
        for (name, bytes, code) in cases {
            assert_eq!(run(1000, &[&bytes]).2, Some(code), "{name}");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(run(1000, &single).2, Some(code), "{name}, byte by byte");
        }
    }

    #[test]
    fn close_codes() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            assert_eq!(run(100, &[&frame(0x88, &u16::to_be_bytes(code))]).2, None, "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            assert_eq!(run(100, &[&frame(0x88, &u16::to_be_bytes(code))]).2, Some(CloseCode::Protocol), "{code}");
        }
    }

    #[test]
    fn nothing_passes_after_a_close() {
        let close = frame(0x88, &[3, 232]);
        let bytes = [close.clone(), frame(0x81, b"late"), vec![0xFF; 40]].concat();
        assert_eq!(run(100, &[&bytes]), (close, 1, None));
    }

    #[test]
    fn a_payload_too_large_does_not_pass_in_part() {
        let (out, ..) = run(1000, &[&frame(0x81, &[b'x'; 1001])]);
        assert!(out.is_empty());
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            Just(0x81u8),
            Just(0x01),
            Just(0x00),
            Just(0x80),
            Just(0x89),
            Just(0x8A),
            Just(0x88),
            any::<u8>()
        ];
        (first, proptest::collection::vec(any::<u8>(), 0..300)).prop_map(|(first, payload)| frame(first, &payload))
    }

    proptest! {
        /// How the bytes are cut into chunks changes nothing.
        #[test]
        fn chunks_do_not_matter(
            frames in proptest::collection::vec(any_frame(), 1..8),
            cuts in proptest::collection::vec(1usize..40, 1..200),
        ) {
            let bytes = frames.concat();
            let mut chunks = Vec::new();
            let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (chunk, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                chunks.push(chunk);
                rest = later;
            }
            let (whole, frames_whole, code_whole) = run(500, &[&bytes]);
            let (cut, frames_cut, code_cut) = run(500, &chunks);
            prop_assert_eq!(code_whole, code_cut);
            prop_assert_eq!(frames_whole, frames_cut);
            prop_assert_eq!(whole, cut);
        }

        /// Whatever comes, it is answered: no panic, and nothing is made up.
        #[test]
        fn noise(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (out, ..) = run(500, &[&bytes]);
            prop_assert!(bytes.starts_with(&out));
        }
    }
}
