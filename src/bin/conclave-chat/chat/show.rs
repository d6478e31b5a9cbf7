//! How news look.

use conclave::client::e2ee::{Asking, Body, KeyNews, Message, News};
use conclave::protocol::{GoneReason, Happening, LeftReason, Role, SessionEvent, SessionId, Timestamp, UserId};
use jiff::tz::TimeZone;

use super::Chat;
use crate::screen::{Style, clean};

impl Chat {
    pub(super) async fn show(&self, news: News) {
        match news {
            News::Message(message) => self.show_message(&message).await,
            News::Event(event) => {
                self.learn(&event).await;
                self.show_event(&event).await;
            }
            News::Connected { sessions, .. } => {
                for session in sessions {
                    self.add_room(session.session_id, session.name.as_deref(), session.e2ee_on);
                }
                self.screen.hint("connected");
            }
            News::Disconnected => self.screen.hint("not connected, trying again"),
            News::Stopped { why } => self.screen.alarm(&clean(&why)),
            News::Gone(gone) => {
                let how = match gone.reason {
                    GoneReason::Left => "you left",
                    GoneReason::Kicked => "you were put out of",
                    GoneReason::Banned => "you were banned from",
                    GoneReason::Deleted => "this session was ended:",
                };
                self.screen.notice(&format!("{how} {}", self.room_name(gone.session_id)));
                self.remove_room(gone.session_id);
            }
            News::Typing { .. } | News::Repeated { .. } => {}
            News::Gap { session_id, expected, came } => {
                let room = self.room_name(session_id);
                self.screen.alarm(&format!("{room}: events {expected} to {} are missing; reading again", came - 1));
            }
            News::SaveFailed => self.screen.alarm("your keys cannot be written to the disk: nothing encrypted is sent"),
            News::Asking(asking) => self.show_asking(asking).await,
            News::Keys(keys) => self.show_keys(keys).await,
        }
    }

    pub(super) async fn show_message(&self, message: &Message) {
        let (current, room) = {
            let state = self.state();
            (state.current, state.rooms.get(&message.session_id).cloned())
        };
        let encrypted_room = room.as_ref().is_some_and(|room| room.e2ee_on);
        let (lock, style, text) = match &message.body {
            Body::Decrypted(text) => ("🔒 ", Style::Plain, clean(text)),
            Body::Plain(text) if encrypted_room => ("⚠ in the clear ", Style::Plain, clean(text)),
            Body::Plain(text) => ("", Style::Plain, clean(text)),
            Body::Sealed(_) => ("🔒 ", Style::Faint, "(its key has not come yet)".to_owned()),
            Body::Unreadable(_) => ("🔒 ", Style::Alarm, "(cannot be decrypted)".to_owned()),
            Body::Recalled => ("", Style::Faint, "(taken back)".to_owned()),
        };
        let name = self.name(message.sender_id).await;
        let place = match room {
            Some(room) if Some(message.session_id) != current => format!("[{}] ", room.name),
            Some(_) | None => String::new(),
        };
        let late = if message.late { " (key came late)" } else { "" };
        // Further lines are set in, so that nobody's text can look like somebody else's line.
        let text = text.replace('\n', "\n      ");
        self.screen.line(&[
            (Style::Faint, &format!("{} #{} {place}", clock(message.time), message.seq)),
            (Style::Plain, lock),
            (Style::Name, &name),
            (Style::Plain, ": "),
            (style, &text),
            (Style::Faint, late),
        ]);
    }

    /// What an event changes of what is known here.
    async fn learn(&self, event: &SessionEvent) {
        let (session_id, me) = (event.session_id, self.client.me());
        match &event.what {
            Happening::MemberJoined(joined) if joined.user_id == me => {
                if let Ok(info) = self.client.info(session_id).await {
                    self.add_room(session_id, info.name.as_deref(), info.e2ee_on);
                }
            }
            Happening::SessionInfoChanged(change) => {
                if let (Some(name), Some(room)) = (&change.name, self.state().rooms.get_mut(&session_id)) {
                    room.name = clean(name);
                }
            }
            Happening::SessionE2eeChanged(change) => {
                if let Some(room) = self.state().rooms.get_mut(&session_id) {
                    room.e2ee_on = change.e2ee_on;
                }
            }
            Happening::Msg(_)
            | Happening::MemberJoined(_)
            | Happening::MemberLeft(_)
            | Happening::RoleChanged(_)
            | Happening::MemberRestricted(_)
            | Happening::RoomKeyRotated(_)
            | Happening::MsgRecalled(_)
            | Happening::PublicKeyChanged(_)
            | Happening::SessionDeleted(_) => {}
        }
        self.update_prompt();
    }

    pub(super) async fn show_event(&self, event: &SessionEvent) {
        let what = match &event.what {
            Happening::Msg(_) => return,
            Happening::MemberJoined(joined) => format!("{} came in", self.name(joined.user_id).await),
            Happening::MemberLeft(left) => {
                let name = self.name(left.user_id).await;
                match left.reason {
                    LeftReason::Left => format!("{name} left"),
                    LeftReason::Kicked => format!("{name} was put out{}", self.by(event.by).await),
                    LeftReason::Banned => format!("{name} was banned{}", self.by(event.by).await),
                }
            }
            Happening::RoleChanged(change) => {
                let role = match change.role {
                    Role::Owner => "the owner",
                    Role::Admin => "an admin",
                    Role::Member => "a member",
                };
                format!("{} is now {role}", self.name(change.user_id).await)
            }
            Happening::MemberRestricted(change) => {
                let (name, by) = (self.name(change.user_id).await, self.by(event.by).await);
                match (change.banned, change.muted) {
                    (true, _) => format!("{name} may not come in{by}"),
                    (false, true) => format!("{name} may not speak{by}"),
                    (false, false) => format!("{name} is free again{by}"),
                }
            }
            Happening::SessionInfoChanged(_) => "what this session is was changed".to_owned(),
            Happening::SessionE2eeChanged(change) if change.e2ee_on => "🔒 encryption is on".to_owned(),
            Happening::SessionE2eeChanged(_) => "⚠ encryption is off: the server can read what is said".to_owned(),
            Happening::RoomKeyRotated(rotated) => format!("🔒 room key {} is in use", rotated.key_epoch.0),
            Happening::MsgRecalled(recalled) => format!("#{} was taken back", recalled.recalled_seq),
            Happening::PublicKeyChanged(change) => format!("{} has a new key pair", self.name(change.user_id).await),
            Happening::SessionDeleted(_) => "the session was ended".to_owned(),
        };
        let (room, me) = (self.room_name(event.session_id), self.client.me());
        self.screen.line(&[
            (Style::Faint, &format!("{} #{} [{room}] ", clock(event.time), event.seq)),
            (Style::Notice, &what),
        ]);
        let gone = match &event.what {
            Happening::MemberLeft(left) => left.user_id == me,
            Happening::SessionDeleted(_) => true,
            _ => false,
        };
        if gone && !self.is_member(event.session_id) {
            self.remove_room(event.session_id);
        }
    }

    fn is_member(&self, session_id: SessionId) -> bool {
        self.client.with_core(|core| core.is_member(session_id))
    }

    async fn by(&self, who: Option<UserId>) -> String {
        match who {
            Some(who) => format!(" by {}", self.name(who).await),
            None => String::new(),
        }
    }

    async fn show_asking(&self, asking: Asking) {
        let said = |message: Option<String>| message.map(|text| format!(": {}", clean(&text))).unwrap_or_default();
        match asking {
            Asking::JoinRequest { session_id, user_id, leave_message, fingerprint } => {
                let (name, room) = (self.name(user_id).await, self.room_name(session_id));
                self.screen.good(&format!("{name} asks to be let into {room}{}", said(leave_message)));
                if let Some(fingerprint) = fingerprint {
                    self.screen.hint(&format!("fingerprint {}", fingerprint.grouped()));
                }
                self.screen.hint(&format!("/approve {name} or /deny {name}"));
            }
            Asking::Invitation { session_id, inviter_id, leave_message, .. } => {
                let name = self.name(inviter_id).await;
                self.screen.good(&format!("{name} invites you to {session_id}{}", said(leave_message)));
                self.screen.hint("/accept or /decline");
            }
            Asking::JoinDecided { session_id, by, accepted } => {
                let name = self.name(by).await;
                let how = if accepted { "let you into" } else { "turned you away from" };
                self.screen.notice(&format!("{name} {how} {}", self.room_name(session_id)));
            }
            Asking::InvitationAnswered { session_id, invitee_id, accepted } => {
                let how = if accepted { "accepts" } else { "declines" };
                let name = self.name(invitee_id).await;
                self.screen.notice(&format!("{name} {how} the invitation to {}", self.room_name(session_id)));
            }
            Asking::Withdrawn { session_id, user_id } => {
                let name = self.name(user_id).await;
                let room = self.room_name(session_id);
                self.screen.hint(&format!("decided elsewhere, or lapsed: {name}, {room}"));
            }
        }
    }

    async fn show_keys(&self, keys: KeyNews) {
        match keys {
            KeyNews::Made(name) => self.screen.hint(&format!("made room key {}", name.key_epoch.0)),
            KeyNews::Arrived { name, from } => {
                let from = self.name(from).await;
                let room = self.room_name(name.session_id);
                self.screen.hint(&format!("🔒 room key {} of {room} came from {from}", name.key_epoch.0));
            }
            KeyNews::Refused { name, from, why } => {
                let from = self.name(from).await;
                self.screen.alarm(&format!("a room key for epoch {} from {from} was refused: {why}", name.key_epoch.0));
            }
            KeyNews::Given { withheld: 0, .. } => {}
            KeyNews::Given { name, withheld, .. } => {
                let epoch = name.key_epoch.0;
                self.screen.alarm(&format!("room key {epoch} was withheld from {withheld} whose fingerprint changed"));
            }
            KeyNews::FingerprintChanged { user_id, pinned, offered } => {
                let name = self.name(user_id).await;
                self.screen.alarm(&format!("THE FINGERPRINT OF {name} HAS CHANGED"));
                self.screen.hint(&format!("was {}", pinned.grouped()));
                self.screen.hint(&format!("is  {}", offered.grouped()));
                self.screen.hint("a new device, or somebody in between: no room key is given or taken until you agree");
                self.screen.hint(&format!("compare it with {name} by other means, then /verify {name} agree"));
            }
            KeyNews::OwnKeyReplaced => {
                self.screen.alarm("your account's key pair was replaced from elsewhere: if that was not you, act now");
            }
        }
    }
}

/// Hours and minutes where the user is.
fn clock(time: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(time.as_millis()) {
        Ok(time) => time.to_zoned_datetime(TimeZone::system()).strftime("%H:%M").to_string(),
        Err(_) => "--:--".to_owned(),
    }
}
