//! `ack`s, gathered: the greatest per user and session over a few seconds, written in bulk.
//!
//! Invariant: until an ack is written it is in one of the two maps, so that a read on this node sees it. What is lost
//! when the process dies is a few seconds of acks, and the client is sent those events again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::protocol::{SessionId, UserId};
use crate::store::{AckRow, Store};

use super::Connections;
use super::shards::lock;

type Gathered = HashMap<(UserId, SessionId), u64>;

/// The acks that are not yet written: at most one for each membership of a user who was connected meanwhile.
pub(super) struct Acks {
    store: Arc<dyn Store>,
    books: Mutex<Books>,
    /// One writer at a time, so that none moves back.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Books {
    gathered: Gathered,
    being_written: Gathered,
}

impl Acks {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, books: Mutex::default(), writing: tokio::sync::Mutex::new(()) }
    }

    /// Takes an ack in; a lower one than before changes nothing.
    pub(super) fn take(&self, user_id: UserId, session_id: SessionId, seq: u64) {
        let mut books = lock(&self.books);
        let known = books.gathered.entry((user_id, session_id)).or_default();
        *known = (*known).max(seq);
    }

    /// The greatest ack that is not yet written.
    pub(super) fn pending(&self, user_id: UserId, session_id: SessionId) -> Option<u64> {
        let books = lock(&self.books);
        let key = (user_id, session_id);
        books.gathered.get(&key).max(books.being_written.get(&key)).copied()
    }

    /// Writes what was gathered. What cannot be written stays for the next time.
    pub(super) async fn flush(&self) {
        let _writing = self.writing.lock().await;
        let rows: Vec<AckRow> = {
            let mut books = lock(&self.books);
            books.being_written = std::mem::take(&mut books.gathered);
            let row =
                |(&(user_id, session_id), &seq): (&(UserId, SessionId), &u64)| AckRow { session_id, user_id, seq };
            books.being_written.iter().map(row).collect()
        };
        if rows.is_empty() {
            return;
        }
        let written = self.store.ack(&rows).await;
        let mut books = lock(&self.books);
        let rows = std::mem::take(&mut books.being_written);
        if let Err(error) = written {
            tracing::warn!(%error, "acks wait for the store");
            for (key, seq) in rows {
                let known = books.gathered.entry(key).or_default();
                *known = (*known).max(seq);
            }
        }
    }

    /// Writes every so often, for as long as the node lives.
    pub(super) fn flush_every(&self, interval: Duration, node: Weak<Connections>) {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(node) = node.upgrade() else { return };
                node.acks.flush().await;
            }
        });
    }
}
