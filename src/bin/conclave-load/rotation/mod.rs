//! The scenario of end-to-end encryption: sessions whose members come and go and whose room keys are replaced while
//! everybody speaks, with real RSA and AES. Each member is a client of the library, as programs use it.
//!
//! It is slower than the engine of the plain scenarios, and sees more: what can be read, by whom, and when. A message
//! says in its own text which it is, so that what was decrypted is known to be what was encrypted.
//!
//! ```text
//! stay      PURE: what a member was given between joining and leaving
//! book      what is known; every member's news are written in it
//! people    clients, sessions, membership and keys that change
//! speech    messages when they are due
//! ```

mod book;
mod people;
mod speech;
mod stay;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use conclave::client::{Client, Past as Read};
use conclave::protocol::SessionId;
use tokio::time::{Instant, sleep};

use crate::arguments::Rotation;
use crate::engine::Pace;
use crate::report::live::{Live, Moment};
use crate::run::Outcome;
use crate::sampling::Sampling;
use crate::users::{self, Keys};
use crate::verify::Past;
use crate::waits::Waits;
use crate::{setup, stop, target};

use book::Book;
use people::People;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Events of a page of history.
const PAGE: u64 = 200;

/// The book, for the time of one entry; never held across an await.
#[derive(Clone)]
struct Shared(Arc<Mutex<Book>>);

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is true of the book; tells whether it became true in time.
    async fn until(&self, within: Duration, mut done: impl FnMut(&mut Book) -> bool) -> bool {
        let end = Instant::now() + within;
        loop {
            if done(&mut self.book()) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            sleep(LOOK).await;
        }
    }
}

/// A session of the run.
#[derive(Clone)]
struct Room {
    id: SessionId,
    number: u32,
    /// The owner first.
    members: Vec<usize>,
    /// Of each member, the number as a speaker.
    speakers: Vec<u32>,
}

/// Runs the scenario.
pub(crate) fn run(options: &Rotation) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(go(options))
}

async fn go(options: &Rotation) -> Result<Outcome> {
    let Rotation { common, sessions, members, .. } = options;
    let endpoints = target::endpoints(common)?;
    setup::knock(&endpoints)?;
    let mut sampling = Sampling::start(&common.server_pids)?;
    let users = users::ready(common, &endpoints, Keys::Own, sessions * members).await?;
    let shared = Shared(Arc::new(Mutex::new(Book::new(
        &format!("{:08x}", rand::random::<u32>()),
        common.payload,
        common.expect_restarts,
    ))));
    let people = People::connect(&shared, &users, &endpoints, common).await?;
    people.clear_away(&shared).await?;
    let rooms = people.make_rooms(&shared, *members).await?;

    shared.book().serving = true;
    let people = Arc::new(people);
    let changing = people::Changing::start(options, &people, &shared, &rooms);
    let pace = Pace::per_second(common.rate);
    let speaking = speech::Speaking::start(pace, &people, &shared, &rooms);
    idle(common.warmup).await;
    let live = (!common.quiet).then(|| Live::timed("measuring", common.duration));
    let seconds = measure(&shared, common.duration, &mut sampling, live).await?;
    speaking.stop(common.patience).await;
    changing.stop(common.patience).await;
    sampling.look()?;
    let ends = histories(&people, &shared, &rooms, common.patience).await;
    let outcome = conclude(&shared, &rooms, &ends, &sampling, seconds, common.expect_restarts);
    people.close(&shared, &rooms, outcome.failures.is_empty()).await;
    Ok(outcome)
}

/// Waits, unless told to stop.
async fn idle(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && !stop::asked() {
        sleep(LOOK.min(end - Instant::now())).await;
    }
}

async fn measure(shared: &Shared, duration: Duration, sampling: &mut Sampling, mut live: Option<Live>) -> Result<f64> {
    let began = Instant::now();
    {
        let mut book = shared.book();
        let now = book.clock.now();
        book.measures.begin(now);
    }
    sampling.begin()?;
    for second in 1_u32.. {
        let end = duration.min(Duration::from_secs(second.into()));
        idle(end.saturating_sub(began.elapsed())).await;
        if end == Duration::from_secs(second.into()) && !stop::asked() {
            let moment = moment(&mut shared.book());
            if let Some(live) = &mut live {
                live.at(began.elapsed(), &moment);
            }
            sampling.look()?;
        }
        if began.elapsed() >= duration || stop::asked() {
            break;
        }
    }
    live.into_iter().for_each(Live::finish);
    Ok(began.elapsed().as_secs_f64())
}

fn moment(book: &mut Book) -> Moment {
    let second = book.measures.next_second();
    Moment::of(&second, book.ledger.faults().total() + book.tally.errors())
}

/// Reads each session's history as its owner does, and compares it. `None` where it could not be read.
async fn histories(people: &People, shared: &Shared, rooms: &[Room], patience: Duration) -> Vec<Option<Past>> {
    let mut ends = Vec::with_capacity(rooms.len());
    for room in rooms {
        let past = match history(people.client(room.members[0]), shared, room, patience).await {
            Ok(past) => past,
            Err(error) => {
                shared.book().tally.fail(&format!("a history could not be read: {error:#}"));
                ends.push(None);
                continue;
            }
        };
        shared.book().ledger.compare(room.number, &past);
        let head = past.head;
        let complete = |book: &mut Book| {
            let here = room.members.iter().filter_map(|member| book.stay(*member));
            here.filter(|stay| stay.session == room.number).all(|stay| stay.is_complete(head))
        };
        // What has not come by then is lost, and is counted as that.
        shared.until(if stop::asked() { Duration::from_secs(3) } else { patience }, complete).await;
        ends.push(Some(past));
    }
    ends
}

async fn history(client: &Client, shared: &Shared, room: &Room, patience: Duration) -> Result<Past> {
    let mut past = Past::default();
    let mut before = None;
    let end = Instant::now() + patience;
    loop {
        let page = match client.history(room.id, before, PAGE).await {
            Ok(page) => page,
            Err(error) if error.retryable() && Instant::now() < end => {
                sleep(Duration::from_millis(200)).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut book = shared.book();
        let seqs: Vec<u64> = page.iter().map(seq_of).collect();
        for read in page.iter().rev() {
            if let Read::Message(message) = read {
                let readable = message.body.text().is_some();
                let source = book.check(room.number, message);
                if !readable && source.is_none() && matches!(message.body, conclave::client::e2ee::Body::Sealed(_)) {
                    book.ledger.unreadable();
                }
                past.messages.push((message.seq, source));
            }
        }
        past.head = past.head.max(seqs.iter().copied().max().unwrap_or(0));
        let first = seqs.iter().copied().min().unwrap_or(1);
        if first <= 1 {
            past.messages.reverse();
            return Ok(past);
        }
        ensure!(before.is_none_or(|before| first < before), "a page of history has nothing new");
        before = Some(first);
    }
}

fn seq_of(read: &Read) -> u64 {
    match read {
        Read::Message(message) => message.seq,
        Read::Event(event) => event.seq,
    }
}

fn conclude(
    shared: &Shared,
    rooms: &[Room],
    ends: &[Option<Past>],
    sampling: &Sampling,
    seconds: f64,
    expect_restarts: bool,
) -> Outcome {
    let mut book = shared.book();
    let mut expected = 0;
    let mut faults = Vec::new();
    for (room, past) in rooms.iter().zip(ends) {
        let Some(past) = past else { continue };
        for stay in room.members.iter().flat_map(|member| &book.members[*member].stays) {
            expected += stay.owed(past.messages.iter().map(|(seq, _)| *seq));
            faults.push(stay.faults(past.head));
        }
    }
    faults.into_iter().for_each(|faults| book.ledger.add(faults));
    let now = book.clock.now();
    let services = book.ledger.services(now);
    let sessions = Waits::new(rooms.iter().map(|room| (room.id.to_string(), services[room.number as usize])));
    let in_doubt = book.tally.sent - book.tally.acknowledged - book.tally.turned_away;
    let mut notes = vec![format!(
        "{} sessions; room keys were replaced {} times, and {} memberships ended and began again",
        rooms.len(),
        book.rotated(),
        book.changes
    )];
    let missed = book.missed();
    if missed > 0 {
        notes.push(format!(
            "{missed} messages came to newcomers whose first room key was replaced before a holder gave it to them: \
             they are owed the current one, and cannot read these"
        ));
    }
    notes.push(sessions.tell());
    book.measures.add_up();
    let counts = book.tally.counts(book.ledger.faults(), in_doubt, expected, expect_restarts);
    Outcome {
        counts,
        measures: std::mem::replace(&mut book.measures, crate::measures::Measures::new()),
        servers: sampling.servers(),
        share_of_a_core: sampling.share_of_a_core(),
        share_without_a_core: sampling.share_without_a_core(),
        seconds,
        sessions,
        failures: std::mem::take(&mut book.tally.failures).into_iter().collect(),
        notes,
        interrupted: stop::asked(),
        storms: 0,
        is_full: false,
    }
}
