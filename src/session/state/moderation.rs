//! Who goes, who is kept out or quiet, and who may what.

use crate::protocol::{
    ErrorCode, LeftReason, MemberLeft, MemberRestricted, Refusal, Reply, Role, RoleChanged, SessionDeleted, UserId,
};

use super::decision::Draft;
use super::{Change, Restriction, SessionState, Until};

impl SessionState {
    pub(super) fn leave(&mut self, draft: &mut Draft, caller: UserId, force: bool) -> Result<Reply, Refusal> {
        self.member(caller, draft.now)?;
        let holders: Vec<UserId> = self.holders().map(|holder| holder.user_id).take(2).collect();
        let last_holder = holders == [caller];
        if last_holder && self.members.len() > 1 && !force {
            return Err(Refusal::new(
                ErrorCode::LastKeyHolder,
                "nobody else holds the room key: leave with `force` to leave all the same",
            ));
        }
        self.remove_member(draft, caller, LeftReason::Left, Some(caller));
        Ok(Reply::Done {})
    }

    pub(super) fn delete(&mut self, draft: &mut Draft, caller: UserId) -> Result<Reply, Refusal> {
        self.member_at_least(caller, draft.now, Role::Owner)?;
        self.emit(draft, Some(caller), SessionDeleted {});
        self.end(draft);
        Ok(Reply::Done {})
    }

    pub(super) fn kick(&mut self, draft: &mut Draft, caller: UserId, user_id: UserId) -> Result<Reply, Refusal> {
        let role = self.may_moderate(draft, caller, user_id)?;
        if self.below(role, user_id)? {
            self.remove_member(draft, user_id, LeftReason::Kicked, Some(caller));
        }
        Ok(Reply::Done {})
    }

    pub(super) fn ban(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        user_id: UserId,
        duration_s: Option<u64>,
        known: bool,
    ) -> Result<Reply, Refusal> {
        let role = self.may_moderate(draft, caller, user_id)?;
        let is_member = self.below(role, user_id)?;
        if !is_member && !known {
            return Err(Refusal::new(ErrorCode::NotFound, "user_id: there is no such user"));
        }
        let until = until(draft, duration_s);
        let holds = self.restrictions.get(&user_id).and_then(|one| one.banned) == Some(until);
        if holds && !is_member {
            return Ok(Reply::Done {});
        }
        self.room_for_a_restriction(draft, user_id)?;
        self.close_join_request(draft, user_id);
        self.lapse_invitations(draft, |invitation| invitation.invitee == user_id);
        self.restrict(draft, caller, user_id, |restriction| restriction.banned = Some(until));
        if is_member {
            self.remove_member(draft, user_id, LeftReason::Banned, Some(caller));
        }
        Ok(Reply::Done {})
    }

    pub(super) fn unban(&mut self, draft: &mut Draft, caller: UserId, user_id: UserId) -> Result<Reply, Refusal> {
        let role = self.member_at_least(caller, draft.now, Role::Admin)?.role;
        self.below(role, user_id)?;
        if self.is_banned(user_id, draft.now) {
            self.restrict(draft, caller, user_id, |restriction| restriction.banned = None);
        }
        Ok(Reply::Done {})
    }

    pub(super) fn mute(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        user_id: UserId,
        duration_s: Option<u64>,
    ) -> Result<Reply, Refusal> {
        let role = self.may_moderate(draft, caller, user_id)?;
        if !self.below(role, user_id)? {
            return Err(Refusal::new(ErrorCode::NotFound, "user_id: no such member"));
        }
        let until = until(draft, duration_s);
        if self.restrictions.get(&user_id).and_then(|one| one.muted) != Some(until) {
            self.room_for_a_restriction(draft, user_id)?;
            self.restrict(draft, caller, user_id, |restriction| restriction.muted = Some(until));
        }
        Ok(Reply::Done {})
    }

    pub(super) fn unmute(&mut self, draft: &mut Draft, caller: UserId, user_id: UserId) -> Result<Reply, Refusal> {
        let role = self.member_at_least(caller, draft.now, Role::Admin)?.role;
        self.below(role, user_id)?;
        if self.is_muted(user_id, draft.now) {
            self.restrict(draft, caller, user_id, |restriction| restriction.muted = None);
        }
        Ok(Reply::Done {})
    }

    pub(super) fn set_role(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        user_id: UserId,
        role: Role,
    ) -> Result<Reply, Refusal> {
        not_oneself(caller, user_id)?;
        self.member_at_least(caller, draft.now, Role::Owner)?;
        let Some(member) = self.members.get(&user_id) else {
            return Err(Refusal::new(ErrorCode::NotFound, "user_id: no such member"));
        };
        if member.role == role {
            return Ok(Reply::Done {});
        }
        self.give_role(draft, user_id, role, caller);
        if role == Role::Owner {
            self.give_role(draft, caller, Role::Admin, caller);
        }
        Ok(Reply::Done {})
    }

    fn give_role(&mut self, draft: &mut Draft, user_id: UserId, role: Role, by: UserId) {
        let Some(member) = self.members.get_mut(&user_id) else { return };
        let before = std::mem::replace(&mut member.role, role);
        self.put_member(draft, user_id);
        self.emit(draft, Some(by), RoleChanged { user_id, role });
        match (before >= Role::Admin, role >= Role::Admin) {
            (false, true) => self.tell_of_join_requests(draft, user_id),
            (true, false) => self.untell_of_join_requests(draft, user_id),
            (true, true) | (false, false) => {}
        }
    }

    /// A new owner or admin hears of the requests that are open.
    fn tell_of_join_requests(&mut self, draft: &mut Draft, approver: UserId) {
        let open: Vec<UserId> = self.join_requests.keys().copied().collect();
        for applicant in open {
            let Some(request) = self.join_requests.get(&applicant) else { continue };
            let body = self.approval_body(request);
            let notice = self.notify(draft, approver, body, None);
            if let Some(request) = self.join_requests.get_mut(&applicant) {
                request.notices.push((approver, notice));
                draft.push(Change::PutJoinRequest(request.clone()));
            }
        }
    }

    fn untell_of_join_requests(&mut self, draft: &mut Draft, approver: UserId) {
        for request in self.join_requests.values_mut() {
            let (theirs, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut request.notices).into_iter().partition(|(to, _)| *to == approver);
            request.notices = others;
            if !theirs.is_empty() {
                let notices = theirs.into_iter().map(|(_, notice)| notice).collect();
                draft.push(Change::Withdraw(approver, notices));
                draft.push(Change::PutJoinRequest(request.clone()));
            }
        }
    }

    /// The caller's role, if they may moderate at all and not themselves.
    fn may_moderate(&self, draft: &Draft, caller: UserId, user_id: UserId) -> Result<Role, Refusal> {
        not_oneself(caller, user_id)?;
        self.member_at_least(caller, draft.now, Role::Admin).map(|member| member.role)
    }

    /// Whether the target is a member, who must be of a lower role.
    fn below(&self, role: Role, user_id: UserId) -> Result<bool, Refusal> {
        match self.members.get(&user_id) {
            Some(member) if member.role >= role => {
                Err(Refusal::new(ErrorCode::PermissionDenied, "user_id: they do not stand below the caller"))
            }
            Some(_) => Ok(true),
            None => Ok(false),
        }
    }

    /// As many users may be restricted as may be members; restrictions that are over make room.
    fn room_for_a_restriction(&mut self, draft: &mut Draft, user_id: UserId) -> Result<(), Refusal> {
        let most = self.rules.max_members;
        if self.restrictions.len() < most || self.restrictions.contains_key(&user_id) {
            return Ok(());
        }
        let holds = |until: Option<Until>| until.is_some_and(|until| until.holds(draft.now));
        let over = |one: &Restriction| !holds(one.muted) && !holds(one.banned);
        let gone: Vec<UserId> =
            self.restrictions.iter().filter(|(_, one)| over(one)).map(|(user_id, _)| *user_id).collect();
        if gone.is_empty() {
            return Err(Refusal::new(ErrorCode::Overloaded, "too many users are restricted in this session"));
        }
        for user_id in gone {
            self.restrictions.remove(&user_id);
            draft.push(Change::PutRestriction(user_id, Restriction::default()));
        }
        Ok(())
    }

    /// Changes how a user is restricted, and tells the members.
    fn restrict(&mut self, draft: &mut Draft, by: UserId, user_id: UserId, change: impl FnOnce(&mut Restriction)) {
        let mut restriction = self.restrictions.get(&user_id).copied().unwrap_or_default();
        restriction.muted = restriction.muted.filter(|until| until.holds(draft.now));
        restriction.banned = restriction.banned.filter(|until| until.holds(draft.now));
        change(&mut restriction);
        draft.push(Change::PutRestriction(user_id, restriction));
        if restriction == Restriction::default() {
            self.restrictions.remove(&user_id);
        } else {
            self.restrictions.insert(user_id, restriction);
        }
        let event = MemberRestricted {
            user_id,
            muted: restriction.muted.is_some(),
            muted_until: restriction.muted.and_then(Until::end),
            banned: restriction.banned.is_some(),
            banned_until: restriction.banned.and_then(Until::end),
        };
        self.emit(draft, Some(by), event);
    }

    /// Takes a member out, with all that hung on their membership.
    fn remove_member(&mut self, draft: &mut Draft, user_id: UserId, reason: LeftReason, by: Option<UserId>) {
        self.untell_of_join_requests(draft, user_id);
        self.lapse_invitations(draft, |invitation| invitation.inviter == user_id);
        let Some(member) = self.members.remove(&user_id) else { return };
        self.head.passed_over.remove(&user_id);
        self.key_requests.remove(&user_id);
        self.without_key.remove(&user_id);
        self.asks.forget_member(user_id);
        draft.changes.extend(member.keys.notice.map(|notice| Change::Withdraw(user_id, vec![notice])));
        draft.push(Change::DropKeysOf(user_id));
        draft.push(Change::RemoveMember(user_id, reason));
        self.emit(draft, by, MemberLeft { user_id, reason });
        if self.members.is_empty() {
            self.end(draft);
            return;
        }
        if member.role == Role::Owner {
            self.hand_over(draft, user_id);
        }
        if self.key_state().is_some() {
            self.rotation_without(draft, user_id, member.keys.exposed);
        }
        draft.head_changed = true;
    }

    /// The oldest admin, else the oldest member, owns the session from now on.
    fn hand_over(&mut self, draft: &mut Draft, former: UserId) {
        let heir = self
            .members
            .values()
            .max_by_key(|member| (member.role, std::cmp::Reverse(member.first_seq)))
            .map(|member| member.user_id);
        if let Some(heir) = heir {
            self.give_role(draft, heir, Role::Owner, former);
        }
    }

    /// The session is over: nothing is open in it any more.
    fn end(&mut self, draft: &mut Draft) {
        for applicant in self.join_requests.keys().copied().collect::<Vec<_>>() {
            self.close_join_request(draft, applicant);
        }
        for invitee in self.invitations.keys().map(|(invitee, _)| *invitee).collect::<Vec<_>>() {
            self.close_invitations_of(draft, invitee);
        }
        self.members.clear();
        self.restrictions.clear();
        self.without_key.clear();
        self.waiting.clear();
        self.asks.clear();
        self.recent.clear();
        self.head.ended = true;
        draft.head_changed = true;
        draft.push(Change::End);
    }

    /// An account was closed: its user leaves, and nothing of theirs stays open.
    pub(super) fn account_closed(&mut self, draft: &mut Draft, user_id: UserId) {
        self.close_join_request(draft, user_id);
        self.close_invitations_of(draft, user_id);
        self.remove_member(draft, user_id, LeftReason::Left, Some(user_id));
    }
}

fn not_oneself(caller: UserId, user_id: UserId) -> Result<(), Refusal> {
    if caller == user_id {
        return Err(Refusal::invalid("user_id", "expected another user than oneself"));
    }
    Ok(())
}

fn until(draft: &Draft, duration_s: Option<u64>) -> Until {
    duration_s.map_or(Until::Forever, |secs| Until::At(draft.now.plus_secs(secs)))
}
