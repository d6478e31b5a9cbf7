//! What each line does.

use conclave::client::ClientError;
use conclave::client::Past;
use conclave::protocol::{
    BanUser, DeleteSession, DurationSecs, JoinStatus, KickUser, LostReason, MemberView, MuteUser, RecallMsg,
    RequestRoomKey, Role, SessionId, SetRole, UnbanUser, UnmuteUser, UserId,
};

use super::{Chat, Problem};
use crate::command::{Command, HELP};
use crate::screen::{Style, clean};

impl Chat {
    pub(super) async fn act(&self, command: Command) -> Result<(), Problem> {
        match command {
            Command::Nothing | Command::Quit => Ok(()),
            Command::Help => self.help(),
            Command::Say(text) => Ok(self.client.say(self.current()?, &text).await.map(drop)?),
            Command::SayPlain(text) => Ok(self.client.say_plain(self.current()?, &text).await.map(drop)?),
            Command::Create { name, encrypted } => self.create(&name, encrypted).await,
            Command::Invite(name) => self.invite(&name).await,
            Command::Join(session_id, message) => self.join(session_id, message.as_deref()).await,
            Command::Approve(name) => self.decide(&name, true).await,
            Command::Deny(name) => self.decide(&name, false).await,
            Command::Accept(number) => self.answer(number, true).await,
            Command::Decline(number) => self.answer(number, false).await,
            Command::Leave { force } => Ok(self.client.leave(self.current()?, force).await?),
            Command::Delete => self.request(DeleteSession { session_id: self.current()? }).await,
            Command::E2ee(true) | Command::Rotate => self.rotate().await,
            Command::E2ee(false) => Ok(self.client.e2ee_off(self.current()?).await?),
            Command::Lost => {
                self.request(RequestRoomKey { session_id: self.current()?, reason: LostReason::Lost }).await
            }
            Command::Who => self.who().await,
            Command::History(limit) => self.history(limit).await,
            Command::Switch(to) => self.switch(&to),
            Command::Sessions => self.sessions(),
            Command::Verify { name, agree } => self.verify(&name, agree).await,
            Command::Kick(name) => {
                let (session_id, user_id) = (self.current()?, self.user(&name).await?);
                self.request(KickUser { session_id, user_id }).await
            }
            Command::Ban(name, seconds) => {
                let (session_id, user_id) = (self.current()?, self.user(&name).await?);
                self.request(BanUser { session_id, user_id, duration_s: seconds.map(DurationSecs) }).await
            }
            Command::Unban(name) => {
                let (session_id, user_id) = (self.current()?, self.user(&name).await?);
                self.request(UnbanUser { session_id, user_id }).await
            }
            Command::Mute(name, seconds) => {
                let (session_id, user_id) = (self.current()?, self.user(&name).await?);
                self.request(MuteUser { session_id, user_id, duration_s: seconds.map(DurationSecs) }).await
            }
            Command::Unmute(name) => {
                let (session_id, user_id) = (self.current()?, self.user(&name).await?);
                self.request(UnmuteUser { session_id, user_id }).await
            }
            Command::SetRole(name, role) => {
                let (session_id, user_id) = (self.current()?, self.user(&name).await?);
                self.request(SetRole { session_id, user_id, role }).await
            }
            Command::Recall(seq) => self.request(RecallMsg { session_id: self.current()?, seq }).await,
        }
    }

    async fn request<C: conclave::client::calls::Call>(&self, request: C) -> Result<(), Problem> {
        Ok(self.client.call(request).await.map(drop)?)
    }

    fn help(&self) -> Result<(), Problem> {
        for (usage, meaning) in HELP {
            self.screen.line(&[(Style::Name, &format!("  {usage:<46}")), (Style::Plain, meaning)]);
        }
        Ok(())
    }

    async fn create(&self, name: &str, encrypted: bool) -> Result<(), Problem> {
        let created = self.client.create_session(Some(name), Vec::new(), encrypted).await?;
        self.add_room(created.session_id, Some(name), encrypted);
        self.state().current = Some(created.session_id);
        let how = if encrypted { "🔒 end-to-end encrypted" } else { "not encrypted" };
        self.screen.good(&format!("made {}, {how}", clean(name)));
        self.screen.hint(&format!("/invite NAME, or let others /join {}", created.session_id));
        Ok(())
    }

    async fn invite(&self, name: &str) -> Result<(), Problem> {
        let (session_id, user_id) = (self.current()?, self.user(name).await?);
        self.client.invite(session_id, user_id).await?;
        self.screen.notice(&format!("{name} is invited"));
        Ok(())
    }

    async fn join(&self, session_id: SessionId, message: Option<&str>) -> Result<(), Problem> {
        match self.client.join(session_id, message).await?.status {
            JoinStatus::Joined => self.state().current = Some(session_id),
            JoinStatus::Pending => self.screen.notice("asked to be let in: an owner or admin decides"),
        }
        Ok(())
    }

    async fn decide(&self, name: &str, accepted: bool) -> Result<(), Problem> {
        let user_id = self.user(name).await?;
        let current = self.state().current;
        let waiting = self.client.with_core(|core| {
            // Who asked in several places is decided on in the current one first.
            let asked = core.join_requests().filter(|(_, user)| *user == user_id).map(|(session, _)| session);
            asked.max_by_key(|session| Some(*session) == current)
        });
        let session_id = match waiting {
            Some(session_id) => session_id,
            None => self.current()?,
        };
        self.client.decide_join(session_id, user_id, accepted).await?;
        self.screen.notice(&format!("{name} is {}", if accepted { "let in" } else { "turned away" }));
        Ok(())
    }

    async fn answer(&self, number: Option<usize>, accepted: bool) -> Result<(), Problem> {
        let open: Vec<(SessionId, UserId)> = self.client.with_core(|core| core.invitations().collect());
        let chosen = match (number, &open[..]) {
            (_, []) => return Err(Problem::Other("there is no open invitation")),
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(number), open) => open.get(number.wrapping_sub(1)),
        };
        let Some(&(session_id, inviter_id)) = chosen else {
            for (at, (session_id, inviter)) in open.iter().enumerate() {
                let inviter = self.name(*inviter).await;
                self.screen.hint(&format!("{}  {inviter} invites you to {session_id}", at + 1));
            }
            return Err(Problem::Other("which of them? say its number"));
        };
        self.client.answer_invitation(session_id, inviter_id, accepted).await?;
        if accepted {
            self.state().current = Some(session_id);
        }
        Ok(())
    }

    async fn rotate(&self) -> Result<(), Problem> {
        let epoch = self.client.rotate(self.current()?).await?;
        self.screen.notice(&format!("making room key {}", epoch.0));
        Ok(())
    }

    async fn who(&self) -> Result<(), Problem> {
        let info = self.client.info(self.current()?).await?;
        for MemberView { user_id, name, role, has_key, muted, .. } in &info.members {
            let pin = self.client.with_core(|core| core.ring().pin(*user_id));
            let role = match role {
                Role::Owner => "owner",
                Role::Admin => "admin",
                Role::Member => "",
            };
            let mut notes = vec![role];
            notes.extend((info.e2ee_on && !has_key).then_some("without the room key"));
            notes.extend(muted.then_some("muted"));
            notes.extend(pin.is_some_and(|pin| pin.verified).then_some("verified"));
            notes.extend((*user_id == self.client.me()).then_some("you"));
            notes.retain(|note| !note.is_empty());
            self.screen.line(&[(Style::Name, &format!("  {:<20}", clean(name))), (Style::Faint, &notes.join(", "))]);
        }
        if info.member_count > info.members.len() as u64 {
            self.screen.hint(&format!("and {} others", info.member_count - info.members.len() as u64));
        }
        for request in info.join_requests.iter().flatten() {
            let name = self.name(request.user_id).await;
            self.screen.hint(&format!("{name} asks to be let in: /approve {name} or /deny {name}"));
        }
        Ok(())
    }

    async fn history(&self, limit: u64) -> Result<(), Problem> {
        for past in self.client.history(self.current()?, None, limit).await? {
            match past {
                Past::Message(message) => self.show_message(&message).await,
                Past::Event(event) => self.show_event(&event).await,
            }
        }
        Ok(())
    }

    fn switch(&self, to: &str) -> Result<(), Problem> {
        let mut state = self.state();
        let by_number = to.parse::<usize>().ok().and_then(|number| state.rooms.keys().nth(number.wrapping_sub(1)));
        let by_name =
            || state.rooms.iter().find(|(id, room)| room.name == to || id.to_string() == to).map(|(id, _)| id);
        let found = by_number.or_else(by_name).copied().ok_or(Problem::Other("no such session; see /sessions"))?;
        state.current = Some(found);
        Ok(())
    }

    fn sessions(&self) -> Result<(), Problem> {
        let (rooms, current) = {
            let state = self.state();
            (state.rooms.clone(), state.current)
        };
        for (at, (session_id, room)) in rooms.iter().enumerate() {
            let here = if Some(*session_id) == current { "→" } else { " " };
            let lock = if room.e2ee_on { "🔒" } else { "  " };
            let name = format!("{here} {} {lock} {:<20}", at + 1, room.name);
            self.screen.line(&[(Style::Name, &name), (Style::Faint, &session_id.to_string())]);
        }
        if rooms.is_empty() {
            return Err(Problem::NoSession);
        }
        Ok(())
    }

    async fn verify(&self, name: &str, agree: bool) -> Result<(), Problem> {
        let user_id = self.user(name).await?;
        if user_id == self.client.me() {
            let own = self.client.with_core(|core| core.identity().public().fingerprint());
            self.screen.notice(&format!("your own fingerprint: {}", own.grouped()));
            return Ok(());
        }
        let (now, pin) = self.client.fingerprint(user_id).await?;
        self.screen.notice(&format!("{name}: {}", now.grouped()));
        if agree {
            self.client.agree(user_id, now).await?;
            self.screen.good(&format!("agreed: this is {name}"));
            return Ok(());
        }
        match pin {
            Some(pin) if pin.fingerprint != now => {
                let (pinned, offered) = (pin.fingerprint, now);
                return Err(ClientError::FingerprintChanged { user_id, pinned, offered }.into());
            }
            Some(pin) if pin.verified => self.screen.good("it is the one that you agreed to"),
            Some(_) => self.screen.hint(&format!("seen before; compare it with {name}, then /verify {name} agree")),
            None => self.screen.hint(&format!("new here; compare it with {name}, then /verify {name} agree")),
        }
        Ok(())
    }
}
