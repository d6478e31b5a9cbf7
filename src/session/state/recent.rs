//! The senders' own message ids that are still remembered, so that a repeated `send_msg` is stored once.

use std::collections::BTreeMap;

use crate::protocol::{ClientId, Timestamp, UserId};

use super::RecentMsg;

/// Bounded by number and age; what the store has of it is the same, by `Change::Forget`. Trees, because they grow leaf
/// by leaf: tables that double now and then would have everybody wait who speaks at that moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    /// By `seq`.
    order: BTreeMap<u64, RecentMsg>,
    index: BTreeMap<(UserId, ClientId), u64>,
}

impl Recent {
    pub(super) fn restore(rows: Vec<RecentMsg>) -> Self {
        let index = rows.iter().map(|row| ((row.sender, row.client_msg_id.clone()), row.seq)).collect();
        Self { order: rows.into_iter().map(|row| (row.seq, row)).collect(), index }
    }

    pub(super) fn to_vec(&self) -> Vec<RecentMsg> {
        self.order.values().cloned().collect()
    }

    /// Where and when this message was stored.
    pub(super) fn find(&self, sender: UserId, id: &ClientId) -> Option<(u64, Timestamp)> {
        let seq = self.index.get(&(sender, id.clone()))?;
        self.order.get(seq).map(|row| (row.seq, row.time))
    }

    /// The place of the oldest.
    pub(super) fn first(&self) -> Option<u64> {
        self.order.first_key_value().map(|(seq, _)| *seq)
    }

    pub(super) fn remember(&mut self, row: RecentMsg) {
        self.index.insert((row.sender, row.client_msg_id.clone()), row.seq);
        self.order.insert(row.seq, row);
    }

    /// Takes out one that is too old, or one too many.
    pub(super) fn forget(&mut self, now: Timestamp, keep: usize, keep_ms: i64) -> Option<RecentMsg> {
        let oldest = self.order.first_entry()?;
        if self.index.len() <= keep && now.millis_since(oldest.get().time) <= keep_ms {
            return None;
        }
        let row = oldest.remove();
        self.index.remove(&(row.sender, row.client_msg_id.clone()));
        Some(row)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
