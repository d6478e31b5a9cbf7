//! Which plots a report has, and what they show. Pure.

use super::plot::{Plot, Series};
use super::scale::{Scale, Unit};
use crate::report::model::{Between, Latency, Measured, Report, Second};
use crate::report::quantity::{micros, real, seconds};
use crate::report::table::latency_name;

/// More points than these are joined: a plot is not wider.
const POINTS: usize = 300;

/// How the seconds of one point become one value.
#[derive(Clone, Copy)]
enum Join {
    Mean,
    Greatest,
}

/// The timeline in at most [`POINTS`] stretches of whole seconds.
pub(super) struct Stretches<'a> {
    seconds: &'a [Second],
    each: usize,
}

impl<'a> Stretches<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        Self { seconds: &report.timeline, each: report.timeline.len().div_ceil(POINTS).max(1) }
    }

    /// `one second`, or `12 seconds`.
    fn length(&self) -> String {
        if self.each == 1 { "one second".to_owned() } else { format!("{} seconds", self.each) }
    }

    fn points(&self, join: Join, value: impl Fn(&Second) -> Option<f64>) -> Vec<(f64, Option<f64>)> {
        self.seconds
            .chunks(self.each)
            .map(|chunk| {
                let values: Vec<f64> = chunk.iter().filter_map(&value).collect();
                let joined = match join {
                    Join::Mean => values.iter().sum::<f64>() / values.len() as f64,
                    Join::Greatest => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                };
                (self.middle(chunk), (!values.is_empty()).then_some(joined))
            })
            .collect()
    }

    fn middle(&self, chunk: &[Second]) -> f64 {
        f64::from(chunk[0].at_s) + chunk.len() as f64 / 2.0
    }

    fn scale(&self) -> Scale {
        Scale::time(self.seconds.last().map_or(0.0, |last| f64::from(last.at_s) + 1.0))
    }

    fn plot(&self, title: &str, caption: String, y_label: &str, y: Scale, series: Vec<Series>, unit: Unit) -> Plot {
        let text = |value: f64| match unit {
            Unit::Micros => micros(value),
            Unit::PerSecond | Unit::Seconds => real(value),
        };
        let hints = self.seconds.chunks(self.each).enumerate().map(|(index, chunk)| {
            let values: Vec<String> = series
                .iter()
                .filter_map(|one| one.points[index].1.map(|value| format!("{} {}", one.name, text(value))))
                .collect();
            let said = if values.is_empty() { "nothing".to_owned() } else { values.join(", ") };
            (self.middle(chunk), format!("at {}: {said}", seconds(f64::from(chunk[0].at_s))))
        });
        let hints = hints.collect();
        Plot {
            title: title.to_owned(),
            caption,
            x_label: "time since the start",
            y_label: y_label.to_owned(),
            x: self.scale(),
            y,
            series,
            hints,
        }
    }
}

/// All plots of the report, the most telling first.
pub(super) fn plots(report: &Report) -> Vec<Plot> {
    let stretches = Stretches::of(report);
    let mut plots = Vec::new();
    plots.extend(latency_over_time(report, &stretches));
    plots.extend(by_percentile(report));
    plots.push(messages_over_time(&stretches));
    if report.counts.expected_deliveries > 0 {
        plots.push(deliveries_over_time(&stretches));
    }
    plots.push(errors_over_time(report, &stretches));
    plots
}

fn latency_over_time(report: &Report, stretches: &Stretches<'_>) -> Vec<Plot> {
    let of = |p50: fn(&Second) -> Option<u64>, p99: fn(&Second) -> Option<u64>| {
        let value = |of: fn(&Second) -> Option<u64>| move |second: &Second| of(second).map(|us| us as f64);
        vec![
            Series { name: "p50".to_owned(), points: stretches.points(Join::Mean, value(p50)) },
            Series { name: "p99".to_owned(), points: stretches.points(Join::Greatest, value(p99)) },
        ]
    };
    let shown = [
        ("Delivery latency over time", "its arrival at a member", of(|s| s.delivery_p50_us, |s| s.delivery_p99_us)),
        ("Acknowledgement latency over time", "its acknowledgement", of(|s| s.ack_p50_us, |s| s.ack_p99_us)),
    ];
    // One scale for both, so that they can be compared by eye.
    let values = || shown.iter().flat_map(|(_, _, series)| series).flat_map(|one| &one.points).filter_map(|(_, v)| *v);
    let y = Scale::latency(values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let from = if report.tester.pacing_lag_p99_us.is_some() { "was due" } else { "was sent" };
    shown
        .into_iter()
        .filter(|(_, _, series)| series.iter().any(|one| one.points.iter().any(|(_, value)| value.is_some())))
        .map(|(title, until, series)| {
            let caption = format!(
                "From when a message {from} to {until}. Each point is the median (p50), or what 99 of 100 stayed under \
                 (p99), of {}{}.",
                stretches.length(),
                if stretches.each == 1 { "" } else { ": the mean of their medians, the worst of their p99" },
            );
            stretches.plot(title, caption, axis(&y), y, series, Unit::Micros)
        })
        .collect()
}

fn by_percentile(report: &Report) -> Option<Plot> {
    let shown: Vec<(&Latency, _)> = report
        .latencies
        .iter()
        .filter(|latency| latency.count > 0 && is_telling(latency, &report.latencies))
        .filter_map(|latency| Some((latency, latency.histogram().ok()?)))
        .collect();
    let most = shown.iter().map(|(latency, _)| latency.count).max()?;
    let x = Scale::nines(most);
    let series: Vec<Series> = shown
        .iter()
        .map(|(latency, histogram)| {
            let own_end = 1.0 - 1.0 / latency.count as f64;
            let points = (0..=POINTS / 2)
                .map(|index| x.quantile_at(index as f64 / (POINTS / 2) as f64))
                .map(|quantile| (quantile, (quantile <= own_end).then(|| histogram.value_at_quantile(quantile) as f64)))
                .collect();
            Series { name: latency_name(latency), points }
        })
        .collect();
    let smallest = shown.iter().map(|(latency, _)| latency.min_us).min()? as f64;
    let greatest = shown.iter().map(|(latency, _)| latency.max_us).max()? as f64;
    let y = Scale::latency(smallest.max(1.0), greatest);
    let hints = x.marks(8).into_iter().map(|(quantile, text)| (quantile, hint_of(&shown, quantile, &text))).collect();
    Some(Plot {
        title: "Latency by percentile".to_owned(),
        caption:
            "How large a share stayed under a latency. Each step to the right looks at the slowest tenth of those \
                  that were left; the right end is the worst that happened."
                .to_owned(),
        x_label: "share that stayed under it, log scale",
        y_label: axis(&y).to_owned(),
        x,
        y,
        series,
        hints,
    })
}

fn hint_of(shown: &[(&Latency, hdrhistogram::Histogram<u64>)], quantile: f64, text: &str) -> String {
    let values: Vec<String> = shown
        .iter()
        .map(|(latency, histogram)| {
            format!("{} {}", latency_name(latency), micros(histogram.value_at_quantile(quantile) as f64))
        })
        .collect();
    format!("{text}: {}", values.join(", "))
}

/// Where a latency is known by node pair, the sum of the pairs says nothing of its own.
fn is_telling(latency: &Latency, all: &[Latency]) -> bool {
    let other = |between| all.iter().any(|one| one.what == latency.what && one.between == between && one.count > 0);
    match latency.between {
        Between::All => !(other(Between::SameNode) && other(Between::AcrossNodes)),
        Between::SameNode | Between::AcrossNodes => {
            other(Between::SameNode) && other(Between::AcrossNodes) && latency.what != Measured::Resume
        }
    }
}

fn messages_over_time(stretches: &Stretches<'_>) -> Plot {
    let sent = stretches.points(Join::Mean, |second| Some(second.sent as f64));
    let acknowledged = stretches.points(Join::Mean, |second| Some(second.acknowledged as f64));
    let series = vec![
        Series { name: "sent".to_owned(), points: sent },
        Series { name: "acknowledged".to_owned(), points: acknowledged },
    ];
    let y = Scale::linear(Unit::PerSecond, greatest(&series));
    let caption = format!(
        "Messages sent, and messages acknowledged as stored, of {}. Where the lines part, messages wait.",
        stretches.length()
    );
    stretches.plot("Messages over time", caption, "messages per second", y, series, Unit::PerSecond)
}

fn deliveries_over_time(stretches: &Stretches<'_>) -> Plot {
    let points = stretches.points(Join::Mean, |second| Some(second.delivered as f64));
    let series = vec![Series { name: "delivered".to_owned(), points }];
    let y = Scale::linear(Unit::PerSecond, greatest(&series));
    let caption = format!("Messages times the members that received them, of {}.", stretches.length());
    stretches.plot("Deliveries over time", caption, "deliveries per second", y, series, Unit::PerSecond)
}

fn errors_over_time(report: &Report, stretches: &Stretches<'_>) -> Plot {
    let refused = stretches.points(Join::Mean, |second| Some(second.refused as f64));
    let reconnects = stretches.points(Join::Mean, |second| Some(second.reconnects as f64));
    let series = vec![
        Series { name: "refused".to_owned(), points: refused },
        Series { name: "reconnects".to_owned(), points: reconnects },
    ];
    let y = Scale::linear(Unit::PerSecond, greatest(&series));
    let none = report.counts.refusals() == 0 && report.counts.reconnects == 0;
    let caption = if none {
        "No message was refused, and no connection was lost.".to_owned()
    } else {
        format!("Messages that were refused, and connections that were made again, of {}.", stretches.length())
    };
    stretches.plot("Errors over time", caption, "errors per second", y, series, Unit::PerSecond)
}

fn axis(scale: &Scale) -> &'static str {
    if scale.is_log() { "latency, log scale" } else { "latency" }
}

fn greatest(series: &[Series]) -> f64 {
    series.iter().flat_map(|one| &one.points).filter_map(|(_, value)| *value).fold(0.0, f64::max)
}
