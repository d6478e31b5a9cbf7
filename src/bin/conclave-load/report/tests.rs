//! Tests of verdicts and of the table.

use super::model::{Between, Latency, Report};
use super::sample;
use super::table::table;
use super::verdict::{Outcome, Verdict};

fn with(change: impl FnOnce(&mut Report)) -> Verdict {
    let mut report = sample::report();
    change(&mut report);
    Verdict::of(&report)
}

#[test]
fn a_run_without_a_fault_passes_and_says_what_was_shown() {
    let verdict = with(|_| {});
    assert!(verdict.passed());
    assert_eq!(
        verdict.headline,
        "All 1,500 acknowledged messages are stored, and all 1,500,000 deliveries came: once, in order, readable, from \
         the right sender."
    );
    assert!(verdict.failures.is_empty() && verdict.cautions.is_empty());
}

#[test]
fn each_fault_alone_fails_the_run_and_is_named() {
    type Fault = (fn(&mut Report), &'static str);
    let faults: [Fault; 8] = [
        (|report| report.counts.lost = 3, "Deliveries that were owed and never came: 3."),
        (|report| report.counts.missing = 1, "Acknowledged messages that the server's history does not have: 1."),
        (|report| report.counts.duplicated = 2000, "Messages or deliveries that came more than once: 2,000."),
        (|report| report.counts.disordered = 1, "Deliveries out of order: 1."),
        (|report| report.counts.undecryptable = 1, "Deliveries that could not be read, or were not what was sent: 1."),
        (|report| report.counts.misattributed = 1, "Deliveries under another sender's name: 1."),
        (|report| report.counts.delivered -= 5, "Deliveries fewer than were owed: 5."),
        (|report| report.counts.reconnects = 1, "Connections that ended and nobody had announced it: 1."),
    ];
    for (fault, said) in faults {
        let verdict = with(fault);
        assert_eq!(verdict.outcome, Outcome::Failed, "{said}");
        assert_eq!(verdict.failures, [said]);
    }
}

#[test]
fn nothing_sent_or_acknowledged_is_no_pass() {
    let verdict = with(|report| report.counts.acknowledged = 0);
    assert_eq!(verdict.failures, ["Nothing was acknowledged."]);
    let verdict = with(|report| (report.counts.sent, report.counts.acknowledged) = (0, 0));
    assert_eq!(verdict.failures, ["Nothing was sent."]);
}

#[test]
fn announced_reconnects_and_refusals_are_cautions() {
    let verdict = with(|report| {
        (report.counts.reconnects, report.counts.reconnects_expected) = (10, true);
        report.counts.refused.insert("overloaded".to_owned(), 7);
        report.counts.refused.insert("rate_limited".to_owned(), 1);
        report.counts.in_doubt = 2;
    });
    assert!(verdict.passed());
    assert_eq!(
        verdict.cautions,
        [
            "Messages that were refused: 8 (overloaded 7, rate_limited 1).",
            "Messages without an answer at the end: 2.",
            "Connections that ended as announced and came back: 10."
        ]
    );
}

#[test]
fn a_stopped_run_does_not_pass_and_its_faults_are_still_faults() {
    assert_eq!(with(|report| report.interrupted = true).outcome, Outcome::Unfinished);
    assert!(!with(|report| report.interrupted = true).passed());
    let both = with(|report| (report.interrupted, report.counts.lost) = (true, 1));
    assert_eq!(both.outcome, Outcome::Failed);
}

#[test]
fn the_table_is_aligned_and_has_units() {
    let text = table(&sample::report());
    for line in [
        "fanout: few senders, many members · members 1000 · sessions 1 · rate 50 · payload 200 · duration 30s · 1 node",
        "                      count  per second",
        " acknowledged         1,500          50",
        " delivered        1,500,000      50,000",
        " pid 4711    12.5 s       0.42        96 MiB       90 MiB",
        "The tester used 42 % of its processor time, and sent 99 % of its messages within 310 µs of when they were due: \
         it was not the bottleneck.",
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }
    assert!(text.contains("\nPASSED: All 1,500 acknowledged"), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()));
}

#[test]
fn rates_are_of_what_was_measured_and_not_of_all_that_was_counted() {
    let mut report = sample::report();
    // A second of warming up is in the counts, and not in the timeline.
    (report.counts.sent, report.counts.acknowledged) = (1550, 1550);
    let text = table(&report);
    let line = text.lines().find(|line| line.starts_with(" acknowledged ")).expect("a line");
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["acknowledged", "1,550", "50"]);
}

#[test]
fn one_node_alone_is_no_pair() {
    let mut report = sample::report();
    let same = Latency { between: Between::SameNode, ..report.latencies[1].clone() };
    report.latencies.push(same.clone());
    assert_eq!(table(&report).matches("same node").count(), 0);
    report.latencies.push(Latency { between: Between::AcrossNodes, ..same });
    let text = table(&report);
    assert_eq!((text.matches("same node").count(), text.matches("across nodes").count()), (1, 1));
}
