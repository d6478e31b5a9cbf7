//! Argument limits: what is checked of a request before anybody asks whether its session exists.

use super::{ErrorCode, NewSession, Refusal, Request};

/// Sizes that the configuration sets. All in bytes, `list` in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `markdown_text`.
    pub text: usize,
    /// A session's `name`.
    pub name: usize,
    /// A session's `description`.
    pub description: usize,
    /// `leave_message`.
    pub leave_message: usize,
    /// `content_type`, and the `reason` of a withheld key.
    pub word: usize,
    /// Elements of any list.
    pub list: usize,
}

impl Request {
    /// Checks what can be checked without a session.
    ///
    /// # Errors
    /// `too_large` for a text over its limit, `invalid_argument` for anything else, each with the field's name.
    pub fn check(&self, limits: &Limits) -> Result<(), Refusal> {
        match self {
            Self::NewSession(body) => check_new_session(body, limits),
            Self::JoinSession(body) => at_most("leave_message", body.leave_message.as_deref(), limits.leave_message),
            Self::InviteUserToSession(body) => {
                at_most("leave_message", body.leave_message.as_deref(), limits.leave_message)
            }
            Self::SendRoomKeys(body) => {
                list("room_keys", body.room_keys.len(), limits)?;
                let withheld = body.withheld.as_deref().unwrap_or_default();
                list("withheld", withheld.len(), limits)?;
                withheld.iter().try_for_each(|one| at_most("withheld.reason", Some(&one.reason), limits.word))
            }
            Self::SendMsg(body) => {
                if body.markdown_text.len() > limits.text {
                    let message = format!("markdown_text: expected at most {} bytes", limits.text);
                    return Err(Refusal::new(ErrorCode::TooLarge, message));
                }
                at_most("content_type", body.content_type.as_deref(), limits.word)
            }
            Self::SetSessionInfo(body) => {
                at_most("name", body.name.as_deref(), limits.name)?;
                at_most("description", body.description.as_deref(), limits.description)
            }
            Self::FetchMsgs(body) => match (body.after_seq, body.before_seq) {
                (Some(_), Some(_)) => Err(Refusal::invalid("before_seq", "expected one of after_seq and before_seq")),
                (None, Some(0)) => Err(Refusal::invalid("before_seq", "expected an integer from 1")),
                (Some(_) | None, None) | (None, Some(_)) => Ok(()),
            },
            Self::RecallMsg(body) if body.seq == 0 => Err(Refusal::invalid("seq", "expected an integer from 1")),
            Self::AckInbox(body) => list("inbox_ids", body.inbox_ids.len(), limits),
            Self::Authenticate(_)
            | Self::Resume(_)
            | Self::AllowUserJoinSession(_)
            | Self::AcceptJoinSessionApproval(_)
            | Self::SendRoomKey(_)
            | Self::FetchRoomKeys(_)
            | Self::RequestRoomKey(_)
            | Self::E2eeizeSession(_)
            | Self::Dee2eeizeSession(_)
            | Self::LeaveSession(_)
            | Self::DeleteSession(_)
            | Self::KickUser(_)
            | Self::BanUser(_)
            | Self::UnbanUser(_)
            | Self::MuteUser(_)
            | Self::UnmuteUser(_)
            | Self::SetRole(_)
            | Self::GetSessionInfo(_)
            | Self::ListMembers(_)
            | Self::RecallMsg(_)
            | Self::Ack(_)
            | Self::Typing(_)
            | Self::Ping(_) => Ok(()),
        }
    }
}

fn check_new_session(body: &NewSession, limits: &Limits) -> Result<(), Refusal> {
    at_most("name", body.name.as_deref(), limits.name)?;
    at_most("leave_message", body.leave_message.as_deref(), limits.leave_message)?;
    list("members", body.members.as_deref().unwrap_or_default().len(), limits)?;
    let key = [("room_key", &body.room_key), ("key_check", &body.key_check)];
    match key.iter().find(|(_, value)| value.is_some() && !body.e2ee_on) {
        Some((field, _)) => {
            Err(Refusal::new(ErrorCode::E2eeNotOn, format!("{field}: the session is made without e2ee_on")))
        }
        None => Ok(()),
    }
}

fn at_most(field: &str, text: Option<&str>, bytes: usize) -> Result<(), Refusal> {
    match text {
        Some(text) if text.len() > bytes => Err(Refusal::invalid(field, &format!("expected at most {bytes} bytes"))),
        Some(_) | None => Ok(()),
    }
}

fn list(field: &str, len: usize, limits: &Limits) -> Result<(), Refusal> {
    if len > limits.list {
        return Err(Refusal::invalid(field, &format!("expected at most {} elements", limits.list)));
    }
    Ok(())
}
