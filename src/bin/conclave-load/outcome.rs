//! From a run's outcome to its report and exit status.

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;

use crate::arguments::Common;
use crate::measures::Measures;
use crate::report::model::{FORMAT, Report, Setting, Tester};
use crate::report::verdict::Verdict;
use crate::report::{file, html, table};
use crate::run::Outcome;
use crate::{machine, stop};

/// Beyond this share of its core, and later than this, the program itself is what was measured.
const BUSY: f64 = 0.9;
const LATE_US: u64 = 1_000;

/// Makes sure that reports can be written, before anything is measured.
pub(crate) fn check_places(common: &Common) -> Result<()> {
    common.json.iter().chain(&common.html).try_for_each(|path| file::check_writable(path))
}

/// Tells what was found; gives the exit status.
pub(crate) fn tell(
    outcome: Outcome,
    scenario: &str,
    settings: Vec<Setting>,
    common: &Common,
    started_at: Timestamp,
) -> Result<ExitCode> {
    let report = report(outcome, scenario, settings, common, started_at);
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

fn report(outcome: Outcome, scenario: &str, options: Vec<Setting>, common: &Common, started_at: Timestamp) -> Report {
    let Outcome { counts, measures, servers, share_of_a_core, seconds, sessions, interrupted, notes, .. } = outcome;
    let failures = outcome.failures.iter().map(|(why, times)| match times {
        1 => format!("{}.", capital(why)),
        times => format!("{}: {times} times.", capital(why)),
    });
    let delivered: u64 = measures.timeline().iter().map(|second| second.delivered).sum();
    let cpu: f64 = servers.iter().map(|server| server.cpu_s).sum();
    Report {
        format: FORMAT,
        scenario: scenario.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at,
        options,
        urls: common.urls.clone(),
        machine: machine::describe(),
        seconds,
        counts,
        latencies: measures.latencies(),
        timeline: measures.timeline().to_vec(),
        servers,
        deliveries_per_cpu_s: (cpu > 0.0).then(|| delivered as f64 / cpu),
        tester: tester(share_of_a_core, common, &measures),
        longest_without_service_ms: sessions.longest_us().map(|waited| waited as f64 / 1e3),
        sessions: sessions.into_worst(),
        interrupted,
        failures: failures.collect(),
        notes,
    }
}

fn tester(share: f64, common: &Common, measures: &Measures) -> Tester {
    let open_loop = common.in_flight.is_none();
    let lag = measures.lag_p99();
    let why = if share > BUSY {
        Some(format!("it used {:.0} % of a core, and its engine has one thread", share * 100.0))
    } else if open_loop && lag > LATE_US && 2 * lag > measures.ack_p99() {
        Some(format!(
            "one message in a hundred left more than {:.1} ms after it was due, which is most of its latency",
            lag as f64 / 1e3
        ))
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
