//! A report as one page that needs nothing but itself: no script, no font, no picture from elsewhere.
//!
//! Whatever comes from outside (names, addresses, notes) is escaped by the template; a test tries.

mod alone;
mod plot;
mod plots;
mod scale;
#[cfg(test)]
mod tests;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::headline::{explained, headline, subtitle};
use super::model::Report;
use super::quantity::{bytes, count, micros, real, seconds};
use super::table::{figures, latency_name, main_latency};
use super::verdict::{Outcome, Verdict, of_the_tester};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let verdict = Verdict::of(report);
    let body = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // The page asks nobody for anything, whatever is in it.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                title { (headline(report)) " – " (verdict.outcome.word()) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (header(report))
                    (judgement(&verdict))
                    (tiles(report))
                    section.plots {
                        @for plot in plots::plots(report) { (plot.figure()) }
                    }
                    (latencies(report))
                    (servers(report))
                    section.pair {
                        (counts(report))
                        div { (options(report)) (surroundings(report)) }
                    }
                    (reading(report))
                }
            }
        }
    };
    body.into_string()
}

/// A plot as a file.
pub(crate) struct Drawing {
    /// `messages-over-time.svg`.
    pub(crate) file_name: String,
    pub(crate) svg: String,
}

/// The plots that show something, as files of their own.
pub(crate) fn drawings(report: &Report) -> Vec<Drawing> {
    let what = format!("{} · {}", report.scenario, subtitle(report));
    let drawing = |plot: &plot::Plot| Drawing {
        file_name: format!("{}.svg", plot.title.to_lowercase().replace(' ', "-")),
        svg: plot.alone(&what),
    };
    plots::plots(report).iter().filter(|plot| plot.shows_something()).map(drawing).collect()
}

fn header(report: &Report) -> Markup {
    let started = report.started_at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    html! {
        header {
            p.kicker { "Load test of a chat server" }
            h1 { (report.scenario) ": " (explained(&report.scenario)) }
            p.subtitle { (subtitle(report)) }
            p.when { (started) " · measured for " (seconds(report.seconds)) " · conclave-load " (report.version) }
        }
    }
}

fn judgement(verdict: &Verdict) -> Markup {
    let (class, sign) = match verdict.outcome {
        Outcome::Passed => ("good", "✓"),
        Outcome::Failed => ("bad", "✗"),
        Outcome::Unfinished => ("open", "!"),
    };
    html! {
        section class={ "verdict " (class) } {
            h2 { span.sign aria-hidden="true" { (sign) } (verdict.outcome.word()) }
            p { (verdict.headline) }
            @if !verdict.failures.is_empty() {
                ul { @for failure in &verdict.failures { li { (failure) } } }
            }
        }
        @if !verdict.cautions.is_empty() {
            section.cautions {
                h2 { "Before you believe the figures" }
                ul { @for caution in &verdict.cautions { li { (caution) } } }
            }
        }
    }
}

fn tiles(report: &Report) -> Markup {
    let own = str::to_owned;
    let mut tiles = vec![("messages", real(report.rate(|second| second.acknowledged)), own("acknowledged per second"))];
    if report.counts.expected_deliveries > 0 {
        tiles.push(("deliveries", real(report.rate(|second| second.delivered)), own("per second")));
    }
    if let Some(latency) = main_latency(report) {
        let of = |percentile: &str| format!("{percentile} of {}", latency_name(latency));
        tiles.push(("half within", micros(latency.p50_us as f64), of("p50")));
        tiles.push(("99 of 100 within", micros(latency.p99_us as f64), of("p99")));
        tiles.push(("the slowest", micros(latency.max_us as f64), of("maximum")));
    }
    if let Some(rate) = report.deliveries_per_cpu_s {
        tiles.push(("deliveries", real(rate), own("per second of server CPU")));
    }
    html! {
        section.tiles {
            @for (name, value, unit) in tiles {
                div { span.name { (name) } strong { (value) } span.unit { (unit) } }
            }
        }
    }
}

fn counts(report: &Report) -> Markup {
    let counts = &report.counts;
    let messages = [
        ("messages sent", counts.sent),
        ("acknowledged", counts.acknowledged),
        ("in doubt at the end", counts.in_doubt),
        ("refused", counts.refusals()),
    ];
    let others = [
        ("deliveries owed", counts.expected_deliveries),
        ("delivered", counts.delivered),
        ("reconnects", counts.reconnects),
    ];
    let row = |name: &str, number: u64| html! { tr { th scope="row" { (name) } td { (count(number)) } td {} } };
    html! {
        div.block {
            h2 { "Counts" }
            table {
                tbody {
                    @for (name, number) in messages { (row(name, number)) }
                    @for (code, number) in &counts.refused {
                        tr.part { th scope="row" { (code) } td { (count(*number)) } td {} }
                    }
                    @for (name, number) in others { (row(name, number)) }
                }
                tbody.faults {
                    @for (name, number) in counts.faults() {
                        tr class=[(number > 0).then_some("bad")] {
                            th scope="row" { (name) }
                            td { (count(number)) }
                            td { @if number == 0 { "✓" } @else { "✗ has to be 0" } }
                        }
                    }
                }
            }
        }
    }
}

fn latencies(report: &Report) -> Markup {
    html! {
        section.block {
            h2 { "Latencies" }
            div.scroll {
                table {
                    thead {
                        tr {
                            th scope="col" { "of" }
                            @for name in ["count", "min", "mean", "p50", "p90", "p99", "p99.9", "max"] {
                                th scope="col" { (name) }
                            }
                        }
                    }
                    tbody {
                        @for latency in report.telling_latencies() {
                            tr {
                                th scope="row" { (latency_name(latency)) }
                                td { (count(latency.count)) }
                                @for value in figures(latency) { td { (micros(value)) } }
                            }
                        }
                    }
                }
            }
            @if let Some(longest) = report.longest_without_service_ms {
                p { "The longest that a message waited from when it was due until it was acknowledged: "
                    (micros(longest * 1e3))
                    @if let Some(worst) = report.sessions.first() { ", in session " code { (worst.session_id) } }
                    "." }
            }
        }
    }
}

fn servers(report: &Report) -> Markup {
    html! {
        @if !report.servers.is_empty() {
            section.block {
                h2 { "Servers" }
                div.scroll {
                    table {
                        thead {
                            tr {
                                @for name in ["process", "processor time", "of one core", "memory, peak", "memory, end"] {
                                    th scope="col" { (name) }
                                }
                            }
                        }
                        tbody {
                            @for server in &report.servers {
                                tr {
                                    th scope="row" { "pid " (server.pid) }
                                    td { (micros(server.cpu_s * 1e6)) }
                                    td { (real(server.cpu_s / report.seconds.max(0.001))) }
                                    td { (bytes(server.rss_peak_bytes)) }
                                    td { (bytes(server.rss_end_bytes)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn options(report: &Report) -> Markup {
    html! {
        div.block {
            h2 { "Options" }
            table {
                tbody {
                    @for setting in &report.options {
                        tr { th scope="row" { code { "--" (setting.name) } } td.long { @if setting.value.is_empty() { "not set" } @else { (setting.value) } } }
                    }
                }
            }
        }
    }
}

fn surroundings(report: &Report) -> Markup {
    let machine = &report.machine;
    html! {
        div.block {
            h2 { "Where it ran" }
            table {
                tbody {
                    @for url in &report.urls { tr { th scope="row" { "node" } td.long { (url) } } }
                    tr { th scope="row" { "tester's cores" } td { (machine.cores) } }
                    tr { th scope="row" { "memory" } td { (bytes(machine.memory_bytes)) } }
                    tr { th scope="row" { "system" } td.long { (machine.kernel) } }
                }
            }
            p { (of_the_tester(report)) }
            @for note in &report.notes { p { (note) } }
        }
    }
}

fn reading(report: &Report) -> Markup {
    let open = report.tester.pacing_lag_p99_us.is_some();
    html! {
        section.reading {
            h2 { "How to read this" }
            dl {
                dt { "acknowledged" }
                dd { "the server said that the message is on disk." }
                dt { "delivery" }
                dd { "one message at one member: a message to 1,000 members is 1,000 deliveries." }
                dt { "latency" }
                @if open {
                    dd { "counted from when a message was due by the clock, not from when it could be sent: a server \
                          that stalls cannot hide it by keeping the tester waiting." }
                } @else {
                    dd { "counted from when a message was sent. A next one is sent when one before it is answered, so \
                          that this shows a ceiling; under a fixed load people wait longer than this says." }
                }
                dt { "p50, p99, p99.9" }
                dd { "half, 99 of 100, 999 of 1,000 were at least as fast." }
                dt { "lost, missing, duplicated, disordered, undecryptable, misattributed" }
                dd { "each delivery was checked against what was sent, and the server's history was read at the end. \
                      The run passes only if all of these are 0." }
            }
        }
    }
}
