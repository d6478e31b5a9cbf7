//! The response body of a WebSocket: the outbox, and the actor that reads.
//!
//! The server asks it for bytes as long as its write buffer has room and writes them in one call, so frames go out one
//! by one here without a copy and still share a write. The life of the body is the life of the connection: when it is
//! dropped, the hub lets the connection go.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use futures_util::Stream;

use super::hub::Hub;
use super::link::Link;
use super::outbox::Taken;

/// The body of one connection; `S` is the actor's context.
pub(super) struct Body<S> {
    hub: Rc<Hub>,
    link: Rc<Link>,
    /// Gone when the actor has stopped.
    actor: Option<S>,
}

impl<S> Body<S> {
    pub(super) const fn new(hub: Rc<Hub>, link: Rc<Link>, actor: S) -> Self {
        Self { hub, link, actor: Some(actor) }
    }
}

impl<S, E> Body<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Lets the actor read; whether it has written something itself.
    fn poll_actor(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        loop {
            match Pin::new(self.actor.as_mut()?).poll_next(cx) {
                Poll::Ready(Some(Ok(bytes))) => return Some(bytes),
                Poll::Ready(Some(Err(_))) => {}
                Poll::Ready(None) => self.actor = None,
                Poll::Pending => return None,
            }
        }
    }
}

impl<S, E> MessageBody for Body<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        let taken = this.link.outbox().take();
        match taken {
            Taken::Frame(bytes) => return Poll::Ready(Some(Ok(bytes))),
            Taken::Closed => return this.poll_closed(cx),
            Taken::Empty => {}
        }
        if let Some(bytes) = this.poll_actor(cx) {
            return Poll::Ready(Some(Ok(bytes)));
        }
        let mut outbox = this.link.outbox();
        match outbox.take() {
            Taken::Frame(bytes) => Poll::Ready(Some(Ok(bytes))),
            Taken::Empty if this.actor.is_some() => {
                outbox.sleep(cx.waker());
                Poll::Pending
            }
            // The actor stopped without a word: the client is gone.
            Taken::Empty => Poll::Ready(None),
            Taken::Closed => {
                drop(outbox);
                this.poll_closed(cx)
            }
        }
    }
}

impl<S, E> Body<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// The close frame is out. What the client still sends is read, so that its own close or its end is seen: after
    /// that the server hangs up first, as RFC 6455 asks, and at once. A client that says nothing is waited for until
    /// the hub's look; one that was cut off until the hub ends it: the server would wait for a stuck socket without an
    /// end.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, std::convert::Infallible>>> {
        self.link.said_goodbye();
        while self.poll_actor(cx).is_some() {}
        let waits = if self.link.is_cut_off() { self.actor.is_some() } else { self.link.awaits_close() };
        if waits {
            self.link.outbox().sleep(cx.waker());
            return Poll::Pending;
        }
        if !self.link.is_cut_off() || self.link.peer_closed() {
            self.link.socket.stop_reading();
        }
        Poll::Ready(None)
    }
}

impl<S> Drop for Body<S> {
    fn drop(&mut self) {
        // The actor first: its last words are for a link that is still known.
        self.actor = None;
        self.hub.dismiss(&self.link);
    }
}
