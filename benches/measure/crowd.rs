//! Many WebSocket connections on one thread: one epoll, one buffer to read into, no runtime.
//!
//! A connection keeps only what has not come whole, or could not be sent yet. Pings are answered here. Everything else
//! goes to the caller's ears, who may answer on the connection that spoke.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;
use serde_json::Value;

use crate::wire::{Frame, Heard, Outgoing, Recogniser};

/// How long a node may be silent while it owes an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;

struct Connection {
    stream: TcpStream,
    partial: Vec<u8>,
    outgoing: Outgoing,
    /// Waits for the socket to take bytes again.
    blocked: bool,
    open: bool,
}

/// The connections, each known by its index.
pub(crate) struct Crowd {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    ready: Vec<epoll::Event>,
    recogniser: Recogniser,
}

/// A request of one connection, for [`Crowd::ask`].
pub(crate) struct Ask {
    pub(crate) who: usize,
    pub(crate) kind: &'static str,
    pub(crate) body: String,
}

impl Crowd {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Vec::new(),
            scratch: vec![0; READ_BYTES],
            ready: Vec::with_capacity(EVENTS),
            recogniser: Recogniser::default(),
        })
    }

    /// Opens a WebSocket and tells its index.
    pub(crate) fn connect(&mut self, node: SocketAddr) -> Result<usize> {
        let mut stream = TcpStream::connect(node).context("no connection to the node")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let upgrade = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {node}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: conclave.v1.json\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes())?;
        // A node says nothing before `authenticate`, so nothing of a frame can follow the head.
        let mut head = Vec::new();
        let mut chunk = [0; 1024];
        while !head.ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut chunk).context("no answer to the upgrade")?;
            ensure!(read > 0, "the node closed the connection instead of upgrading it");
            head.extend_from_slice(&chunk[..read]);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101"), "no upgrade: {}", String::from_utf8_lossy(&head));
        self.attach(stream)
    }

    /// Takes a connection on which frames come as they are.
    pub(crate) fn attach(&mut self, stream: TcpStream) -> Result<usize> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let who = self.connections.len();
        epoll::add(&self.epoll, &stream, EventData::new_u64(who as u64), EventFlags::IN)?;
        let (partial, outgoing) = (Vec::new(), Outgoing::default());
        self.connections.push(Connection { stream, partial, outgoing, blocked: false, open: true });
        Ok(who)
    }

    /// Lets a connection say something now.
    pub(crate) fn say<T>(&mut self, who: usize, say: impl FnOnce(&mut Outgoing) -> T) -> Result<T> {
        let said = say(&mut self.connections[who].outgoing);
        self.flush(who)?;
        Ok(said)
    }

    /// Reads what has come, once from each connection that has something, after waiting for it at most so long.
    pub(crate) fn poll(
        &mut self,
        wait: Duration,
        ears: &mut impl FnMut(usize, Heard<'_>, &mut Outgoing) -> Result<()>,
    ) -> Result<()> {
        let wait = Timespec::try_from(wait).context("too long a wait")?;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = std::mem::take(&mut self.ready);
        for event in ready.drain(..) {
            let (who, flags) = (event.data.u64() as usize, event.flags);
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(who, ears)?;
            }
            self.flush(who)?;
        }
        self.ready = ready;
        Ok(())
    }

    /// Sends requests, all at once, and gives their answers, in the same order. A refusal is an error. What else comes
    /// meanwhile goes to `ears`.
    pub(crate) fn ask(&mut self, asks: Vec<Ask>, ears: &mut impl FnMut(usize, Heard<'_>)) -> Result<Vec<Value>> {
        let mut answers = vec![Value::Null; asks.len()];
        let mut open = std::collections::HashMap::with_capacity(asks.len());
        for (nth, Ask { who, kind, body }) in asks.into_iter().enumerate() {
            let id = self.say(who, |outgoing| outgoing.request(kind, &body))?;
            open.insert((who, Some(id)), nth);
        }
        let deadline = Instant::now() + PATIENCE;
        while !open.is_empty() {
            ensure!(Instant::now() < deadline, "{} requests were not answered", open.len());
            self.poll(Duration::from_millis(20), &mut |who, heard, _| {
                match heard {
                    Heard::Reply(reply) => {
                        let nth = open.remove(&(who, reply.reply_to)).context("an answer that nobody asked for")?;
                        answers[nth] = reply.body()?;
                    }
                    Heard::Closed { code } => bail!("the node closed a connection, code {code:?}"),
                    heard @ (Heard::Event { .. } | Heard::Aside) => ears(who, heard),
                }
                Ok(())
            })?;
        }
        Ok(answers)
    }

    /// One read, and every whole frame that it completes.
    fn read(&mut self, who: usize, ears: &mut impl FnMut(usize, Heard<'_>, &mut Outgoing) -> Result<()>) -> Result<()> {
        let connection = &mut self.connections[who];
        if !connection.open {
            return Ok(());
        }
        let held = connection.partial.len();
        if held > READ_BYTES / 2 {
            self.scratch.resize(held + READ_BYTES, 0);
        }
        self.scratch[..held].copy_from_slice(&connection.partial);
        connection.partial.clear();
        let read = match connection.stream.read(&mut self.scratch[held..]) {
            Ok(0) => None,
            Ok(read) => Some(read),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Some(0),
            Err(_) => None,
        };
        let mut bytes = &self.scratch[..held + read.unwrap_or(0)];
        let mut code = None;
        while let Some(Frame { opcode, payload }) = Frame::take(&mut bytes)? {
            match opcode {
                0x1 => ears(who, self.recogniser.recognise(payload)?, &mut connection.outgoing)?,
                0x8 => code = payload.first_chunk().map(|code| u16::from_be_bytes(*code)),
                0x9 => connection.outgoing.frame(0xa, payload),
                0xa => {}
                other => bail!("a frame with opcode {other}"),
            }
        }
        connection.partial.extend_from_slice(bytes);
        if read.is_none() || code.is_some() {
            connection.open = false;
            epoll::delete(&self.epoll, &connection.stream)?;
            ears(who, Heard::Closed { code }, &mut connection.outgoing)?;
        }
        Ok(())
    }

    /// Sends what is there to send, as far as the socket takes it.
    fn flush(&mut self, who: usize) -> Result<()> {
        let connection = &mut self.connections[who];
        let bytes = &mut connection.outgoing.bytes;
        if !connection.open || (bytes.is_empty() && !connection.blocked) {
            return Ok(());
        }
        match connection.stream.write(bytes) {
            Ok(written) => drop(bytes.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The next read finds out why.
            Err(_) => bytes.clear(),
        }
        let blocked = !bytes.is_empty();
        if blocked != connection.blocked {
            connection.blocked = blocked;
            let interest = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &connection.stream, EventData::new_u64(who as u64), interest)?;
        }
        Ok(())
    }
}
