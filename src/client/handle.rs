//! A [`Client`]: one user's standing presence on a server. Reconnects by itself, reads and writes encrypted text.
//!
//! Owns what callers share with the driver task, and the calls that need more than one request. The driver does the
//! rest. Clones are cheap and mean the same client; when the last is dropped, it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::calls::{Asked, Call, Created, Joining, Sent};
use super::connection::{Connection, ConnectionOptions};
use super::driver::Driver;
use super::e2ee::{Body, CannotSeal, Core, Decided, Effect, Message, News};
use super::http::{HttpClient, UserInfo};
use super::identity::{Fingerprint, Identity, PublicKey};
use super::profile::Profile;
use super::ring::Pin;
use super::secret::Secret;
use super::{ClientError, Servers};
use crate::protocol::{
    AcceptJoinSessionApproval, ClientId, Dee2eeizeSession, E2eeizeSession, ErrorCode, FetchMsgs, GetSessionInfo,
    Happening, InviteUserToSession, JoinSession, KeyEpoch, LeaveSession, NewSession, PageLimit, SendMsg, ServerFrame,
    SessionEvent, SessionId, SessionInfo, UserId, decode_server_frame,
};

/// News that wait for their reader.
const NEWS_QUEUE: usize = 1_024;
/// Effects that wait for the driver.
const EFFECTS_QUEUE: usize = 64;

/// Who connects where.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server, whose other addresses are tried when one does not serve.
    pub servers: Servers,
    /// Who.
    pub user_id: UserId,
    /// A token of theirs.
    pub token: Secret,
    /// How connections behave.
    pub options: ConnectionOptions,
    /// How long a message waits for a room key before its sending fails.
    pub key_patience: Duration,
}

impl ClientConfig {
    /// The usual settings.
    pub fn new(servers: impl Into<Servers>, user_id: UserId, token: Secret) -> Self {
        let options = ConnectionOptions::default();
        Self { servers: servers.into(), user_id, token, options, key_patience: Duration::from_secs(30) }
    }
}

/// What handles and the driver share.
pub(super) struct Shared {
    pub(super) me: UserId,
    pub(super) servers: Servers,
    pub(super) options: ConnectionOptions,
    pub(super) http: HttpClient,
    /// The connection, while it is authenticated and resumed.
    pub(super) connection: watch::Sender<Option<Connection>>,
    /// Counts what the driver has done: something that is waited for may be true now.
    pub(super) changed: watch::Sender<u64>,
    /// The driver has ended.
    pub(super) stopped: watch::Sender<bool>,
    core: Mutex<Core>,
    token: Mutex<Secret>,
}

impl Shared {
    /// The core, for the time of one decision; never held across an await.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn token(&self) -> Secret {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A user's presence on a server.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    to_driver: mpsc::Sender<Vec<Effect>>,
    stop: Arc<watch::Sender<bool>>,
    key_patience: Duration,
}

/// What a client has to tell, in order. Whoever does not read it stops the client from reading its connection.
pub struct NewsStream(mpsc::Receiver<News>);

impl NewsStream {
    /// The next; `None` when the client has ended.
    pub async fn next(&mut self) -> Option<News> {
        self.0.recv().await
    }

    /// What is there already.
    pub fn try_next(&mut self) -> Option<News> {
        self.0.try_recv().ok()
    }
}

/// Something of a session's history.
#[derive(Clone, Debug, PartialEq)]
pub enum Past {
    /// A message, as far as it can be read.
    Message(Message),
    /// Another event.
    Event(SessionEvent),
}

impl Client {
    /// Starts; the first connection is made in the background.
    pub fn start(config: ClientConfig, profile: Profile) -> (Self, NewsStream) {
        let ClientConfig { servers, user_id, token, options, key_patience } = config;
        let http = HttpClient::new(servers.clone()).with_tls(options.tls.clone());
        let shared = Arc::new(Shared {
            me: user_id,
            servers,
            options,
            http,
            connection: watch::Sender::new(None),
            changed: watch::Sender::new(0),
            stopped: watch::Sender::new(false),
            core: Mutex::new(Core::new(user_id, profile.identity, profile.ring)),
            token: Mutex::new(token),
        });
        let (to_driver, from_handles) = mpsc::channel(EFFECTS_QUEUE);
        let (tell, news) = mpsc::channel(NEWS_QUEUE);
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(Driver::new(Arc::clone(&shared), from_handles, tell, profile.store, stopping).run());
        (Self { shared, to_driver, stop: Arc::new(stop), key_patience }, NewsStream(news))
    }

    /// Who this is.
    pub fn me(&self) -> UserId {
        self.shared.me
    }

    /// The token in use.
    pub fn token(&self) -> Secret {
        self.shared.token()
    }

    /// The server's HTTP side.
    pub fn http(&self) -> &HttpClient {
        &self.shared.http
    }

    /// Looks at the end-to-end state: keys, pins, what waits for a decision.
    pub fn with_core<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&self.shared.core())
    }

    /// Forgets a session's room keys on this device.
    pub fn forget_keys(&self, session_id: SessionId) {
        self.shared.core().ring_mut().forget_session(session_id);
    }

    /// The connection, once there is one.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] where none comes about, [`ClientError::Stopped`] where none will.
    pub async fn connection(&self) -> Result<Connection, ClientError> {
        let mut connection = self.shared.connection.subscribe();
        let mut stopped = self.shared.stopped.subscribe();
        let waiting = async {
            tokio::select! {
                found = connection.wait_for(Option::is_some) => {
                    found.ok().and_then(|found| found.clone()).ok_or(ClientError::Stopped)
                }
                _ = stopped.wait_for(|stopped| *stopped) => Err(ClientError::Stopped),
            }
        };
        match timeout(self.shared.options.request_timeout, waiting).await {
            Ok(found) => found,
            Err(_) => Err(ClientError::Timeout),
        }
    }

    /// Sends a request on the current connection and waits for its reply.
    ///
    /// # Errors
    /// As [`Connection::call`]; a request is not repeated by itself.
    pub async fn call<C: Call>(&self, request: C) -> Result<C::Reply, ClientError> {
        self.connection().await?.call(request).await
    }

    /// Makes a session. Its first room key is made here and kept here; `members` are invited.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn create_session(
        &self,
        name: Option<&str>,
        members: Vec<UserId>,
        e2ee_on: bool,
    ) -> Result<Created, ClientError> {
        self.shared.core().begin_create();
        let request = NewSession {
            name: name.map(str::to_owned),
            members: Some(members).filter(|members| !members.is_empty()),
            e2ee_on,
            room_key: None,
            key_check: None,
            leave_message: None,
            client_session_id: Some(ClientId(random_id().into())),
        };
        let created = self.repeat(request).await;
        let made = created.as_ref().ok().map(|created| (created.session_id, created.key_epoch));
        let effects = self.shared.core().end_create(made, &mut rand::rng());
        self.run(effects).await;
        created
    }

    /// Asks a user in.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn invite(&self, session_id: SessionId, invitee: UserId) -> Result<(), ClientError> {
        self.call(InviteUserToSession { session_id, invitee, leave_message: None }).await.map(drop)
    }

    /// Answers an invitation.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn answer_invitation(
        &self,
        session_id: SessionId,
        inviter_id: UserId,
        accepted: bool,
    ) -> Result<(), ClientError> {
        self.shared.core().answering(session_id, inviter_id);
        let answered = self.call(AcceptJoinSessionApproval { session_id, inviter_id, accepted }).await;
        if answered.is_ok() || answered.as_ref().is_err_and(|error| !error.retryable()) {
            let effects = self.shared.core().invitation_answered(session_id, inviter_id);
            self.run(effects).await;
        }
        answered.map(drop)
    }

    /// Asks to be let in.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn join(&self, session_id: SessionId, leave_message: Option<&str>) -> Result<Joining, ClientError> {
        self.call(JoinSession { session_id, leave_message: leave_message.map(str::to_owned) }).await
    }

    /// Decides on a join request; the room key goes along where it is here.
    ///
    /// # Errors
    /// [`ClientError::FingerprintChanged`] where the user has to agree first; else as [`Connection::call`].
    pub async fn decide_join(&self, session_id: SessionId, user_id: UserId, accepted: bool) -> Result<(), ClientError> {
        let mut looked_up = None;
        let mut fresh_tries = 2;
        loop {
            let (decided, effects) =
                self.shared.core().decide(session_id, user_id, accepted, looked_up.as_ref(), &mut rand::rng())?;
            self.run(effects).await;
            let request = match decided {
                Decided::Request(request) => *request,
                Decided::NeedsKey => {
                    looked_up = Some(self.user(user_id).await?.key()?);
                    continue;
                }
            };
            match self.call(request).await {
                Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::StaleRoomKey && fresh_tries > 0 => {
                    fresh_tries -= 1;
                    let effects = self.shared.core().stale(session_id, &refusal);
                    self.run(effects).await;
                    self.wait_for_change(Duration::from_secs(2)).await;
                }
                Err(error) if error.code() == Some(ErrorCode::RoomKeyRequired) && fresh_tries > 0 => {
                    fresh_tries -= 1;
                    let effects = self.shared.core().missing_key(session_id);
                    self.run(effects).await;
                    self.wait_for_change(Duration::from_secs(2)).await;
                }
                outcome => {
                    if outcome.as_ref().map_or_else(|error| !error.retryable(), |_| true) {
                        let effects = self.shared.core().join_decided(session_id, user_id);
                        self.run(effects).await;
                    }
                    return outcome.map(drop);
                }
            }
        }
    }

    /// Says something: encrypted where the session is, else in the clear.
    ///
    /// # Errors
    /// [`ClientError::NoRoomKey`] where the key does not come in time; else as [`Connection::call`].
    pub async fn say(&self, session_id: SessionId, text: &str) -> Result<Sent, ClientError> {
        let client_msg_id = ClientId(random_id().into());
        let deadline = Instant::now() + self.key_patience;
        loop {
            let error = match self.say_now(session_id, &client_msg_id, text).await {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            match &error {
                ClientError::Refused(refusal) if refusal.code == ErrorCode::StaleRoomKey => {
                    let effects = self.shared.core().stale(session_id, refusal);
                    self.run(effects).await;
                }
                // The client_msg_id makes a repeated one the same.
                error if error.retryable() => {}
                ClientError::NoRoomKey | ClientError::NotInSession => {}
                _ => return Err(error),
            }
            self.wait_for_change(Duration::from_millis(500)).await;
        }
    }

    /// One attempt. Whether to encrypt is decided with the connection at hand: what that told of the session is known then.
    async fn say_now(&self, session_id: SessionId, id: &ClientId, text: &str) -> Result<Sent, ClientError> {
        let connection = self.connection().await?;
        let sealed = self.shared.core().seal(session_id, id, text, &mut rand::rng());
        match sealed {
            Ok(message) => connection.call(message).await,
            Err(CannotSeal::NotEncrypted) => connection.call(plain(session_id, id, text)).await,
            Err(CannotSeal::NoKey(_)) => {
                let effects = self.shared.core().missing_key(session_id);
                self.run(effects).await;
                Err(ClientError::NoRoomKey)
            }
            // A session just made or joined is not known until its first event has come.
            Err(CannotSeal::NotInSession) => Err(ClientError::NotInSession),
            Err(CannotSeal::Unknown | CannotSeal::Pending) => Err(ClientError::NoRoomKey),
        }
    }

    /// Says something in the clear, encrypted session or not.
    ///
    /// # Errors
    /// `encryption_required` where the session takes no such messages; else as [`Connection::call`].
    pub async fn say_plain(&self, session_id: SessionId, text: &str) -> Result<Sent, ClientError> {
        self.repeat(plain(session_id, &ClientId(random_id().into()), text)).await
    }

    /// Reads the history before an event (or its end), oldest first.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn history(
        &self,
        session_id: SessionId,
        before_seq: Option<u64>,
        limit: u64,
    ) -> Result<Vec<Past>, ClientError> {
        let before = before_seq.unwrap_or((1 << 53) - 1);
        let limit = Some(PageLimit(limit));
        let page = self.call(FetchMsgs { session_id, after_seq: None, before_seq: Some(before), limit }).await?;
        let core = self.shared.core();
        let events = page.events.iter().filter_map(|event| match decode_server_frame(event.get()) {
            Ok(ServerFrame::Event(event)) => Some(*event),
            Ok(_) | Err(_) => None,
        });
        Ok(events.map(|event| past(&core, event)).collect())
    }

    /// Switches encryption on, or has the room key replaced now: this client makes the new one.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn rotate(&self, session_id: SessionId) -> Result<KeyEpoch, ClientError> {
        self.call(E2eeizeSession { session_id }).await.map(|Asked { key_epoch }| key_epoch)
    }

    /// Switches encryption off.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn e2ee_off(&self, session_id: SessionId) -> Result<(), ClientError> {
        self.call(Dee2eeizeSession { session_id }).await.map(drop)
    }

    /// Leaves; `force`: even as the last holder of the room key.
    ///
    /// # Errors
    /// `last_key_holder` where others would be left without it; else as [`Connection::call`].
    pub async fn leave(&self, session_id: SessionId, force: bool) -> Result<(), ClientError> {
        self.call(LeaveSession { session_id, force: Some(force).filter(|force| *force) }).await.map(drop)
    }

    /// What a session is, and its members.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub async fn info(&self, session_id: SessionId) -> Result<SessionInfo, ClientError> {
        self.call(GetSessionInfo { session_id }).await
    }

    /// Who has this id.
    ///
    /// # Errors
    /// `not_found` where nobody does.
    pub async fn user(&self, user_id: UserId) -> Result<UserInfo, ClientError> {
        self.http().user(&self.token(), user_id).await
    }

    /// Who has this name.
    ///
    /// # Errors
    /// `not_found` where nobody does.
    pub async fn user_named(&self, name: &str) -> Result<UserInfo, ClientError> {
        self.http().user_named(&self.token(), name).await
    }

    /// Somebody's fingerprint as the server has it now, and what is pinned for them.
    ///
    /// # Errors
    /// `not_found` where there is no such user.
    pub async fn fingerprint(&self, user_id: UserId) -> Result<(Fingerprint, Option<Pin>), ClientError> {
        let key = self.user(user_id).await?.key()?;
        Ok((key.fingerprint(), self.with_core(|core| core.ring().pin(user_id))))
    }

    /// The user agrees to this fingerprint: what was withheld is given, what was held back is taken.
    ///
    /// # Errors
    /// [`ClientError::FingerprintChanged`] where the server has yet another one by now.
    pub async fn agree(&self, user_id: UserId, fingerprint: Fingerprint) -> Result<(), ClientError> {
        let key = self.user(user_id).await?.key()?;
        if key.fingerprint() != fingerprint {
            return Err(ClientError::FingerprintChanged { user_id, pinned: fingerprint, offered: key.fingerprint() });
        }
        let effects = self.shared.core().agree(user_id, &key);
        self.run(effects).await;
        Ok(())
    }

    /// Replaces this account's key pair.
    ///
    /// # Errors
    /// `permission_denied` for a wrong password.
    pub async fn replace_identity(&self, password: &str, identity: Arc<Identity>) -> Result<(), ClientError> {
        let public: PublicKey = identity.public().clone();
        // First here: keys wrapped for the new one may come before the answer.
        let before = Arc::clone(self.shared.core().identity());
        self.shared.core().replace_identity(identity);
        let replaced = self.http().set_public_key(&self.token(), password, &public).await;
        if replaced.as_ref().is_err_and(|error| error.code().is_some()) {
            self.shared.core().replace_identity(before);
        }
        replaced
    }

    /// Says goodbye and waits until everything is written.
    pub async fn close(self) {
        self.stop.send_replace(true);
        let _ = self.shared.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Sends a request again while nobody knows, or the server is busy. For those that are made one by their id.
    async fn repeat<C: Call + Clone>(&self, request: C) -> Result<C::Reply, ClientError> {
        let deadline = Instant::now() + self.shared.options.request_timeout;
        loop {
            match self.call(request.clone()).await {
                Err(error) if error.retryable() && Instant::now() < deadline => {
                    sleep(Duration::from_millis(250)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn run(&self, effects: Vec<Effect>) {
        // Sent even where there are none: keys that were asked for may be ready to be given.
        let _ = self.to_driver.send(effects).await;
    }

    /// Waits until the driver has done something, or for so long.
    async fn wait_for_change(&self, at_most: Duration) {
        let mut changed = self.shared.changed.subscribe();
        let _ = timeout_at(Instant::now() + at_most, changed.changed()).await;
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("me", &self.shared.me).finish_non_exhaustive()
    }
}

fn past(core: &Core, event: SessionEvent) -> Past {
    let SessionEvent { session_id, seq, time, .. } = event;
    match &event.what {
        Happening::Msg(msg) => {
            let body: Body = core.read(session_id, msg);
            let client_msg_id = msg.client_msg_id.clone();
            let sender_id = msg.sender_id;
            Past::Message(Message { session_id, seq, time, sender_id, client_msg_id, body, late: false })
        }
        _ => Past::Event(event),
    }
}

fn plain(session_id: SessionId, client_msg_id: &ClientId, text: &str) -> SendMsg {
    SendMsg {
        session_id,
        markdown_text: text.to_owned(),
        is_encrypted: false,
        key_epoch: None,
        client_msg_id: Some(client_msg_id.clone()),
        content_type: None,
    }
}

/// An id that nobody else makes.
fn random_id() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
