//! What was tested, said in a line. Pure.

use super::model::Report;

/// `fanout: few senders, many members · members 1000 · rate 50 · 30 s · 1 node`
pub(crate) fn headline(report: &Report) -> String {
    format!("{}: {} · {}", report.scenario, explained(&report.scenario), subtitle(report))
}

/// The same without the scenario.
pub(crate) fn subtitle(report: &Report) -> String {
    let telling = TELLING.iter().filter_map(|name| {
        let setting = report.options.iter().find(|setting| setting.name == *name)?;
        (!setting.value.is_empty()).then(|| format!("{} {}", name.replace('-', " "), setting.value))
    });
    let nodes = match report.urls.len() {
        1 => "1 node".to_owned(),
        number => format!("{number} nodes"),
    };
    telling.chain([nodes]).collect::<Vec<_>>().join(" · ")
}

/// The options that say the most of a run, where it has them.
const TELLING: [&str; 8] =
    ["members", "sessions", "connections", "rate", "in-flight", "payload", "duration", "key-lifetime"];

/// What a scenario does.
pub(crate) fn explained(scenario: &str) -> &'static str {
    match scenario {
        "fanout" => "few senders, many members",
        "rooms" => "many sessions of a few members, all speaking",
        "direct" => "pairs that speak with each other",
        "churn" => "connections that come, resume and go",
        "rotation" => "end-to-end encrypted sessions whose members and keys change",
        "soak" => "a mix of everything, for long",
        _ => "a scenario that this version does not know",
    }
}
