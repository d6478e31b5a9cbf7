//! The senders' own message ids that are still remembered, so that a repeated `send_msg` is stored once.

use std::collections::{HashMap, VecDeque};

use crate::protocol::{ClientId, Timestamp, UserId};

use super::RecentMsg;

/// Bounded by number and age; what the store has of it is the same, by `Change::Forget`.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    order: VecDeque<RecentMsg>,
    index: HashMap<(UserId, ClientId), (u64, Timestamp)>,
}

impl Recent {
    pub(super) fn restore(rows: Vec<RecentMsg>) -> Self {
        let index = rows.iter().map(|row| ((row.sender, row.client_msg_id.clone()), (row.seq, row.time))).collect();
        Self { order: rows.into(), index }
    }

    pub(super) fn to_vec(&self) -> Vec<RecentMsg> {
        self.order.iter().cloned().collect()
    }

    /// Where and when this message was stored.
    pub(super) fn find(&self, sender: UserId, id: &ClientId) -> Option<(u64, Timestamp)> {
        self.index.get(&(sender, id.clone())).copied()
    }

    pub(super) fn remember(&mut self, row: RecentMsg) {
        self.index.insert((row.sender, row.client_msg_id.clone()), (row.seq, row.time));
        self.order.push_back(row);
    }

    /// Takes out one that is too old, or one too many.
    pub(super) fn forget(&mut self, now: Timestamp, keep: usize, keep_ms: i64) -> Option<RecentMsg> {
        let oldest = self.order.front()?;
        if self.order.len() <= keep && now.millis_since(oldest.time) <= keep_ms {
            return None;
        }
        let row = self.order.pop_front()?;
        self.index.remove(&(row.sender, row.client_msg_id.clone()));
        Some(row)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
