//! What is said: messages, and taking them back.

use crate::protocol::{ErrorCode, Happening, Msg, MsgRecalled, Refusal, Reply, Role, SendMsg, SessionEvent, UserId};

use super::decision::Draft;
use super::{Change, MarkReason, Phase, RecentMsg, SessionState};

/// How many recalls are remembered in memory, so that two at once are one event.
const RECALLS: usize = 256;

impl SessionState {
    pub(super) fn send_msg(&mut self, draft: &mut Draft, caller: UserId, body: SendMsg) -> Result<Reply, Refusal> {
        self.member(caller, draft.now)?;
        if let Some((seq, time)) = body.client_msg_id.as_ref().and_then(|id| self.recent.find(caller, id)) {
            return Ok(Reply::Sent { seq, time });
        }
        if self.is_muted(caller, draft.now) {
            return Err(Refusal::new(ErrorCode::Muted, "muted in this session"));
        }
        let key_epoch = match self.epoch_of(&body) {
            Ok(epoch) => epoch,
            Err(refusal) => {
                // Nobody could speak encrypted before somebody has made a key: who tries is who makes it.
                let for_want_of_a_key =
                    matches!(refusal.code, ErrorCode::EncryptionRequired | ErrorCode::RoomKeyPending);
                if for_want_of_a_key && self.holders().next().is_none() {
                    self.begin_rotation_by_speaker(draft, caller);
                }
                return Err(refusal);
            }
        };
        let SendMsg { markdown_text, is_encrypted, client_msg_id, content_type, .. } = body;
        self.emit(
            draft,
            None,
            Msg {
                sender_id: caller,
                markdown_text,
                is_encrypted,
                key_epoch,
                client_msg_id: client_msg_id.clone(),
                content_type,
                recalled: false,
            },
        );
        let seq = self.last_seq;
        if let Some(client_msg_id) = client_msg_id {
            self.recent.remember(RecentMsg { sender: caller, client_msg_id, seq, time: draft.now });
        }
        self.forget_old(draft);
        let marked = matches!(self.key_state().map(|keys| &keys.phase), Some(Phase::Marked { .. }));
        if marked {
            self.begin_rotation_by_speaker(draft, caller);
        }
        if is_encrypted {
            self.key_messages += 1;
            if self.key_messages >= self.rules.room_key_messages {
                self.mark_if_steady(draft, MarkReason::Messages);
            }
        }
        Ok(Reply::Sent { seq, time: draft.now })
    }

    /// The epoch to stamp on a message, or why it cannot be taken.
    fn epoch_of(&self, body: &SendMsg) -> Result<Option<crate::protocol::KeyEpoch>, Refusal> {
        let Some(keys) = self.key_state() else {
            if body.is_encrypted {
                return Err(Refusal::new(ErrorCode::E2eeNotOn, "is_encrypted: the session is plain"));
            }
            return Ok(None);
        };
        if !body.is_encrypted {
            if self.head.require_encryption {
                return Err(Refusal::new(
                    ErrorCode::EncryptionRequired,
                    "is_encrypted: the session takes encrypted messages only",
                ));
            }
            return Ok(None);
        }
        let Some(current) = keys.current.as_ref().map(|current| current.epoch) else {
            return Err(Refusal::new(ErrorCode::RoomKeyPending, "the first room key is still to come"));
        };
        match body.key_epoch {
            Some(epoch) if epoch != current => Err(Refusal::stale_room_key(Some(current))),
            Some(_) | None => Ok(Some(current)),
        }
    }

    /// The first event whose sender's own id is remembered; if there is none, the one after the latest.
    pub fn remembered_from(&self) -> u64 {
        self.recent.first().unwrap_or(self.last_seq + 1)
    }

    fn forget_old(&mut self, draft: &mut Draft) {
        let (keep, keep_ms) = (self.rules.remembered_msgs, self.rules.remembered_ms);
        while let Some(row) = self.recent.forget(draft.now, keep, keep_ms) {
            draft.push(Change::Forget(row));
        }
    }

    pub(super) fn recall(
        &mut self,
        draft: &mut Draft,
        caller: UserId,
        seq: u64,
        original: Option<SessionEvent>,
    ) -> Result<Reply, Refusal> {
        let member = self.member(caller, draft.now)?;
        let (role, first_seq) = (member.role, member.first_seq);
        let missing = || Refusal::new(ErrorCode::NotFound, "seq: there is no such message");
        let Some(event) = original.filter(|event| event.session_id == self.head.session_id && event.seq == seq) else {
            return Err(missing());
        };
        let SessionEvent { session_id, time, by, what: Happening::Msg(msg), .. } = event else {
            return Err(missing());
        };
        if seq < first_seq {
            return Err(missing());
        }
        self.may_recall(draft, caller, role, &msg, time)?;
        if msg.recalled || self.recalled.contains(&seq) {
            return Ok(Reply::Done {});
        }
        if self.recalled.len() >= RECALLS {
            self.recalled.remove(0);
        }
        self.recalled.push(seq);
        let what = Happening::Msg(Msg { markdown_text: String::new(), recalled: true, ..msg });
        draft.push(Change::Recall(SessionEvent { session_id, seq, time, by, what }));
        self.emit(draft, Some(caller), MsgRecalled { recalled_seq: seq });
        Ok(Reply::Done {})
    }

    fn may_recall(
        &self,
        draft: &Draft,
        caller: UserId,
        role: Role,
        msg: &Msg,
        time: crate::protocol::Timestamp,
    ) -> Result<(), Refusal> {
        if msg.sender_id == caller {
            if draft.now.millis_since(time) <= self.rules.recall_window_ms {
                return Ok(());
            }
            return Err(Refusal::new(ErrorCode::Expired, "seq: the message is too old to be recalled"));
        }
        let over_sender = self.members.get(&msg.sender_id).is_none_or(|sender| sender.role < role);
        if role >= Role::Admin && over_sender {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::PermissionDenied,
            "only its sender, or who stands above them, may recall a message",
        ))
    }
}
