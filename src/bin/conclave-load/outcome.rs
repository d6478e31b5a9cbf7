//! From a run's outcome to its report and exit status.

use std::process::ExitCode;

use jiff::Timestamp;

use crate::arguments::Common;
use crate::report::model::{FORMAT, Report, Tester};
use crate::run::Outcome;
use crate::sampling::Sampling;
use crate::{machine, stop};

/// Beyond this share of its core, and later than this, the program itself is what was measured.
const BUSY: f64 = 0.9;
const LATE_US: u64 = 5_000;

/// Tells what was found; gives the exit status.
pub(crate) fn tell(outcome: Outcome, scenario: &str, common: &Common, started_at: Timestamp) -> ExitCode {
    let failures = outcome.failures.clone();
    let interrupted = outcome.interrupted;
    let report = report(outcome, scenario, common, started_at);
    println!("{:#?}", report.counts);
    for latency in &report.latencies {
        println!("{:?} {:?}: {} p50 {} p99 {} max {}", latency.what, latency.between, latency.count, latency.p50_us, latency.p99_us, latency.max_us);
    }
    println!("{:?} {:?} {:?} {:?}", report.tester, report.servers, report.deliveries_per_cpu_s, report.notes);
    for (why, times) in &failures {
        println!("failed: {why} ({times} times)");
    }
    let faulty = report.counts.faults().iter().any(|(_, count)| *count > 0);
    match (interrupted, faulty || !failures.is_empty()) {
        (true, _) => ExitCode::from(stop::INTERRUPTED),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    }
}

fn report(outcome: Outcome, scenario: &str, common: &Common, started_at: Timestamp) -> Report {
    let Outcome { counts, measures, sampling, seconds, longest_wait_us, interrupted, notes, .. } = outcome;
    let delivered: u64 = measures.timeline().iter().map(|second| second.delivered).sum();
    let cpu = sampling.server_cpu();
    Report {
        format: FORMAT,
        scenario: scenario.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at,
        options: Vec::new(),
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
