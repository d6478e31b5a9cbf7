//! A text frame ready for the socket.

use bytes::{BufMut, Bytes, BytesMut};

/// One server-to-client text frame, header and payload (RFC 6455, section 5.2), encoded once for all who get it:
/// a server's frames are not masked, so every recipient's bytes are the same. Cloning shares them.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// Puts the header before a JSON text.
    pub fn text(json: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(json.len() + 10);
        frame.put_u8(0x81);
        match json.len() {
            short @ 0..=125 => frame.put_u8(short as u8),
            medium @ 126..=0xffff => {
                frame.put_u8(126);
                frame.put_u16(medium as u16);
            }
            long => {
                frame.put_u8(127);
                frame.put_u64(long as u64);
            }
        }
        frame.put_slice(json);
        Self(frame.freeze())
    }

    /// Header and payload.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// From bytes that [`Frame::text`] made, such as those of a publication.
    pub const fn from_encoded(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The JSON text without the header.
    pub fn json(&self) -> &[u8] {
        let header = match self.0.get(1) {
            Some(126) => 4,
            Some(127) => 10,
            Some(_) | None => 2,
        };
        self.0.get(header..).unwrap_or_default()
    }

    /// Bytes on the socket.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a frame has a header.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<frame of {} bytes>", self.0.len())
    }
}
