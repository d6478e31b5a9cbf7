//! The socket below a WebSocket, as far as a connection has to reach past the server that reads and writes it.
//!
//! The WebSocket is the body of an HTTP response, which is not asked anything while the socket takes no bytes: a stuck
//! connection can be ended only from below. A second descriptor for that would halve the connections under a file
//! limit, so the number of the server's own is kept. Invariant: it is used only while the body lives, and on the
//! body's thread. The server drops the socket and the body in one go, so the number is not another's by then.

use std::any::Any;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::dev::Extensions;
use actix_web::rt::net::TcpStream;
use socket2::SockRef;

use crate::config::ConnectionSettings;

/// What `on_connect` leaves for the request that becomes a WebSocket.
#[derive(Clone, Copy, Debug)]
struct Accepted(RawFd);

/// Prepares each accepted connection; for `HttpServer::on_connect`, with and without TLS.
pub fn prepare_socket(settings: &ConnectionSettings) -> impl Fn(&dyn Any, &mut Extensions) + Send + Sync + 'static {
    let send_buffer = settings.send_buffer_bytes;
    let stall = Duration::from_secs(settings.stall_s);
    move |connection, extensions| {
        let stream = match connection.downcast_ref::<TcpStream>() {
            Some(plain) => plain,
            None => match connection.downcast_ref::<TlsStream<TcpStream>>() {
                Some(tls) => tls.get_ref().0,
                None => return,
            },
        };
        if let Err(error) = configure(stream.as_fd(), send_buffer, stall) {
            // The client may be gone already; if not, other limits hold.
            tracing::debug!(%error, "a socket was not configured");
        }
        extensions.insert(Accepted(stream.as_raw_fd()));
    }
}

fn configure(socket: BorrowedFd<'_>, send_buffer: usize, stall: Duration) -> io::Result<()> {
    let socket = SockRef::from(&socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_send_buffer_size(send_buffer)?;
    // Ends a peer that vanished or whose window stays shut, whatever the server is doing. Later than the hub's look would,
    // which knows why, says so and counts it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_user_timeout(Some(stall.saturating_mul(2)))?;
    Ok(())
}

/// The socket of one connection; without one (in tests without a network) nothing happens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Socket(Option<RawFd>);

impl Socket {
    /// The socket that a request came over.
    pub(super) fn of(request: &actix_web::HttpRequest) -> Self {
        Self(request.conn_data::<Accepted>().map(|accepted| accepted.0))
    }

    /// Has the server see the end of what the client sends, so that it closes as soon as all is written.
    pub(super) fn stop_reading(self) {
        self.with(|socket| socket.shutdown(Shutdown::Read));
    }

    /// Ends the connection without regard for what is not yet written.
    pub(super) fn end(self) {
        self.with(|socket| {
            socket.set_linger(Some(Duration::ZERO))?;
            socket.shutdown(Shutdown::Both)
        });
    }

    fn with(self, act: impl FnOnce(SockRef<'_>) -> io::Result<()>) {
        let Some(fd) = self.0 else { return };
        #[expect(unsafe_code, reason = "the descriptor is open as long as the body lives: see the module's invariant")]
        // SAFETY: callers hold the body's link on the body's thread and call only before the body is dropped, which
        // happens together with the socket that owns the descriptor.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        if let Err(error) = act(SockRef::from(&fd)) {
            tracing::trace!(%error, "the socket was over already");
        }
    }
}
