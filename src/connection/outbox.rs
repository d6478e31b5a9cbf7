//! What waits to be written to one connection.
//!
//! The hub pushes, the body takes, both on the same thread. Invariants: frames leave in the order in which they were
//! pushed, but control frames leave before them; the bytes that wait never exceed the limit: a push that would is
//! refused, and it is for the hub to cut the connection off; after a close frame nothing follows. One reply that is larger
//! than the limit by itself may wait beside.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::{CloseCode, Frame};

/// Below this there is room for the next page from the store.
pub(super) const LOW_WATER: usize = 64 * 1024;

/// Places that an emptied queue keeps: what an idle connection costs.
const KEPT_PLACES: usize = 32;

/// The queue of one connection.
#[derive(Debug)]
pub(super) struct Outbox {
    frames: VecDeque<Bytes>,
    control: VecDeque<Bytes>,
    bytes: usize,
    limit: usize,
    /// The length of a reply that waits and is larger than the limit by itself; 0 where none does.
    oversized: usize,
    state: State,
    /// Frames that were taken, ever: progress, without a clock.
    taken: u64,
    body: Option<Waker>,
    room: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A close frame is in the queue, the last one.
    Closing,
    /// The close frame was taken.
    Closed,
}

/// The outbox would hold more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// What the body gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Frame(Bytes),
    /// Nothing now.
    Empty,
    /// Nothing any more.
    Closed,
}

impl Outbox {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            control: VecDeque::new(),
            bytes: 0,
            limit,
            oversized: 0,
            state: State::Open,
            taken: 0,
            body: None,
            room: None,
        }
    }

    /// Queues a frame, and wakes the body if it sleeps. After a close it is dropped.
    pub(super) fn push(&mut self, frame: &Frame) -> Result<(), Full> {
        self.push_bytes(frame.bytes())
    }

    /// Queues a reply. One that is larger than the limit by itself does not count: it may be the list of a user's
    /// thousands of sessions, without which they could never come in.
    pub(super) fn push_reply(&mut self, frame: &Frame) -> Result<(), Full> {
        let len = frame.bytes().len();
        if len > self.limit && self.oversized == 0 && self.state == State::Open {
            self.oversized = len;
        }
        self.push(frame)
    }

    /// Queues whole frames that are joined already: all of them, or none.
    pub(super) fn push_bytes(&mut self, frames: &Bytes) -> Result<(), Full> {
        if self.state != State::Open {
            return Ok(());
        }
        self.admit(frames.len())?;
        self.frames.push_back(frames.clone());
        self.wake();
        Ok(())
    }

    /// Queues a ping or pong, ahead of text.
    pub(super) fn push_control(&mut self, frame: Bytes) -> Result<(), Full> {
        if self.state != State::Open {
            return Ok(());
        }
        self.admit(frame.len())?;
        self.control.push_back(frame);
        self.wake();
        Ok(())
    }

    fn admit(&mut self, len: usize) -> Result<(), Full> {
        if self.bytes + len > self.limit + self.oversized {
            return Err(Full);
        }
        self.bytes += len;
        Ok(())
    }

    /// Puts a close frame behind what is queued; a second one changes nothing.
    pub(super) fn close(&mut self, frame: Bytes) {
        if self.state != State::Open {
            return;
        }
        self.state = State::Closing;
        // Its few bytes are over the limit if need be.
        self.bytes += frame.len();
        self.frames.push_back(frame);
        self.wake();
    }

    /// Drops all that is queued, and leaves a close frame in its place.
    pub(super) fn cut_off(&mut self, frame: Bytes) {
        let closed = self.state == State::Closed;
        self.drop_queued();
        if !closed {
            self.state = State::Open;
            self.close(frame);
        }
    }

    /// Drops all that is queued, for good.
    pub(super) fn abandon(&mut self) {
        self.drop_queued();
        self.state = State::Closed;
        self.wake();
    }

    fn drop_queued(&mut self) {
        self.frames = VecDeque::new();
        self.control = VecDeque::new();
        (self.bytes, self.oversized) = (0, 0);
        self.wake_room();
    }

    /// The next frame for the socket.
    pub(super) fn take(&mut self) -> Taken {
        let next = self.control.pop_front().or_else(|| self.frames.pop_front());
        let Some(frame) = next else {
            if self.frames.capacity() > KEPT_PLACES {
                self.frames = VecDeque::new();
            }
            return if self.state == State::Closed { Taken::Closed } else { Taken::Empty };
        };
        self.bytes -= frame.len();
        if frame.len() > self.limit {
            self.oversized = 0;
        }
        self.taken += 1;
        if self.state == State::Closing && self.frames.is_empty() && self.control.is_empty() {
            self.state = State::Closed;
        }
        if self.bytes <= LOW_WATER {
            self.wake_room();
        }
        Taken::Frame(frame)
    }

    /// Bytes that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames taken so far, where some are still waiting.
    pub(super) fn waiting_since(&self) -> Option<u64> {
        (self.bytes > 0).then_some(self.taken)
    }

    /// Has the body woken when there is something to take.
    pub(super) fn sleep(&mut self, waker: &Waker) {
        if !self.body.as_ref().is_some_and(|body| body.will_wake(waker)) {
            self.body = Some(waker.clone());
        }
    }

    /// Whether there is room for a page; else `waker` is woken when there is, or when the outbox is closed.
    pub(super) fn has_room(&mut self, waker: &Waker) -> bool {
        let has = self.bytes <= LOW_WATER || self.state != State::Open;
        if !has {
            self.room = Some(waker.clone());
        }
        has
    }

    /// Wakes the body: once for however many frames until it sleeps again.
    pub(super) fn wake(&mut self) {
        if let Some(body) = self.body.take() {
            body.wake();
        }
    }

    fn wake_room(&mut self) {
        if let Some(room) = self.room.take() {
            room.wake();
        }
    }
}

/// A close frame of ours.
pub(super) fn close_frame(code: CloseCode) -> Bytes {
    close_frame_with(Some(code.code()), code.reason())
}

/// A close frame with any code; without one, an empty one.
pub(super) fn close_frame_with(code: Option<u16>, reason: &str) -> Bytes {
    let mut payload = BytesMut::new();
    if let Some(code) = code {
        payload.put_u16(code);
        payload.put_slice(reason.as_bytes());
    }
    control_frame(0x88, &payload)
}

/// A ping without a payload.
pub(super) const fn ping_frame() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

/// The answer to a ping.
pub(super) fn pong_frame(payload: &[u8]) -> Bytes {
    control_frame(0x8A, payload)
}

fn control_frame(first: u8, payload: &[u8]) -> Bytes {
    let payload = &payload[..payload.len().min(125)];
    let mut frame = BytesMut::with_capacity(payload.len() + 2);
    frame.put_u8(first);
    frame.put_u8(payload.len() as u8);
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn frame(text: &str) -> Frame {
        Frame::text(text.as_bytes())
    }

    fn taken(outbox: &mut Outbox) -> Vec<Bytes> {
        std::iter::from_fn(|| match outbox.take() {
            Taken::Frame(bytes) => Some(bytes),
            Taken::Empty | Taken::Closed => None,
        })
        .collect()
    }

    #[test]
    fn text_leaves_in_order_and_control_frames_before_it() {
        let mut outbox = Outbox::new(100);
        outbox.push(&frame("a")).unwrap();
        outbox.push(&frame("b")).unwrap();
        outbox.push_control(pong_frame(b"1")).unwrap();
        outbox.push_control(pong_frame(b"2")).unwrap();
        let expected = [pong_frame(b"1"), pong_frame(b"2"), frame("a").bytes().clone(), frame("b").bytes().clone()];
        assert_eq!(taken(&mut outbox), expected);
        assert_eq!(outbox.take(), Taken::Empty);
        assert_eq!(outbox.bytes(), 0);
    }

    #[test]
    fn a_batch_wakes_the_body_once() {
        let count = Arc::new(Count::default());
        let mut outbox = Outbox::new(1000);
        outbox.sleep(&Arc::clone(&count).into());
        for _ in 0..10 {
            outbox.push(&frame("a")).unwrap();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_limit_holds_and_a_cut_off_frees_what_waits() {
        let mut outbox = Outbox::new(10);
        outbox.push(&frame("12345678")).unwrap();
        assert_eq!(outbox.push(&frame("")), Err(Full));
        outbox.cut_off(close_frame(CloseCode::TooSlow));
        assert_eq!(taken(&mut outbox), [close_frame(CloseCode::TooSlow)]);
        assert_eq!(outbox.take(), Taken::Closed);
    }

    #[test]
    fn a_reply_that_is_larger_than_the_limit_does_not_count() {
        let (large, small) = (frame("what takes more"), frame("12345678"));
        let mut outbox = Outbox::new(10);
        assert_eq!(outbox.push(&large), Err(Full), "no reply");
        outbox.push(&small).unwrap();
        outbox.push_reply(&large).unwrap();
        assert_eq!(outbox.push_reply(&large), Err(Full), "one of them");
        assert_eq!(outbox.push(&small), Err(Full), "the limit holds for what waits beside it");
        assert_eq!(taken(&mut outbox), [small.bytes().clone(), large.bytes().clone()]);
        outbox.push(&small).unwrap();
        assert_eq!(outbox.push(&small), Err(Full), "and when it is out");
    }

    #[test]
    fn nothing_follows_a_close() {
        let mut outbox = Outbox::new(100);
        outbox.push(&frame("a")).unwrap();
        outbox.close(close_frame(CloseCode::Restart));
        outbox.push(&frame("b")).unwrap();
        outbox.push_control(ping_frame()).unwrap();
        outbox.close(close_frame(CloseCode::Normal));
        assert_eq!(taken(&mut outbox), [frame("a").bytes().clone(), close_frame(CloseCode::Restart)]);
        assert_eq!(outbox.take(), Taken::Closed);
    }

    #[test]
    fn there_is_room_again_below_the_low_water_mark() {
        let count = Arc::new(Count::default());
        let waker = Arc::clone(&count).into();
        let mut outbox = Outbox::new(10 * LOW_WATER);
        let large = Frame::text(&vec![b'x'; LOW_WATER]);
        outbox.push(&large).unwrap();
        outbox.push(&large).unwrap();
        assert!(!outbox.has_room(&waker));
        outbox.take();
        assert!(!outbox.has_room(&waker));
        outbox.take();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(outbox.has_room(&waker));
    }

    #[test]
    fn frames_of_our_own() {
        assert_eq!(&close_frame(CloseCode::Normal)[..], [0x88, 2, 0x03, 0xE8]);
        assert_eq!(&close_frame_with(None, "")[..], [0x88, 0]);
        assert_eq!(&pong_frame(b"hi")[..], b"\x8A\x02hi");
    }
}
