//! The scenario for hours: everything at once, in rounds. Each round makes sessions of its own, and is verified whole
//! before the next begins, so that memory stays what it is and a fault is known within minutes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::arguments::{Common, Rotation, Soak};
use crate::plan::Plan;
use crate::report::model::Setting;
use crate::run::{self, Outcome};
use crate::users::{self, Keys};
use crate::{rotation, setup, stop, target};

/// A round that would be shorter is not begun.
const SHORTEST: Duration = Duration::from_secs(1);

/// Refuses what cannot be meant; tells what was asked for, as reports tell it.
pub(crate) fn settings(options: &Soak) -> Result<Vec<Setting>> {
    options.common.check()?;
    ensure!(options.common.in_flight.is_none(), "soak has no closed loop: give it a --rate");
    ensure!(options.round >= SHORTEST, "--round is at least 1s");
    let round = Common { duration: options.round.min(options.common.duration), ..options.common.clone() };
    let plan = Plan::soak(&Soak { common: round, ..options.clone() })?;
    let asked = options.common.settings();
    Ok(plan
        .settings
        .into_iter()
        .map(|one| asked.iter().find(|own| own.name == one.name).cloned().unwrap_or(one))
        .collect())
}

/// Runs rounds until the time is over.
pub(crate) fn run(options: &Soak) -> Result<Outcome> {
    prepare_users(options)?;
    let began = Instant::now();
    // What was measured counts, and not setting up and verifying.
    let mut left = options.common.duration;
    let mut total: Option<Outcome> = None;
    for round in 1_u64.. {
        if total.is_some() && (left < SHORTEST || stop::asked()) {
            break;
        }
        let outcome = one_round(options, options.round.min(left.max(SHORTEST)))?;
        left = left.saturating_sub(Duration::from_secs_f64(outcome.seconds));
        let memory: u64 = outcome.servers.iter().map(|server| server.rss_end_bytes).sum();
        let memory = if memory > 0 { format!(", server memory {} MiB", memory >> 20) } else { String::new() };
        eprintln!(
            "round {round}, after {} s: {} delivered, {} faults, {} failures{memory}",
            began.elapsed().as_secs(),
            outcome.counts.delivered,
            outcome.counts.faults().iter().map(|(_, count)| count).sum::<u64>(),
            outcome.failures.len()
        );
        match &mut total {
            Some(total) => total.append(outcome),
            None => total = Some(outcome),
        }
    }
    total.ok_or_else(|| anyhow!("no round was run"))
}

/// Registers everybody first: the two parts of a round share the file.
fn prepare_users(options: &Soak) -> Result<()> {
    let Soak { common, encrypted_sessions, encrypted_members, .. } = options;
    let endpoints = target::endpoints(common)?;
    setup::knock(&endpoints)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let count = encrypted_sessions * encrypted_members;
    runtime.block_on(users::ready(common, &endpoints, Keys::Own, count)).map(drop)
}

/// The plain mix, and beside it the encrypted sessions.
fn one_round(options: &Soak, duration: Duration) -> Result<Outcome> {
    let common = Common { duration, ..options.common.clone() };
    let plan = Plan::soak(&Soak { common: common.clone(), ..options.clone() })?;
    let encrypted = Rotation {
        common: Common { rate: common.rate / 10.0, server_pids: Vec::new(), quiet: true, ..common.clone() },
        sessions: options.encrypted_sessions,
        members: options.encrypted_members,
        rotate_every: Duration::from_secs(20),
        change_every: Duration::from_secs(10),
    };
    encrypted.check()?;
    thread::scope(|scope| {
        let beside = scope.spawn(|| rotation::run(&encrypted));
        let plain = run::run(&plan, &common);
        let beside = beside.join().map_err(|_| anyhow!("the encrypted part of a round panicked"))?;
        let mut outcome = plain?;
        outcome.add_beside(beside?);
        Ok(outcome)
    })
}
