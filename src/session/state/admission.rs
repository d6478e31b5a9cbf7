//! Who comes in: join requests, invitations, and what both end in.

use crate::protocol::{
    AcceptJoinSessionApproval, AllowUserJoinSession, Base64Text, ErrorCode, InviteUserToSession, JoinPolicy,
    JoinStatus, KeyEpoch, MemberJoined, NoticeBody, Refusal, Reply, Role, UserId,
};

use super::decision::Draft;
use super::{Change, Declined, Invitation, JoinRequest, MarkReason, Member, MemberKeys, SessionState, StoredKey};

/// How many answers that were "no" are remembered.
const DECLINED: usize = 64;

/// A room key that an approver gives an applicant.
struct GivenKey {
    epoch: KeyEpoch,
    room_key: Base64Text,
    signature: Option<Base64Text>,
}

impl SessionState {
    pub(super) fn join(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        leave_message: Option<String>,
        public_key: String,
    ) -> Result<Reply, Refusal> {
        self.not_banned(caller, draft.now)?;
        if self.members.contains_key(&caller) {
            return Ok(Reply::Join { status: JoinStatus::Joined });
        }
        match self.head.join_policy {
            JoinPolicy::Open => {
                self.room_for_one_more()?;
                self.admit(draft, caller, caller);
                return Ok(Reply::Join { status: JoinStatus::Joined });
            }
            JoinPolicy::Closed => {
                return Err(Refusal::new(ErrorCode::PermissionDenied, "this session is closed: by invitation only"));
            }
            JoinPolicy::Approval => {}
        }
        if self.join_requests.contains_key(&caller) {
            return Ok(Reply::Join { status: JoinStatus::Pending });
        }
        if self.join_requests.len() >= self.rules.max_open {
            return Err(Refusal::new(ErrorCode::Overloaded, "too many join requests are open in this session"));
        }
        self.forget_declined(draft, caller, None);
        let mut request =
            JoinRequest { user_id: caller, leave_message, public_key, time: draft.now, notices: Vec::new() };
        for approver in self.approvers() {
            let notice = self.notify(draft, approver, self.approval_body(&request), None);
            request.notices.push((approver, notice));
        }
        draft.push(Change::PutJoinRequest(request.clone()));
        self.join_requests.insert(caller, request);
        Ok(Reply::Join { status: JoinStatus::Pending })
    }

    pub(super) fn allow(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        body: AllowUserJoinSession,
    ) -> Result<Reply, Refusal> {
        self.member_at_least(caller, draft.now, Role::Admin)?;
        let AllowUserJoinSession { user_id, accepted, .. } = body;
        if !self.join_requests.contains_key(&user_id) {
            let holds = if accepted { self.members.contains_key(&user_id) } else { self.was_declined(user_id, None) };
            if holds {
                return Ok(Reply::Done {});
            }
            return Err(Refusal::new(ErrorCode::NotFound, "user_id: they have no open join request"));
        }
        let session_id = self.head.session_id;
        if !accepted {
            self.close_join_request(draft, user_id);
            self.remember_declined(draft, user_id, None);
            let body = NoticeBody::AllowUserJoinSessionNotification {
                session_id,
                user_id: caller,
                accepted,
                room_key: None,
                key_epoch: None,
                key_check: None,
                signature: None,
            };
            self.notify(draft, user_id, body, None);
            return Ok(Reply::Done {});
        }
        self.room_for_one_more()?;
        let key = self.key_given_by(draft, caller, body)?;
        self.admit_with_key(draft, caller, user_id, key);
        Ok(Reply::Done {})
    }

    /// The room key that goes with an approval: required of who holds it, refused of who does not.
    fn key_given_by(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        body: AllowUserJoinSession,
    ) -> Result<Option<GivenKey>, Refusal> {
        let AllowUserJoinSession { room_key, key_epoch, key_check, signature, .. } = body;
        let Some(keys) = self.key_state() else {
            return match room_key {
                Some(_) => Err(Refusal::new(ErrorCode::E2eeNotOn, "room_key: the session is plain")),
                None => Ok(None),
            };
        };
        let current = keys.current.as_ref().map(|current| (current.epoch, current.key_check.clone()));
        let holds = current.filter(|(epoch, _)| self.members.get(&caller).is_some_and(|one| one.keys.has(*epoch)));
        match (holds, room_key) {
            (None, None) => Ok(None),
            (None, Some(_)) => {
                Err(Refusal::new(ErrorCode::PermissionDenied, "room_key: only a holder of the current key may give it"))
            }
            (Some(_), None) => {
                Err(Refusal::new(ErrorCode::RoomKeyRequired, "room_key: expected the current key for the applicant"))
            }
            (Some((epoch, stands)), Some(room_key)) => {
                if key_epoch.is_some_and(|given| given != epoch) {
                    return Err(Refusal::stale_room_key(Some(epoch)));
                }
                match (stands, key_check) {
                    (Some(first), Some(given)) if first != given => {
                        let message = "key_check: another check value stands for this epoch";
                        return Err(Refusal::new(ErrorCode::KeyMismatch, message));
                    }
                    (None, Some(given)) => {
                        if let Some(current) = self.key_state_mut().and_then(|keys| keys.current.as_mut()) {
                            current.key_check = Some(given);
                            draft.head_changed = true;
                        }
                    }
                    (Some(_) | None, None) | (Some(_), Some(_)) => {}
                }
                Ok(Some(GivenKey { epoch, room_key, signature }))
            }
        }
    }

    fn admit_with_key(&mut self, draft: &mut Draft, approver: UserId, user_id: UserId, key: Option<GivenKey>) {
        let session_id = self.head.session_id;
        let key_check = key.as_ref().and_then(|_| self.key_state()?.current.as_ref()?.key_check.clone());
        self.admit(draft, user_id, approver);
        let (room_key, key_epoch, signature) = match key {
            Some(GivenKey { epoch, room_key, signature }) => (Some(room_key), Some(epoch), signature),
            None => (None, None, None),
        };
        let body = NoticeBody::AllowUserJoinSessionNotification {
            session_id,
            user_id: approver,
            accepted: true,
            room_key: room_key.clone(),
            key_epoch,
            key_check: key_check.clone(),
            signature: signature.clone(),
        };
        let notice = self.notify(draft, user_id, body, None);
        if let (Some(room_key), Some(epoch)) = (room_key, key_epoch) {
            let sender = approver;
            draft.push(Change::PutRoomKey(StoredKey { user_id, epoch, sender, room_key, key_check, signature }));
            self.now_has(user_id, epoch);
            self.remember_notice(draft, user_id, epoch, notice);
        }
    }

    pub(super) fn invite(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        body: InviteUserToSession,
        known: bool,
    ) -> Result<Reply, Refusal> {
        match self.head.join_policy {
            JoinPolicy::Closed => self.member_at_least(caller, draft.now, Role::Admin)?,
            JoinPolicy::Approval | JoinPolicy::Open => self.member(caller, draft.now)?,
        };
        let InviteUserToSession { invitee, leave_message, session_id: _ } = body;
        if !known {
            return Err(Refusal::new(ErrorCode::NotFound, "invitee: there is no such user"));
        }
        if self.members.contains_key(&invitee) {
            return Err(Refusal::new(ErrorCode::AlreadyExists, "invitee: they are a member"));
        }
        if self.is_banned(invitee, draft.now) {
            return Err(Refusal::new(ErrorCode::Banned, "invitee: they are banned from this session"));
        }
        let standing = self.invitations.get(&(invitee, caller)).filter(|one| !one.lapsed && draft.now < one.expires_at);
        if standing.is_some() {
            return Ok(Reply::Done {});
        }
        let over = |one: &&Invitation| one.lapsed || one.expires_at <= draft.now;
        let full = self.invitations.len() >= self.rules.max_open;
        if full && !self.invitations.values().any(|one| over(&one)) {
            return Err(Refusal::new(ErrorCode::Overloaded, "too many invitations are open in this session"));
        }
        self.forget_lapsed(draft);
        self.open_invitation(draft, caller, invitee, leave_message);
        Ok(Reply::Done {})
    }

    pub(super) fn open_invitation(
        &mut self,
        draft: &mut Draft,
        inviter: UserId,
        invitee: UserId,
        leave_message: Option<String>,
    ) {
        let expires_at = draft.now.plus_millis(self.rules.invitation_lifetime_ms);
        self.forget_declined(draft, invitee, Some(inviter));
        let body = NoticeBody::InviteUserToSession {
            session_id: self.head.session_id,
            inviter_id: inviter,
            leave_message,
            expire_timestamp: expires_at,
        };
        let notice = self.notify(draft, invitee, body, Some(expires_at));
        let invitation = Invitation { invitee, inviter, expires_at, lapsed: false, notice };
        draft.push(Change::PutInvitation(invitation.clone()));
        self.invitations.insert((invitee, inviter), invitation);
    }

    /// Invitations that lapsed are kept for a while, to be answered with `expired`; they make room for new ones.
    fn forget_lapsed(&mut self, draft: &mut Draft) {
        if self.invitations.len() < self.rules.max_open {
            return;
        }
        let over = |one: &Invitation| one.lapsed || one.expires_at <= draft.now;
        let gone: Vec<_> = self.invitations.iter().filter(|(_, one)| over(one)).map(|(key, _)| *key).collect();
        for (invitee, inviter) in gone {
            self.invitations.remove(&(invitee, inviter));
            draft.push(Change::RemoveInvitation(invitee, inviter));
        }
    }

    pub(super) fn accept(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        body: &AcceptJoinSessionApproval,
        public_key: String,
    ) -> Result<Reply, Refusal> {
        self.not_banned(caller, draft.now)?;
        let AcceptJoinSessionApproval { inviter_id: inviter, accepted, session_id } = *body;
        let Some(invitation) = self.invitations.get(&(caller, inviter)) else {
            let holds =
                if accepted { self.members.contains_key(&caller) } else { self.was_declined(caller, Some(inviter)) };
            if holds {
                return Ok(Reply::Done {});
            }
            let invited = self.invitations.keys().any(|(invitee, _)| *invitee == caller);
            if !invited && !self.members.contains_key(&caller) {
                return Err(Refusal::not_a_member());
            }
            return Err(Refusal::new(ErrorCode::NotFound, "inviter_id: there is no invitation by them"));
        };
        if invitation.lapsed || invitation.expires_at <= draft.now {
            return Err(Refusal::new(ErrorCode::Expired, "inviter_id: the invitation has lapsed"));
        }
        if accepted {
            self.room_for_one_more()?;
        }
        let notice = invitation.notice.clone();
        self.invitations.remove(&(caller, inviter));
        draft.push(Change::RemoveInvitation(caller, inviter));
        draft.push(Change::Withdraw(caller, vec![notice]));
        if accepted {
            self.admit(draft, caller, caller);
        } else {
            self.remember_declined(draft, caller, Some(inviter));
        }
        let body = NoticeBody::AcceptSessionNotification {
            session_id,
            invitee_id: caller,
            accepted,
            public_key: self.key_state().map(|_| public_key),
            key_epoch: self.current_epoch(),
        };
        self.notify(draft, inviter, body, None);
        Ok(Reply::Done {})
    }

    fn room_for_one_more(&self) -> Result<(), Refusal> {
        if self.members.len() >= self.rules.max_members {
            return Err(Refusal::new(ErrorCode::TooLarge, "the session has as many members as it may"));
        }
        Ok(())
    }

    /// Makes a user a member: plain, without any key, and with nothing left open that led here.
    fn admit(&mut self, draft: &mut Draft, user_id: UserId, by: UserId) {
        self.close_join_request(draft, user_id);
        self.close_invitations_of(draft, user_id);
        self.head.declined.retain(|one| one.user_id != user_id);
        let first_seq = self.last_seq + 1;
        let member =
            Member { user_id, role: Role::Member, joined_at: draft.now, first_seq, keys: MemberKeys::default() };
        draft.push(Change::PutMember(member.clone()));
        self.members.insert(user_id, member);
        self.emit(draft, Some(by), MemberJoined { user_id, role: Role::Member });
        if self.current_epoch().is_some() {
            self.without_key.insert(user_id);
        }
        if self.rotation().is_some() {
            self.waiting.insert(user_id);
            self.extend_deadline(draft, 1);
        } else if self.head.rotate_on_join {
            self.mark(draft, MarkReason::Joined);
        }
        draft.head_changed = true;
    }

    /// A join request is decided, or its user is banned or gone: those who were told of it are told that.
    pub(super) fn close_join_request(&mut self, draft: &mut Draft, user_id: UserId) {
        let Some(request) = self.join_requests.remove(&user_id) else { return };
        draft.push(Change::RemoveJoinRequest(user_id));
        for (approver, notice) in request.notices {
            draft.push(Change::Withdraw(approver, vec![notice]));
        }
    }

    /// All invitations to a user are settled: they are in, or out for good.
    pub(super) fn close_invitations_of(&mut self, draft: &mut Draft, invitee: UserId) {
        let open: Vec<_> = self.invitations.keys().filter(|(to, _)| *to == invitee).copied().collect();
        for key in open {
            if let Some(invitation) = self.invitations.remove(&key) {
                draft.push(Change::RemoveInvitation(key.0, key.1));
                draft.push(Change::Withdraw(invitee, vec![invitation.notice]));
            }
        }
    }

    /// Lapses the invitations that `lapses` names; they are answered with `expired` from now on.
    pub(super) fn lapse_invitations(&mut self, draft: &mut Draft, lapses: impl Fn(&Invitation) -> bool) {
        for invitation in self.invitations.values_mut().filter(|one| !one.lapsed && lapses(one)) {
            invitation.lapsed = true;
            draft.push(Change::PutInvitation(invitation.clone()));
            draft.push(Change::Withdraw(invitation.invitee, vec![invitation.notice.clone()]));
        }
    }

    fn was_declined(&self, user_id: UserId, inviter_id: Option<UserId>) -> bool {
        self.head.declined.contains(&Declined { user_id, inviter_id })
    }

    fn remember_declined(&mut self, draft: &mut Draft, user_id: UserId, inviter_id: Option<UserId>) {
        if self.head.declined.len() >= DECLINED {
            self.head.declined.remove(0);
        }
        self.head.declined.push(Declined { user_id, inviter_id });
        draft.head_changed = true;
    }

    fn forget_declined(&mut self, draft: &mut Draft, user_id: UserId, inviter_id: Option<UserId>) {
        let before = self.head.declined.len();
        self.head.declined.retain(|one| *one != Declined { user_id, inviter_id });
        draft.head_changed |= self.head.declined.len() != before;
    }
}
