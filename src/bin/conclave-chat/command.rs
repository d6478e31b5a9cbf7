//! What can be typed, read into a type. Pure.

use conclave::protocol::{Role, SessionId};

/// One line of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Say(String),
    SayPlain(String),
    Create { name: String, encrypted: bool },
    Invite(String),
    Join(SessionId, Option<String>),
    Approve(String),
    Deny(String),
    Accept(Option<usize>),
    Decline(Option<usize>),
    Leave { force: bool },
    E2ee(bool),
    Rotate,
    Lost,
    Who,
    History(u64),
    Switch(String),
    Sessions,
    Verify { name: String, agree: bool },
    Kick(String),
    Ban(String, Option<u64>),
    Unban(String),
    Mute(String, Option<u64>),
    Unmute(String),
    SetRole(String, Role),
    Recall(u64),
    Delete,
    Help,
    Quit,
    Nothing,
}

/// Every command with its arguments and what it does, as `/help` shows it.
pub(crate) const HELP: &[(&str, &str)] = &[
    ("TEXT", "say something in the current session"),
    ("/create NAME [plain]", "make a session; it is encrypted unless you say plain"),
    ("/invite NAME", "ask somebody into the current session"),
    ("/accept [N], /decline [N]", "answer an invitation"),
    ("/join SESSION_ID [MESSAGE]", "ask to be let into a session"),
    ("/approve NAME, /deny NAME", "decide on somebody's request to be let in"),
    ("/sessions, /switch N or NAME", "your sessions; go to one of them"),
    ("/who", "the members of the current session"),
    ("/history [N]", "the last N events"),
    ("/verify NAME [agree]", "somebody's fingerprint; agree after comparing it with them"),
    ("/e2ee on, /e2ee off", "switch encryption"),
    ("/rotate", "replace the room key now"),
    ("/lost", "ask for the room key again"),
    ("/plain TEXT", "say something in the clear, in an encrypted session"),
    ("/recall SEQ", "take a message back"),
    ("/kick NAME, /ban NAME [SECONDS], /unban NAME", "put somebody out, keep them out, let them back"),
    ("/mute NAME [SECONDS], /unmute NAME", "take somebody's voice, give it back"),
    ("/role NAME owner|admin|member", "give somebody a role"),
    ("/leave [force], /delete", "leave the session; end it for everybody"),
    ("/help, /quit", "this list; goodbye"),
];

impl Command {
    /// Reads a line; what is wrong with it otherwise.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Self::Nothing);
        }
        let Some(command) = line.strip_prefix('/') else { return Ok(Self::Say(line.to_owned())) };
        if let Some(text) = command.strip_prefix('/') {
            // Two slashes: a text that begins with one.
            return Ok(Self::Say(format!("/{text}")));
        }
        let (word, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let words: Vec<&str> = rest.split_whitespace().collect();
        Self::parse_words(word, rest, &words).ok_or_else(|| {
            match HELP.iter().find(|(usage, _)| mentions(usage, word)) {
                Some((usage, _)) => format!("usage: {usage}"),
                None => format!("there is no /{word}; /help shows what there is"),
            }
        })
    }

    fn parse_words(word: &str, rest: &str, words: &[&str]) -> Option<Self> {
        let name = |text: &str| text.trim_start_matches('@').to_owned();
        Some(match (word, words) {
            ("plain", [_, ..]) => Self::SayPlain(rest.to_owned()),
            ("create", [_, ..]) => match rest.strip_suffix(" plain") {
                Some(name) => Self::Create { name: name.trim().to_owned(), encrypted: false },
                None => Self::Create { name: rest.to_owned(), encrypted: true },
            },
            ("invite", [who]) => Self::Invite(name(who)),
            ("join", [id]) => Self::Join(id.parse().ok()?, None),
            ("join", [id, ..]) => Self::Join(id.parse().ok()?, Some(rest.strip_prefix(id)?.trim().to_owned())),
            ("approve", [who]) => Self::Approve(name(who)),
            ("deny", [who]) => Self::Deny(name(who)),
            ("accept", []) => Self::Accept(None),
            ("accept", [number]) => Self::Accept(Some(number.parse().ok()?)),
            ("decline", []) => Self::Decline(None),
            ("decline", [number]) => Self::Decline(Some(number.parse().ok()?)),
            ("leave", []) => Self::Leave { force: false },
            ("leave", ["force"]) => Self::Leave { force: true },
            ("e2ee", ["on"]) => Self::E2ee(true),
            ("e2ee", ["off"]) => Self::E2ee(false),
            ("rotate", []) => Self::Rotate,
            ("lost", []) => Self::Lost,
            ("who", []) => Self::Who,
            ("history", []) => Self::History(20),
            ("history", [number]) => Self::History(number.parse().ok().filter(|number| *number > 0)?),
            ("switch", [_, ..]) => Self::Switch(rest.to_owned()),
            ("sessions", []) => Self::Sessions,
            ("verify", [who]) => Self::Verify { name: name(who), agree: false },
            ("verify", [who, "agree"]) => Self::Verify { name: name(who), agree: true },
            ("kick", [who]) => Self::Kick(name(who)),
            ("ban", [who]) => Self::Ban(name(who), None),
            ("ban", [who, seconds]) => Self::Ban(name(who), Some(seconds.parse().ok()?)),
            ("unban", [who]) => Self::Unban(name(who)),
            ("mute", [who]) => Self::Mute(name(who), None),
            ("mute", [who, seconds]) => Self::Mute(name(who), Some(seconds.parse().ok()?)),
            ("unmute", [who]) => Self::Unmute(name(who)),
            ("role", [who, "owner"]) => Self::SetRole(name(who), Role::Owner),
            ("role", [who, "admin"]) => Self::SetRole(name(who), Role::Admin),
            ("role", [who, "member"]) => Self::SetRole(name(who), Role::Member),
            ("recall", [seq]) => Self::Recall(seq.parse().ok()?),
            ("delete", []) => Self::Delete,
            ("help", []) => Self::Help,
            ("quit" | "exit", []) => Self::Quit,
            _ => return None,
        })
    }
}

fn mentions(usage: &str, word: &str) -> bool {
    usage.split([' ', ',']).any(|part| part.strip_prefix('/') == Some(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let read = |line: &str| Command::parse(line).unwrap();
        assert_eq!(read("hello /world "), Command::Say("hello /world".to_owned()));
        assert_eq!(read("//shrug"), Command::Say("/shrug".to_owned()));
        assert_eq!(read("  "), Command::Nothing);
        assert_eq!(
            read("/create the round table"),
            Command::Create { name: "the round table".into(), encrypted: true }
        );
        assert_eq!(read("/create market plain"), Command::Create { name: "market".into(), encrypted: false });
        assert_eq!(read("/verify @bob agree"), Command::Verify { name: "bob".into(), agree: true });
        assert_eq!(read("/ban bob 60"), Command::Ban("bob".into(), Some(60)));
        let id = "01927c3e-7b1a-7c4e-9a53-2f6f0f9f1a01";
        let join = Command::Join(id.parse().unwrap(), Some("let me in".to_owned()));
        assert_eq!(read(&format!("/join {id} let me in")), join);
    }

    #[test]
    fn mistakes_are_explained() {
        assert_eq!(Command::parse("/ban").unwrap_err(), "usage: /kick NAME, /ban NAME [SECONDS], /unban NAME");
        assert_eq!(Command::parse("/dance").unwrap_err(), "there is no /dance; /help shows what there is");
        for (usage, _) in HELP.iter().filter(|(usage, _)| usage.starts_with('/')) {
            let word = usage[1..].split([' ', ',']).next().unwrap();
            let known = Command::parse(&format!("/{word}")).map_or_else(|why| why.starts_with("usage"), |_| true);
            assert!(known, "{usage}");
        }
    }
}
