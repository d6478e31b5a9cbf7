//! One person of the story: an account, a client, and what they have been told and not yet looked at.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use conclave::client::e2ee::{Asking, Body, KeyNews, Message, News};
use conclave::client::identity::Identity;
use conclave::client::profile::Profile;
use conclave::client::secret::Secret;
use conclave::client::{Client, ClientConfig, ClientError, HttpClient, NewsStream, ServerAddress};
use conclave::protocol::{ErrorCode, Happening, KeyEpoch, SessionEvent, SessionId, UserId};
use tokio::time::{Instant, timeout_at};

use crate::secrets::Secrets;

/// How long anything may take to be heard of.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) password: String,
    pub(crate) user_id: UserId,
    pub(crate) token: Secret,
    pub(crate) identity: Arc<Identity>,
    pub(crate) server: ServerAddress,
    pub(crate) client: Client,
    /// Where the keys are, where they are in files: gone with the person.
    pub(crate) home: Option<tempfile::TempDir>,
    news: NewsStream,
    heard: Vec<News>,
}

impl Person {
    /// Registers and connects.
    pub(crate) async fn register(server: &ServerAddress, name: String, secrets: &Secrets) -> anyhow::Result<Self> {
        let password = format!("the quiet password of {name}");
        let identity = Arc::new(tokio::task::spawn_blocking(|| Identity::generate(2048, &mut rand::rng())).await??);
        secrets.password(&password);
        secrets.identity(&identity)?;
        let http = HttpClient::new(server.clone());
        let login = http.register(&name, &password, identity.public(), None).await.context("register")?;
        secrets.token(login.token.expose());
        let profile = Profile::in_memory(Arc::clone(&identity));
        Self::connect(server, name, password, login.user_id, login.token, profile).await
    }

    /// Another device of the same person, with the same key pair and these keys.
    pub(crate) async fn device(&self, token: Secret, profile: Profile) -> anyhow::Result<Self> {
        Self::connect(&self.server, self.name.clone(), self.password.clone(), self.user_id, token, profile).await
    }

    async fn connect(
        server: &ServerAddress,
        name: String,
        password: String,
        user_id: UserId,
        token: Secret,
        profile: Profile,
    ) -> anyhow::Result<Self> {
        let identity = Arc::clone(&profile.identity);
        let (client, news) = Client::start(ClientConfig::new(server.clone(), user_id, token.clone()), profile);
        client.connection().await.with_context(|| format!("{name} cannot connect"))?;
        let server = server.clone();
        Ok(Self { name, password, user_id, token, identity, server, client, home: None, news, heard: Vec::new() })
    }

    pub(crate) fn http(&self) -> &HttpClient {
        self.client.http()
    }

    /// Waits until something that `pick` wants has been told, whatever else is told before and after.
    pub(crate) async fn hears<T>(&mut self, what: &str, mut pick: impl FnMut(&News) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut at = 0;
        loop {
            while let Some(news) = self.heard.get(at) {
                if let Some(picked) = pick(news) {
                    self.heard.remove(at);
                    return Ok(picked);
                }
                at += 1;
            }
            match timeout_at(deadline, self.news.next()).await {
                Ok(Some(News::Gap { expected, came, .. })) => {
                    bail!("{}: events from {expected} on are missing before {came}", self.name)
                }
                Ok(Some(news)) => self.heard.push(news),
                Ok(None) => bail!("{}'s client ended while waiting for {what}", self.name),
                Err(_) => bail!("{} did not hear of {what}; heard {:?}", self.name, self.heard),
            }
        }
    }

    /// Forgets what was heard up to now.
    pub(crate) fn clears(&mut self) {
        while self.news.try_next().is_some() {}
        self.heard.clear();
    }

    /// Whether anything like that has been told up to now.
    pub(crate) fn has_heard(&mut self, mut like: impl FnMut(&News) -> bool) -> bool {
        while let Some(news) = self.news.try_next() {
            self.heard.push(news);
        }
        self.heard.iter().any(&mut like)
    }

    /// Waits for a session event.
    pub(crate) async fn sees<T>(
        &mut self,
        what: &str,
        mut pick: impl FnMut(&SessionEvent, &Happening) -> Option<T>,
    ) -> anyhow::Result<T> {
        self.hears(what, |news| match news {
            News::Event(event) => pick(event, &event.what),
            _ => None,
        })
        .await
    }

    /// Says something secret, with a line in the book of secrets.
    pub(crate) async fn says(&self, session_id: SessionId, text: &str, secrets: &Secrets) -> anyhow::Result<u64> {
        secrets.plaintext(text);
        let sent = self.client.say(session_id, text).await;
        secrets.room_keys(&self.client);
        Ok(sent.with_context(|| format!("{} speaks", self.name))?.seq)
    }

    /// Waits for a message, and checks that it came encrypted and was read.
    pub(crate) async fn reads(&mut self, text: &str) -> anyhow::Result<Message> {
        let message = self
            .hears(&format!("the message {text:?}"), |news| match news {
                News::Message(message) if message.body.text() == Some(text) => Some(message.clone()),
                _ => None,
            })
            .await?;
        ensure!(matches!(message.body, Body::Decrypted(_)), "{} got {text:?} in the clear", self.name);
        Ok(*message)
    }

    /// Waits for a room key.
    pub(crate) async fn gets_key(&mut self, session_id: SessionId) -> anyhow::Result<KeyEpoch> {
        self.hears("a room key", |news| match news {
            News::Keys(KeyNews::Arrived { name, .. }) if name.session_id == session_id => Some(name.key_epoch),
            _ => None,
        })
        .await
    }

    /// Waits until this epoch is the current one.
    pub(crate) async fn sees_rotation(&mut self, session_id: SessionId, epoch: KeyEpoch) -> anyhow::Result<()> {
        self.sees(&format!("room key {}", epoch.0), |event, what| match what {
            Happening::RoomKeyRotated(rotated) if event.session_id == session_id && rotated.key_epoch == epoch => {
                Some(())
            }
            _ => None,
        })
        .await
    }

    /// Waits for somebody's coming.
    pub(crate) async fn sees_join(&mut self, session_id: SessionId, user_id: UserId) -> anyhow::Result<()> {
        self.sees("a MemberJoined", |event, what| match what {
            Happening::MemberJoined(joined) if event.session_id == session_id && joined.user_id == user_id => Some(()),
            _ => None,
        })
        .await
    }

    /// Invites somebody, who accepts and gets the room key.
    pub(crate) async fn brings_in(&mut self, session_id: SessionId, other: &mut Self) -> anyhow::Result<KeyEpoch> {
        self.client.invite(session_id, other.user_id).await.context("invite_user_to_session")?;
        let me = self.user_id;
        other
            .hears("an invitation", |news| match news {
                News::Asking(Asking::Invitation { session_id: to, inviter_id, .. })
                    if *to == session_id && *inviter_id == me =>
                {
                    Some(())
                }
                _ => None,
            })
            .await?;
        other.client.answer_invitation(session_id, me, true).await.context("accept_join_session_approval")?;
        self.hears("the answer to the invitation", |news| match news {
            News::Asking(Asking::InvitationAnswered { invitee_id, accepted: true, .. })
                if *invitee_id == other.user_id =>
            {
                Some(())
            }
            _ => None,
        })
        .await?;
        other.sees_join(session_id, other.user_id).await?;
        other.gets_key(session_id).await
    }
}

/// Checks that something was refused, and how.
pub(crate) fn refused<T>(what: &str, outcome: Result<T, ClientError>, code: ErrorCode) -> anyhow::Result<()> {
    match outcome {
        Err(ClientError::Refused(refusal)) if refusal.code == code => Ok(()),
        Err(error) => bail!("{what}: expected the refusal {}, got: {error}", code.as_str()),
        Ok(_) => bail!("{what}: expected the refusal {}, but it was done", code.as_str()),
    }
}
