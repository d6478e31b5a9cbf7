//! The end of a run as text: the verdict, then counts, latencies and what the servers used. Pure.

use comfy_table::{CellAlignment, Table, presets};

use super::headline::headline;
use super::model::{Between, Latency, Measured, Report};
use super::quantity::{bytes, count, micros, real};
use super::verdict::{Verdict, of_the_tester};

/// The whole text, with a line end behind each line.
pub(crate) fn table(report: &Report) -> String {
    let verdict = Verdict::of(report);
    let mut text = format!("\n{}\n\n", headline(report));
    text.push_str(&block(&counts(report)));
    text.push_str(&block(&latencies(report)));
    if !report.servers.is_empty() {
        text.push_str(&block(&servers(report)));
    }
    if let Some(rate) = report.deliveries_per_cpu_s {
        text.push_str(&format!("{} deliveries for each second of the servers' processor time.\n", real(rate)));
    }
    if let Some(worst) = report.sessions.first() {
        text.push_str(&format!(
            "The session that waited longest: {}, {} from due to acknowledged.\n",
            worst.session_id,
            micros(worst.longest_wait_us as f64)
        ));
    }
    for line in report.notes.iter().chain([&of_the_tester(report)]) {
        text.push_str(&format!("{line}\n"));
    }
    for caution in &verdict.cautions {
        text.push_str(&format!("note: {caution}\n"));
    }
    text.push_str(&format!("\n{}: {}\n", verdict.outcome.word().to_uppercase(), verdict.headline));
    for failure in &verdict.failures {
        text.push_str(&format!("  {failure}\n"));
    }
    text
}

/// What a latency is called.
pub(crate) fn latency_name(latency: &Latency) -> String {
    let what = match latency.what {
        Measured::Ack => "acknowledgement",
        Measured::Delivery => "delivery",
        Measured::Resume => "connect and resume",
        Measured::Rotation => "rotation",
    };
    match latency.between {
        Between::All => what.to_owned(),
        Between::SameNode => format!("{what}, same node"),
        Between::AcrossNodes => format!("{what}, across nodes"),
    }
}

/// The latency that says the most: of deliveries where there are some, else of acknowledgements, else any.
pub(crate) fn main_latency(report: &Report) -> Option<&Latency> {
    let of = |what| move |latency: &&Latency| latency.what == what && latency.between == Between::All;
    let measured = || report.latencies.iter().filter(|latency| latency.count > 0);
    measured().find(of(Measured::Delivery)).or_else(|| measured().find(of(Measured::Ack))).or_else(|| measured().next())
}

fn counts(report: &Report) -> Table {
    let counts = &report.counts;
    let mut table = columns(&["", "count", "per second"]);
    let rated = [
        ("sent", counts.sent, report.rate(|second| second.sent)),
        ("acknowledged", counts.acknowledged, report.rate(|second| second.acknowledged)),
        ("delivered", counts.delivered, report.rate(|second| second.delivered)),
    ];
    for (name, number, rate) in rated {
        table.add_row(vec![name.to_owned(), count(number), real(rate)]);
    }
    let plain = [
        ("refused", counts.refusals()),
        ("in doubt", counts.in_doubt),
        ("reconnects", counts.reconnects),
        ("deliveries owed", counts.expected_deliveries),
    ];
    for (name, number) in plain.into_iter().chain(counts.faults()) {
        table.add_row(vec![name.to_owned(), count(number)]);
    }
    table
}

fn latencies(report: &Report) -> Table {
    let mut table = columns(&["latency", "count", "min", "mean", "p50", "p90", "p99", "p99.9", "max"]);
    for latency in report.telling_latencies() {
        let mut row = vec![latency_name(latency), count(latency.count)];
        row.extend(figures(latency).map(micros));
        table.add_row(row);
    }
    table
}

/// Minimum, mean, the percentiles and the maximum, in microseconds.
pub(crate) fn figures(latency: &Latency) -> [f64; 7] {
    [
        latency.min_us as f64,
        latency.mean_us,
        latency.p50_us as f64,
        latency.p90_us as f64,
        latency.p99_us as f64,
        latency.p999_us as f64,
        latency.max_us as f64,
    ]
}

fn servers(report: &Report) -> Table {
    let mut table = columns(&["server", "cpu time", "of a core", "memory, peak", "memory, end"]);
    for server in &report.servers {
        let share = if report.seconds > 0.0 { server.cpu_s / report.seconds } else { 0.0 };
        table.add_row(vec![
            format!("pid {}", server.pid),
            micros(server.cpu_s * 1e6),
            real(share),
            bytes(server.rss_peak_bytes),
            bytes(server.rss_end_bytes),
        ]);
    }
    table
}

/// A table whose first column is to the left and all others to the right.
pub(crate) fn columns(names: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(names);
    for (index, column) in table.column_iter_mut().enumerate() {
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A table's lines, without the spaces that nothing follows, and an empty line behind it.
pub(crate) fn block(table: &Table) -> String {
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n\n", lines.join("\n"))
}
