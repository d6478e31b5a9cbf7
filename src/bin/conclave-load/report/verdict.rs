//! Whether a run kept what the server promises, and what a reader has to know before believing the figures. Pure.
//!
//! Invariant: a run passes only if every count of a fault is 0, everything that was owed came, something was
//! acknowledged, and it ran to its end.

use super::model::{Counts, Report};
use super::quantity::{count, micros, percent};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// Stopped before its end, without a fault until then.
    Unfinished,
}

impl Outcome {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Passed => "Passed",
            Self::Failed => "Failed",
            Self::Unfinished => "Stopped early",
        }
    }
}

/// The judgement of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// One sentence.
    pub(crate) headline: String,
    /// Why it failed, one sentence each.
    pub(crate) failures: Vec<String>,
    /// What limits the figures without breaking a promise, one sentence each.
    pub(crate) cautions: Vec<String>,
}

impl Verdict {
    pub(crate) fn of(report: &Report) -> Self {
        let mut failures = failures(&report.counts);
        failures.extend(report.failures.iter().cloned());
        let (outcome, headline) = if !failures.is_empty() {
            (Outcome::Failed, "The server broke what it promises.".to_owned())
        } else if report.interrupted {
            (Outcome::Unfinished, "The run was stopped before its end; until then no promise was broken.".to_owned())
        } else {
            (Outcome::Passed, passed(&report.counts))
        };
        Self { outcome, headline, failures, cautions: cautions(report) }
    }

    /// Whether the program may exit with 0.
    pub(crate) fn passed(&self) -> bool {
        self.outcome == Outcome::Passed
    }
}

fn passed(counts: &Counts) -> String {
    if counts.expected_deliveries == 0 {
        return format!("All {} acknowledged messages are stored.", count(counts.acknowledged));
    }
    format!(
        "All {} acknowledged messages are stored, and all {} deliveries came: once, in order, readable, from the right \
         sender.",
        count(counts.acknowledged),
        count(counts.delivered)
    )
}

fn failures(counts: &Counts) -> Vec<String> {
    let short = counts.expected_deliveries.saturating_sub(counts.delivered);
    let unannounced = if counts.reconnects_expected { 0 } else { counts.reconnects };
    let mut failures: Vec<String> = [
        (counts.lost, "Deliveries that were owed and never came"),
        (if counts.lost > 0 { 0 } else { short }, "Deliveries fewer than were owed"),
        (counts.missing, "Acknowledged messages that the server's history does not have"),
        (counts.duplicated, "Messages or deliveries that came more than once"),
        (counts.disordered, "Deliveries out of order"),
        (counts.undecryptable, "Deliveries that could not be read, or were not what was sent"),
        (counts.misattributed, "Deliveries under another sender's name"),
        (unannounced, "Connections that ended and nobody had announced it"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{what}: {}.", count(number)))
    .collect();
    if counts.sent > 0 && counts.acknowledged == 0 {
        failures.push("Nothing was acknowledged.".to_owned());
    } else if counts.sent == 0 {
        failures.push("Nothing was sent.".to_owned());
    }
    failures
}

fn cautions(report: &Report) -> Vec<String> {
    let mut cautions = Vec::new();
    if report.interrupted {
        cautions
            .push("The run was stopped before its end: the figures are of what was measured until then.".to_owned());
    }
    if report.tester.is_bottleneck {
        let why = report.tester.why.as_deref().unwrap_or("it does not say why");
        cautions.push(format!("The tester itself held the run back, so the server can do more than this: {why}"));
    }
    let refused = report.counts.refusals();
    if refused > 0 {
        let by_code: Vec<String> =
            report.counts.refused.iter().map(|(code, number)| format!("{code} {}", count(*number))).collect();
        cautions.push(format!("Messages that were refused: {} ({}).", count(refused), by_code.join(", ")));
    }
    if report.counts.in_doubt > 0 {
        cautions.push(format!("Messages without an answer at the end: {}.", count(report.counts.in_doubt)));
    }
    if report.counts.reconnects > 0 && report.counts.reconnects_expected {
        cautions
            .push(format!("Connections that ended as announced and came back: {}.", count(report.counts.reconnects)));
    }
    cautions
}

/// What the tester says about itself.
pub(crate) fn of_the_tester(report: &Report) -> String {
    let tester = &report.tester;
    let lag = match tester.pacing_lag_p99_us {
        Some(lag) => format!(", and sent 99 % of its messages within {} of when they were due", micros(lag as f64)),
        None => String::new(),
    };
    let judged = if tester.is_bottleneck { "it was the bottleneck" } else { "it was not the bottleneck" };
    format!("The tester used {} of its processor time{lag}: {judged}.", percent(tester.cpu_share))
}
