//! The invariants of [`SessionState`], as its doc numbers them, each checked.

use std::collections::BTreeSet;

use super::{E2ee, JoinPolicy, Phase, Role, SessionState, asks};
use crate::protocol::{Timestamp, UserId};

impl SessionState {
    /// Panics, with the invariant's number, if one does not hold at `now`. Events (2) are checked by who sees them all.
    pub(super) fn check_invariants(&self, now: Timestamp) {
        if self.head.ended {
            self.check_ended();
            return;
        }
        self.check_people(now);
        self.check_keys();
        self.check_asks();
    }

    fn check_ended(&self) {
        assert!(self.members.is_empty() && self.invitations.is_empty() && self.join_requests.is_empty(), "1");
        assert!(self.without_key.is_empty() && self.waiting.is_empty() && self.asks.iter().next().is_none(), "1");
        assert!(self.is_quiet() && !self.wants_keys() && self.next_wakeup().is_none(), "1: nothing is left to do");
    }

    fn check_people(&self, now: Timestamp) {
        let owners = self.members.values().filter(|member| member.role == Role::Owner).count();
        assert_eq!(owners, 1, "1: exactly one owner");
        assert!(self.members.len() <= self.rules.max_members, "1");
        for (user_id, restriction) in &self.restrictions {
            assert!(restriction.muted.is_some() || restriction.banned.is_some(), "12: no empty restriction");
            if restriction.banned.is_some_and(|until| until.holds(now)) {
                assert!(!self.members.contains_key(user_id), "7: a banned member");
                assert!(!self.join_requests.contains_key(user_id), "7: a banned applicant");
                let open = self.invitations.values().any(|one| one.invitee == *user_id && !one.lapsed);
                assert!(!open, "7: a banned invitee");
            }
        }
        let approvers: BTreeSet<UserId> = self.approvers().into_iter().collect();
        for (user_id, request) in &self.join_requests {
            assert!(!self.members.contains_key(user_id), "7: a member who asks to be let in");
            let told: BTreeSet<UserId> = request.notices.iter().map(|(to, _)| *to).collect();
            assert_eq!(told, approvers, "13: all who may decide were told, and nobody else");
        }
        for one in self.invitations.values() {
            assert!(!self.members.contains_key(&one.invitee), "7: a member who is invited");
            assert!(one.lapsed || self.members.contains_key(&one.inviter), "8: an inviter who is no member");
        }
        assert!(
            self.head.passed_over.keys().all(|user_id| self.members.contains_key(user_id)),
            "14: bounded by members"
        );
        assert!(self.key_requests.keys().all(|user_id| self.members.contains_key(user_id)), "14: bounded by members");
    }

    fn check_keys(&self) {
        let keys = match &self.head.e2ee {
            E2ee::Off { last_epoch } => {
                let highest = self.members.values().filter_map(|member| member.keys.exposed.or(member.keys.held)).max();
                assert!(highest.is_none_or(|epoch| epoch.0 <= *last_epoch), "3: an epoch beyond the last");
                assert!(self.without_key.is_empty() && self.waiting.is_empty(), "4, 5: a plain session waits for none");
                return;
            }
            E2ee::On(keys) => keys,
        };
        assert_ne!(self.head.join_policy, JoinPolicy::Open, "10: an open encrypted session");
        let mut live = self.clone();
        live.derive_coverage();
        assert_eq!(live.without_key, self.without_key, "4: who lacks the current key");
        assert_eq!(live.waiting, self.waiting, "5: whom the rotation waits for");
        let current = keys.current.as_ref().map(|current| current.epoch);
        let rotating = self.rotation().map(|rotation| rotation.epoch);
        for epoch in [current, rotating].into_iter().flatten() {
            assert!(epoch.0 <= keys.last_epoch, "3: an epoch beyond the last");
        }
        assert!(rotating.is_none_or(|next| current.is_none_or(|now| now < next)), "3: the next epoch is not higher");
        for member in self.members.values() {
            for epoch in [member.keys.held, member.keys.sent, member.keys.exposed].into_iter().flatten() {
                assert!(epoch.0 <= keys.last_epoch, "3: a key of an epoch beyond the last");
            }
            if let Some(next) = rotating.filter(|next| member.keys.has(*next)) {
                assert_eq!(member.keys.exposed, Some(next), "15: whoever was sent a key may know it");
            }
        }
        match &keys.phase {
            Phase::Steady => assert!(self.holders().next().is_some(), "11: a steady session has a holder"),
            Phase::Marked { reasons } => assert!(!reasons.is_empty(), "11: a mark has a reason"),
            Phase::Rotating(rotation) => {
                assert!(self.members.contains_key(&rotation.rotator), "11: the rotator is a member");
                assert!(!rotation.started || !self.waiting.is_empty(), "6: a rotation that waits for nobody is over");
            }
        }
    }

    fn check_asks(&self) {
        assert!(self.asks.iter().count() <= asks::MAX_OPEN, "9: too many asks");
        let current = self.current_epoch();
        for (member, epoch, to) in self.asks.iter() {
            assert!(self.members.contains_key(&to), "9: a stranger is asked");
            if current == Some(epoch) {
                assert!(self.without_key.contains(&member), "9: asked for a member who has the key");
                assert!(!self.without_key.contains(&to), "9: a member is asked for a key that they lack");
            } else {
                let rotation = self.rotation().expect("9: an ask for an epoch that is neither current nor next");
                assert_eq!((epoch, to), (rotation.epoch, rotation.rotator), "9");
                assert!(self.waiting.contains(&member), "9: asked for a member who is not waited for");
            }
        }
    }
}
