//! What the core knows of one session: whether it is encrypted, which key is current, what waits to be read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::protocol::{Base64Text, ClientId, KeyEpoch, Msg, Timestamp, UserId};

/// Messages kept until their key comes; older ones can be read from the history then.
const MAX_SEALED: usize = 1_000;
/// Message ids remembered, to drop what is sent again under another `seq`.
const MAX_SEEN: usize = 20_000;
/// How often one key is asked for again before the user has to.
const MAX_ASKS: u8 = 3;

/// A message that cannot be read yet.
#[derive(Clone, Debug)]
pub(super) struct SealedMsg {
    pub(super) seq: u64,
    pub(super) time: Timestamp,
    pub(super) msg: Msg,
}

/// A key's check value and this user's signature over it, made once per epoch.
#[derive(Clone, Debug)]
pub(super) struct Endorsement {
    pub(super) key_epoch: KeyEpoch,
    pub(super) key_check: Base64Text,
    pub(super) signature: Base64Text,
}

/// One session.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Whether it is encrypted; `None` where nobody has said so yet, as after joining: nothing may be said in it then.
    pub(super) e2ee_on: Option<bool>,
    /// The epoch that the server accepts.
    pub(super) current: Option<KeyEpoch>,
    /// The last event that changed one of these.
    turned_at: u64,
    pub(super) endorsement: Option<Endorsement>,
    sealed: VecDeque<SealedMsg>,
    seen: Seen,
    fetched: BTreeSet<KeyEpoch>,
    asks: BTreeMap<KeyEpoch, u8>,
}

impl Room {
    /// Another epoch is the current one; `None`: none yet.
    pub(super) fn turn(&mut self, e2ee_on: bool, current: Option<KeyEpoch>) {
        self.e2ee_on = Some(e2ee_on);
        self.current = current.filter(|_| e2ee_on);
        let oldest = current.map_or(0, |epoch| epoch.0.saturating_sub(16));
        self.fetched.retain(|epoch| epoch.0 >= oldest);
        self.asks.retain(|epoch, _| epoch.0 >= oldest);
    }

    /// The same, by an event.
    pub(super) fn turn_at(&mut self, seq: u64, e2ee_on: bool, current: Option<KeyEpoch>) {
        self.turned_at = seq;
        self.turn(e2ee_on, current);
    }

    /// Whether what was true after this event is still true, as far as is known.
    pub(super) const fn is_news(&self, last_seq: u64) -> bool {
        last_seq >= self.turned_at
    }

    /// Keeps a message until its key comes; the oldest go when there are too many.
    pub(super) fn keep_sealed(&mut self, message: SealedMsg) {
        if self.sealed.len() >= MAX_SEALED {
            self.sealed.pop_front();
        }
        self.sealed.push_back(message);
    }

    /// The messages of this epoch that waited.
    pub(super) fn take_sealed(&mut self, epoch: KeyEpoch) -> Vec<SealedMsg> {
        let (now, later) = self.sealed.drain(..).partition(|sealed| sealed.msg.key_epoch == Some(epoch));
        self.sealed = later;
        Vec::from(now)
    }

    /// A message that waits was taken back.
    pub(super) fn recall_sealed(&mut self, seq: u64) {
        self.sealed.retain(|sealed| sealed.seq != seq);
    }

    /// Whether to fetch the wrapped keys because this epoch's is missing: once per connection.
    pub(super) fn should_fetch(&mut self, epoch: KeyEpoch) -> bool {
        self.fetched.insert(epoch)
    }

    /// A new connection: what was fetched may be fetched again.
    pub(super) fn reconnected(&mut self) {
        self.fetched.clear();
    }

    /// Whether to ask for this epoch's key again.
    pub(super) fn should_ask(&mut self, epoch: KeyEpoch) -> bool {
        if self.current.is_some_and(|current| epoch < current) {
            return false;
        }
        let asks = self.asks.entry(epoch).or_default();
        *asks = asks.saturating_add(1);
        *asks <= MAX_ASKS
    }

    /// Whether this is the first time that this id of this sender comes, or the same message once more.
    pub(super) fn first_time(&mut self, sender_id: UserId, id: &ClientId, seq: u64) -> bool {
        self.seen.first_time(sender_id, id, seq)
    }
}

/// Which message ids were read, and where.
#[derive(Debug, Default)]
struct Seen {
    places: BTreeMap<(UserId, ClientId), u64>,
    order: VecDeque<(UserId, ClientId)>,
}

impl Seen {
    fn first_time(&mut self, sender_id: UserId, id: &ClientId, seq: u64) -> bool {
        let key = (sender_id, id.clone());
        if let Some(known) = self.places.get(&key) {
            return *known == seq;
        }
        if self.order.len() >= MAX_SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.places.insert(key, seq);
        true
    }
}
