//! The session's rules, pure: `handle(now, command) -> decision`.
//!
//! No I/O, no clock, no randomness: what time it is and who is connected come in as arguments. Each file has one
//! concern: who comes in ([`admission`]), who goes and who may what ([`moderation`]), what is said ([`speech`]), what
//! the session is ([`settings`]), how room keys reach members ([`keys`]) and are replaced ([`rotation`]), and whom to
//! ask for them ([`asks`]).

mod admission;
mod asks;
mod command;
mod decision;
#[cfg(test)]
mod invariants;
mod keys;
mod moderation;
mod recent;
mod record;
mod rotation;
mod settings;
mod speech;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use command::Command;
use decision::Draft;
pub use decision::{AskFor, Decision};
pub use record::*;

use asks::Asks;
use recent::Recent;

use crate::protocol::{
    ErrorCode, FailedMember, JoinPolicy, KeyEpoch, MemberJoined, NewSession, NoticeBody, Refusal, Reply, Role,
    SessionId, Timestamp, UserId,
};

/// The settings that the rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Milliseconds after which a room key is too old.
    pub room_key_lifetime_ms: i64,
    /// Encrypted messages after which a room key is replaced.
    pub room_key_messages: u64,
    /// Milliseconds that a rotator has, beside what members add.
    pub rotation_deadline_ms: i64,
    /// Milliseconds that each member waited for, and each key sent, adds.
    pub rotation_deadline_per_member_ms: i64,
    /// Milliseconds that an invitation stands.
    pub invitation_lifetime_ms: i64,
    /// Milliseconds in which a sender may recall a message.
    pub recall_window_ms: i64,
    /// The most members.
    pub max_members: usize,
    /// The most join requests, and the most invitations, open at once.
    pub max_open: usize,
    /// The most `client_msg_id`s that are remembered, and for how many milliseconds.
    pub remembered_msgs: usize,
    /// See `remembered_msgs`.
    pub remembered_ms: i64,
    /// `request_room_key`s of one member in a minute.
    pub key_requests_per_minute: u32,
}

/// Tells whether a user is connected.
pub type Online<'a> = &'a dyn Fn(UserId) -> bool;

/// A session, complete in memory.
///
/// Invariants, checked after every transition in tests by `check_invariants`:
/// 1. A session that has not ended has members, exactly one of them owner; one that has ended has none.
/// 2. `seq` counts every event by one, and their times never go back.
/// 3. No epoch is given out twice: `last_epoch` is at least every epoch that is current, rotating or held.
/// 4. `without_key` is the members who do not have the current epoch's key, while there is a current epoch.
/// 5. `waiting` is the members whom the rotation still needs: neither sent the key nor withheld, nor the rotator.
/// 6. A rotation that was started and waits for nobody is over.
/// 7. No member is banned, or has an open join request or an open invitation to this session.
/// 8. Every open invitation's inviter is a member.
/// 9. An open ask is for a member who lacks that epoch's key, to a member who has it or is to make it; at most
///    `asks::MAX_OPEN` are open.
/// 10. `open` sessions are plain.
/// 11. An encrypted session whose key nobody holds, or that has none yet, is marked or being rotated, by a member.
/// 12. No restriction is kept that restricts nothing.
/// 13. Owner and admins, and nobody else, have been told of every open join request.
/// 14. Nothing is remembered of who was passed over, or asked for keys too often, but of members.
/// 15. Who was sent the key of the rotation under way is known to know it, even if they say that they lost it.
#[derive(Clone, Debug)]
pub struct SessionState {
    rules: Rules,
    head: Head,
    last_seq: u64,
    last_time: Timestamp,
    key_messages: u64,
    members: BTreeMap<UserId, Member>,
    restrictions: BTreeMap<UserId, Restriction>,
    join_requests: BTreeMap<UserId, JoinRequest>,
    invitations: BTreeMap<(UserId, UserId), Invitation>,
    recent: Recent,
    /// Derived, see invariant 4.
    without_key: BTreeSet<UserId>,
    /// Derived, see invariant 5.
    waiting: BTreeSet<UserId>,
    /// In memory only: they follow from the rest.
    asks: Asks,
    /// In memory only: minutes in which members asked for a key again, and how often.
    key_requests: BTreeMap<UserId, (Timestamp, u32)>,
    /// In memory only: the latest recalls, so that two at once are one event.
    recalled: Vec<u64>,
}

impl SessionState {
    /// A new session with its first event: its creator's `MemberJoined`. `body.members` are invited; `failed` are
    /// those of the request's members who cannot be.
    pub fn create(
        rules: Rules,
        session_id: SessionId,
        creator: UserId,
        now: Timestamp,
        body: NewSession,
        failed: Vec<FailedMember>,
    ) -> (Self, Decision) {
        let current = CurrentKey { epoch: KeyEpoch::FIRST, key_check: body.key_check.clone(), since: now };
        let e2ee = if body.e2ee_on {
            E2ee::On(KeyState { current: Some(current), last_epoch: 1, phase: Phase::Steady })
        } else {
            E2ee::Off { last_epoch: 0 }
        };
        let head = Head {
            session_id,
            creator,
            created_at: now,
            name: body.name,
            description: None,
            require_encryption: false,
            rotate_on_join: false,
            join_policy: JoinPolicy::Approval,
            e2ee,
            next_inbox: 1,
            passed_over: BTreeMap::new(),
            declined: Vec::new(),
            ended: false,
        };
        let empty = Snapshot {
            head,
            last_seq: 0,
            last_time: now,
            key_messages: 0,
            members: Vec::new(),
            restrictions: Vec::new(),
            join_requests: Vec::new(),
            invitations: Vec::new(),
            recent: Vec::new(),
        };
        let mut state = Self::restore(rules, empty);
        let mut draft = Draft::new(now);
        draft.head_changed = true;
        let key_epoch = body.e2ee_on.then_some(KeyEpoch::FIRST);
        let keys = MemberKeys { held: key_epoch, ..MemberKeys::default() };
        let owner = Member { user_id: creator, role: Role::Owner, joined_at: now, first_seq: 1, keys };
        draft.push(Change::PutMember(owner.clone()));
        state.members.insert(creator, owner);
        state.emit(&mut draft, Some(creator), MemberJoined { user_id: creator, role: Role::Owner });
        if let Some(room_key) = body.room_key {
            let key_check = body.key_check;
            let (user_id, epoch, sender) = (creator, KeyEpoch::FIRST, creator);
            draft.push(Change::PutRoomKey(StoredKey { user_id, epoch, sender, room_key, key_check, signature: None }));
        }
        let mut failed_members = failed;
        for user_id in body.members.unwrap_or_default() {
            if state.invitations.len() < state.rules.max_open {
                state.open_invitation(&mut draft, creator, user_id, body.leave_message.clone());
            } else {
                failed_members.push(FailedMember { user_id, reason: ErrorCode::Overloaded });
            }
        }
        let reply = Reply::NewSession { session_id, key_epoch, failed_members };
        (state, draft.into_decision(Ok(reply)))
    }

    /// A session as the store brings it back.
    pub fn restore(rules: Rules, snapshot: Snapshot) -> Self {
        let Snapshot {
            head,
            last_seq,
            last_time,
            key_messages,
            members,
            restrictions,
            join_requests,
            invitations,
            recent,
        } = snapshot;
        let mut state = Self {
            rules,
            head,
            last_seq,
            last_time,
            key_messages,
            members: members.into_iter().map(|member| (member.user_id, member)).collect(),
            restrictions: restrictions.into_iter().collect(),
            join_requests: join_requests.into_iter().map(|request| (request.user_id, request)).collect(),
            invitations: invitations.into_iter().map(|one| ((one.invitee, one.inviter), one)).collect(),
            recent: Recent::restore(recent),
            without_key: BTreeSet::new(),
            waiting: BTreeSet::new(),
            asks: Asks::default(),
            key_requests: BTreeMap::new(),
            recalled: Vec::new(),
        };
        state.derive_coverage();
        state
    }

    /// Everything that the store keeps of it: what [`SessionState::restore`] takes.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            head: self.head.clone(),
            last_seq: self.last_seq,
            last_time: self.last_time,
            key_messages: self.key_messages,
            members: self.members.values().cloned().collect(),
            restrictions: self.restrictions.iter().map(|(user_id, restriction)| (*user_id, *restriction)).collect(),
            join_requests: self.join_requests.values().cloned().collect(),
            invitations: self.invitations.values().cloned().collect(),
            recent: self.recent.to_vec(),
        }
    }

    /// Decides on one request of `caller`. Whatever time has done meanwhile is decided first.
    pub fn handle(&mut self, now: Timestamp, caller: UserId, command: Command, online: Online<'_>) -> Decision {
        let mut draft = self.draft(now);
        self.pass_time(&mut draft, online);
        let outcome = self.apply(&mut draft, caller, command);
        draft.into_decision(outcome)
    }

    /// Decides on what time alone has done: a key too old, a rotation's deadline.
    pub fn tick(&mut self, now: Timestamp, online: Online<'_>) -> Decision {
        let mut draft = self.draft(now);
        self.pass_time(&mut draft, online);
        draft.into_decision(Ok(Reply::Done {}))
    }

    /// Takes in what happened to an account.
    pub fn take_in(&mut self, now: Timestamp, task: &Task, online: Online<'_>) -> Decision {
        let mut draft = self.draft(now);
        self.pass_time(&mut draft, online);
        draft.push(Change::TaskDone(task.id));
        if !self.head.ended {
            match &task.kind {
                TaskKind::Closed => self.account_closed(&mut draft, task.user_id),
                TaskKind::PublicKeyChanged(fingerprint) => {
                    self.public_key_changed(&mut draft, task.user_id, fingerprint.clone());
                }
            }
        }
        draft.into_decision(Ok(Reply::Done {}))
    }

    fn apply(&mut self, draft: &mut Draft, caller: UserId, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Create { .. } => Err(Refusal::new(ErrorCode::AlreadyExists, "the session is there already")),
            Command::Join { leave_message, public_key } => self.join(draft, caller, leave_message, public_key),
            Command::Allow(body) => self.allow(draft, caller, body),
            Command::Invite { body, known } => self.invite(draft, caller, body, known),
            Command::Accept { body, public_key } => self.accept(draft, caller, &body, public_key),
            Command::SendRoomKey(body) => self.send_room_key(draft, caller, body),
            Command::SendRoomKeys(body) => self.send_room_keys(draft, caller, body),
            Command::RequestRoomKey(reason) => self.request_room_key(draft, caller, reason),
            Command::SendMsg(body) => self.send_msg(draft, caller, body),
            Command::E2eeize => self.e2eeize(draft, caller),
            Command::Dee2eeize => self.dee2eeize(draft, caller),
            Command::Leave { force } => self.leave(draft, caller, force),
            Command::Delete => self.delete(draft, caller),
            Command::Kick(user_id) => self.kick(draft, caller, user_id),
            Command::Ban { user_id, duration_s, known } => self.ban(draft, caller, user_id, duration_s, known),
            Command::Unban(user_id) => self.unban(draft, caller, user_id),
            Command::Mute { user_id, duration_s } => self.mute(draft, caller, user_id, duration_s),
            Command::Unmute(user_id) => self.unmute(draft, caller, user_id),
            Command::SetRole { user_id, role } => self.set_role(draft, caller, user_id, role),
            Command::SetInfo(body) => self.set_info(draft, caller, body),
            Command::Recall { seq, original } => self.recall(draft, caller, seq, original.map(|event| *event)),
        }
    }

    /// The session's record.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// The latest event's `seq` and time, and the encrypted messages under the current key.
    pub const fn counters(&self) -> (u64, Timestamp, u64) {
        (self.last_seq, self.last_time, self.key_messages)
    }

    /// Whether it was deleted, or its last member left.
    pub const fn ended(&self) -> bool {
        self.head.ended
    }

    /// Whether end-to-end encryption is on, in a session that has not ended.
    pub const fn is_encrypted(&self) -> bool {
        self.key_state().is_some() && !self.head.ended
    }

    /// The epoch that is being rotated in, and why: the first of the session's marks, or `demand`.
    pub fn rotation_under_way(&self) -> Option<(KeyEpoch, &'static str)> {
        let rotation = self.rotation()?;
        Some((rotation.epoch, rotation.reasons.first().map_or("demand", |reason| reason.as_str())))
    }

    /// Whether the user is a member.
    pub fn is_member(&self, user_id: UserId) -> bool {
        self.members.contains_key(&user_id)
    }

    /// How many members there are.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    fn draft(&self, now: Timestamp) -> Draft {
        Draft::new(now.max(self.last_time))
    }

    /// The caller as a member, or the refusal that the contract's order asks for.
    fn member(&self, caller: UserId, now: Timestamp) -> Result<&Member, Refusal> {
        self.not_banned(caller, now)?;
        self.members.get(&caller).ok_or_else(Refusal::not_a_member)
    }

    /// The caller as a member of at least this role.
    fn member_at_least(&self, caller: UserId, now: Timestamp, role: Role) -> Result<&Member, Refusal> {
        let member = self.member(caller, now)?;
        if member.role < role {
            let who = if role == Role::Owner { "the owner" } else { "the owner and admins" };
            return Err(Refusal::new(ErrorCode::PermissionDenied, format!("only {who} may do this")));
        }
        Ok(member)
    }

    fn not_banned(&self, caller: UserId, now: Timestamp) -> Result<(), Refusal> {
        if self.head.ended {
            return Err(Refusal::no_session());
        }
        if self.is_banned(caller, now) {
            return Err(Refusal::new(ErrorCode::Banned, "banned from this session"));
        }
        Ok(())
    }

    fn is_banned(&self, user_id: UserId, now: Timestamp) -> bool {
        self.restrictions.get(&user_id).and_then(|one| one.banned).is_some_and(|until| until.holds(now))
    }

    fn is_muted(&self, user_id: UserId, now: Timestamp) -> bool {
        self.restrictions.get(&user_id).and_then(|one| one.muted).is_some_and(|until| until.holds(now))
    }

    const fn key_state(&self) -> Option<&KeyState> {
        match &self.head.e2ee {
            E2ee::Off { .. } => None,
            E2ee::On(keys) => Some(keys),
        }
    }

    const fn key_state_mut(&mut self) -> Option<&mut KeyState> {
        match &mut self.head.e2ee {
            E2ee::Off { .. } => None,
            E2ee::On(keys) => Some(keys),
        }
    }

    /// The epoch in use.
    pub fn current_epoch(&self) -> Option<KeyEpoch> {
        self.key_state().and_then(|keys| keys.current.as_ref()).map(|current| current.epoch)
    }

    const fn rotation(&self) -> Option<&Rotation> {
        match self.key_state() {
            Some(KeyState { phase: Phase::Rotating(rotation), .. }) => Some(rotation),
            Some(KeyState { phase: Phase::Steady | Phase::Marked { .. }, .. }) | None => None,
        }
    }

    const fn rotation_mut(&mut self) -> Option<&mut Rotation> {
        match self.key_state_mut() {
            Some(KeyState { phase: Phase::Rotating(rotation), .. }) => Some(rotation),
            Some(KeyState { phase: Phase::Steady | Phase::Marked { .. }, .. }) | None => None,
        }
    }

    /// Stores a member as they are now.
    fn put_member(&self, draft: &mut Draft, user_id: UserId) {
        if let Some(member) = self.members.get(&user_id) {
            draft.push(Change::PutMember(member.clone()));
        }
    }

    fn approvers(&self) -> Vec<UserId> {
        self.members.values().filter(|member| member.role >= Role::Admin).map(|member| member.user_id).collect()
    }

    fn approval_body(&self, request: &JoinRequest) -> NoticeBody {
        NoticeBody::JoinSessionApproval {
            session_id: self.head.session_id,
            user_id: request.user_id,
            leave_message: request.leave_message.clone(),
            public_key: self.key_state().map(|_| request.public_key.clone()),
        }
    }
}
