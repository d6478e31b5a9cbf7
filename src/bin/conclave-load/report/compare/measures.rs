//! What two runs are compared by: series of seconds, which can be tested, and single figures, which cannot. Pure.

use super::statistics::Series;
use crate::report::model::{Between, Latency, Measured, Report, Second};
use crate::report::quantity::{bytes, micros, real};
use crate::report::table::latency_name;

/// More samples than these are joined: a soak's seconds become minutes.
const SAMPLES: usize = 1000;

/// How the values of a measure are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    Micros,
    Bytes,
}

impl Unit {
    pub(super) fn text(self, value: f64) -> String {
        match self {
            Self::PerSecond => real(value),
            Self::Micros => micros(value),
            Self::Bytes => bytes(value as u64),
        }
    }
}

/// Something that has a value each second.
pub(super) struct Measure {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) more_is_better: bool,
    of: fn(&Second) -> Option<f64>,
}

pub(super) const MEASURES: [Measure; 6] = [
    rate("acknowledged per second", |second| Some(second.acknowledged as f64)),
    rate("delivered per second", |second| Some(second.delivered as f64)),
    latency("acknowledgement p50", |second| second.ack_p50_us.map(|us| us as f64)),
    latency("acknowledgement p99", |second| second.ack_p99_us.map(|us| us as f64)),
    latency("delivery p50", |second| second.delivery_p50_us.map(|us| us as f64)),
    latency("delivery p99", |second| second.delivery_p99_us.map(|us| us as f64)),
];

const fn rate(name: &'static str, of: fn(&Second) -> Option<f64>) -> Measure {
    Measure { name, unit: Unit::PerSecond, more_is_better: true, of }
}

const fn latency(name: &'static str, of: fn(&Second) -> Option<f64>) -> Measure {
    Measure { name, unit: Unit::Micros, more_is_better: false, of }
}

impl Measure {
    /// The samples of a run: without its first second, in which it starts, and its last, which may not be whole.
    pub(super) fn series(&self, report: &Report) -> Series {
        let seconds = &report.timeline;
        let inner = seconds.get(1..seconds.len().saturating_sub(1)).unwrap_or_default();
        let values: Vec<f64> = inner.iter().filter_map(self.of).collect();
        let each = values.len().div_ceil(SAMPLES).max(1);
        Series::new(values.chunks(each).map(|chunk| chunk.iter().sum::<f64>() / chunk.len() as f64).collect())
    }
}

/// One figure of a whole run.
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) a: f64,
    pub(super) b: f64,
}

/// The figures that both runs have.
pub(super) fn figures(a: &Report, b: &Report) -> Vec<Figure> {
    let mut figures: Vec<Figure> = a
        .latencies
        .iter()
        .filter_map(|of_a| Some((of_a, same(of_a, b)?)))
        .flat_map(|(of_a, of_b)| {
            let figure = |part: &str, value: fn(&Latency) -> u64| Figure {
                name: format!("{} {part}", latency_name(of_a)),
                unit: Unit::Micros,
                a: value(of_a) as f64,
                b: value(of_b) as f64,
            };
            let mut figures = vec![figure("p99.9", |one| one.p999_us), figure("max", |one| one.max_us)];
            if !is_in_the_timeline(of_a) {
                figures.splice(0..0, [figure("p50", |one| one.p50_us), figure("p99", |one| one.p99_us)]);
            }
            figures
        })
        .collect();
    let mut both = |name: &str, unit, a: Option<f64>, b: Option<f64>| {
        if let (Some(a), Some(b)) = (a, b) {
            figures.push(Figure { name: name.to_owned(), unit, a, b });
        }
    };
    both("longest wait for an acknowledgement", Unit::Micros, without_service(a), without_service(b));
    both("deliveries per second of server CPU", Unit::PerSecond, a.deliveries_per_cpu_s, b.deliveries_per_cpu_s);
    both("servers' memory, peak", Unit::Bytes, memory(a), memory(b));
    figures
}

fn same<'a>(latency: &Latency, report: &'a Report) -> Option<&'a Latency> {
    let same = |one: &&Latency| one.what == latency.what && one.between == latency.between;
    report.latencies.iter().find(same).filter(|one| one.count > 0 && latency.count > 0)
}

fn is_in_the_timeline(latency: &Latency) -> bool {
    match (latency.what, latency.between) {
        (Measured::Ack | Measured::Delivery, Between::All) => true,
        (Measured::Resume | Measured::Rotation, _) | (_, Between::SameNode | Between::AcrossNodes) => false,
    }
}

fn without_service(report: &Report) -> Option<f64> {
    report.longest_without_service_ms.map(|ms| ms * 1e3)
}

fn memory(report: &Report) -> Option<f64> {
    (!report.servers.is_empty()).then(|| report.servers.iter().map(|server| server.rss_peak_bytes as f64).sum())
}
