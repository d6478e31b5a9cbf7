//! A session under test: the state, a model of the store that its changes go to, and the people around it.
//!
//! After every step: the invariants hold, the model brings back the live state, events are dense and never go back in
//! time, a refused command changed nothing, and no key is where it should not be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::protocol::*;
use crate::session::state::*;

pub(super) const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(super) const OWNER: UserId = user(1);
pub(super) const ADMIN: UserId = user(2);
pub(super) const ANN: UserId = user(3);
pub(super) const BOB: UserId = user(4);
pub(super) const EVE: UserId = user(9);

pub(super) const fn user(number: u8) -> UserId {
    UserId::from_bytes([number; 16])
}

pub(super) fn session_id() -> SessionId {
    SessionId::from_bytes([0xAA; 16])
}

pub(super) fn b64(text: &str) -> Base64Text {
    Base64Text::encode(text.as_bytes())
}

pub(super) fn rules() -> Rules {
    Rules {
        room_key_lifetime_ms: 604_800_000,
        room_key_messages: 5,
        rotation_deadline_ms: 30_000,
        rotation_deadline_per_member_ms: 20,
        invitation_lifetime_ms: 604_800_000,
        recall_window_ms: 86_400_000,
        max_members: 64,
        max_open: 8,
        remembered_msgs: 16,
        remembered_ms: 86_400_000,
        key_requests_per_minute: 3,
    }
}

pub(super) struct World {
    pub(super) state: SessionState,
    pub(super) now: Timestamp,
    pub(super) online: BTreeSet<UserId>,
    pub(super) model: Model,
}

pub(super) type Told = Result<Value, ErrorCode>;

impl World {
    pub(super) fn encrypted() -> Self {
        Self::new(rules(), true)
    }

    pub(super) fn new(rules: Rules, e2ee_on: bool) -> Self {
        let body = NewSession {
            name: None,
            members: None,
            e2ee_on,
            room_key: None,
            key_check: e2ee_on.then(|| b64("check 1")),
            leave_message: None,
            client_session_id: None,
        };
        Self::made(rules, body)
    }

    pub(super) fn made(rules: Rules, body: NewSession) -> Self {
        let (state, decision) = SessionState::create(rules, session_id(), OWNER, T0, body, Vec::new());
        let mut world = Self { model: Model::new(&state), state, now: T0, online: BTreeSet::from([OWNER]) };
        world.absorb(decision);
        world
    }

    /// Owner, admin, Ann and Bob, all connected; in an encrypted session all with the key.
    pub(super) fn group(e2ee_on: bool) -> Self {
        let mut world = Self::new(rules(), e2ee_on);
        for member in [ADMIN, ANN, BOB] {
            world.admit(member);
        }
        world.ok(OWNER, Command::SetRole { user_id: ADMIN, role: Role::Admin });
        if e2ee_on {
            for member in [ADMIN, ANN, BOB] {
                world.ok(OWNER, send_key(member, 1));
            }
        }
        world
    }

    /// Lets somebody in by invitation, without a key.
    pub(super) fn admit(&mut self, member: UserId) {
        self.online.insert(member);
        self.ok(OWNER, invite(member));
        self.ok(member, accept(OWNER, true));
    }

    pub(super) fn pass(&mut self, millis: i64) {
        self.now = self.now.plus_millis(millis);
    }

    pub(super) fn tick(&mut self) {
        let online = self.online.clone();
        let decision = self.state.tick(self.now, &|user_id| online.contains(&user_id));
        self.absorb(decision);
    }

    pub(super) fn act(&mut self, caller: UserId, command: Command) -> Result<Reply, Refusal> {
        self.tick();
        let before = self.state.snapshot();
        let online = self.online.clone();
        let decision = self.state.handle(self.now, caller, command, &|user_id| online.contains(&user_id));
        let outcome = decision.outcome.clone();
        // For want of any key a speaker is refused, and made the rotator.
        let may_change = [ErrorCode::EncryptionRequired, ErrorCode::RoomKeyPending];
        if outcome.as_ref().is_err_and(|refusal| !may_change.contains(&refusal.code)) {
            assert!(decision.changes.is_empty() && !decision.head_changed, "a refusal changed something");
            assert_eq!(self.state.snapshot(), before, "a refusal changed the state");
        }
        self.absorb(decision);
        outcome
    }

    pub(super) fn told(&mut self, caller: UserId, command: Command) -> Told {
        match self.act(caller, command) {
            Ok(reply) => Ok(serde_json::to_value(reply).unwrap()),
            Err(refusal) => Err(refusal.code),
        }
    }

    #[track_caller]
    pub(super) fn ok(&mut self, caller: UserId, command: Command) -> Value {
        let shown = format!("{command:?}");
        self.told(caller, command).unwrap_or_else(|code| panic!("{code:?} for {shown}"))
    }

    #[track_caller]
    pub(super) fn refused(&mut self, caller: UserId, command: Command, code: ErrorCode) {
        let shown = format!("{command:?}");
        assert_eq!(self.told(caller, command).expect_err(&shown), code, "{shown}");
    }

    pub(super) fn task(&mut self, user_id: UserId, kind: TaskKind) {
        let online = self.online.clone();
        let task = Task { id: 1, user_id, kind };
        let decision = self.state.take_in(self.now, &task, &|user_id| online.contains(&user_id));
        assert!(decision.changes.contains(&Change::TaskDone(1)));
        self.absorb(decision);
    }

    pub(super) fn asks(&mut self) -> Vec<AskFor> {
        let online = self.online.clone();
        let due = self.state.due_asks(self.now, &|user_id| online.contains(&user_id));
        self.state.check_invariants(self.now);
        due
    }

    pub(super) fn restart(&mut self) {
        self.state = SessionState::restore(self.state.rules.clone(), self.model.snapshot());
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        self.state.key_state().map(|keys| keys.phase.clone())
    }

    pub(super) fn reasons(&self) -> BTreeSet<MarkReason> {
        match self.phase() {
            Some(Phase::Marked { reasons }) => reasons,
            other => panic!("not marked: {other:?}"),
        }
    }

    pub(super) fn is_marked(&self) -> bool {
        matches!(self.phase(), Some(Phase::Marked { .. }))
    }

    pub(super) fn is_steady(&self) -> bool {
        matches!(self.phase(), Some(Phase::Steady))
    }

    /// Rotator and epoch of the rotation under way.
    #[track_caller]
    pub(super) fn rotation(&self) -> (UserId, u64) {
        match self.phase() {
            Some(Phase::Rotating(rotation)) => (rotation.rotator, rotation.epoch.0),
            other => panic!("not rotating: {other:?}"),
        }
    }

    pub(super) fn epoch(&self) -> Option<u64> {
        self.state.current_epoch().map(|epoch| epoch.0)
    }

    pub(super) fn has(&self, user_id: UserId, epoch: u64) -> bool {
        self.state.members.get(&user_id).is_some_and(|member| member.keys.has(KeyEpoch(epoch)))
    }

    pub(super) fn inbox(&self, user_id: UserId) -> Vec<&NoticeBody> {
        self.model.inbox.get(&user_id).into_iter().flatten().map(|notice| &notice.body).collect()
    }

    /// The names of the events since the `seq`th.
    pub(super) fn events_since(&self, seq: usize) -> Vec<&'static str> {
        self.model.events[seq..].iter().map(|event| event.what.name()).collect()
    }

    fn absorb(&mut self, decision: Decision) {
        self.model.take(&decision, &self.state);
        self.check();
    }

    fn check(&self) {
        self.state.check_invariants(self.now);
        let stored = self.model.snapshot();
        assert_eq!(stored, self.state.snapshot(), "the store brings back another state");
        let restored = SessionState::restore(self.state.rules.clone(), stored);
        assert_eq!(restored.without_key, self.state.without_key);
        assert_eq!(restored.waiting, self.state.waiting);
        self.model.check(&self.state);
    }
}

/// What the store would hold, and what users would find in their inboxes.
pub(super) struct Model {
    head: Head,
    counters: (u64, Timestamp, u64),
    members: BTreeMap<UserId, Member>,
    restrictions: BTreeMap<UserId, Restriction>,
    join_requests: BTreeMap<UserId, JoinRequest>,
    invitations: BTreeMap<(UserId, UserId), Invitation>,
    recent: Vec<RecentMsg>,
    pub(super) keys: BTreeMap<(UserId, KeyEpoch), StoredKey>,
    pub(super) events: Vec<SessionEvent>,
    pub(super) inbox: BTreeMap<UserId, Vec<InboxNotice>>,
    pub(super) withdrawn: BTreeSet<InboxId>,
    checks: BTreeMap<KeyEpoch, Base64Text>,
    spent: BTreeSet<KeyEpoch>,
    accepted: BTreeSet<KeyEpoch>,
}

impl Model {
    fn new(state: &SessionState) -> Self {
        Self {
            head: state.head().clone(),
            counters: (0, T0, 0),
            members: BTreeMap::new(),
            restrictions: BTreeMap::new(),
            join_requests: BTreeMap::new(),
            invitations: BTreeMap::new(),
            recent: Vec::new(),
            keys: BTreeMap::new(),
            events: Vec::new(),
            inbox: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            checks: BTreeMap::new(),
            spent: BTreeSet::new(),
            accepted: BTreeSet::new(),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let (last_seq, last_time, key_messages) = self.counters;
        Snapshot {
            head: self.head.clone(),
            last_seq,
            last_time,
            key_messages,
            members: self.members.values().cloned().collect(),
            restrictions: self.restrictions.iter().map(|(user_id, one)| (*user_id, *one)).collect(),
            join_requests: self.join_requests.values().cloned().collect(),
            invitations: self.invitations.values().cloned().collect(),
            recent: self.recent.clone(),
        }
    }

    fn take(&mut self, decision: &Decision, state: &SessionState) {
        if decision.head_changed {
            self.head = state.head().clone();
        }
        if decision.head_changed || !decision.changes.is_empty() {
            self.counters = state.counters();
        }
        for change in &decision.changes {
            self.apply(change.clone());
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::PutMember(member) => drop(self.members.insert(member.user_id, member)),
            Change::RemoveMember(user_id, _) => {
                assert!(self.members.remove(&user_id).is_some(), "a stranger leaves");
            }
            Change::PutRestriction(user_id, one) if one == Restriction::default() => {
                self.restrictions.remove(&user_id);
            }
            Change::PutRestriction(user_id, one) => drop(self.restrictions.insert(user_id, one)),
            Change::PutJoinRequest(request) => drop(self.join_requests.insert(request.user_id, request)),
            Change::RemoveJoinRequest(user_id) => assert!(self.join_requests.remove(&user_id).is_some()),
            Change::PutInvitation(one) => drop(self.invitations.insert((one.invitee, one.inviter), one)),
            Change::RemoveInvitation(invitee, inviter) => {
                assert!(self.invitations.remove(&(invitee, inviter)).is_some());
            }
            Change::PutRoomKey(key) => self.put_key(key),
            Change::DropEpoch(epoch) => {
                assert!(!self.accepted.contains(&epoch), "a key in use was dropped");
                self.keys.retain(|(_, of), _| *of != epoch);
                self.spent.insert(epoch);
            }
            Change::DropRoomKey(user_id, epoch) => drop(self.keys.remove(&(user_id, epoch))),
            Change::DropKeysOf(user_id) => {
                self.keys.retain(|(of, _), _| *of != user_id);
                self.inbox.entry(user_id).or_default().retain(|notice| key_epoch(&notice.body).is_none());
            }
            Change::Event(event) => self.put_event(event),
            Change::Recall(event) => {
                let place = usize::try_from(event.seq).unwrap() - 1;
                self.events[place] = event;
            }
            Change::Notice(user_id, notice, _) => self.inbox.entry(user_id).or_default().push(notice),
            Change::Withdraw(user_id, ids) => {
                self.inbox.entry(user_id).or_default().retain(|notice| !ids.contains(&notice.inbox_id));
                self.withdrawn.extend(ids);
            }
            Change::Forget(forgotten) => self.recent.retain(|one| *one != forgotten),
            Change::TaskDone(_) => {}
            Change::End => {
                self.members.clear();
                self.restrictions.clear();
                self.join_requests.clear();
                self.invitations.clear();
                self.recent.clear();
                self.keys.clear();
                self.inbox.values_mut().for_each(|inbox| inbox.retain(|notice| key_epoch(&notice.body).is_none()));
            }
        }
    }

    fn put_key(&mut self, key: StoredKey) {
        assert!(self.members.contains_key(&key.user_id), "a key for a stranger");
        assert!(self.members.contains_key(&key.sender), "a key from a stranger");
        assert!(!self.spent.contains(&key.epoch), "a key of a void epoch");
        if let Some(check) = &key.key_check {
            let first = self.checks.entry(key.epoch).or_insert_with(|| check.clone());
            assert_eq!(first, check, "one number, two keys");
        }
        self.keys.insert((key.user_id, key.epoch), key);
    }

    fn put_event(&mut self, event: SessionEvent) {
        assert_eq!(event.seq, self.events.len() as u64 + 1, "2: seq is dense");
        assert!(self.events.last().is_none_or(|last| last.time <= event.time), "2: time goes back");
        match &event.what {
            Happening::Msg(msg) => {
                assert!(self.members.contains_key(&msg.sender_id), "a stranger speaks");
                if let Some(epoch) = msg.key_epoch {
                    assert!(epoch == KeyEpoch::FIRST || self.accepted.contains(&epoch), "text of a key not in use");
                }
                self.recent.extend(msg.client_msg_id.clone().map(|client_msg_id| RecentMsg {
                    sender: msg.sender_id,
                    client_msg_id,
                    seq: event.seq,
                    time: event.time,
                }));
            }
            Happening::RoomKeyRotated(rotated) => {
                assert!(self.accepted.insert(rotated.key_epoch), "an epoch came twice");
                assert!(!self.spent.contains(&rotated.key_epoch), "a void epoch came");
            }
            _ => {}
        }
        self.events.push(event);
    }

    fn check(&self, state: &SessionState) {
        for (user_id, notices) in &self.inbox {
            for epoch in notices.iter().filter_map(|notice| key_epoch(&notice.body)) {
                assert!(state.is_member(*user_id), "a key waits for who is no member");
                assert!(!self.spent.contains(&epoch), "a key of a void epoch waits for somebody");
            }
        }
        for (user_id, epoch) in self.keys.keys() {
            assert!(state.is_member(*user_id), "a key is stored for who is no member");
            assert!(!self.spent.contains(epoch), "a key of a void epoch is stored");
        }
    }
}

pub(super) fn key_epoch(body: &NoticeBody) -> Option<KeyEpoch> {
    match body {
        NoticeBody::ReceiveRoomKeyNotification { key_epoch, .. } => Some(*key_epoch),
        NoticeBody::AllowUserJoinSessionNotification { room_key: Some(_), key_epoch, .. } => *key_epoch,
        NoticeBody::AllowUserJoinSessionNotification { .. }
        | NoticeBody::JoinSessionApproval { .. }
        | NoticeBody::InviteUserToSession { .. }
        | NoticeBody::AcceptSessionNotification { .. } => None,
    }
}

pub(super) fn join() -> Command {
    Command::Join { leave_message: None, public_key: "key".to_owned() }
}

pub(super) fn allow(user_id: UserId, accepted: bool) -> AllowUserJoinSession {
    AllowUserJoinSession {
        session_id: session_id(),
        user_id,
        accepted,
        room_key: None,
        key_epoch: None,
        key_check: None,
        signature: None,
    }
}

pub(super) fn allow_with_key(user_id: UserId, epoch: u64) -> Command {
    Command::Allow(AllowUserJoinSession {
        room_key: Some(b64("wrapped")),
        key_epoch: Some(KeyEpoch(epoch)),
        key_check: None,
        ..allow(user_id, true)
    })
}

pub(super) fn invite(invitee: UserId) -> Command {
    let body = InviteUserToSession { session_id: session_id(), invitee, leave_message: None };
    Command::Invite { body, known: true }
}

pub(super) fn accept(inviter_id: UserId, accepted: bool) -> Command {
    let body = AcceptJoinSessionApproval { session_id: session_id(), inviter_id, accepted };
    Command::Accept { body, public_key: "key".to_owned() }
}

pub(super) fn send_key(user_id: UserId, epoch: u64) -> Command {
    Command::SendRoomKey(SendRoomKey {
        session_id: session_id(),
        user_id,
        room_key: b64("wrapped"),
        key_epoch: Some(KeyEpoch(epoch)),
        key_check: Some(b64(&format!("check {epoch}"))),
        signature: None,
    })
}

pub(super) fn keys(epoch: u64, users: &[UserId], withheld: &[UserId]) -> SendRoomKeys {
    SendRoomKeys {
        session_id: session_id(),
        key_epoch: Some(KeyEpoch(epoch)),
        key_check: Some(b64(&format!("check {epoch}"))),
        signature: None,
        room_keys: users.iter().map(|user_id| WrappedKey { user_id: *user_id, room_key: b64("wrapped") }).collect(),
        withheld: Some(
            withheld
                .iter()
                .map(|user_id| Withheld { user_id: *user_id, reason: "fingerprint_changed".to_owned() })
                .collect(),
        ),
    }
}

pub(super) fn send_keys(epoch: u64, users: &[UserId]) -> Command {
    Command::SendRoomKeys(keys(epoch, users, &[]))
}

pub(super) fn msg(text: &str) -> SendMsg {
    SendMsg {
        session_id: session_id(),
        markdown_text: text.to_owned(),
        is_encrypted: false,
        key_epoch: None,
        client_msg_id: None,
        content_type: None,
    }
}

pub(super) fn say() -> Command {
    Command::SendMsg(msg("hello"))
}

pub(super) fn say_encrypted(epoch: Option<u64>) -> Command {
    Command::SendMsg(SendMsg { is_encrypted: true, key_epoch: epoch.map(KeyEpoch), ..msg("Y2lwaGVy") })
}

pub(super) fn info() -> SetSessionInfo {
    SetSessionInfo {
        session_id: session_id(),
        name: None,
        description: None,
        require_encryption: None,
        rotate_on_join: None,
        join_policy: None,
    }
}

pub(super) fn lost() -> Command {
    Command::RequestRoomKey(LostReason::Lost)
}
