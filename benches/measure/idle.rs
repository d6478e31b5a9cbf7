//! The memory of connections that are authenticated, resumed, members of a session, and otherwise do nothing.
//!
//! The node is started anew between making the users and connecting them: memory that it has used before and would
//! use again must not hide what a connection takes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use crate::accounts::Account;
use crate::crowd::{Ask, Crowd};
use crate::machine::CpuTime;
use crate::node::{Node, Target};
use crate::tally::Faults;
use crate::wire::Heard;
use crate::{accounts, machine, room};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Connections of each user.
    #[arg(long, default_value_t = 50)]
    per_user: usize,
}

/// Connections that are opened together.
const AT_ONCE: usize = 500;

pub(crate) fn run(options: &Options, target: &Target) -> Result<Faults> {
    let Options { connections, per_user } = *options;
    let spare = 100;
    ensure!(
        machine::file_limit() > (connections + spare) as u64,
        "{connections} connections need more open files than the {} allowed",
        machine::file_limit()
    );
    let data = tempfile::tempdir()?;
    let mut node = target.node(data.path(), None)?;
    let accounts = accounts::register(node.address, connections.div_ceil(per_user))?;
    let session_id = fill(&node, &accounts)?;
    if target.is_program() {
        node.stop()?;
        node = target.node(data.path(), None)?;
    }

    let mut crowd = Crowd::new()?;
    let first = connect(&mut crowd, &node, &accounts[..1])?; // what the first one makes, all share
    crowd.say(first, |outgoing| outgoing.request("ping", "{}"))?;
    let before = settle(&mut crowd, node.pid)?;
    let (began, so_far) = (Instant::now(), CpuTime::of(node.pid)?);
    for nth in (0..connections).step_by(AT_ONCE) {
        let users: Vec<_> =
            (nth..(nth + AT_ONCE).min(connections)).map(|number| accounts[number / per_user].clone()).collect();
        connect(&mut crowd, &node, &users)?;
    }
    let (took, cpu) = (began.elapsed(), CpuTime::of(node.pid)?.since(so_far));
    let after = settle(&mut crowd, node.pid)?;
    println!(
        "idle: {connections} connections of {} users connected and resumed in {took:.2?}, node's cpu {:.2} s user + {:.2} s \
         system",
        accounts.len(),
        cpu.user.as_secs_f64(),
        cpu.system.as_secs_f64(),
    );
    report("connected", before, after, connections);

    let body = format!(r#"{{"session_id":"{session_id}","markdown_text":"hello","is_encrypted":false}}"#);
    crowd.say(first, |outgoing| outgoing.request("send_msg", &body))?;
    let mut heard_by = 0;
    let deadline = Instant::now() + Duration::from_secs(30);
    while heard_by <= connections && Instant::now() < deadline {
        crowd.poll(Duration::from_millis(20), &mut |_, heard, _| {
            heard_by += usize::from(matches!(heard, Heard::Event { .. }));
            Ok(())
        })?;
    }
    let after = settle(&mut crowd, node.pid)?;
    report("after a message to each", before, after, connections);
    node.stop()?;
    let lost = (connections + 1 - heard_by.min(connections + 1)) as u64;
    Ok(Faults { lost, ..Faults::default() })
}

fn report(when: &str, before: u64, after: u64, connections: usize) {
    let each = after.saturating_sub(before) as f64 / connections as f64;
    println!("idle: {each:.2} KiB each, {when} (resident {before} KiB before, {after} KiB after)");
}

/// All of them in one session, and away again.
fn fill(node: &Node, accounts: &[Account]) -> Result<String> {
    let mut crowd = Crowd::new()?;
    let who: Vec<_> =
        accounts.iter().map(|account| Ok((crowd.connect(node.address)?, account))).collect::<Result<_>>()?;
    room::authenticate(&mut crowd, &who)?;
    let (session_id, _) = room::open(&mut crowd, &(0..accounts.len()).collect::<Vec<_>>())?;
    // What was there before the measurement is not to be caught up with in it.
    let body = format!(r#"{{"session_id":"{session_id}"}}"#);
    let info = crowd.ask(vec![Ask { who: 0, kind: "get_session_info", body }], &mut |_, _| {})?;
    let body = format!(r#"{{"session_id":"{session_id}","seq":{}}}"#, info[0]["last_seq"]);
    let acks = (0..accounts.len()).map(|who| Ask { who, kind: "ack", body: body.clone() });
    crowd.ask(acks.collect(), &mut |_, _| {})?;
    Ok(session_id)
}

/// Connects, authenticates and resumes; tells the first one's index.
fn connect(crowd: &mut Crowd, node: &Node, users: &[Account]) -> Result<usize> {
    let who: Vec<_> = users.iter().map(|account| Ok((crowd.connect(node.address)?, account))).collect::<Result<_>>()?;
    room::authenticate(crowd, &who)?;
    let resumes = who.iter().map(|&(who, _)| Ask { who, kind: "resume", body: "{}".to_owned() });
    crowd.ask(resumes.collect(), &mut |_, _| {})?;
    Ok(who.first().map_or(0, |&(first, _)| first))
}

/// Resident memory once it has stopped moving.
fn settle(crowd: &mut Crowd, pid: u32) -> Result<u64> {
    let mut last = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let second = Instant::now() + Duration::from_secs(1);
        while Instant::now() < second {
            crowd.poll(Duration::from_millis(100), &mut |_, _, _| Ok(()))?;
        }
        let now = machine::resident_kib(pid)?;
        if now.abs_diff(last) < 64 || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}
