//! The replacement of the room key: marking, and the rotation as a lease on the next epoch.
//!
//! `Steady → Marked → Rotating → Steady`, or back to `Marked` when a rotation is void. Only a finished rotation clears
//! the mark. A void rotation's number is spent: its stored keys and asks go in the same decision.

use std::collections::BTreeSet;

use crate::protocol::{KeyEpoch, RoomKeyRotated, UserId};

use super::decision::Draft;
use super::{Change, CurrentKey, MarkReason, Online, PassedOver, Phase, Rotation, SessionState};

/// How often the time for which somebody is passed over doubles: from half a minute to some eight hours.
const MAX_DOUBLINGS: u32 = 10;

impl SessionState {
    /// What time alone does: the key's age, the rotation's deadline, who need no longer be passed over.
    pub(super) fn pass_time(&mut self, draft: &mut Draft, online: Online<'_>) {
        if self.head.ended {
            return;
        }
        let now = draft.now;
        if self.key_age_due().is_some_and(|due| due <= now) {
            self.mark_if_steady(draft, MarkReason::Age);
        }
        if self.rotation().is_some_and(|rotation| rotation.deadline <= now) {
            self.deadline_passed(draft, online);
        }
    }

    /// When the state should be asked again though nobody commands it.
    pub fn next_wakeup(&self) -> Option<crate::protocol::Timestamp> {
        if self.head.ended {
            return None;
        }
        let deadline = self.rotation().map(|rotation| rotation.deadline);
        let retry = self.current_epoch().and_then(|epoch| self.asks.next_retry(epoch));
        [self.key_age_due(), deadline, retry].into_iter().flatten().min()
    }

    fn key_age_due(&self) -> Option<crate::protocol::Timestamp> {
        let keys = self.key_state()?;
        match &keys.phase {
            Phase::Steady => {
                keys.current.as_ref().map(|current| current.since.plus_millis(self.rules.room_key_lifetime_ms))
            }
            Phase::Marked { .. } | Phase::Rotating(_) => None,
        }
    }

    /// Marks the session, unless it is being rotated: then the new key, or the void, covers it.
    pub(super) fn mark(&mut self, draft: &mut Draft, reason: MarkReason) {
        let Some(keys) = self.key_state_mut() else { return };
        let changed = match &mut keys.phase {
            Phase::Steady => {
                keys.phase = Phase::Marked { reasons: BTreeSet::from([reason]) };
                true
            }
            Phase::Marked { reasons } => reasons.insert(reason),
            Phase::Rotating(_) => false,
        };
        draft.head_changed |= changed;
    }

    /// Marks for a reason that says nothing new about a session that is marked.
    pub(super) fn mark_if_steady(&mut self, draft: &mut Draft, reason: MarkReason) {
        if matches!(self.key_state().map(|keys| &keys.phase), Some(Phase::Steady)) {
            self.mark(draft, reason);
        }
    }

    /// Makes a speaker the rotator, unless somebody is already or they let one lapse lately.
    pub(super) fn begin_rotation_by_speaker(&mut self, draft: &mut Draft, speaker: UserId) {
        let passed_over = self.head.passed_over.get(&speaker).is_some_and(|passed| draft.now < passed.until);
        if self.rotation().is_none() && self.key_state().is_some() && !passed_over {
            self.begin_rotation(draft, speaker);
        }
    }

    /// Leases the next epoch to `rotator`; its number.
    pub(super) fn begin_rotation(&mut self, draft: &mut Draft, rotator: UserId) -> KeyEpoch {
        let others = self.members.len().saturating_sub(1);
        let deadline = draft.now.plus_millis(self.time_for(others));
        let since = draft.now;
        let epoch = self.spend_epoch().expect("only encrypted sessions are rotated");
        if let Some(keys) = self.key_state_mut() {
            let reasons = match std::mem::replace(&mut keys.phase, Phase::Steady) {
                Phase::Marked { reasons } => reasons,
                Phase::Steady | Phase::Rotating(_) => BTreeSet::new(),
            };
            keys.phase =
                Phase::Rotating(Rotation { epoch, rotator, key_check: None, started: false, deadline, reasons, since });
        }
        draft.head_changed = true;
        self.derive_waiting();
        epoch
    }

    fn time_for(&self, members: usize) -> i64 {
        let members = i64::try_from(members).unwrap_or(i64::MAX);
        let per_member = self.rules.rotation_deadline_per_member_ms.saturating_mul(members);
        self.rules.rotation_deadline_ms.saturating_add(per_member)
    }

    /// Gives the rotator the time that so many more keys take.
    pub(super) fn extend_deadline(&mut self, draft: &mut Draft, keys: usize) {
        let more = self.rules.rotation_deadline_per_member_ms.saturating_mul(i64::try_from(keys).unwrap_or(i64::MAX));
        if let Some(rotation) = self.rotation_mut() {
            rotation.deadline = rotation.deadline.plus_millis(more);
            draft.head_changed = true;
        }
    }

    /// Ends the rotation if it was started and waits for nobody: the new key is the current one.
    pub(super) fn finish_if_complete(&mut self, draft: &mut Draft) {
        let Some(rotation) = self.rotation().filter(|rotation| rotation.started && self.waiting.is_empty()) else {
            return;
        };
        let Rotation { epoch, rotator, key_check, .. } = rotation.clone();
        let current = self.current_epoch();
        if let Some(member) = self.members.get_mut(&rotator) {
            member.keys.take_next(epoch, current);
        }
        self.put_member(draft, rotator);
        let since = draft.now;
        if let Some(keys) = self.key_state_mut() {
            keys.current = Some(CurrentKey { epoch, key_check: key_check.clone(), since });
            keys.phase = Phase::Steady;
        }
        self.key_messages = 0;
        self.head.passed_over.remove(&rotator);
        draft.head_changed = true;
        self.derive_coverage();
        self.asks.keep_epoch(epoch);
        for withheld in self.without_key.clone() {
            if let Some(member) = self.members.get_mut(&withheld) {
                member.keys.withheld_by = vec![rotator];
            }
            self.put_member(draft, withheld);
        }
        self.emit(draft, Some(rotator), RoomKeyRotated { key_epoch: epoch, key_check });
    }

    /// The rotation comes to nothing: its number is spent, its keys go, the session is marked.
    pub(super) fn void(&mut self, draft: &mut Draft, reason: MarkReason) {
        let Some(rotation) = self.rotation().cloned() else { return };
        let sent = self.members.values().filter(|member| member.keys.sent == Some(rotation.epoch));
        let notices: Vec<_> =
            sent.filter_map(|member| member.keys.notice.clone().map(|notice| (member.user_id, notice))).collect();
        for (user_id, notice) in notices {
            draft.push(Change::Withdraw(user_id, vec![notice]));
        }
        draft.push(Change::DropEpoch(rotation.epoch));
        let mut reasons = rotation.reasons;
        reasons.insert(MarkReason::Void);
        reasons.insert(reason);
        if let Some(keys) = self.key_state_mut() {
            keys.phase = Phase::Marked { reasons };
        }
        draft.head_changed = true;
        self.waiting.clear();
        self.asks.forget_epoch(rotation.epoch);
    }

    /// Another connected member who was sent the new key goes on, or the rotation is void. Who let it lapse is passed
    /// over for a time that doubles.
    fn deadline_passed(&mut self, draft: &mut Draft, online: Online<'_>) {
        let Some(Rotation { epoch, rotator, .. }) = self.rotation().cloned() else { return };
        self.pass_over(draft, rotator);
        let next = self
            .members
            .values()
            .filter(|member| member.user_id != rotator && member.keys.sent == Some(epoch))
            .filter(|member| !self.is_passed_over(member.user_id, draft.now) && online(member.user_id))
            .min_by_key(|member| member.first_seq)
            .map(|member| member.user_id);
        let Some(next) = next else {
            self.void(draft, MarkReason::Void);
            return;
        };
        let current = self.current_epoch();
        // The one who lapsed made the key, or was sent it: they have it all the same.
        if let Some(member) = self.members.get_mut(&rotator) {
            member.keys.take_next(epoch, current);
        }
        self.put_member(draft, rotator);
        let deadline = draft.now.plus_millis(self.time_for(self.waiting.len()));
        if let Some(rotation) = self.rotation_mut() {
            rotation.rotator = next;
            rotation.deadline = deadline;
        }
        self.asks.hand_over(epoch);
        self.derive_waiting();
        self.finish_if_complete(draft);
    }

    fn is_passed_over(&self, user_id: UserId, now: crate::protocol::Timestamp) -> bool {
        self.head.passed_over.get(&user_id).is_some_and(|passed| now < passed.until)
    }

    fn pass_over(&mut self, draft: &mut Draft, user_id: UserId) {
        let times = self.head.passed_over.get(&user_id).map_or(0, |passed| passed.times);
        let wait = self.rules.rotation_deadline_ms.saturating_mul(1 << times.min(MAX_DOUBLINGS));
        let until = draft.now.plus_millis(wait);
        self.head.passed_over.insert(user_id, PassedOver { until, times: times.saturating_add(1) });
        draft.head_changed = true;
    }

    /// A member goes: the rotation goes on without them, or is void if they may know the new key.
    pub(super) fn rotation_without(&mut self, draft: &mut Draft, gone: UserId, exposed: Option<KeyEpoch>) {
        let Some(rotation) = self.rotation() else {
            self.mark(draft, MarkReason::Left);
            return;
        };
        if rotation.rotator == gone || exposed == Some(rotation.epoch) {
            self.void(draft, MarkReason::Left);
        } else {
            self.waiting.remove(&gone);
            self.finish_if_complete(draft);
        }
    }

    /// Works out who lacks what, from the members and the session's head.
    pub(super) fn derive_coverage(&mut self) {
        self.without_key = match self.current_epoch() {
            Some(epoch) => {
                let without = self.members.values().filter(|member| !member.keys.has(epoch));
                without.map(|member| member.user_id).collect()
            }
            None => BTreeSet::new(),
        };
        self.derive_waiting();
    }

    pub(super) fn derive_waiting(&mut self) {
        self.waiting = match self.rotation() {
            Some(Rotation { epoch, rotator, .. }) => {
                let needs = |keys: &super::MemberKeys| keys.sent != Some(*epoch) && keys.withheld != Some(*epoch);
                let waiting = self.members.values().filter(|one| one.user_id != *rotator && needs(&one.keys));
                waiting.map(|member| member.user_id).collect()
            }
            None => BTreeSet::new(),
        };
    }
}
