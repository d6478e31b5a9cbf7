//! From a run's outcome to its report and exit status.

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;

use crate::arguments::Common;
use crate::plan::Plan;
use crate::report::model::{FORMAT, Report, Tester};
use crate::report::verdict::Verdict;
use crate::report::{file, html, table};
use crate::run::Outcome;
use crate::sampling::Sampling;
use crate::{machine, stop};

/// Beyond this share of its core, and later than this, the program itself is what was measured.
const BUSY: f64 = 0.9;
const LATE_US: u64 = 5_000;

/// Makes sure that reports can be written, before anything is measured.
pub(crate) fn check_places(common: &Common) -> Result<()> {
    common.json.iter().chain(&common.html).try_for_each(|path| file::check_writable(path))
}

/// Tells what was found; gives the exit status.
pub(crate) fn tell(outcome: Outcome, plan: &Plan, common: &Common, started_at: Timestamp) -> Result<ExitCode> {
    let report = report(outcome, plan, common, started_at);
    print!("{}", table::table(&report));
    if let Some(path) = &common.json {
        file::write_json(path, &report)?;
    }
    if let Some(path) = &common.html {
        file::write(path, html::page(&report).as_bytes())?;
    }
    Ok(match (report.interrupted, Verdict::of(&report).passed()) {
        (true, _) => ExitCode::from(stop::INTERRUPTED),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

fn report(outcome: Outcome, plan: &Plan, common: &Common, started_at: Timestamp) -> Report {
    let Outcome { counts, measures, sampling, seconds, longest_wait_us, interrupted, mut notes, .. } = outcome;
    if outcome.nodes > 1 {
        notes.push(format!("connections were on {} nodes", outcome.nodes));
    }
    let failures = outcome.failures.iter().map(|(why, times)| match times {
        1 => format!("{}.", capital(why)),
        times => format!("{}: {times} times.", capital(why)),
    });
    let delivered: u64 = measures.timeline().iter().map(|second| second.delivered).sum();
    let cpu = sampling.server_cpu();
    Report {
        format: FORMAT,
        scenario: plan.scenario.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at,
        options: plan.settings.clone(),
        urls: common.urls.clone(),
        machine: machine::describe(),
        seconds,
        counts,
        latencies: measures.latencies(),
        timeline: measures.timeline().to_vec(),
        servers: sampling.servers(),
        deliveries_per_cpu_s: (cpu > 0.0).then(|| delivered as f64 / cpu),
        tester: tester(&sampling, common, measures.lag_p99()),
        longest_without_service_ms: longest_wait_us.map(|waited| waited as f64 / 1e3),
        interrupted,
        failures: failures.collect(),
        notes,
    }
}

fn tester(sampling: &Sampling, common: &Common, lag: u64) -> Tester {
    let share = sampling.share_of_a_core();
    let open_loop = common.in_flight.is_none();
    let why = if share > BUSY {
        Some(format!("it used {:.0} % of the one core that its thread can have", share * 100.0))
    } else if open_loop && lag > LATE_US {
        Some(format!("one message in a hundred left more than {:.1} ms after it was due", lag as f64 / 1e3))
    } else {
        None
    };
    Tester {
        cpu_share: share / f64::from(machine::cores().max(1)),
        pacing_lag_p99_us: open_loop.then_some(lag),
        is_bottleneck: why.is_some(),
        why,
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
