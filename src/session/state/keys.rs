//! How room keys reach members: who may give which key to whom, and who lacks one.

use crate::protocol::{
    Base64Text, ErrorCode, FailedMember, InboxId, KeyEpoch, LostReason, NoticeBody, PublicKeyChanged, Refusal, Reply,
    SendRoomKey, SendRoomKeys, UserId, Withheld, WrappedKey,
};

use super::decision::Draft;
use super::{Change, MarkReason, SessionState, StoredKey};

/// The most holders that are remembered as not willing to give one member the key.
const MAX_WITHHELD_BY: usize = 64;

/// What all keys of one request have in common.
struct Batch {
    sender: UserId,
    epoch: KeyEpoch,
    /// Whether it is the rotator's, for the next epoch.
    next: bool,
    key_check: Option<Base64Text>,
    signature: Option<Base64Text>,
}

/// The epochs whose keys a member may give to others.
struct OwnKeys {
    rotating: Option<KeyEpoch>,
    held: Option<KeyEpoch>,
    current: Option<KeyEpoch>,
}

fn not_a_holder() -> Refusal {
    Refusal::new(ErrorCode::PermissionDenied, "only the rotator or a holder of the key may send it")
}

impl SessionState {
    /// Members who have the current key.
    pub(super) fn holders(&self) -> impl Iterator<Item = &super::Member> {
        let current = self.current_epoch();
        self.members.values().filter(move |member| current.is_some_and(|epoch| member.keys.has(epoch)))
    }

    pub(super) fn send_room_key(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        body: SendRoomKey,
    ) -> Result<Reply, Refusal> {
        let SendRoomKey { user_id, room_key, key_epoch, key_check, signature, session_id: _ } = body;
        // The target comes before the state: it is looked at in a plain session too.
        let mine = self.keys_of(draft, caller);
        let settled = mine.as_ref().err().is_some_and(|refusal| refusal.code != ErrorCode::E2eeNotOn);
        if !settled && !self.members.contains_key(&user_id) {
            return Err(Refusal::new(ErrorCode::NotFound, "user_id: no such member"));
        }
        let mine = mine?;
        let batch = Self::batch(caller, &mine, key_epoch, key_check, signature)?;
        self.may_receive(&batch, user_id).map_err(|code| Refusal::new(code, "user_id: they have this epoch's key"))?;
        self.settle_key_check(draft, &batch)?;
        self.give(draft, &batch, user_id, room_key);
        self.batch_done(draft, &batch, usize::from(user_id != caller));
        Ok(Reply::Done {})
    }

    pub(super) fn send_room_keys(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        body: SendRoomKeys,
    ) -> Result<Reply, Refusal> {
        let SendRoomKeys { key_epoch, key_check, signature, room_keys, withheld, session_id: _ } = body;
        let mine = self.keys_of(draft, caller)?;
        let batch = Self::batch(caller, &mine, key_epoch, key_check, signature)?;
        self.settle_key_check(draft, &batch)?;
        let mut failed_members = Vec::new();
        let mut sent = 0;
        for WrappedKey { user_id, room_key } in room_keys {
            match self.may_receive(&batch, user_id) {
                Ok(()) => {
                    self.give(draft, &batch, user_id, room_key);
                    // Copies for one's own devices give no more time.
                    sent += usize::from(user_id != caller);
                }
                Err(reason) => failed_members.push(FailedMember { user_id, reason }),
            }
        }
        for Withheld { user_id, reason: _ } in withheld.unwrap_or_default() {
            match self.may_receive(&batch, user_id) {
                Ok(()) if user_id != caller => self.withhold(draft, &batch, user_id),
                Ok(()) => failed_members.push(FailedMember { user_id, reason: ErrorCode::InvalidArgument }),
                Err(reason) => failed_members.push(FailedMember { user_id, reason }),
            }
        }
        self.batch_done(draft, &batch, sent);
        Ok(Reply::RoomKeys { failed_members })
    }

    /// Which keys the caller may give at all.
    fn keys_of(&self, draft: &Draft, caller: UserId) -> Result<OwnKeys, Refusal> {
        let member = self.member(caller, draft.now)?;
        let keys = self.require_e2ee()?;
        let current = keys.current.as_ref().map(|current| current.epoch);
        let rotating = self.rotation().filter(|rotation| rotation.rotator == caller).map(|rotation| rotation.epoch);
        let held = current.filter(|epoch| member.keys.has(*epoch));
        if rotating.is_none() && held.is_none() {
            return Err(not_a_holder());
        }
        Ok(OwnKeys { rotating, held, current })
    }

    /// Which of them is meant.
    fn batch(
        sender: UserId,
        mine: &OwnKeys,
        key_epoch: Option<KeyEpoch>,
        key_check: Option<Base64Text>,
        signature: Option<Base64Text>,
    ) -> Result<Batch, Refusal> {
        let OwnKeys { rotating, held, current } = *mine;
        let epoch = match key_epoch {
            None => rotating.or(held),
            Some(epoch) if current == Some(epoch) && held.is_none() => return Err(not_a_holder()),
            Some(epoch) => [rotating, held].into_iter().flatten().find(|mine| *mine == epoch),
        };
        let Some(epoch) = epoch else { return Err(Refusal::stale_room_key(current)) };
        Ok(Batch { sender, epoch, next: rotating == Some(epoch), key_check, signature })
    }

    fn may_receive(&self, batch: &Batch, user_id: UserId) -> Result<(), ErrorCode> {
        let Some(member) = self.members.get(&user_id) else { return Err(ErrorCode::NotFound) };
        if user_id != batch.sender && member.keys.has(batch.epoch) {
            return Err(ErrorCode::AlreadyExists);
        }
        Ok(())
    }

    /// One number, one key: the first check value of an epoch stands.
    fn settle_key_check(&mut self, draft: &mut Draft, batch: &Batch) -> Result<(), Refusal> {
        let stands = if batch.next {
            self.rotation_mut().map(|rotation| &mut rotation.key_check)
        } else {
            self.key_state_mut().and_then(|keys| keys.current.as_mut()).map(|current| &mut current.key_check)
        };
        let Some(stands) = stands else { return Ok(()) };
        match (&*stands, &batch.key_check) {
            (Some(first), Some(given)) if first != given => {
                Err(Refusal::new(ErrorCode::KeyMismatch, "key_check: another check value stands for this epoch"))
            }
            (None, Some(given)) => {
                *stands = Some(given.clone());
                draft.head_changed = true;
                Ok(())
            }
            (Some(_) | None, None) | (Some(_), Some(_)) => Ok(()),
        }
    }

    /// The check value that goes with an epoch's keys.
    fn standing_key_check(&self, epoch: KeyEpoch) -> Option<Base64Text> {
        let keys = self.key_state()?;
        match (self.rotation(), &keys.current) {
            (Some(rotation), _) if rotation.epoch == epoch => rotation.key_check.clone(),
            (_, Some(current)) if current.epoch == epoch => current.key_check.clone(),
            (Some(_) | None, Some(_) | None) => None,
        }
    }

    fn give(&mut self, draft: &mut Draft, batch: &Batch, user_id: UserId, room_key: Base64Text) {
        let Batch { sender, epoch, signature, .. } = batch;
        let key_check = self.standing_key_check(*epoch);
        let stored = StoredKey {
            user_id,
            epoch: *epoch,
            sender: *sender,
            room_key: room_key.clone(),
            key_check: key_check.clone(),
            signature: signature.clone(),
        };
        draft.push(Change::PutRoomKey(stored));
        let body = NoticeBody::ReceiveRoomKeyNotification {
            session_id: self.head.session_id,
            user_id: *sender,
            room_key,
            key_epoch: *epoch,
            key_check,
            signature: signature.clone(),
        };
        let notice = self.notify(draft, user_id, body, None);
        if user_id != *sender {
            self.now_has(user_id, *epoch);
        } else if batch.next {
            self.rotator_has(draft, user_id, *epoch);
        }
        self.remember_notice(draft, user_id, *epoch, notice);
    }

    /// The rotator sends the new key to their own other devices; a later copy stands for an earlier one.
    fn rotator_has(&mut self, draft: &mut Draft, rotator: UserId, epoch: KeyEpoch) {
        let current = self.current_epoch();
        let Some(member) = self.members.get_mut(&rotator) else { return };
        if member.keys.sent == Some(epoch) {
            draft.changes.extend(member.keys.notice.take().map(|notice| Change::Withdraw(rotator, vec![notice])));
        }
        member.keys.take_next(epoch, current);
    }

    /// Keeps the name of the inbox event that holds a member's key. One with the key of a rotation under way is not
    /// forgotten for one with the current key: a void takes it back.
    pub(super) fn remember_notice(&mut self, draft: &mut Draft, user_id: UserId, epoch: KeyEpoch, notice: InboxId) {
        let next = self.rotation().map(|rotation| rotation.epoch);
        let Some(member) = self.members.get_mut(&user_id) else { return };
        if next == Some(epoch) || next.is_none() || member.keys.sent != next {
            member.keys.notice = Some(notice);
        }
        self.put_member(draft, user_id);
    }

    /// Notes that a member was given the key of the current or the next epoch.
    pub(super) fn now_has(&mut self, user_id: UserId, epoch: KeyEpoch) {
        let current = self.current_epoch();
        let Some(member) = self.members.get_mut(&user_id) else { return };
        let keys = &mut member.keys;
        if current == Some(epoch) {
            keys.held = Some(epoch);
            keys.withheld_by.clear();
            self.without_key.remove(&user_id);
            keys.exposed = keys.exposed.max(Some(epoch));
        } else {
            keys.take_next(epoch, current);
            self.waiting.remove(&user_id);
        }
        if keys.withheld == Some(epoch) {
            keys.withheld = None;
        }
        self.asks.answered(user_id, epoch);
    }

    fn withhold(&mut self, draft: &mut Draft, batch: &Batch, user_id: UserId) {
        if let Some(member) = self.members.get_mut(&user_id) {
            if batch.next {
                member.keys.withheld = Some(batch.epoch);
                self.waiting.remove(&user_id);
            } else if !member.keys.withheld_by.contains(&batch.sender)
                && member.keys.withheld_by.len() < MAX_WITHHELD_BY
            {
                member.keys.withheld_by.push(batch.sender);
            }
        }
        self.asks.answered(user_id, batch.epoch);
        self.put_member(draft, user_id);
    }

    fn batch_done(&mut self, draft: &mut Draft, batch: &Batch, sent: usize) {
        if !batch.next {
            return;
        }
        self.extend_deadline(draft, sent);
        if let Some(rotation) = self.rotation_mut() {
            rotation.started = true;
        }
        self.finish_if_complete(draft);
    }

    pub(super) fn request_room_key(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        _reason: LostReason,
    ) -> Result<Reply, Refusal> {
        self.member(caller, draft.now)?;
        self.require_e2ee()?;
        self.limit_key_requests(draft, caller)?;
        self.lose_key(draft, caller);
        Ok(Reply::Done {})
    }

    fn limit_key_requests(&mut self, draft: &Draft, caller: UserId) -> Result<(), Refusal> {
        const MINUTE: i64 = 60_000;
        let now = draft.now;
        self.key_requests.retain(|_, (since, _)| now.millis_since(*since) < MINUTE);
        let (since, count) = self.key_requests.entry(caller).or_insert((now, 0));
        if *count >= self.rules.key_requests_per_minute {
            let wait = MINUTE - now.millis_since(*since);
            return Err(Refusal::rate_limited("the room key was asked for too often", wait.unsigned_abs()));
        }
        *count += 1;
        Ok(())
    }

    /// A member counts as without the current key, and without the next one that they may have been sent.
    pub(super) fn lose_key(&mut self, draft: &mut Draft, user_id: UserId) {
        let current = self.current_epoch();
        let rotating = self.rotation().map(|rotation| (rotation.epoch, rotation.rotator));
        let Some(member) = self.members.get_mut(&user_id) else { return };
        let keys = &mut member.keys;
        keys.held = None;
        keys.withheld_by.clear();
        if let Some((epoch, rotator)) = rotating
            && user_id == rotator
        {
            // The next key is the rotator's own: what they lost is the current one.
            keys.sent.take_if(|sent| *sent != epoch);
        } else {
            draft.changes.extend(keys.notice.take().map(|notice| Change::Withdraw(user_id, vec![notice])));
            let sent = keys.sent.take();
            if let Some((epoch, _)) = rotating {
                if sent == Some(epoch) {
                    draft.push(Change::DropRoomKey(user_id, epoch));
                }
                keys.withheld = None;
                self.waiting.insert(user_id);
                self.asks.forget(user_id, epoch);
            }
        }
        self.put_member(draft, user_id);
        draft.head_changed = true;
        if let Some(current) = current {
            self.without_key.insert(user_id);
            self.asks.forget(user_id, current);
            self.asks.forget_asked_of(user_id, current);
            if self.holders().next().is_none() {
                self.mark(draft, MarkReason::NoHolder);
            }
        }
    }

    /// A member's account has a new public key: what was wrapped for the old one no longer counts.
    pub(super) fn public_key_changed(&mut self, draft: &mut Draft, user_id: UserId, fingerprint: String) {
        if !self.members.contains_key(&user_id) {
            return;
        }
        self.emit(draft, Some(user_id), PublicKeyChanged { user_id, fingerprint });
        if self.key_state().is_some() {
            self.lose_key(draft, user_id);
        }
    }
}
