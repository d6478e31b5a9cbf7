//! SIGKILL while ten members of a session speak; the node comes back on the same data, they say again what was not
//! acknowledged, and everything is counted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::accounts::Account;
use crate::crowd::Crowd;
use crate::node::{Node, Target};
use crate::speaker::Speaker;
use crate::tally::{Delivered, Faults, compare};
use crate::wire::Heard;
use crate::{accounts, room};

/// What to do.
#[derive(Args)]
pub(crate) struct Options {
    /// Members who speak.
    #[arg(long, default_value_t = 10)]
    members: usize,
    /// Messages of each of them between one kill and the next.
    #[arg(long, default_value_t = 100)]
    messages: usize,
    /// Messages in flight of each of them.
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// How often the node is killed.
    #[arg(long, default_value_t = 5)]
    kills: usize,
}

/// The session across the node's lives. Connection `n` is member `n`'s, always.
struct Room {
    session_id: String,
    accounts: Vec<Account>,
    crowd: Crowd,
    speakers: Vec<Speaker>,
    delivered: Vec<Delivered>,
}

pub(crate) fn run(options: &Options, target: &Target) -> Result<Faults> {
    let Options { members, messages, in_flight, kills } = *options;
    ensure!(target.is_program(), "only a node that was started here is killed: leave out --url");
    let data = tempfile::tempdir()?;
    let mut node = target.node(data.path(), None)?;
    let mut room = Room::open(&node, members, in_flight)?;
    let mut faults = Faults::default();
    for kill in 1..=kills {
        let acknowledged = room.speak(messages, members * messages / 2)?;
        node.kill()?;
        faults.damaged += check_store(data.path())?;
        node = target.node(data.path(), None)?;
        println!("kill9: kill {kill} after {acknowledged} acknowledged; listening again in {:.0?}", node.start_time);
        room.come_back(&node)?;
        room.finish()?;
    }
    let head = room.speakers.iter().map(Speaker::head).max().unwrap_or(0);
    room.delivered.iter().for_each(|delivered| faults += delivered.faults(head));
    let stored = room::stored(&mut room.crowd, 0, &room.session_id)?;
    let told: Vec<_> =
        room.accounts.iter().zip(&room.speakers).map(|(account, speaker)| room::told(account, &speaker.seqs)).collect();
    faults += compare(&stored, &told);
    let acknowledged: u64 = room.speakers.iter().map(|speaker| speaker.acknowledged).sum();
    let stopped = node.stop()?;
    faults.damaged += check_store(data.path())?;
    println!("kill9: {acknowledged} acknowledged, {} stored; {faults}; SIGTERM took {stopped:.0?}", stored.len());
    ensure!(acknowledged as usize == members * messages * kills, "not every message was acknowledged");
    Ok(faults)
}

impl Room {
    fn open(node: &Node, members: usize, in_flight: usize) -> Result<Self> {
        let accounts = accounts::register(node.address, members)?;
        let mut crowd = connect(node, &accounts)?;
        let everyone: Vec<_> = (0..members).collect();
        let (session_id, last) = room::open(&mut crowd, &everyone)?;
        let cursors: Vec<_> = everyone.iter().map(|&who| (who, last)).collect();
        room::resume(&mut crowd, &cursors, &session_id, &mut |_, _| {})?;
        let speaker = |_| {
            let mut speaker = Speaker::new(&session_id, 200, in_flight);
            speaker.end = 0;
            speaker
        };
        let speakers = everyone.iter().map(speaker).collect();
        Ok(Self { session_id, accounts, crowd, speakers, delivered: vec![Delivered::after(last); members] })
    }

    /// Each has so many more messages to say; returns in the middle, when `enough` are acknowledged.
    fn speak(&mut self, more: usize, enough: usize) -> Result<u64> {
        let acknowledged = |speakers: &[Speaker]| speakers.iter().map(|speaker| speaker.acknowledged).sum::<u64>();
        let enough = acknowledged(&self.speakers) + enough as u64;
        for (who, speaker) in self.speakers.iter_mut().enumerate() {
            speaker.end += more;
            self.crowd.say(who, |outgoing| speaker.speak(outgoing))?;
        }
        self.listen("half of the acknowledgements", |room| acknowledged(&room.speakers) >= enough)?;
        Ok(acknowledged(&self.speakers))
    }

    /// New connections, from where each was.
    fn come_back(&mut self, node: &Node) -> Result<()> {
        self.crowd = connect(node, &self.accounts)?;
        let cursors: Vec<_> = self.delivered.iter().map(|delivered| delivered.last).enumerate().collect();
        let delivered = &mut self.delivered;
        room::resume(&mut self.crowd, &cursors, &self.session_id, &mut |who, heard| {
            if let Heard::Event { seq } = heard {
                delivered[who].take(seq);
            }
        })?;
        for (who, speaker) in self.speakers.iter_mut().enumerate() {
            speaker.start_over();
            self.crowd.say(who, |outgoing| speaker.speak(outgoing))?;
        }
        Ok(())
    }

    /// Everything is said, acknowledged and heard.
    fn finish(&mut self) -> Result<()> {
        self.listen("the rest", |room| {
            let head = room.speakers.iter().map(Speaker::head).max().unwrap_or(0);
            room.speakers.iter().all(Speaker::is_done) && room.delivered.iter().all(|delivered| delivered.last >= head)
        })
    }

    fn listen(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + crate::crowd::PATIENCE;
        while !done(self) {
            ensure!(Instant::now() < deadline, "gave up waiting for {what}");
            let Self { crowd, speakers, delivered, .. } = self;
            crowd.poll(Duration::from_millis(20), &mut |who, heard, outgoing| {
                match heard {
                    Heard::Event { seq } => delivered[who].take(seq),
                    Heard::Reply(reply) => speakers[who].answered(&reply, outgoing)?,
                    Heard::Aside => {}
                    Heard::Closed { code } => bail!("the node closed connection {who}, code {code:?}"),
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn connect(node: &Node, accounts: &[Account]) -> Result<Crowd> {
    let mut crowd = Crowd::new()?;
    let who: Vec<_> =
        accounts.iter().map(|account| Ok((crowd.connect(node.address)?, account))).collect::<Result<_>>()?;
    room::authenticate(&mut crowd, &who)?;
    Ok(crowd)
}

/// `PRAGMA integrity_check` on a copy of the databases in a directory, made while no node runs: the node is to find
/// them as the kill left them. Tells how many are damaged.
fn check_store(data: &Path) -> Result<u64> {
    let copy = tempfile::tempdir()?;
    let mut databases = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let path = entry?.path();
        let Some(name) = path.file_name().filter(|name| path.is_file() && !name.to_string_lossy().ends_with("-shm"))
        else {
            continue;
        };
        let copied: PathBuf = copy.path().join(name);
        std::fs::copy(&path, &copied)?;
        if std::fs::read(&copied)?.starts_with(b"SQLite format 3\0") {
            databases.push(copied);
        }
    }
    ensure!(!databases.is_empty(), "no database in the data directory");
    let mut damaged = 0;
    for database in databases {
        let check = Command::new("sqlite3").arg(&database).arg("PRAGMA integrity_check").output();
        let output = check.context("integrity is checked with the program sqlite3, which is not here")?;
        let verdict = String::from_utf8_lossy(&output.stdout);
        if verdict.trim() != "ok" {
            eprintln!("integrity_check: {verdict}{}", String::from_utf8_lossy(&output.stderr));
            damaged += 1;
        }
    }
    Ok(damaged)
}
