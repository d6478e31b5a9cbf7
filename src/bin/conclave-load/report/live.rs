//! What is seen while a run goes on: a line with a progress bar on a terminal, a plain line now and then elsewhere.
//!
//! It goes to standard error, so that standard output is the report alone. It keeps no figures: it shows what it is
//! told.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::model::Second;
use super::quantity::{count, micros, real, seconds};

/// Terminals of at least so many columns have room for a bar.
const WIDE: u16 = 120;
const TEMPLATE: &str = "{prefix:>10} {bar:24.cyan/dim} {wide_msg}";
const NARROW_TEMPLATE: &str = "{prefix}: {wide_msg}";

/// Between two plain lines.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// What the line says, of the last second or so.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Moment {
    pub(crate) acknowledged_per_s: f64,
    pub(crate) delivered_per_s: f64,
    /// Of deliveries where there are some, else of acknowledgements.
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
    /// Refusals, reconnects and faults since the start.
    pub(crate) errors: u64,
}

impl Moment {
    /// What happened in a second.
    pub(crate) fn of(second: &Second, errors: u64) -> Self {
        Self {
            acknowledged_per_s: second.acknowledged as f64,
            delivered_per_s: second.delivered as f64,
            p50_us: second.delivery_p50_us.or(second.ack_p50_us),
            p99_us: second.delivery_p99_us.or(second.ack_p99_us),
            errors,
        }
    }
}

/// The live line of one stretch of a run: connecting, measuring, checking.
pub(crate) struct Live {
    what: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    last_plain: Option<Instant>,
}

impl Live {
    /// A stretch that does `total` things.
    pub(crate) fn counting(what: &'static str, total: u64) -> Self {
        Self::new(what, total)
    }

    /// A stretch that lasts so long.
    pub(crate) fn timed(what: &'static str, length: Duration) -> Self {
        Self::new(what, millis(length))
    }

    fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let is_wide = rustix::termios::tcgetwinsize(std::io::stderr()).is_ok_and(|size| size.ws_col >= WIDE);
            let template = if is_wide { TEMPLATE } else { NARROW_TEMPLATE };
            let style = ProgressStyle::with_template(template).expect("the template is well-formed");
            bar.set_style(style.progress_chars("━╸─"));
            bar.set_prefix(what);
            bar
        });
        Self { what, total, bar, last_plain: None }
    }

    /// So many of the things are done.
    pub(crate) fn done(&mut self, number: u64) {
        self.show(number, &format!("{} of {}", count(number), count(self.total)));
    }

    /// So much of the time is over, and this is what happens.
    pub(crate) fn at(&mut self, elapsed: Duration, moment: &Moment) {
        let text = moment_line(elapsed, Duration::from_millis(self.total), moment);
        self.show(millis(elapsed), &text);
    }

    /// Takes the line away.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&mut self, position: u64, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(position.min(self.total));
            bar.set_message(text.to_owned());
            return;
        }
        let now = Instant::now();
        if position >= self.total || self.last_plain.is_none_or(|last| now.duration_since(last) >= PLAIN_EVERY) {
            self.last_plain = Some(now);
            plain(&format!("{}: {text}", self.what));
        }
    }
}

/// A closed standard error is no reason to end a run.
fn plain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// `12 s of 30 s · no errors · 4,000 acked/s · 1,200,000 delivered/s · p50 1.20 ms · p99 8.40 ms`: what matters most first,
/// since a narrow terminal cuts the rest.
fn moment_line(elapsed: Duration, length: Duration, moment: &Moment) -> String {
    let latency = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| micros(value as f64));
    let errors = match moment.errors {
        0 => "no errors".to_owned(),
        1 => "1 error".to_owned(),
        number => format!("{} errors", count(number)),
    };
    format!(
        "{} of {} · {errors} · {} acked/s · {} delivered/s · p50 {} · p99 {}",
        seconds(elapsed.as_secs() as f64),
        seconds(length.as_secs_f64()),
        real(moment.acknowledged_per_s),
        real(moment.delivered_per_s),
        latency(moment.p50_us),
        latency(moment.p99_us),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_rates_percentiles_and_errors() {
        let moment = Moment {
            acknowledged_per_s: 49.9,
            delivered_per_s: 49_900.0,
            p50_us: Some(1204),
            p99_us: Some(8_400),
            errors: 1200,
        };
        assert_eq!(
            moment_line(Duration::from_millis(12_400), Duration::from_secs(30), &moment),
            "12 s of 30 s · 1,200 errors · 49.9 acked/s · 49,900 delivered/s · p50 1.20 ms · p99 8.40 ms"
        );
    }

    #[test]
    fn a_second_without_messages_has_no_percentiles() {
        assert_eq!(
            moment_line(Duration::from_secs(1), Duration::from_secs(90), &Moment::default()),
            "1 s of 1 min 30 s · no errors · 0 acked/s · 0 delivered/s · p50 – · p99 –"
        );
    }
}
