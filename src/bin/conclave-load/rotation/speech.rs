//! Messages when they are due, said by whoever is a member then.

use std::sync::Arc;
use std::time::Duration;

use conclave::client::calls::Sent;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::people::People;
use super::{Room, Shared};
use crate::engine::{Pace, Schedule};

/// Messages under way at once; beyond it the next ones are late.
const AT_ONCE: u32 = 512;
/// The longest sleep between two looks at the clock.
const TURN: Duration = Duration::from_millis(20);

/// Everybody's speaking.
pub(super) struct Speaking {
    stop: watch::Sender<bool>,
    under_way: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Speaking {
    pub(super) fn start(pace: Pace, people: &Arc<People>, shared: &Shared, rooms: &[Room]) -> Self {
        let (stop, stopping) = watch::channel(false);
        let under_way = Arc::new(Semaphore::new(AT_ONCE as usize));
        let talk = Talk {
            people: Arc::clone(people),
            shared: shared.clone(),
            rooms: rooms.to_vec(),
            under_way: Arc::clone(&under_way),
        };
        let task = tokio::spawn(talk.go_on(pace, stopping));
        Self { stop, under_way, task }
    }

    /// Says nothing new, and waits for what is under way.
    pub(super) async fn stop(self, patience: Duration) {
        self.stop.send_replace(true);
        let _ = self.task.await;
        let _ = timeout(patience, self.under_way.acquire_many(AT_ONCE)).await;
    }
}

struct Talk {
    people: Arc<People>,
    shared: Shared,
    rooms: Vec<Room>,
    under_way: Arc<Semaphore>,
}

impl Talk {
    async fn go_on(self, pace: Pace, stopping: watch::Receiver<bool>) {
        let now = || self.shared.book().clock.now();
        let Some(mut schedule) = Schedule::of(pace, now()) else { return };
        while !*stopping.borrow() {
            while let Some((number, due)) = schedule.take(now()) {
                let Ok(place) = Arc::clone(&self.under_way).acquire_owned().await else { return };
                {
                    let mut book = self.shared.book();
                    let now = book.clock.now();
                    book.measures.paced(due, now);
                }
                let Some((room, nth)) = self.who(number) else { continue };
                let say = self.say(room, nth, due);
                tokio::spawn(async move {
                    say.await;
                    drop(place);
                });
                if *stopping.borrow() {
                    return;
                }
            }
            let wait = schedule.due().map_or(TURN, |due| Duration::from_micros(due.saturating_sub(now())).min(TURN));
            sleep(wait.max(Duration::from_millis(1))).await;
        }
    }

    /// Who says the message of this number: the sessions in turn, and in each its members who are there.
    fn who(&self, number: u64) -> Option<(&Room, usize)> {
        let rooms = self.rooms.len() as u64;
        let room = &self.rooms[(number % rooms) as usize];
        let mut book = self.shared.book();
        let there = |nth: &usize| {
            let member = room.members[*nth];
            !book.members[member].leaving && book.stay(member).is_some()
        };
        let there: Vec<usize> = (0..room.members.len()).filter(there).collect();
        let nth = *there.get((number / rooms) as usize % there.len().max(1))?;
        book.members[room.members[nth]].busy += 1;
        Some((room, nth))
    }

    fn say(&self, room: &Room, nth: usize, due: u64) -> impl Future<Output = ()> + Send + 'static {
        let (shared, session_id) = (self.shared.clone(), room.id);
        let (member, speaker) = (room.members[nth], room.speakers[nth]);
        let client = self.people.client(member).clone();
        async move {
            let (number, text) = {
                let mut book = shared.book();
                let number = book.ledger.say(speaker, due);
                // A client says it again by itself, and does not tell: another may overtake it.
                book.ledger.repeat(speaker, number);
                book.tally.sent += 1;
                book.measures.sent();
                (number, book.text(speaker, number))
            };
            let outcome = client.say(session_id, &text).await;
            let mut book = shared.book();
            book.members[member].busy -= 1;
            match outcome {
                Ok(Sent { seq, .. }) => {
                    let now = book.clock.now();
                    let waited = book.ledger.acknowledge(speaker, number, seq, now);
                    book.measures.acknowledged(due, waited);
                    book.tally.acknowledged += 1;
                }
                Err(error) => book.not_said(&error),
            }
        }
    }
}
