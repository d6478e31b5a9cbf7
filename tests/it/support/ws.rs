//! The client's half of RFC 6455, by hand, so that tests can also do what no client should.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{self, Answer};
use super::within;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// A WebSocket.
pub(crate) struct Ws {
    stream: TcpStream,
    bytes: Vec<u8>,
    /// The sub-protocol that the server chose.
    pub(crate) sub_protocol: Option<String>,
}

/// One frame as it came.
#[derive(Debug)]
pub(crate) struct WsFrame {
    pub(crate) fin: bool,
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl WsFrame {
    /// The code of a close frame; 1005 where it has none.
    pub(crate) fn close_code(&self) -> u16 {
        match self.payload[..] {
            [high, low, ..] => u16::from_be_bytes([high, low]),
            _ => 1005,
        }
    }
}

/// A client's frame, masked.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x11, 0xc3, 0x7e];
    let mut bytes = head(first, 0x80, payload.len());
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A server's frame.
pub(crate) fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, 0, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

fn head(first: u8, masked: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match len {
        short @ 0..=125 => bytes.push(masked | short as u8),
        medium @ 126..=0xffff => {
            bytes.push(masked | 126);
            bytes.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(masked | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes
}

impl Ws {
    /// Upgrades, or tells what the server answered instead.
    pub(crate) async fn open(address: SocketAddr, headers: &[(&str, &str)]) -> Result<Self, Answer> {
        within("the answer to an upgrade", async {
            let mut stream = TcpStream::connect(address).await.expect("the node takes connections");
            stream.set_nodelay(true).expect("a TCP socket");
            let mut request = format!(
                "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            );
            for (name, value) in headers {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
            request.push_str("\r\n");
            stream.write_all(request.as_bytes()).await.expect("a request is written");
            let mut bytes = Vec::new();
            let end = loop {
                if let Some(end) = http::head_end(&bytes) {
                    break end;
                }
                if stream.read_buf(&mut bytes).await.expect("an answer") == 0 {
                    panic!("the node closed an upgrade without an answer");
                }
            };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                // The connection may be kept, so that there is no end to read to.
                let mut answer = http::parse(&bytes);
                let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
                while bytes.len() < end + length && stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {}
                answer = http::parse(&bytes);
                return Err(answer);
            }
            let head = http::parse(&bytes[..end]);
            assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            let sub_protocol = head.header("sec-websocket-protocol").map(str::to_owned);
            Ok(Self { stream, bytes: bytes.split_off(end), sub_protocol })
        })
        .await
    }

    /// Sends one whole frame. A server that has closed meanwhile is noticed when reading.
    pub(crate) async fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.send_raw(&frame(0x80 | opcode, payload)).await;
    }

    /// Sends bytes as they are.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        within("a write to the node", async {
            let _ = self.stream.write_all(bytes).await;
        })
        .await;
    }

    /// The next frame; `None` where the server ended the connection. Waits without end.
    pub(crate) async fn next(&mut self) -> Option<WsFrame> {
        loop {
            if let Some((frame, len)) = parse(&self.bytes) {
                self.bytes.drain(..len);
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.bytes).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// The first frame of a server, and its length, if all of it is there.
pub(crate) fn parse(bytes: &[u8]) -> Option<(WsFrame, usize)> {
    let (&first, &second) = (bytes.first()?, bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server's frames are not masked");
    assert_eq!(first & 0x70, 0, "no extension was agreed on");
    let (len, start) = match second {
        126 => (u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?) as usize, 4),
        127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
        short => (short as usize, 2),
    };
    let payload = bytes.get(start..start + len)?.to_vec();
    Some((WsFrame { fin: first & 0x80 != 0, opcode: first & 0x0f, payload }, start + len))
}
