//! The members: their clients, their sessions, and what changes while they speak: who is a member, and the room key.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conclave::client::profile::Profile;
use conclave::client::{Client, ClientConfig, ClientError, ConnectionOptions, NewsStream};
use conclave::protocol::{DeleteSession, ErrorCode, KickUser};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::book::{Member, Todo};
use super::{Room, Shared};
use crate::arguments::{Common, Rotation};
use crate::persist::{done, persist};
use crate::stop;
use crate::target::{self, Endpoint};
use crate::users::User;

/// How long a member who was put out stays away.
const AWAY: Duration = Duration::from_millis(300);

/// The members' clients, by number.
pub(super) struct People {
    clients: Vec<Client>,
    /// How long what the server cannot do now is tried.
    patience: Duration,
}

impl People {
    /// Starts a client for each user, and waits until all are connected.
    pub(super) async fn connect(
        shared: &Shared,
        users: &[User],
        endpoints: &[Endpoint],
        common: &Common,
    ) -> Result<Self> {
        let (patience, trust) = (common.patience, target::trust(common)?);
        let mut clients = Vec::with_capacity(users.len());
        for (number, user) in users.iter().enumerate() {
            let config = ClientConfig {
                key_patience: patience,
                options: ConnectionOptions { tls: Some(Arc::clone(&trust)), ..ConnectionOptions::default() },
                ..ClientConfig::new(target::servers(endpoints, number)?, user.user_id, user.token.clone())
            };
            shared.book().members.push(Member {
                user_id: user.user_id,
                node: String::new(),
                connected: false,
                leaving: false,
                busy: 0,
                stays: Vec::new(),
                old: None,
            });
            let (client, news) = Client::start(config, Profile::in_memory(Arc::new(user.identity()?)));
            tokio::spawn(listen(number, client.clone(), news, shared.clone(), patience));
            clients.push(client);
        }
        let all = |book: &mut super::Book| book.members.iter().all(|member| member.connected) || stop::asked();
        ensure!(shared.until(patience, all).await, "not all members could connect");
        ensure!(!stop::asked(), "stopped while connecting");
        Ok(Self { clients, patience })
    }

    pub(super) fn client(&self, member: usize) -> &Client {
        &self.clients[member]
    }

    /// Clears away what earlier runs of these users left behind.
    pub(super) async fn clear_away(&self, shared: &Shared) -> Result<()> {
        let old = |own: bool| -> Vec<_> {
            let book = shared.book();
            let members = book.members.iter().enumerate();
            let of = |(number, member): (usize, &Member)| {
                member.old.iter().flatten().map(|old| (number, *old)).collect::<Vec<_>>()
            };
            members.flat_map(of).filter(|(_, (_, is_own))| *is_own == own).collect()
        };
        for (member, (session_id, _)) in old(true) {
            let deleted = persist(self.patience, || self.clients[member].call(DeleteSession { session_id })).await;
            done(deleted.map(drop), ErrorCode::NotFound).context("an old session")?;
        }
        for (member, (session_id, _)) in old(false) {
            // With its owner's sessions it may have been deleted just now.
            match persist(self.patience, || self.clients[member].leave(session_id, true)).await {
                Err(error) if error.code().is_none() => return Err(error).context("an old session"),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Makes encrypted sessions of so many members each, and waits until everybody is in.
    pub(super) async fn make_rooms(&self, shared: &Shared, members: usize) -> Result<Vec<Room>> {
        let mut rooms = Vec::new();
        for first in (0..self.clients.len()).step_by(members) {
            let owner = self.client(first);
            let created = persist(self.patience, || owner.create_session(Some("load"), Vec::new(), true)).await;
            let id = created.context("no session could be made")?.session_id;
            let members: Vec<usize> = (first..first + members).collect();
            let (number, speakers) = {
                let mut book = shared.book();
                let number = book.session(id);
                let speakers = members.iter().map(|&member| {
                    let user_id = book.members[member].user_id.to_string();
                    book.speakers.push(member);
                    book.ledger.add_speaker(number, &user_id)
                });
                (number, speakers.collect())
            };
            for &member in &members[1..] {
                let user_id = self.client(member).me();
                let asked = persist(self.patience, || owner.invite(id, user_id)).await;
                done(asked, ErrorCode::AlreadyExists).context("nobody could be invited")?;
            }
            rooms.push(Room { id, number, members, speakers });
        }
        let all_in = |book: &mut super::Book| (0..book.members.len()).all(|member| book.stay(member).is_some());
        ensure!(shared.until(self.patience, all_in).await, "not all who were invited became members");
        Ok(rooms)
    }

    /// Ends the sessions, if nothing has to be looked at, and the clients.
    pub(super) async fn close(&self, shared: &Shared, rooms: &[Room], delete: bool) {
        shared.book().serving = false;
        if delete {
            for room in rooms {
                // What stays is cleared away by the next run.
                let _ = self.client(room.members[0]).call(DeleteSession { session_id: room.id }).await;
            }
        }
        let mut closing = JoinSet::new();
        self.clients.iter().for_each(|client| drop(closing.spawn(client.clone().close())));
        let _ = tokio::time::timeout(Duration::from_secs(5), closing.join_all()).await;
    }
}

/// Writes a member's news in the book, and does what they ask for.
async fn listen(number: usize, client: Client, mut news: NewsStream, shared: Shared, patience: Duration) {
    while let Some(news) = news.next().await {
        let todo = shared.book().hear(number, news);
        match todo {
            Some(Todo::Accept { session_id, inviter_id }) => {
                let (client, shared) = (client.clone(), shared.clone());
                // Beside the reading: whoever waits for a reply must not stop the news.
                tokio::spawn(async move {
                    match persist(patience, || client.answer_invitation(session_id, inviter_id, true)).await {
                        // An old one, or one that was told again after it was accepted.
                        Ok(()) | Err(ClientError::Refused(_) | ClientError::Stopped) => {}
                        Err(error) => shared.book().tally.fail(&format!("an invitation was not accepted: {error}")),
                    }
                });
            }
            None => {}
        }
    }
}

/// Members who go and come back, and keys that are replaced, in each session until it is stopped.
pub(super) struct Changing {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Changing {
    pub(super) fn start(options: &Rotation, people: &Arc<People>, shared: &Shared, rooms: &[Room]) -> Self {
        let (stop, stopping) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for room in rooms {
            let change = Change {
                room: room.clone(),
                people: Arc::clone(people),
                shared: shared.clone(),
                stopping: stopping.clone(),
                patience: options.common.patience,
            };
            if !options.rotate_every.is_zero() {
                tasks.spawn(change.clone().rotate(options.rotate_every));
            }
            if !options.change_every.is_zero() && room.members.len() > 1 {
                tasks.spawn(change.change_members(options.change_every));
            }
        }
        Self { stop, tasks }
    }

    /// Lets what is under way come to its end.
    pub(super) async fn stop(self, patience: Duration) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(2 * patience, self.tasks.join_all()).await;
    }
}

#[derive(Clone)]
struct Change {
    room: Room,
    people: Arc<People>,
    shared: Shared,
    stopping: watch::Receiver<bool>,
    patience: Duration,
}

impl Change {
    /// Waits; tells whether to go on.
    async fn wait(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = sleep(time) => true,
            _ = self.stopping.wait_for(|stop| *stop) => false,
        }
    }

    fn fail(&self, why: &str) {
        self.shared.book().tally.fail(why);
    }

    /// Has the owner replace the room key, again and again.
    async fn rotate(mut self, every: Duration) {
        let owner = self.people.client(self.room.members[0]).clone();
        while self.wait(every).await {
            let asked = self.shared.book().clock.now();
            match owner.rotate(self.room.id).await {
                Ok(epoch) => self.shared.book().rotation_asked(self.room.id, epoch.0, asked),
                Err(error) if error.retryable() => {}
                Err(error) => self.fail(&format!("the room key could not be replaced: {error}")),
            }
        }
    }

    /// Puts one member after the other out, and asks them in again.
    async fn change_members(mut self, every: Duration) {
        let others = self.room.members[1..].to_vec();
        for (turn, &member) in others.iter().cycle().enumerate() {
            if !self.wait(every).await {
                return;
            }
            if let Err(why) = self.change(member, turn.is_multiple_of(2)).await {
                self.fail(&why);
                return;
            }
        }
    }

    /// One goes, by themselves or not, and comes back.
    async fn change(&mut self, member: usize, by_themselves: bool) -> Result<(), String> {
        let (session_id, user_id) = (self.room.id, self.people.client(member).me());
        self.shared.book().members[member].leaving = true;
        let ready = |book: &mut super::Book| {
            book.members[member].busy == 0 && book.stay(member).is_some_and(super::stay::Stay::is_readable)
        };
        if !self.shared.until(self.patience, ready).await {
            return Err("a member could not read what it was given, for too long".to_owned());
        }
        let people = Arc::clone(&self.people);
        let (client, owner) = (people.client(member), people.client(self.room.members[0]));
        let gone = if by_themselves {
            persist(self.patience, || client.leave(session_id, false)).await
        } else {
            persist(self.patience, || owner.call(KickUser { session_id, user_id })).await.map(drop)
        };
        done(gone, ErrorCode::NotAMember).map_err(|error| format!("a membership could not be ended: {error}"))?;
        if !self.shared.until(self.patience, |book| book.stay(member).is_none()).await {
            return Err("a member was not told of its own leaving".to_owned());
        }
        self.wait(AWAY).await;
        let asked = persist(self.patience, || owner.invite(session_id, user_id)).await;
        done(asked, ErrorCode::AlreadyExists)
            .map_err(|error| format!("a member could not be asked in again: {error}"))?;
        if !self.shared.until(self.patience, |book| book.stay(member).is_some()).await {
            return Err("a member who was asked in again was not told of its own joining".to_owned());
        }
        let mut book = self.shared.book();
        book.members[member].leaving = false;
        book.changes += 1;
        Ok(())
    }
}
