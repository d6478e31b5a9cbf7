//! What `deploy/` shows to operators exists: each metric and label that the dashboard and the alarms name is one of the
//! node's, and each alarm has its place in `docs/OPERATIONS.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};
use serde_json::Value;

use crate::support::Node;

/// Labels that Prometheus adds.
const ADDED: &[&str] = &["instance", "job"];

/// Metrics that Prometheus makes by itself.
const MADE: &[&str] = &["up"];

#[tokio::test]
async fn the_dashboard_and_the_alarms_name_only_what_a_node_shows() {
    let known = metrics(&Node::shared().await.get("/metrics").await.text);
    let mut wrong = Vec::new();
    let expressions: Vec<(String, String)> = dashboard().into_iter().chain(alarms()).collect();
    assert!(expressions.len() > 40, "the dashboard and the alarms were read: {}", expressions.len());
    for (place, expression) in &expressions {
        let uses = uses(expression);
        assert!(!uses.metrics.is_empty(), "{place} names no metric: {expression}");
        let mut of_all: BTreeSet<&str> = ADDED.iter().copied().collect();
        for (metric, labels) in &uses.metrics {
            let Some(has) = known.get(metric) else {
                wrong.push(format!("{place}: there is no metric {metric}"));
                continue;
            };
            of_all.extend(has.iter().map(String::as_str));
            let lacks = labels.iter().filter(|label| !has.contains(*label) && !ADDED.contains(&label.as_str()));
            wrong.extend(lacks.map(|label| format!("{place}: {metric} has no label {label}")));
        }
        let lacks = uses.groups.iter().filter(|label| !of_all.contains(label.as_str()));
        wrong.extend(lacks.map(|label| format!("{place}: nothing in it has a label {label}: {expression}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_node_takes_as_many_open_files_as_it_may_have() {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    assert_eq!(Node::shared().await.metric("process_max_fds").await, most);
}

#[test]
fn each_alarm_has_its_section_in_the_operators_handbook() {
    let handbook = read("docs/OPERATIONS.md");
    let names: Vec<String> = alarms().into_iter().map(|(name, _)| name).collect();
    let lacks: Vec<&String> = names.iter().filter(|name| !handbook.contains(&format!("`{name}`"))).collect();
    assert!(!names.is_empty() && lacks.is_empty(), "docs/OPERATIONS.md does not explain {lacks:?}");
    let explained = handbook.split('`').filter(|word| word.starts_with("Conclave") && !word.contains(' '));
    let gone: Vec<&str> = explained.filter(|word| !names.iter().any(|name| name == word)).collect();
    assert!(gone.is_empty(), "docs/OPERATIONS.md explains alarms that do not exist: {gone:?}");
}

#[test]
fn the_check_would_see_what_it_looks_for() {
    let uses = uses("sum by (le, what) (rate(conclave_a_bucket{b=~\"conclave_no|c\", d!=\"x\"}[5m])) / up + 1e3");
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(uses.groups, labels(&["le", "what"]));
    assert_eq!(uses.metrics, [("conclave_a_bucket".to_owned(), labels(&["b", "d"])), ("up".to_owned(), vec![])]);
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every metric with its labels: those that the node shows, and those that it declares and shows once they happened.
fn metrics(shown: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut known: BTreeMap<String, BTreeSet<String>> =
        MADE.iter().map(|name| ((*name).to_owned(), [].into())).collect();
    for line in shown.lines().filter(|line| !line.starts_with('#')) {
        let name: String = line.chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '_').collect();
        let labels = uses(line).metrics.pop().map(|(_, labels)| labels).unwrap_or_default();
        known.entry(name).or_default().extend(labels);
    }
    let mut declared = 0;
    for line in read("src/telemetry.rs").lines() {
        let Some((kind, rest)) = line.split_once(" = \"conclave_") else { continue };
        let kind = kind.rsplit(' ').next().unwrap_or_default();
        let quoted: Vec<&str> = rest.split('"').collect();
        let name = format!("conclave_{}", quoted[0]);
        declared += 1;
        match kind {
            // Name, help, and then the labels.
            "IntCounterVec" => {
                known.entry(name).or_default().extend(quoted[4..].iter().step_by(2).map(|label| (*label).to_owned()));
            }
            "Histogram" => assert!(known.contains_key(&format!("{name}_bucket")), "{name} is not shown"),
            "IntCounter" | "IntGauge" => assert!(known.contains_key(&name), "{name} is not shown"),
            _ => panic!("{name} is of a kind that this test does not know: {kind}"),
        }
    }
    assert!(declared > 30, "the declarations were read: {declared}");
    known
}

/// The dashboard's queries, each with its panel's title.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboards/conclave.json")).expect("JSON");
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((title.to_owned(), target["expr"].as_str().expect("a query").to_owned()));
        }
    }
    found
}

/// The alarms' names and conditions.
fn alarms() -> Vec<(String, String)> {
    let rules: Value = serde_saphyr::from_str(&read("deploy/prometheus/rules.yml")).expect("YAML");
    let groups = rules["groups"].as_array().expect("groups");
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_else(|| panic!("{key}: {rule}")).to_owned();
    rules.map(|rule| (text(rule, "alert"), text(rule, "expr"))).collect()
}

/// What a query names.
#[derive(Default)]
struct Uses {
    metrics: Vec<(String, Vec<String>)>,
    groups: Vec<String>,
}

fn uses(expression: &str) -> Uses {
    let mut uses = Uses::default();
    let mut tokens = tokens(expression).into_iter().peekable();
    while let Some(token) = tokens.next() {
        if matches!(token.as_str(), "by" | "without" | "on" | "ignoring") {
            uses.groups.extend(tokens.by_ref().take_while(|token| token != ")").filter(|token| is_name(token)));
        } else if ["conclave_", "process_"].iter().any(|ours| token.starts_with(ours)) || MADE.contains(&token.as_str())
        {
            let mut labels = Vec::new();
            if tokens.next_if_eq("{").is_some() {
                labels.extend(tokens.by_ref().take_while(|token| token != "}").filter(|token| is_name(token)));
            }
            uses.metrics.push((token, labels));
        }
    }
    uses
}

fn is_name(token: &str) -> bool {
    token.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_')
}

/// Words and single marks; strings and durations are left out.
fn tokens(expression: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let (mut in_string, mut in_word) = (false, false);
    for char in expression.chars() {
        let of_word = char.is_ascii_alphanumeric() || matches!(char, '_' | '$');
        if char == '"' {
            in_string = !in_string;
        } else if in_string {
            continue;
        } else if of_word && in_word {
            tokens.last_mut().expect("the word that it is in").push(char);
        } else if !char.is_whitespace() {
            tokens.push(char.to_string());
        }
        in_word = of_word;
    }
    tokens
}
