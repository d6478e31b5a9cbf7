//! Many WebSocket connections on one thread: one epoll, one buffer to read into, no runtime.
//!
//! A connection keeps only what has not come whole, or could not be sent yet. Pings are answered here. Everything else
//! goes to the caller's [`Ears`], who may answer on the connection that spoke. Nothing here waits, connecting included;
//! what takes too long is for the caller to end.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;
use socket2::{Domain, Protocol, Type};

use crate::socket::{Socket, tls_error};
use crate::target::{Endpoint, check_upgraded};
use crate::wire::{Frame, Outgoing};

const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// The longest answer to an upgrade.
const HEAD_BYTES: usize = 16 * 1024;

/// Who hears what comes.
pub(crate) trait Ears {
    /// Something is about to be heard of this connection: time has passed.
    fn wake(&mut self, who: usize);

    /// Something came for this connection, which may be answered at once.
    fn hear(&mut self, who: usize, heard: Heard<'_>, outgoing: &mut Outgoing);
}

/// What comes of a connection.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    /// It is a WebSocket now.
    Open,
    /// A text frame.
    Text(&'a [u8]),
    /// It is over, by no doing of this side.
    Ended(End),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody listens there, or nobody can be reached.
    Unreachable(String),
    /// It did not become a WebSocket of the right version.
    NotUpgraded(String),
    /// The server closed it, with a code if it sent one.
    Closed(Option<u16>),
    /// It sent what is no frame.
    Broken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Absent,
    Connecting,
    Upgrading,
    Open,
}

struct Connection {
    stage: Stage,
    socket: Option<Socket>,
    partial: Vec<u8>,
    outgoing: Outgoing,
    /// Waits for the socket to take bytes again.
    blocked: bool,
}

/// The connections, each known by its index.
pub(crate) struct Crowd {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    scratch: Vec<u8>,
    ready: Vec<epoll::Event>,
}

impl Crowd {
    /// So many places, nobody in them.
    pub(crate) fn new(places: usize) -> Result<Self> {
        let place = || Connection {
            stage: Stage::Absent,
            socket: None,
            partial: Vec::new(),
            outgoing: Outgoing::default(),
            blocked: false,
        };
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).context("no epoll")?,
            connections: std::iter::repeat_with(place).take(places).collect(),
            scratch: vec![0; READ_BYTES],
            ready: Vec::with_capacity(EVENTS),
        })
    }

    /// Begins to connect; [`Heard::Open`] or [`Heard::Ended`] follows. What was in the place is dropped.
    pub(crate) fn dial(&mut self, who: usize, endpoint: &Endpoint) -> io::Result<()> {
        self.drop_connection(who);
        let socket = socket2::Socket::new(Domain::for_address(endpoint.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&endpoint.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from(socket);
        epoll::add(&self.epoll, &stream, EventData::new_u64(who as u64), EventFlags::OUT)?;
        let connection = &mut self.connections[who];
        connection.outgoing.bytes.extend_from_slice(endpoint.upgrade().as_bytes());
        connection.stage = Stage::Connecting;
        connection.blocked = true;
        connection.socket = Some(Socket::new(stream, endpoint.tls.as_ref())?);
        Ok(())
    }

    /// Takes a connection on which frames come as they are.
    pub(crate) fn attach(&mut self, who: usize, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&self.epoll, &stream, EventData::new_u64(who as u64), EventFlags::IN)?;
        self.connections[who].stage = Stage::Open;
        self.connections[who].socket = Some(Socket::Plain(stream));
        Ok(())
    }

    /// Lets a connection say something; [`Crowd::flush`] sends it.
    pub(crate) fn outgoing(&mut self, who: usize) -> &mut Outgoing {
        &mut self.connections[who].outgoing
    }

    /// Ends a connection from this side, without a word.
    pub(crate) fn drop_connection(&mut self, who: usize) {
        let connection = &mut self.connections[who];
        connection.stage = Stage::Absent;
        connection.socket = None; // which takes it off the epoll
        connection.partial = Vec::new();
        connection.outgoing.bytes.clear();
        connection.blocked = false;
    }

    /// Ends a connection from this side with a close frame.
    pub(crate) fn say_goodbye(&mut self, who: usize) -> Result<()> {
        self.connections[who].outgoing.frame(0x8, &1000_u16.to_be_bytes());
        self.flush(who)?;
        self.drop_connection(who);
        Ok(())
    }

    /// Reads what has come, once from each connection that has something, after waiting for it at most so long.
    pub(crate) fn poll(&mut self, wait: Duration, ears: &mut impl Ears) -> Result<()> {
        let wait = Timespec::try_from(wait).context("too long a wait")?;
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll failed"),
        }
        let ready = std::mem::take(&mut self.ready);
        for event in &ready {
            let (who, flags) = (event.data.u64() as usize, event.flags);
            ears.wake(who);
            if self.connections[who].stage == Stage::Connecting {
                self.connected(who, ears);
            } else if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.read(who, ears);
            }
            self.flush(who)?;
        }
        self.ready = ready;
        Ok(())
    }

    /// The kernel has an answer to a `connect`.
    fn connected(&mut self, who: usize, ears: &mut impl Ears) {
        let connection = &mut self.connections[who];
        let Some(socket) = &connection.socket else { return };
        match socket.tcp().take_error() {
            Ok(None) => connection.stage = Stage::Upgrading,
            Ok(Some(error)) | Err(error) => self.end(who, End::Unreachable(error.to_string()), ears),
        }
    }

    /// One read, and every whole frame that it completes.
    fn read(&mut self, who: usize, ears: &mut impl Ears) {
        let connection = &mut self.connections[who];
        let Some(socket) = &mut connection.socket else { return };
        let held = connection.partial.len();
        if self.scratch.len() < held + READ_BYTES {
            self.scratch.resize(held + READ_BYTES, 0);
        }
        self.scratch[..held].copy_from_slice(&connection.partial);
        connection.partial.clear();
        let mut end = None;
        let read = match socket.read(&mut self.scratch[held..]) {
            Ok(0) => {
                end = Some(End::Closed(None));
                0
            }
            Ok(read) => read,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => {
                end = Some(match connection.stage {
                    Stage::Upgrading => tls_error(&error).map_or(End::Closed(None), End::NotUpgraded),
                    Stage::Absent | Stage::Connecting | Stage::Open => End::Closed(None),
                });
                0
            }
        };
        let mut bytes = &self.scratch[..held + read];
        if connection.stage == Stage::Upgrading {
            match take_head(&mut bytes) {
                Ok(true) => {
                    connection.stage = Stage::Open;
                    ears.hear(who, Heard::Open, &mut connection.outgoing);
                }
                Ok(false) => {}
                Err(why) => end = Some(End::NotUpgraded(why)),
            }
        }
        if connection.stage == Stage::Open {
            end = hear_frames(who, &mut bytes, &mut connection.outgoing, ears).or(end);
        }
        match end {
            Some(end) => self.end(who, end, ears),
            None => connection.partial.extend_from_slice(bytes),
        }
    }

    fn end(&mut self, who: usize, end: End, ears: &mut impl Ears) {
        self.drop_connection(who);
        ears.hear(who, Heard::Ended(end), &mut self.connections[who].outgoing);
        self.connections[who].outgoing.bytes.clear();
    }

    /// Sends what is there to send, as far as the socket takes it.
    pub(crate) fn flush(&mut self, who: usize) -> Result<()> {
        let connection = &mut self.connections[who];
        let bytes = &mut connection.outgoing.bytes;
        let Some(socket) = &mut connection.socket else { return Ok(()) };
        if connection.stage == Stage::Connecting || (bytes.is_empty() && !connection.blocked) {
            return Ok(());
        }
        match socket.write(bytes) {
            Ok(written) => drop(bytes.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The next read finds out why.
            Err(_) => bytes.clear(),
        }
        let blocked = socket.is_blocked(!bytes.is_empty());
        if blocked != connection.blocked {
            connection.blocked = blocked;
            let interest = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, socket.tcp(), EventData::new_u64(who as u64), interest)
                .context("epoll failed")?;
        }
        Ok(())
    }
}

/// Takes the answer to an upgrade off `bytes` once it is whole.
fn take_head(bytes: &mut &[u8]) -> Result<bool, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > HEAD_BYTES { Err("the server does not speak HTTP".to_owned()) } else { Ok(false) };
    };
    let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
    *bytes = &bytes[end + 4..];
    check_upgraded(&head).map_err(|error| format!("{error:#}")).map(|()| true)
}

/// Every whole frame; how the connection ended, if it did.
fn hear_frames(who: usize, bytes: &mut &[u8], outgoing: &mut Outgoing, ears: &mut impl Ears) -> Option<End> {
    loop {
        match Frame::take(bytes) {
            Ok(None) => return None,
            Ok(Some(Frame { opcode: 0x1, payload })) => ears.hear(who, Heard::Text(payload), outgoing),
            Ok(Some(Frame { opcode: 0x8, payload })) => {
                return Some(End::Closed(payload.first_chunk().map(|code| u16::from_be_bytes(*code))));
            }
            Ok(Some(Frame { opcode: 0x9, payload })) => outgoing.frame(0xa, payload),
            Ok(Some(Frame { opcode: 0xa, .. })) => {}
            Ok(Some(_)) | Err(_) => return Some(End::Broken),
        }
    }
}
