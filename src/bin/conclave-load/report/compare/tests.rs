//! Comparisons of reports whose differences are known.

use std::path::PathBuf;

use super::{Finding, compare, compared};
use crate::report::file::write_json;
use crate::report::model::Report;
use crate::report::sample;

fn findings(a: &Report, b: &Report) -> Vec<(&'static str, Finding)> {
    compared(a, b).into_iter().map(|one| (one.measure.name, one.finding)).collect()
}

fn in_files(a: &Report, b: &Report, force: bool) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let paths: [PathBuf; 2] = ["a.json", "b.json"].map(|name| folder.path().join(name));
    write_json(&paths[0], a).unwrap();
    write_json(&paths[1], b).unwrap();
    compare(&paths[0], &paths[1], force).map_err(|error| format!("{error:#}"))
}

#[test]
fn runs_that_differ_by_noise_do_not_differ() {
    for seed in 1..8 {
        let found = findings(&sample::seeded(seed, 1.0), &sample::seeded(seed + 100, 1.0));
        assert_eq!(found.len(), 6);
        assert!(found.iter().all(|(_, finding)| *finding == Finding::NoDifference), "seed {seed}: {found:?}");
    }
    let text = in_files(&sample::seeded(1, 1.0), &sample::seeded(2, 1.0), false).unwrap();
    assert!(text.ends_with("No difference between A and B that is more than noise.\n"), "{text}");
}

#[test]
fn longer_latencies_are_worse_and_shorter_ones_better() {
    let latencies = ["acknowledgement p50", "acknowledgement p99", "delivery p50", "delivery p99"];
    let (fast, slow) = (sample::seeded(1, 1.0), sample::seeded(2, 1.3));
    for (a, b, expected) in [(&fast, &slow, Finding::Worse), (&slow, &fast, Finding::Better)] {
        let found = findings(a, b);
        assert_eq!(
            found[..2],
            [("acknowledged per second", Finding::NoDifference), ("delivered per second", Finding::NoDifference)]
        );
        assert_eq!(found[2..], latencies.map(|name| (name, expected)));
    }
    let text = in_files(&fast, &slow, false).unwrap();
    let line = text.lines().find(|line| line.starts_with(" delivery p50")).unwrap();
    assert!(line.contains("+29") || line.contains("+30") || line.contains("+31"), "{line}");
    assert!(line.ends_with("< 0.001          worse"), "{line:?}");
    assert!(text.ends_with("B is worse in acknowledgement p50, acknowledgement p99, delivery p50, delivery p99.\n"));
}

#[test]
fn more_throughput_is_better() {
    let a = sample::seeded(1, 1.0);
    let mut b = sample::seeded(2, 1.0);
    for (index, second) in b.timeline.iter_mut().enumerate() {
        second.acknowledged = 60 + index as u64 % 3;
    }
    assert_eq!(findings(&a, &b)[0], ("acknowledged per second", Finding::Better));
}

#[test]
fn a_few_seconds_are_too_few() {
    let short = |seed| {
        let mut report = sample::seeded(seed, seed as f64);
        report.timeline.truncate(6);
        report
    };
    let found = findings(&short(1), &short(2));
    assert!(found.iter().all(|(_, finding)| *finding == Finding::TooFewSamples), "{found:?}");
    let text = in_files(&short(1), &short(2), false).unwrap();
    assert!(text.ends_with("Too few samples to tell A from B: let the runs last longer.\n"), "{text}");
}

#[test]
fn runs_without_a_second_are_compared_by_what_they_have() {
    let empty = Report { timeline: Vec::new(), ..sample::report() };
    let text = in_files(&empty, &empty, false).unwrap();
    assert!(text.contains("delivery p99.9") && text.contains("Too few samples"), "{text}");
    assert!(!text.contains("NaN"), "{text}");
}

#[test]
fn different_questions_are_not_compared_unless_forced() {
    let a = sample::report();
    let mut b = sample::report();
    b.scenario = "rooms".to_owned();
    b.options[2].value = "100".to_owned();
    b.options.pop();
    b.urls.push("wss://127.0.0.1:8081/v1/ws".to_owned());
    assert_eq!(
        in_files(&a, &b, false).unwrap_err(),
        "the runs asked for different things (--force compares them anyway):\n  scenario: fanout and rooms\n  \
         --rate: 50 and 100\n  --duration: 30s and not there\n  nodes: 1 and 2\n  TLS: no and yes"
    );
    let forced = in_files(&a, &b, true).unwrap();
    assert!(forced.contains("note: different, --rate: 50 and 100.\n"), "{forced}");
}

#[test]
fn a_broken_promise_is_said_whatever_the_figures_are() {
    let a = sample::report();
    let mut b = sample::report();
    b.counts.lost = 1;
    b.machine.cores = 8;
    let text = in_files(&a, &b, false).unwrap();
    assert!(text.contains("\nB FAILED: Deliveries that were owed and never came: 1.\n"), "{text}");
    assert!(text.contains("note: The testers' machines differ: 2 cores"), "{text}");
}
