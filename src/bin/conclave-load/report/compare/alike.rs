//! Whether two runs asked the same, so that their figures can be held against each other. Pure.

use crate::report::model::{Report, Setting};

/// What was asked differently, one line each: scenario, options, the number of nodes, TLS.
pub(super) fn differences(a: &Report, b: &Report) -> Vec<String> {
    let mut found = Vec::new();
    if a.scenario != b.scenario {
        found.push(format!("scenario: {} and {}", a.scenario, b.scenario));
    }
    for setting in &a.options {
        let other = value_of(&b.options, &setting.name);
        if other != Some(&setting.value) {
            found.push(format!("--{}: {} and {}", setting.name, setting.value, other.unwrap_or("not there")));
        }
    }
    for setting in &b.options {
        if value_of(&a.options, &setting.name).is_none() {
            found.push(format!("--{}: not there and {}", setting.name, setting.value));
        }
    }
    if a.urls.len() != b.urls.len() {
        found.push(format!("nodes: {} and {}", a.urls.len(), b.urls.len()));
    }
    if has_tls(a) != has_tls(b) {
        let said = |report| if has_tls(report) { "yes" } else { "no" };
        found.push(format!("TLS: {} and {}", said(a), said(b)));
    }
    found
}

fn has_tls(report: &Report) -> bool {
    report.urls.iter().any(|url| url.starts_with("wss:") || url.starts_with("https:"))
}

fn value_of<'a>(options: &'a [Setting], name: &str) -> Option<&'a str> {
    options.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
}

/// What else makes the comparison doubtful, one sentence each.
pub(super) fn doubts(a: &Report, b: &Report) -> Vec<String> {
    let mut doubts = Vec::new();
    if a.machine != b.machine {
        doubts.push(format!(
            "The testers' machines differ: {} cores, {} and {} cores, {}.",
            a.machine.cores, a.machine.kernel, b.machine.cores, b.machine.kernel
        ));
    }
    for (name, report) in [("A", a), ("B", b)] {
        if report.tester.is_bottleneck {
            doubts.push(format!("In {name} the tester was the bottleneck: its figures are the tester's."));
        }
        if report.interrupted {
            doubts.push(format!("{name} was stopped before its end."));
        }
    }
    doubts
}
