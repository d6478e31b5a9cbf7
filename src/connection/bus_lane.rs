//! A lane between the bus and whoever works on what comes in it: in order, and bounded in number and in bytes.
//!
//! Invariant: what was taken in counts until whoever took it out lets go of it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Messages that may wait in a lane.
pub(super) const LANE: usize = 4096;

/// Bytes that count for each message besides its own.
const OVERHEAD: usize = 64;

/// The end that takes in.
pub(super) struct Lane<T> {
    sender: mpsc::Sender<Held<T>>,
    room: Arc<Semaphore>,
}

/// Something that was in a lane, with the room that it takes.
pub(super) struct Held<T> {
    pub(super) item: T,
    _room: OwnedSemaphorePermit,
}

/// Makes a lane that so many bytes may wait in.
pub(super) fn lane<T>(bytes: usize) -> (Lane<T>, mpsc::Receiver<Held<T>>) {
    let (sender, receiver) = mpsc::channel(LANE);
    (Lane { sender, room: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))) }, receiver)
}

impl<T> Lane<T> {
    /// Takes something of so many bytes in, if there is room; whether there was.
    pub(super) fn push(&self, item: T, bytes: usize) -> bool {
        let Ok(weight) = u32::try_from(bytes + OVERHEAD) else { return false };
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(weight) else { return false };
        self.sender.try_send(Held { item, _room: room }).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_until_it_is_let_go_of() {
        let (lane, mut receiver) = lane(1000);
        assert!(lane.push(1, 400) && lane.push(2, 400));
        assert!(!lane.push(3, 400) && !lane.push(3, usize::MAX - OVERHEAD));
        let held = receiver.recv().await.unwrap();
        assert_eq!(held.item, 1);
        assert!(!lane.push(3, 400), "it is worked on still");
        drop(held);
        assert!(lane.push(3, 400));
        assert_eq!([receiver.recv().await.unwrap().item, receiver.recv().await.unwrap().item], [2, 3]);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_number() {
        let (lane, mut receiver) = lane(usize::MAX);
        assert!((0..LANE).all(|number| lane.push(number, 0)));
        assert!(!lane.push(LANE, 0));
        assert_eq!(receiver.recv().await.unwrap().item, 0);
        assert!(lane.push(LANE, 0));
    }
}
