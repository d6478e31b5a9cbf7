//! A proxy between a client and a node that does to deliveries what no network and no node should, and that can be
//! pointed at another node.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::http;
use super::ws;

/// What is done to one `Msg` on its way to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// It does not come.
    Drop,
    /// It comes twice.
    Duplicate,
    /// It comes behind the next one.
    Swap,
    /// Its text is another.
    AlterText,
    /// It is under another name.
    AlterSender,
    /// Before the first `Msg`: all connections are cut, whenever so many answers have gone through.
    CutAt(&'static [u64]),
}

/// How many messages pass before the fault.
const BEFORE: u64 = 20;

struct Shared {
    upstream: SocketAddr,
    fault: Fault,
    passed: u64,
    /// Heads and frames that went through to clients.
    answers: u64,
    /// How often all connections were cut by the fault.
    cuts: usize,
    /// Ends the connections that there are.
    cut: watch::Sender<()>,
}

/// A running proxy; it ends with the test.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of a node.
    pub(crate) async fn start(upstream: SocketAddr, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Mutex::new(Shared {
            upstream,
            fault,
            passed: 0,
            answers: 0,
            cuts: 0,
            cut: watch::Sender::new(()),
        }));
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Self { address, shared, listening }
    }

    /// New connections go to this node from now on.
    pub(crate) fn point_at(&self, upstream: SocketAddr) {
        self.shared.lock().expect("no panic").upstream = upstream;
    }

    /// Is gone as a machine is whose power was cut: nobody listens, and what was open is open no more.
    pub(crate) fn go_away(&self) {
        self.listening.abort();
        self.shared.lock().expect("no panic").cut.send_replace(());
    }

    /// Messages that went through to members so far.
    pub(crate) fn passed(&self) -> u64 {
        self.shared.lock().expect("no panic").passed
    }

    /// How often all connections were cut by the fault.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.lock().expect("no panic").cuts
    }

    /// Whether the fault has happened.
    pub(crate) fn has_struck(&self) -> bool {
        self.passed() > BEFORE
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (upstream, mut cut) = {
            let shared = shared.lock().expect("no panic");
            (shared.upstream, shared.cut.subscribe())
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(node) = TcpStream::connect(upstream).await else { return };
            let _ = (client.set_nodelay(true), node.set_nodelay(true));
            let ((mut from_client, to_client), (from_node, mut to_node)) = (client.into_split(), node.into_split());
            let outward = async {
                let _ = tokio::io::copy(&mut from_client, &mut to_node).await;
            };
            // Where one side ends, so does the other: both halves are dropped.
            tokio::select! {
                () = outward => {}
                _ = cut.changed() => {}
                () = inward(from_node, to_client, &shared) => {}
            }
        });
    }
}

/// From the node to the client: the head, then frame by frame if it is a WebSocket.
async fn inward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Mutex<Shared>) {
    let mut bytes = Vec::new();
    let (mut in_frames, mut is_http) = (false, false);
    let mut held: Option<Vec<u8>> = None;
    loop {
        let mut out = Vec::new();
        if !in_frames
            && !is_http
            && let Some(end) = http::head_end(&bytes)
        {
            in_frames = bytes.starts_with(b"HTTP/1.1 101");
            is_http = !in_frames;
            answer(shared);
            out.extend(bytes.drain(..end));
        }
        if is_http {
            out.append(&mut bytes);
        }
        while in_frames && let Some((frame, len)) = ws::parse(&bytes) {
            let raw: Vec<u8> = bytes.drain(..len).collect();
            answer(shared);
            if frame.payload.starts_with(br#"{"type":"Msg""#) {
                out.extend(message(&frame.payload, raw, &mut held, shared));
            } else {
                out.extend(raw);
            }
        }
        if to.write_all(&out).await.is_err() || from.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// An answer goes through, or does not any more.
fn answer(shared: &Mutex<Shared>) {
    let mut shared = shared.lock().expect("no panic");
    shared.answers += 1;
    if let Fault::CutAt(places) = shared.fault
        && shared.passed == 0
        && places.contains(&shared.answers)
    {
        shared.cuts += 1;
        shared.cut.send_replace(());
    }
}

/// What goes out in a message's place.
fn message(payload: &[u8], raw: Vec<u8>, held: &mut Option<Vec<u8>>, shared: &Mutex<Shared>) -> Vec<u8> {
    let mut shared = shared.lock().expect("no panic");
    shared.passed += 1;
    if let Some(earlier) = held.take() {
        return [raw, earlier].concat();
    }
    if shared.passed != BEFORE + 1 {
        return raw;
    }
    let text = String::from_utf8(payload.to_vec()).expect("UTF-8");
    let altered = |field: &str| {
        let at = text.find(field).expect("the field") + field.len();
        let changed = if text[at..].starts_with('0') { "1" } else { "0" };
        let altered = format!("{}{changed}{}", &text[..at], &text[at + 1..]);
        ws::server_frame(0x80 | ws::TEXT, altered.as_bytes())
    };
    match shared.fault {
        Fault::Nothing | Fault::CutAt(_) => raw,
        Fault::Drop => Vec::new(),
        Fault::Duplicate => raw.repeat(2),
        Fault::Swap => {
            *held = Some(raw);
            Vec::new()
        }
        Fault::AlterText => altered(r#""markdown_text":""#),
        Fault::AlterSender => altered(r#""sender_id":""#),
    }
}
