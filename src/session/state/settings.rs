//! What the session is: its name and policies, and whether it is encrypted.

use crate::protocol::{
    ErrorCode, JoinPolicy, KeyEpoch, Refusal, Reply, Role, SessionE2eeChanged, SessionInfoChanged, SetSessionInfo,
    UserId,
};

use super::decision::Draft;
use super::{E2ee, KeyState, MarkReason, Phase, SessionState};

impl SessionState {
    pub(super) fn set_info(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        body: SetSessionInfo,
    ) -> Result<Reply, Refusal> {
        self.member_at_least(caller, draft.now, Role::Admin)?;
        if body.join_policy == Some(JoinPolicy::Open) && self.key_state().is_some() {
            return Err(Refusal::invalid("join_policy", "expected `approval` or `closed` in an encrypted session"));
        }
        let SetSessionInfo { name, description, require_encryption, rotate_on_join, join_policy, session_id: _ } = body;
        let head = &mut self.head;
        let changed = SessionInfoChanged {
            name: name.filter(|name| head.name.as_deref().unwrap_or_default() != name),
            description: description.filter(|text| head.description.as_deref().unwrap_or_default() != text),
            require_encryption: require_encryption.filter(|on| *on != head.require_encryption),
            rotate_on_join: rotate_on_join.filter(|on| *on != head.rotate_on_join),
            join_policy: join_policy.filter(|policy| *policy != head.join_policy),
        };
        let nothing = SessionInfoChanged {
            name: None,
            description: None,
            require_encryption: None,
            rotate_on_join: None,
            join_policy: None,
        };
        if changed == nothing {
            return Ok(Reply::Done {});
        }
        let emptied = |text: &String| (!text.is_empty()).then(|| text.clone());
        if let Some(name) = &changed.name {
            head.name = emptied(name);
        }
        if let Some(description) = &changed.description {
            head.description = emptied(description);
        }
        head.require_encryption = changed.require_encryption.unwrap_or(head.require_encryption);
        head.rotate_on_join = changed.rotate_on_join.unwrap_or(head.rotate_on_join);
        head.join_policy = changed.join_policy.unwrap_or(head.join_policy);
        draft.head_changed = true;
        self.emit(draft, Some(caller), changed);
        Ok(Reply::Done {})
    }

    /// Switches encryption on, or replaces the room key now; either way the caller makes the key.
    pub(super) fn e2eeize(&mut self, draft: &mut Draft, caller: UserId) -> Result<Reply, Refusal> {
        self.member_at_least(caller, draft.now, Role::Owner)?;
        match &self.head.e2ee {
            E2ee::Off { last_epoch } => {
                let last_epoch = *last_epoch;
                self.head.e2ee = E2ee::On(KeyState { current: None, last_epoch, phase: Phase::Steady });
                self.key_messages = 0;
                self.emit(draft, Some(caller), SessionE2eeChanged { e2ee_on: true });
                if self.head.join_policy == JoinPolicy::Open {
                    self.head.join_policy = JoinPolicy::Approval;
                    let changed = SessionInfoChanged {
                        name: None,
                        description: None,
                        require_encryption: None,
                        rotate_on_join: None,
                        join_policy: Some(JoinPolicy::Approval),
                    };
                    self.emit(draft, Some(caller), changed);
                }
                self.derive_coverage();
            }
            E2ee::On(KeyState { phase: Phase::Rotating(rotation), .. }) if rotation.rotator == caller => {
                let epoch = rotation.epoch;
                self.asks.forget_epoch(epoch);
                return Ok(Reply::E2eeized { key_epoch: epoch });
            }
            E2ee::On(KeyState { phase: Phase::Rotating(_), .. }) => self.void(draft, MarkReason::Void),
            E2ee::On(KeyState { phase: Phase::Steady | Phase::Marked { .. }, .. }) => {}
        }
        let key_epoch = self.begin_rotation(draft, caller);
        Ok(Reply::E2eeized { key_epoch })
    }

    pub(super) fn dee2eeize(&mut self, draft: &mut Draft, caller: UserId) -> Result<Reply, Refusal> {
        self.member_at_least(caller, draft.now, Role::Owner)?;
        let Some(keys) = self.key_state() else { return Ok(Reply::Done {}) };
        let last_epoch = keys.last_epoch;
        if self.rotation().is_some() {
            self.void(draft, MarkReason::Void);
        }
        self.head.e2ee = E2ee::Off { last_epoch };
        self.head.passed_over.clear();
        self.key_messages = 0;
        draft.head_changed = true;
        self.derive_coverage();
        self.asks.clear();
        self.emit(draft, Some(caller), SessionE2eeChanged { e2ee_on: false });
        Ok(Reply::Done {})
    }

    /// The next epoch, given out for good.
    pub(super) fn spend_epoch(&mut self) -> Option<KeyEpoch> {
        let keys = self.key_state_mut()?;
        keys.last_epoch += 1;
        Some(KeyEpoch(keys.last_epoch))
    }

    /// An epoch in use, for `key_epoch` fields of replies and notices.
    pub(super) fn require_e2ee(&self) -> Result<&KeyState, Refusal> {
        self.key_state().ok_or_else(|| Refusal::new(ErrorCode::E2eeNotOn, "the session is plain"))
    }
}
