//! The scale of an axis: where a value lies, which values are marked, and how they are written. Pure.

use crate::report::quantity::{micros, real, seconds};

/// What an axis measures, which is how its marks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Micros,
    PerSecond,
    Seconds,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Linear,
    Log,
    /// Percentiles: each step to the right is a nine more.
    Nines,
}

/// Maps values of an axis to shares of its length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    shape: Shape,
    unit: Unit,
    from: f64,
    to: f64,
}

impl Scale {
    /// From 0 to a round value that `greatest` is under.
    pub(super) fn linear(unit: Unit, greatest: f64) -> Self {
        let step = step(unit, greatest.max(1.0), 4);
        let to = (greatest.max(1.0) / step).ceil() * step;
        Self { shape: Shape::Linear, unit, from: 0.0, to }
    }

    /// From 0 to `to` exactly.
    pub(super) fn time(to: f64) -> Self {
        Self { shape: Shape::Linear, unit: Unit::Seconds, from: 0.0, to: to.max(1.0) }
    }

    /// A scale for latencies: linear from 0, or logarithmic where the largest is many times the smallest.
    pub(super) fn latency(smallest: f64, greatest: f64) -> Self {
        if smallest <= 0.0 || greatest < smallest * 20.0 {
            return Self::linear(Unit::Micros, greatest);
        }
        let (from, to) = (below(smallest), above(greatest));
        Self { shape: Shape::Log, unit: Unit::Micros, from, to }
    }

    /// Quantiles from 0 to the last one that `count` values can tell from their greatest.
    pub(super) fn nines(count: u64) -> Self {
        let to = 1.0 - 1.0 / (count.clamp(10, 10_000_000) as f64);
        Self { shape: Shape::Nines, unit: Unit::PerSecond, from: 0.0, to }
    }

    pub(super) fn is_log(&self) -> bool {
        self.shape == Shape::Log
    }

    /// Where `value` lies: 0 at the beginning, 1 at the end.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = match self.shape {
            Shape::Linear => (value - self.from) / (self.to - self.from),
            Shape::Log => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
            Shape::Nines => (1.0 - value.min(self.to)).ln() / (1.0 - self.to).ln(),
        };
        share.clamp(0.0, 1.0)
    }

    /// The inverse of [`at`](Self::at) for quantiles.
    pub(super) fn quantile_at(&self, share: f64) -> f64 {
        1.0 - (1.0 - self.to).powf(share)
    }

    /// About `number` marks: values and their texts.
    pub(super) fn marks(&self, number: usize) -> Vec<(f64, String)> {
        match self.shape {
            Shape::Linear => {
                let step = step(self.unit, self.to - self.from, number);
                let last = (self.to / step + 1e-9) as u32;
                (0..=last).map(|index| f64::from(index) * step).map(|value| (value, self.text(value))).collect()
            }
            Shape::Log => {
                let decades = (self.to / self.from).log10();
                let within: &[f64] = if decades <= 2.4 { &[1.0, 2.0, 5.0] } else { &[1.0] };
                (0..=9)
                    .flat_map(|power| within.iter().map(move |one| one * 10_f64.powi(power)))
                    .filter(|value| *value >= self.from * 0.999 && *value <= self.to * 1.001)
                    .map(|value| (value, self.text(value)))
                    .collect()
            }
            Shape::Nines => [(0.0, "0 %"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")]
                .into_iter()
                .chain([(0.9999, "99.99 %"), (0.99999, "99.999 %"), (0.999_999, "99.9999 %")])
                .filter(|(value, _)| *value <= self.to + 1e-9)
                .map(|(value, text)| (value, text.to_owned()))
                .collect(),
        }
    }

    fn text(&self, value: f64) -> String {
        match self.unit {
            Unit::Micros if value == 0.0 => "0".to_owned(),
            Unit::Micros => micros(value),
            Unit::PerSecond if value == 0.0 => "0".to_owned(),
            // Whole, they would be wider than the place beside an axis.
            Unit::PerSecond if self.to >= 1e6 => format!("{} M", value / 1e6),
            Unit::PerSecond => real(value),
            Unit::Seconds if value == 0.0 => "0".to_owned(),
            Unit::Seconds => seconds(value),
        }
    }
}

/// A round step that goes into `length` about `number` times.
fn step(unit: Unit, length: f64, number: usize) -> f64 {
    let rough = length / number as f64;
    if unit == Unit::Seconds {
        let round = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0];
        return round.into_iter().find(|step| *step >= rough).unwrap_or(86_400.0);
    }
    let power = 10_f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().find(|one| one * power >= rough * 0.999).unwrap_or(10.0);
    (round * power).max(if unit == Unit::PerSecond { 1.0 } else { 0.001 })
}

/// The greatest 1, 2 or 5 of a decade that is not above `value`.
fn below(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|one| one * power).find(|one| *one <= value).unwrap_or(power)
}

/// The smallest 1, 2 or 5 of a decade that is not under `value`.
fn above(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|one| one * power).find(|one| *one >= value).unwrap_or(power * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: Scale, number: usize) -> Vec<String> {
        scale.marks(number).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_linear_scale_ends_at_a_round_value_over_the_greatest() {
        let scale = Scale::linear(Unit::PerSecond, 47.0);
        assert_eq!(texts(scale, 4), ["0", "20", "40", "60"]);
        assert_eq!([scale.at(0.0), scale.at(30.0), scale.at(60.0)], [0.0, 0.5, 1.0]);
        assert_eq!(texts(Scale::linear(Unit::PerSecond, 0.0), 4), ["0", "1"]);
        assert_eq!(texts(Scale::linear(Unit::PerSecond, 1.9e6), 4), ["0", "0.5 M", "1 M", "1.5 M", "2 M"]);
    }

    #[test]
    fn latencies_far_apart_get_a_logarithmic_scale() {
        assert!(!Scale::latency(1000.0, 5000.0).is_log());
        let scale = Scale::latency(900.0, 80_000.0);
        assert!(scale.is_log());
        assert_eq!(texts(scale, 4), ["500 µs", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms", "100 ms"]);
        assert!((scale.at(1000.0) - 0.1308).abs() < 0.001, "{}", scale.at(1000.0));
    }

    #[test]
    fn each_nine_is_a_step_of_the_same_width() {
        let scale = Scale::nines(10_000);
        assert_eq!(texts(scale, 4), ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        for (quantile, share) in [(0.0, 0.0), (0.9, 0.25), (0.99, 0.5), (0.999, 0.75), (0.9999, 1.0)] {
            assert!((scale.at(quantile) - share).abs() < 1e-9);
            assert!((scale.quantile_at(share) - quantile).abs() < 1e-9);
        }
    }

    #[test]
    fn time_has_marks_at_whole_minutes_and_hours() {
        assert_eq!(texts(Scale::time(30.0), 5), ["0", "10 s", "20 s", "30 s"]);
        assert_eq!(texts(Scale::time(600.0), 5), ["0", "2 min", "4 min", "6 min", "8 min", "10 min"]);
        assert_eq!(texts(Scale::time(7200.0), 5), ["0", "30 min", "1 h", "1 h 30 min", "2 h"]);
    }
}
