//! Two runs held against each other: what got better, what got worse, and whether it is more than noise.
//!
//! A difference is called one only if the rank test, corrected for the number of measures, finds it in less than one
//! of twenty comparisons of equal runs, the interval of the change is on one side of 0, and it is at least 1 %.

mod alike;
mod measures;
mod statistics;
#[cfg(test)]
mod tests;

use std::path::Path;

use anyhow::bail;

use super::file;
use super::headline::headline;
use super::model::Report;
use super::quantity::change;
use super::table::{block, columns};
use super::verdict::Verdict;
use measures::{MEASURES, Measure, figures};
use statistics::{FEWEST, Series, corrected, interval, rank_test, share};

/// What is less is not worth a word.
const SMALLEST_CHANGE: f64 = 0.01;
const SURE: f64 = 0.05;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Better,
    Worse,
    NoDifference,
    TooFewSamples,
}

impl Finding {
    fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NoDifference => "no difference",
            Self::TooFewSamples => "too few samples",
        }
    }
}

/// A measure of both runs.
struct Compared {
    measure: &'static Measure,
    a: f64,
    b: f64,
    interval: (f64, f64),
    /// Corrected for the number of measures.
    probability: f64,
    finding: Finding,
}

/// Compares two reports in files, as text. Fails where they cannot be read, or asked different things without `force`.
pub(crate) fn compare(a: &Path, b: &Path, force: bool) -> anyhow::Result<String> {
    let (of_a, of_b) = (file::read(a)?, file::read(b)?);
    let differences = alike::differences(&of_a, &of_b);
    if !differences.is_empty() && !force {
        bail!("the runs asked for different things (--force compares them anyway):\n  {}", differences.join("\n  "));
    }
    let mut text = String::new();
    for (name, path, report) in [("A", a, &of_a), ("B", b, &of_b)] {
        text.push_str(&format!("{name}  {} · {} · {}\n", path.display(), report.started_at, headline(report)));
    }
    text.push('\n');
    text.push_str(&show(&of_a, &of_b, &differences));
    Ok(text)
}

fn show(a: &Report, b: &Report, differences: &[String]) -> String {
    let compared = compared(a, b);
    let mut text = block(&tested(&compared));
    text.push_str(&block(&untested(a, b)));
    for difference in differences {
        text.push_str(&format!("note: different, {difference}.\n"));
    }
    for doubt in alike::doubts(a, b) {
        text.push_str(&format!("note: {doubt}\n"));
    }
    text.push_str(CAVEAT);
    text.push('\n');
    for line in promises(a, b) {
        text.push_str(&format!("{line}\n"));
    }
    text.push_str(&summary(&compared));
    text
}

const CAVEAT: &str = "\
The first table compares medians of the seconds of each run, without the first and the last. Seconds of one run resemble
their neighbours; the test counts them for as many independent ones as that leaves, and the interval comes from blocks
of neighbours. It knows the noise within these two runs and not that from run to run: before you believe a small
difference, run each side again. The second table has one value for each run, which no test can judge.
";

/// The comparison of each measure that both runs have.
fn compared(a: &Report, b: &Report) -> Vec<Compared> {
    let pairs: Vec<(&'static Measure, Series, Series)> = MEASURES
        .iter()
        .map(|measure| (measure, measure.series(a), measure.series(b)))
        .filter(|(_, a, b)| a.median().is_finite() && b.median().is_finite())
        .filter(|(_, a, b)| a.median() != 0.0 || b.median() != 0.0)
        .collect();
    let is_enough = |a: &Series, b: &Series| a.worth() >= FEWEST && b.worth() >= FEWEST;
    let probabilities: Vec<f64> =
        pairs.iter().map(|(_, a, b)| if is_enough(a, b) { rank_test(a, b) } else { 1.0 }).collect();
    let corrected = corrected(&probabilities);
    pairs
        .into_iter()
        .zip(corrected)
        .map(|((measure, a, b), probability)| {
            let interval = interval(&a, &b);
            let finding = match is_enough(&a, &b) {
                true => finding(measure, share(a.median(), b.median()), interval, probability),
                false => Finding::TooFewSamples,
            };
            Compared { measure, a: a.median(), b: b.median(), interval, probability, finding }
        })
        .collect()
}

fn finding(measure: &Measure, change: f64, (low, high): (f64, f64), probability: f64) -> Finding {
    let one_sided = low > 0.0 || high < 0.0;
    if probability >= SURE || !one_sided || change.abs() < SMALLEST_CHANGE {
        Finding::NoDifference
    } else if (change > 0.0) == measure.more_is_better {
        Finding::Better
    } else {
        Finding::Worse
    }
}

fn tested(compared: &[Compared]) -> comfy_table::Table {
    let mut table = columns(&["each second", "A", "B", "change", "95 % interval", "p", "B is"]);
    for one in compared {
        let probability = match one.probability {
            p if p < 0.001 => "< 0.001".to_owned(),
            p => format!("{p:.3}"),
        };
        table.add_row(vec![
            one.measure.name.to_owned(),
            one.measure.unit.text(one.a),
            one.measure.unit.text(one.b),
            changed(one.a, one.b),
            format!("{} to {}", change(one.interval.0), change(one.interval.1)),
            probability,
            one.finding.word().to_owned(),
        ]);
    }
    table
}

fn untested(a: &Report, b: &Report) -> comfy_table::Table {
    let mut table = columns(&["whole run", "A", "B", "change"]);
    for figure in figures(a, b) {
        let (unit, a, b) = (figure.unit, figure.a, figure.b);
        table.add_row(vec![figure.name, unit.text(a), unit.text(b), changed(a, b)]);
    }
    table
}

fn changed(a: f64, b: f64) -> String {
    if a == 0.0 && b != 0.0 { "from nothing".to_owned() } else { change(share(a, b)) }
}

/// A broken promise is no noise, whatever its number.
fn promises(a: &Report, b: &Report) -> Vec<String> {
    [("A", a), ("B", b)]
        .into_iter()
        .flat_map(|(name, report)| {
            Verdict::of(report).failures.into_iter().map(move |failure| format!("{name} FAILED: {failure}"))
        })
        .collect()
}

fn summary(compared: &[Compared]) -> String {
    let names = |finding: Finding| {
        let names: Vec<&str> =
            compared.iter().filter(|one| one.finding == finding).map(|one| one.measure.name).collect();
        (!names.is_empty()).then(|| format!("{} in {}", finding.word(), names.join(", ")))
    };
    let said: Vec<String> = [names(Finding::Better), names(Finding::Worse)].into_iter().flatten().collect();
    if !said.is_empty() {
        return format!("B is {}.\n", said.join("; "));
    }
    if compared.iter().any(|one| one.finding == Finding::NoDifference) {
        "No difference between A and B that is more than noise.\n".to_owned()
    } else {
        "Too few samples to tell A from B: let the runs last longer.\n".to_owned()
    }
}
