//! Whether two series of samples differ by more than their noise. Pure, and the same each time: its seed is fixed.
//!
//! Samples of one run follow each other and resemble their neighbours: a hundred seconds are worth fewer than a
//! hundred independent ones. So the rank test counts each series for as many as its autocorrelation leaves
//! ([`Series::worth`]), and the interval comes from drawing whole blocks of neighbours.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Draws for an interval.
const DRAWS: usize = 2000;
const SEED: u64 = 0x5eed;

/// A test needs as many independent samples of each run.
pub(super) const FEWEST: f64 = 8.0;

/// Samples in the order of time.
#[derive(Clone, Debug)]
pub(super) struct Series {
    values: Vec<f64>,
    /// How much a sample resembles the one before it, 0 (not at all) to 0.95.
    autocorrelation: f64,
}

impl Series {
    pub(super) fn new(values: Vec<f64>) -> Self {
        let autocorrelation = autocorrelation(&ranks(&values));
        Self { values, autocorrelation }
    }

    pub(super) fn median(&self) -> f64 {
        median(&mut self.values.clone())
    }

    /// How many independent samples this series is worth.
    pub(super) fn worth(&self) -> f64 {
        self.values.len() as f64 * (1.0 - self.autocorrelation) / (1.0 + self.autocorrelation)
    }

    /// How long a block of neighbours has to be, so that blocks are nearly independent.
    fn block(&self) -> usize {
        let (n, rho) = (self.values.len() as f64, self.autocorrelation);
        let strength = (2.0 * rho / (1.0 - rho * rho)).powi(2);
        ((strength * n).cbrt().ceil() as usize).clamp(1, (self.values.len() / 4).max(1))
    }

    /// The median of as many samples, drawn in blocks of neighbours that go round the end.
    fn drawn_median(&self, random: &mut StdRng, drawn: &mut Vec<f64>) -> f64 {
        drawn.clear();
        while drawn.len() < self.values.len() {
            let start = random.random_range(0..self.values.len());
            let left = self.values.len() - drawn.len();
            drawn.extend(self.values.iter().cycle().skip(start).take(self.block().min(left)));
        }
        median(drawn)
    }
}

/// How likely ranks as different as these are if both runs do the same: Mann–Whitney's test, two-sided, with ties.
pub(super) fn rank_test(a: &Series, b: &Series) -> f64 {
    let both: Vec<f64> = a.values.iter().chain(&b.values).copied().collect();
    let ranks = ranks(&both);
    let (n_a, n_b, n) = (a.values.len() as f64, b.values.len() as f64, both.len() as f64);
    let u = ranks[..a.values.len()].iter().sum::<f64>() - n_a * (n_a + 1.0) / 2.0;
    let tied: f64 = ties(&both).map(|count| count.powi(3) - count).sum();
    let variance = n_a * n_b / 12.0 * (n + 1.0 - tied / (n * (n - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    let away = ((u - n_a * n_b / 2.0).abs() - 0.5).max(0.0);
    let harmonic = |a: f64, b: f64| a * b / (a + b);
    let z = away / variance.sqrt() * (harmonic(a.worth(), b.worth()) / harmonic(n_a, n_b)).sqrt();
    libm::erfc(z / std::f64::consts::SQRT_2)
}

/// Where the change of the median from `a` to `b`, as a share of `a`'s, lies with 95 % confidence.
pub(super) fn interval(a: &Series, b: &Series) -> (f64, f64) {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut drawn = Vec::new();
    let mut changes: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let of_a = a.drawn_median(&mut random, &mut drawn);
            let of_b = b.drawn_median(&mut random, &mut drawn);
            share(of_a, of_b)
        })
        .collect();
    changes.sort_by(f64::total_cmp);
    (changes[DRAWS / 40], changes[DRAWS - 1 - DRAWS / 40])
}

/// The change from `a` to `b` as a share of `a`.
pub(super) fn share(a: f64, b: f64) -> f64 {
    if a == b { 0.0 } else { b / a - 1.0 }
}

/// Holm's correction: who asks many questions finds something by chance. In the order given.
pub(super) fn corrected(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    let mut corrected = vec![1.0; probabilities.len()];
    let mut least = 0.0_f64;
    for (place, index) in order.into_iter().enumerate() {
        least = least.max(probabilities[index] * (probabilities.len() - place) as f64).min(1.0);
        corrected[index] = least;
    }
    corrected
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let (middle, is_odd) = (values.len() / 2, values.len() % 2 == 1);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if is_odd {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

/// The rank of each value from 1 on, in the mean where values are equal.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = start as f64 + (equal.len() as f64 + 1.0) / 2.0;
        for index in equal {
            ranks[*index] = rank;
        }
        start += equal.len();
    }
    ranks
}

/// How many values are equal, for each value.
fn ties(values: &[f64]) -> impl Iterator<Item = f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let counts: Vec<f64> = sorted.chunk_by(|a, b| a == b).map(|equal| equal.len() as f64).collect();
    counts.into_iter()
}

/// At lag 1; what is below 0 counts as 0, so that no series is worth more than its length.
fn autocorrelation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if values.len() < 3 || variance == 0.0 {
        return 0.0;
    }
    let neighbours: f64 = values.windows(2).map(|pair| (pair[0] - mean) * (pair[1] - mean)).sum();
    (neighbours / variance).clamp(0.0, 0.95)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, number: usize, centre: f64, resembling: f64) -> Series {
        let mut random = StdRng::seed_from_u64(seed);
        let mut last = 0.0;
        let values = (0..number).map(|_| {
            last = last * resembling + random.random_range(-1.0..1.0);
            centre + last
        });
        Series::new(values.collect())
    }

    #[test]
    fn ranks_are_shared_by_equal_values() {
        assert_eq!(ranks(&[10.0, 30.0, 20.0, 20.0]), [1.0, 4.0, 2.5, 2.5]);
        assert_eq!(ties(&[1.0, 2.0, 2.0, 2.0]).collect::<Vec<_>>(), [1.0, 3.0]);
    }

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(&mut [5.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&mut [5.0, 1.0, 3.0, 4.0]), 3.5);
    }

    #[test]
    fn the_rank_test_gives_what_the_tables_say() {
        // 1 to 10 against 6 to 15, shuffled so that neighbours do not resemble each other.
        let a = Series::new(vec![1.0, 10.0, 2.0, 9.0, 3.0, 8.0, 4.0, 7.0, 5.0, 6.0]);
        let b = Series::new(vec![6.0, 15.0, 7.0, 14.0, 8.0, 13.0, 9.0, 12.0, 10.0, 11.0]);
        assert_eq!((a.worth(), b.worth()), (10.0, 10.0));
        // U = 12.5, five ties of two: z = 2.801 with the correction for continuity.
        let p = rank_test(&a, &b);
        assert!((p - 0.005_09).abs() < 0.000_1, "{p}");
        assert_eq!(rank_test(&a, &a), 1.0);
    }

    #[test]
    fn constant_series_do_not_differ_from_themselves() {
        let constant = Series::new(vec![50.0; 30]);
        assert_eq!(rank_test(&constant, &constant), 1.0);
        assert_eq!(interval(&constant, &constant), (0.0, 0.0));
    }

    #[test]
    fn samples_that_resemble_their_neighbours_are_worth_less() {
        let alone = noise(1, 400, 10.0, 0.0).worth();
        let resembling = noise(1, 400, 10.0, 0.9).worth();
        assert!(alone > 300.0, "{alone}");
        assert!(resembling < 60.0, "{resembling}");
    }

    #[test]
    fn without_a_difference_few_in_a_hundred_comparisons_find_one() {
        for (resembling, most) in [(0.0, 9), (0.6, 12)] {
            let found = (0..100)
                .filter(|seed| {
                    let pair = (noise(2 * seed, 100, 10.0, resembling), noise(2 * seed + 1, 100, 10.0, resembling));
                    rank_test(&pair.0, &pair.1) < 0.05
                })
                .count();
            assert!(found <= most, "{found} of 100 at {resembling}");
        }
    }

    #[test]
    fn a_difference_is_found_and_its_interval_holds_it() {
        let (a, b) = (noise(1, 60, 10.0, 0.3), noise(2, 60, 11.0, 0.3));
        assert!(rank_test(&a, &b) < 0.001);
        let (low, high) = interval(&a, &b);
        assert!(low < 0.1 && 0.1 < high && low > 0.02 && high < 0.2, "{low} to {high}");
    }

    #[test]
    fn many_questions_make_each_answer_less_sure() {
        assert_eq!(corrected(&[0.01, 0.04, 0.03, 0.5]), [0.04, 0.09, 0.09, 0.5]);
        assert_eq!(corrected(&[0.9, 0.8]), [1.0, 1.0]);
    }
}
