//! The chat: two loops, one over what the client has to tell and one over what the user types, and what both know.
//!
//! Owns names of people, the list of sessions and which is the current one. What a line does is in `act`, how news
//! look in `show`.

mod act;
mod show;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use conclave::client::profile::Profile;
use conclave::client::{Client, ClientConfig, ClientError, NewsStream};
use conclave::protocol::{ErrorCode, SessionId, UserId};

use crate::command::Command;
use crate::input::{Input, Prompt};
use crate::screen::{Screen, clean};

/// Names that are remembered; beyond it they are looked up again.
const MAX_NAMES: usize = 10_000;
/// How long to wait for goodbyes.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// What is known of a session.
#[derive(Clone, Debug)]
struct Room {
    name: String,
    e2ee_on: bool,
}

#[derive(Default)]
struct State {
    rooms: BTreeMap<SessionId, Room>,
    current: Option<SessionId>,
    names: BTreeMap<UserId, String>,
}

struct Chat {
    client: Client,
    screen: Screen,
    prompt: Prompt,
    state: Mutex<State>,
}

/// Chats until the user has enough.
pub(crate) async fn run(
    config: ClientConfig,
    profile: Profile,
    name: &str,
    screen: Screen,
    input: Input,
) -> anyhow::Result<()> {
    let (client, news) = Client::start(config, profile);
    let prompt = Prompt::default();
    let chat = Arc::new(Chat { client: client.clone(), screen, prompt: Arc::clone(&prompt), state: Mutex::default() });
    chat.state().names.insert(client.me(), name.to_owned());
    chat.update_prompt();
    let mut showing = tokio::spawn(Arc::clone(&chat).show_all(news));
    let connected = client.connection().await;
    if let Err(error) = &connected {
        chat.screen.alarm(&format!("not connected: {error}"));
    }
    chat.screen.hint("/help shows what can be typed");
    let mut lines = input.start(prompt);
    let stopped = loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            _ = &mut showing => break true,
        };
        let Some(line) = line else { break false };
        match Command::parse(&line.text) {
            Ok(Command::Quit) => break false,
            Ok(command) => {
                if let Err(error) = chat.act(command).await {
                    chat.screen.alarm(&explain(&error));
                }
                chat.update_prompt();
            }
            Err(usage) => chat.screen.alarm(&usage),
        }
    };
    let _ = tokio::time::timeout(CLOSE_WITHIN, client.close()).await;
    anyhow::ensure!(!stopped, "the server does not want this client any more");
    Ok(())
}

impl Chat {
    async fn show_all(self: Arc<Self>, mut news: NewsStream) {
        while let Some(news) = news.next().await {
            self.show(news).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Result<SessionId, Problem> {
        self.state().current.ok_or(Problem::NoSession)
    }

    fn update_prompt(&self) {
        let prompt = {
            let state = self.state();
            match state.current.and_then(|id| state.rooms.get(&id)) {
                Some(room) => format!("{}{}> ", if room.e2ee_on { "🔒" } else { "" }, room.name),
                None => "> ".to_owned(),
            }
        };
        *self.prompt.lock().unwrap_or_else(PoisonError::into_inner) = prompt;
    }

    /// A session that is shown from now on.
    fn add_room(&self, session_id: SessionId, name: Option<&str>, e2ee_on: bool) {
        let name = name.map_or_else(|| short(&session_id.to_string()), clean);
        let mut state = self.state();
        state.rooms.insert(session_id, Room { name, e2ee_on });
        if state.current.is_none() {
            state.current = Some(session_id);
        }
        drop(state);
        self.update_prompt();
    }

    fn remove_room(&self, session_id: SessionId) {
        let mut state = self.state();
        state.rooms.remove(&session_id);
        if state.current == Some(session_id) {
            state.current = state.rooms.keys().next().copied();
        }
        drop(state);
        self.update_prompt();
    }

    fn room_name(&self, session_id: SessionId) -> String {
        let state = self.state();
        state.rooms.get(&session_id).map_or_else(|| short(&session_id.to_string()), |room| room.name.clone())
    }

    /// Somebody's name, asked for once.
    async fn name(&self, user_id: UserId) -> String {
        if let Some(name) = self.state().names.get(&user_id) {
            return name.clone();
        }
        match self.client.user(user_id).await {
            Ok(user) => {
                let name = clean(&user.name);
                let mut state = self.state();
                if state.names.len() >= MAX_NAMES {
                    state.names.pop_first();
                }
                state.names.insert(user_id, name.clone());
                name
            }
            Err(_) => short(&user_id.to_string()),
        }
    }

    /// Who has this name.
    async fn user(&self, name: &str) -> Result<UserId, Problem> {
        let known = self.state().names.iter().find(|(_, known)| *known == name).map(|(user_id, _)| *user_id);
        match known {
            Some(user_id) => Ok(user_id),
            None => match self.client.user_named(name).await {
                Ok(user) => Ok(user.user_id),
                Err(error) if error.code() == Some(ErrorCode::NotFound) => Err(Problem::NoUser(name.to_owned())),
                Err(error) => Err(error.into()),
            },
        }
    }
}

/// Why a line could not be done.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("not in a session: /create one, /join one, or /accept an invitation")]
    NoSession,
    #[error("there is no user called {0}")]
    NoUser(String),
    #[error("{0}")]
    Other(&'static str),
}

/// What a person can do about it.
fn explain(problem: &Problem) -> String {
    let Problem::Client(error) = problem else { return problem.to_string() };
    if let ClientError::FingerprintChanged { pinned, offered, .. } = error {
        return format!(
            "their fingerprint has changed, so nothing was sent\n    was {}\n    is  {}\n  \
             compare it with them by other means, then /verify NAME agree",
            pinned.grouped(),
            offered.grouped()
        );
    }
    match error.code() {
        Some(ErrorCode::LastKeyHolder) => {
            "you are the last who has the room key: wait until others have it, or /leave force".to_owned()
        }
        Some(ErrorCode::EncryptionRequired) => "this session takes encrypted messages only".to_owned(),
        Some(ErrorCode::Muted) => "you are muted here".to_owned(),
        Some(ErrorCode::PermissionDenied) => "your role here does not allow that".to_owned(),
        Some(ErrorCode::Banned) => "you are banned from that session".to_owned(),
        Some(_) | None => clean(&error.to_string()),
    }
}

/// The last part of an id: enough to tell a few apart.
fn short(id: &str) -> String {
    let tail = id.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
    format!("…{}", &id[tail..])
}
