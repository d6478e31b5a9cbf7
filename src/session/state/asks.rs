//! Whom to ask for keys: one mechanism for rotations, late joiners and lost keys.
//!
//! Asks are not stored: they follow from who lacks which key. What is kept in memory is which of them are open, so
//! that nobody is asked twice for the same, and a bounded number at once.

use std::collections::BTreeMap;

use crate::protocol::{KeyEpoch, Timestamp, UserId};

use super::{AskFor, Member, Online, SessionState};

/// The most `SendRoomKeyNotification`s of a session that are open at once.
pub(super) const MAX_OPEN: usize = 256;

/// Milliseconds after which a holder who did not answer is passed by for another, or asked again if there is none: the
/// ask may have gone to a connection that was just ending.
const RETRY_MS: i64 = 15_000;

/// Milliseconds after which a holder counts as slow where the key is about to be replaced.
const PROMPT_MS: i64 = 1_000;

#[derive(Clone, Debug, Default)]
pub(super) struct Asks {
    open: BTreeMap<(UserId, KeyEpoch), Open>,
    new_key: Option<(UserId, KeyEpoch)>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    to: UserId,
    since: Timestamp,
}

impl Asks {
    /// A member was given this key, or it was withheld.
    pub(super) fn answered(&mut self, member: UserId, epoch: KeyEpoch) {
        self.open.remove(&(member, epoch));
    }

    /// A member's ask is open no longer, though it may come again.
    pub(super) fn forget(&mut self, member: UserId, epoch: KeyEpoch) {
        self.open.remove(&(member, epoch));
    }

    /// A holder is none any more: what they were asked goes to others.
    pub(super) fn forget_asked_of(&mut self, holder: UserId, epoch: KeyEpoch) {
        self.open.retain(|(_, of), open| *of != epoch || open.to != holder);
    }

    /// All asks of an epoch, for its rotator's key too.
    pub(super) fn forget_epoch(&mut self, epoch: KeyEpoch) {
        self.open.retain(|(_, of), _| *of != epoch);
        self.new_key.take_if(|(_, of)| *of == epoch);
    }

    /// Another goes on with a key that is made: the asks for its members come anew, that for the key does not.
    pub(super) fn hand_over(&mut self, epoch: KeyEpoch) {
        self.open.retain(|(_, of), _| *of != epoch);
    }

    /// An epoch is the current one: asks of others no longer matter.
    pub(super) fn keep_epoch(&mut self, epoch: KeyEpoch) {
        self.open.retain(|(_, of), _| *of == epoch);
        self.new_key = None;
    }

    /// A member is gone: nobody asks for them, and what they were asked goes to others.
    pub(super) fn forget_member(&mut self, gone: UserId) {
        self.open.retain(|(member, _), open| *member != gone && open.to != gone);
        self.new_key.take_if(|(to, _)| *to == gone);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When an unanswered ask for the key of `epoch` should go to another holder. What the rotator was asked waits
    /// for the rotation's deadline instead.
    pub(super) fn next_retry(&self, epoch: KeyEpoch) -> Option<Timestamp> {
        let asked = self.open.iter().filter(|((_, of), _)| *of == epoch);
        asked.map(|(_, open)| open.since.plus_millis(RETRY_MS)).min()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = (UserId, KeyEpoch, UserId)> {
        self.open.iter().map(|((member, epoch), open)| (*member, *epoch, open.to))
    }
}

impl SessionState {
    /// A user has a new connection: what they were asked and have not answered is asked again.
    pub fn member_connected(&mut self, user_id: UserId) {
        self.asks.open.retain(|_, open| open.to != user_id);
        self.asks.new_key.take_if(|(to, _)| *to == user_id);
    }

    /// The asks that are due and not open yet, now open: the rotator's first, then holders'.
    pub fn due_asks(&mut self, now: Timestamp, online: Online<'_>) -> Vec<AskFor> {
        let mut due = Vec::new();
        if self.head.ended || self.key_state().is_none() {
            return due;
        }
        self.ask_rotator(now, online, &mut due);
        self.ask_holders(now, online, &mut due);
        due
    }

    /// Whether nothing is open that only a live session looks after: a rotation's deadline, an unanswered ask.
    pub fn is_quiet(&self) -> bool {
        self.head.ended || (self.rotation().is_none() && self.asks.open.is_empty())
    }

    /// Whether members lack a key, or one is being made: whether a new connection of a member may be asked.
    pub fn wants_keys(&self) -> bool {
        !self.head.ended && (self.rotation().is_some() || !self.without_key.is_empty())
    }

    /// Members who may be asked for a key, now or when the rotation's deadline has passed, by id: whether they are
    /// connected matters.
    pub fn may_be_asked(&self) -> impl Iterator<Item = UserId> + '_ {
        let (current, rotation) = (self.current_epoch(), self.rotation());
        let holds = move |member: &Member| current.is_some_and(|epoch| member.keys.has(epoch));
        let rotates = move |member: &Member| {
            rotation.is_some_and(|one| one.rotator == member.user_id || member.keys.sent == Some(one.epoch))
        };
        self.members.values().filter(move |member| holds(member) || rotates(member)).map(|member| member.user_id)
    }

    fn ask_rotator(&mut self, now: Timestamp, online: Online<'_>, due: &mut Vec<AskFor>) {
        let Some(rotation) = self.rotation() else { return };
        let (to, epoch, started) = (rotation.rotator, rotation.epoch, rotation.started);
        if !started && self.asks.new_key != Some((to, epoch)) {
            self.asks.new_key = Some((to, epoch));
            due.push(AskFor::NewKey { to, epoch });
        }
        for member in &self.waiting {
            // Who lacks the current key too can be given it no more once it is replaced. Where nobody was asked for it,
            // or somebody who is slow, the rotator is: they are there.
            let also = self.current_epoch().filter(|current| online(to) && self.may_give(to, *member, *current, now));
            let next = Some(epoch).filter(|next| !self.asks.open.contains_key(&(*member, *next)));
            for epoch in also.into_iter().chain(next) {
                if self.asks.open.len() >= MAX_OPEN {
                    return;
                }
                self.asks.open.insert((*member, epoch), Open { to, since: now });
                due.push(AskFor::Key { to, member: *member, epoch });
            }
        }
    }

    /// Whether a member lacks the current key, this holder does not withhold it, and nobody else is about to give it.
    fn may_give(&self, holder: UserId, member: UserId, current: KeyEpoch, now: Timestamp) -> bool {
        let prompt = |open: &Open| open.to == holder || now.millis_since(open.since) < PROMPT_MS;
        self.without_key.contains(&member)
            && !self.asks.open.get(&(member, current)).is_some_and(prompt)
            && self.members.get(&holder).is_some_and(|one| one.keys.has(current))
            && !self.members.get(&member).is_some_and(|one| one.keys.withheld_by.contains(&holder))
    }

    fn ask_holders(&mut self, now: Timestamp, online: Online<'_>, due: &mut Vec<AskFor>) {
        let Some(epoch) = self.current_epoch() else { return };
        let retry = self.asks.next_retry(epoch).is_some_and(|due| due <= now);
        if self.without_key.is_empty() || (self.asks.open.len() >= MAX_OPEN && !retry) {
            return;
        }
        let mut load: BTreeMap<UserId, usize> = BTreeMap::new();
        for holder in self.holders().filter(|holder| online(holder.user_id)) {
            load.insert(holder.user_id, 0);
        }
        for open in self.asks.open.values() {
            load.entry(open.to).and_modify(|asks| *asks += 1);
        }
        for member in &self.without_key {
            let asked = self.asks.open.get(&(*member, epoch)).copied();
            let unanswered = |open: Open| !online(open.to) || now.millis_since(open.since) >= RETRY_MS;
            if asked.is_some_and(|open| !unanswered(open)) {
                continue;
            }
            if asked.is_none() && self.asks.open.len() >= MAX_OPEN {
                continue;
            }
            let withheld_by = self.members.get(member).map(|one| &one.keys.withheld_by);
            let willing = |holder: &UserId| withheld_by.is_none_or(|by| !by.contains(holder));
            let other = |holder: &UserId| asked.is_none_or(|open| open.to != *holder);
            let chosen = load
                .iter()
                .filter(|(holder, _)| willing(holder) && other(holder))
                .min_by_key(|(_, asks)| **asks)
                .map(|(holder, _)| *holder);
            match (chosen, asked) {
                (Some(to), _) => {
                    load.entry(to).and_modify(|asks| *asks += 1);
                    self.asks.open.insert((*member, epoch), Open { to, since: now });
                    due.push(AskFor::Key { to, member: *member, epoch });
                }
                (None, Some(open)) if online(open.to) => {
                    self.asks.open.insert((*member, epoch), Open { since: now, ..open });
                    due.push(AskFor::Key { to: open.to, member: *member, epoch });
                }
                (None, Some(_)) => drop(self.asks.open.remove(&(*member, epoch))),
                (None, None) => {}
            }
        }
    }
}
