//! A socket that never waits, with TLS on it or without.
//!
//! TLS is shaken hands over while reading and writing: until it is done a write takes nothing, and reads go on with it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// A connection's socket.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// On a stream that does not block.
    pub(crate) fn new(stream: TcpStream, tls: Option<&(ServerName<'static>, Arc<ClientConfig>)>) -> io::Result<Self> {
        let Some((name, config)) = tls else { return Ok(Self::Plain(stream)) };
        let connection = ClientConnection::new(Arc::clone(config), name.clone()).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, stream))))
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    /// Reads what there is, as far as it fits.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    /// Takes what can be taken now; with TLS that may still be on its way into the socket.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => {
                let written = stream.write(bytes)?;
                // What cannot go out now is kept, and tells so by `is_blocked`.
                match stream.flush() {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
                    Ok(()) | Err(_) => Ok(written),
                }
            }
        }
    }

    /// Whether to write again when the socket takes bytes; `more`: there is something that was not taken.
    pub(crate) fn is_blocked(&self, more: bool) -> bool {
        match self {
            Self::Plain(_) => more,
            // While hands are shaken it may be the other side's turn: then a read is what goes on.
            Self::Tls(stream) => stream.conn.wants_write() || (more && !stream.conn.is_handshaking()),
        }
    }
}

/// What was wrong with the other side's TLS, if that is what an error says.
pub(crate) fn tls_error(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let hint = match inner {
        rustls::Error::InvalidMessage(_) => ": does the server speak TLS there?",
        rustls::Error::InvalidCertificate(_) => ": name its authority with --ca",
        _ => "",
    };
    Some(format!("no TLS: {inner}{hint}"))
}
