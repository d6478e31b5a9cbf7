//! From a run's outcome to its report and exit status.

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;

use crate::arguments::Common;
use crate::measures::Measures;
use crate::report::model::{FORMAT, Report, ServerProcess, Setting, Tester};
use crate::report::verdict::Verdict;
use crate::report::{file, html, table};
use crate::run::Outcome;
use crate::{machine, stop};

/// Beyond this share of its core, used or waited for, and later than this, the program itself is what was measured.
const BUSY: f64 = 0.9;
const LATE_US: u64 = 1_000;
/// Beyond this share of all cores, several nodes and the program took time from each other.
const FULL: f64 = 0.9;

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
    let Outcome {
        counts,
        measures,
        servers,
        share_of_a_core,
        share_without_a_core,
        seconds,
        sessions,
        interrupted,
        ..
    } = outcome;
    let mut notes = outcome.notes;
    let failures = outcome.failures.iter().map(|(why, times)| match times {
        1 => format!("{}.", capital(why)),
        times => format!("{}: {times} times.", capital(why)),
    });
    let delivered: u64 = measures.timeline().iter().map(|second| second.delivered).sum();
    let cpu: f64 = servers.iter().map(|server| server.cpu_s).sum();
    notes.extend(crowded(&servers, share_of_a_core, seconds, machine::cores_online()));
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
        tester: tester(share_of_a_core, share_without_a_core, common, &measures),
        longest_without_service_ms: sessions.longest_us().map(|waited| waited as f64 / 1e3),
        sessions: sessions.into_worst(),
        interrupted,
        failures: failures.collect(),
        notes,
    }
}

/// Whether several nodes on this machine were in each other's way.
fn crowded(servers: &[ServerProcess], own: f64, seconds: f64, cores: usize) -> Option<String> {
    if servers.len() < 2 || seconds <= 0.0 {
        return None;
    }
    let used = own + servers.iter().map(|server| server.cpu_s).sum::<f64>() / seconds;
    (used > FULL * cores as f64).then(|| {
        format!(
            "{} nodes and the tester used {used:.1} of this machine's {cores} cores: they took time from each other, and \
             on machines of their own the nodes do more than this",
            servers.len()
        )
    })
}

fn tester(share: f64, without_a_core: f64, common: &Common, measures: &Measures) -> Tester {
    let open_loop = common.in_flight.is_none();
    let lag = measures.lag_p99();
    let why = if share > BUSY {
        Some(format!("it used {:.0} % of a core, and its engine has one thread", share * 100.0))
    } else if share + without_a_core > BUSY {
        Some(format!(
            "it used {:.0} % of a core, and for {:.0} % of the time it had something to do and something else ran on its \
             cores",
            share * 100.0,
            without_a_core * 100.0
        ))
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    /// What is said of a tester that used so much of a core, and waited for one so much of the time.
    fn why(options: &str, share: f64, without_a_core: f64) -> Option<String> {
        let arguments = ["conclave-load", "rooms"].into_iter().chain(options.split_whitespace());
        let Command::Rooms(rooms) = Arguments::parse_from(arguments).command else { panic!("rooms") };
        let tester = tester(share, without_a_core, &rooms.common, &Measures::new());
        assert_eq!(tester.is_bottleneck, tester.why.is_some());
        tester.why
    }

    #[test]
    fn a_tester_that_is_busy_or_has_no_core_says_so_in_both_loops() {
        for options in ["--rate 100", "--in-flight 4"] {
            assert_eq!(why(options, 0.5, 0.1), None);
            assert_eq!(why(options, 0.01, 0.05), None, "who has little to do waits often, and it matters little");
            assert!(why(options, 0.95, 0.0).unwrap().contains("95 % of a core"));
            assert!(why(options, 0.4, 0.55).unwrap().contains("55 % of the time"));
        }
    }

    #[test]
    fn several_nodes_that_fill_the_machine_are_told_and_one_alone_is_not() {
        let node = |cpu_s| ServerProcess { pid: 1, cpu_s, rss_peak_bytes: 0, rss_end_bytes: 0 };
        let (idle, busy) = (node(1.0), node(8.0));
        assert_eq!(crowded(&[idle.clone(), idle], 0.5, 10.0, 2), None);
        let said = crowded(&[busy.clone(), busy.clone()], 0.3, 10.0, 2).unwrap();
        assert!(said.starts_with("2 nodes and the tester used 1.9 of this machine's 2 cores"), "{said}");
        assert_eq!(crowded(&[node(10.0)], 1.0, 10.0, 2), None, "each has a core of its own");
        assert_eq!(crowded(&[busy.clone(), busy], 0.3, 0.0, 2), None);
    }
}
