//! A way to a server that can be slow, and can be cut: with a word, as when a process ends, or in silence, as when a cable
//! is pulled.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where a way leads.
#[derive(Clone, Debug)]
pub(crate) enum Server {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// How a way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// It takes so long.
    Slow(Duration),
    /// What is open is ended, and whatever comes is ended at once.
    Ended,
    /// Nothing passes and nothing ends, until it is open again: then what was sent meanwhile arrives.
    Silent,
}

/// A running relay; it ends with the test.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    server: watch::Sender<Server>,
    way: watch::Sender<Way>,
    listening: JoinHandle<()>,
}

impl Relay {
    pub(crate) async fn start(server: Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (server, way) = (watch::Sender::new(server), watch::Sender::new(Way::Open));
        let (servers, ways) = (server.subscribe(), way.subscribe());
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = servers.borrow().clone();
                tokio::spawn(relay(client, server, ways.clone()));
            }
        });
        Self { address, server, way, listening }
    }

    /// From now on the way is like this.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// New connections go to this server from now on.
    pub(crate) fn point_at(&self, server: Server) {
        self.server.send_replace(server);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn relay(client: TcpStream, server: Server, way: watch::Receiver<Way>) {
    let _ = client.set_nodelay(true);
    let mut cuts = way.clone();
    let both = async {
        until_open(way.clone()).await;
        let (from_client, to_client) = client.into_split();
        match server {
            Server::Tcp(address) => {
                let Ok(server) = TcpStream::connect(address).await else { return };
                let _ = server.set_nodelay(true);
                let (from_server, to_server) = server.into_split();
                both_ways((from_client, to_client), (from_server, to_server), &way).await;
            }
            Server::Unix(path) => {
                let Ok(server) = UnixStream::connect(path).await else { return };
                let (from_server, to_server) = server.into_split();
                both_ways((from_client, to_client), (from_server, to_server), &way).await;
            }
        }
    };
    tokio::select! {
        _ = cuts.wait_for(|way| *way == Way::Ended) => {}
        () = both => {}
    }
}

/// Where one side ends, so does the other.
async fn both_ways(
    (from_client, to_client): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    (from_server, to_server): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    way: &watch::Receiver<Way>,
) {
    tokio::select! {
        () = one_way(from_client, to_server, way.clone()) => {}
        () = one_way(from_server, to_client, way.clone()) => {}
    }
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, way: watch::Receiver<Way>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        let now = *way.borrow();
        if let Way::Slow(time) = now {
            tokio::time::sleep(time).await;
        }
        until_open(way.clone()).await;
        if read == 0 || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// While a way is silent not even an end comes through.
async fn until_open(mut way: watch::Receiver<Way>) {
    let _ = way.wait_for(|way| *way != Way::Silent).await;
}
