//! Figures as they come in: histograms of a whole run, and a line for each second of it.
//!
//! Each latency is recorded once, in the histogram of its second, and the seconds are added up.

use hdrhistogram::Histogram;

use crate::report::model::{Between, Latency, Measured, Second};

/// The longest latency that is told apart from longer ones: an hour, in microseconds.
const LONGEST_US: u64 = 3_600_000_000;
/// Digits that a histogram keeps.
const DIGITS: u8 = 3;

/// Histograms of microseconds.
#[derive(Debug)]
struct Histograms {
    ack: Histogram<u64>,
    same_node: Histogram<u64>,
    across_nodes: Histogram<u64>,
}

/// What was measured.
#[derive(Debug)]
pub(crate) struct Measures {
    /// What was due before this moment is not measured, in microseconds of the run.
    from: u64,
    whole: Histograms,
    second: Histograms,
    counts: Second,
    timeline: Vec<Second>,
    resume: Histogram<u64>,
    rotation: Histogram<u64>,
    lag: Histogram<u64>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("these bounds are sound")
}

impl Histograms {
    fn new() -> Self {
        Self { ack: histogram(), same_node: histogram(), across_nodes: histogram() }
    }
}

impl Measures {
    /// Measures nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            from: u64::MAX,
            whole: Histograms::new(),
            second: Histograms::new(),
            counts: Second::default(),
            timeline: Vec::new(),
            resume: histogram(),
            rotation: histogram(),
            lag: histogram(),
        }
    }

    /// Measures what is due from now on.
    pub(crate) fn begin(&mut self, now: u64) {
        self.from = now;
        self.second = Histograms::new();
        self.counts = Second::default();
    }

    /// This program has got round to a message that was due then.
    pub(crate) fn paced(&mut self, due: u64, now: u64) {
        if due >= self.from {
            self.lag.saturating_record(now.saturating_sub(due).max(1));
        }
    }

    /// A message was sent.
    pub(crate) fn sent(&mut self) {
        self.counts.sent += 1;
    }

    /// A message that was due then was acknowledged so long after it.
    pub(crate) fn acknowledged(&mut self, due: u64, waited: u64) {
        self.counts.acknowledged += 1;
        if due >= self.from {
            self.second.ack.saturating_record(waited.max(1));
        }
    }

    /// A message that was due then came to a member now.
    pub(crate) fn delivered(&mut self, due: u64, now: u64, same_node: bool) {
        self.counts.delivered += 1;
        if due >= self.from {
            let histogram = if same_node { &mut self.second.same_node } else { &mut self.second.across_nodes };
            histogram.saturating_record(now.saturating_sub(due).max(1));
        }
    }

    pub(crate) fn refused(&mut self) {
        self.counts.refused += 1;
    }

    pub(crate) fn reconnected(&mut self) {
        self.counts.reconnects += 1;
    }

    /// A connection came back in so many microseconds.
    pub(crate) fn resumed(&mut self, took: u64) {
        self.resume.saturating_record(took.max(1));
    }

    /// A room key was replaced in so many microseconds.
    pub(crate) fn rotated(&mut self, took: u64) {
        self.rotation.saturating_record(took.max(1));
    }

    /// A second of the measurement is over.
    pub(crate) fn next_second(&mut self) -> Second {
        let quantile = |histogram: &Histogram<u64>, q| (!histogram.is_empty()).then(|| histogram.value_at_quantile(q));
        let mut deliveries = self.second.same_node.clone();
        deliveries.add(&self.second.across_nodes).expect("their bounds are the same");
        let second = Second {
            at_s: self.timeline.len() as u32,
            ack_p50_us: quantile(&self.second.ack, 0.5),
            ack_p99_us: quantile(&self.second.ack, 0.99),
            delivery_p50_us: quantile(&deliveries, 0.5),
            delivery_p99_us: quantile(&deliveries, 0.99),
            ..std::mem::take(&mut self.counts)
        };
        self.timeline.push(second.clone());
        self.add_up();
        second
    }

    /// What came after the last whole second counts for the latencies and not for the timeline.
    pub(crate) fn add_up(&mut self) {
        for (whole, second) in [
            (&mut self.whole.ack, &mut self.second.ack),
            (&mut self.whole.same_node, &mut self.second.same_node),
            (&mut self.whole.across_nodes, &mut self.second.across_nodes),
        ] {
            whole.add(&*second).expect("their bounds are the same");
            second.reset();
        }
    }

    /// Adds another run's figures, which was measured after this one.
    pub(crate) fn append(&mut self, later: &Self) {
        self.add_beside(later);
        let seconds = self.timeline.len() as u32;
        self.timeline
            .extend(later.timeline.iter().map(|second| Second { at_s: seconds + second.at_s, ..second.clone() }));
    }

    /// Adds the latencies of what was measured at the same time; its seconds are left out.
    pub(crate) fn add_beside(&mut self, other: &Self) {
        for (mine, other) in self.all_mut().into_iter().zip(other.all()) {
            mine.add(other).expect("their bounds are the same");
        }
    }

    fn all(&self) -> [&Histogram<u64>; 6] {
        let Self { whole, resume, rotation, lag, .. } = self;
        [&whole.ack, &whole.same_node, &whole.across_nodes, resume, rotation, lag]
    }

    fn all_mut(&mut self) -> [&mut Histogram<u64>; 6] {
        let Self { whole, resume, rotation, lag, .. } = self;
        [&mut whole.ack, &mut whole.same_node, &mut whole.across_nodes, resume, rotation, lag]
    }

    pub(crate) fn timeline(&self) -> &[Second] {
        &self.timeline
    }

    /// How late messages left, 99 % of them at most.
    pub(crate) fn lag_p99(&self) -> u64 {
        self.lag.value_at_quantile(0.99)
    }

    /// How long 99 % of the acknowledgements took at most.
    pub(crate) fn ack_p99(&self) -> u64 {
        self.whole.ack.value_at_quantile(0.99)
    }

    /// Everything that was measured, as reports tell it.
    pub(crate) fn latencies(&self) -> Vec<Latency> {
        let Self { whole, resume, rotation, .. } = self;
        let mut deliveries = whole.same_node.clone();
        deliveries.add(&whole.across_nodes).expect("their bounds are the same");
        let mut latencies = vec![
            Latency::of(Measured::Ack, Between::All, &whole.ack),
            Latency::of(Measured::Delivery, Between::All, &deliveries),
        ];
        let rest = [
            (Measured::Delivery, Between::SameNode, &whole.same_node),
            (Measured::Delivery, Between::AcrossNodes, &whole.across_nodes),
            (Measured::Resume, Between::All, resume),
            (Measured::Rotation, Between::All, rotation),
        ];
        let rest = rest.into_iter().filter(|(.., histogram)| !histogram.is_empty());
        latencies.extend(rest.map(|(what, between, histogram)| Latency::of(what, between, histogram)));
        latencies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_from_when_a_message_was_due_and_only_of_what_was_due_while_measuring() {
        let mut measures = Measures::new();
        measures.acknowledged(10, 5);
        measures.begin(1_000);
        measures.acknowledged(999, 5);
        measures.acknowledged(1_000, 250);
        measures.delivered(1_000, 1_500, true);
        measures.delivered(1_000, 1_700, false);
        let second = measures.next_second();
        assert_eq!((second.acknowledged, second.delivered), (2, 2));
        assert_eq!((second.ack_p50_us, second.delivery_p99_us), (Some(250), Some(700)));
        let counts: Vec<_> = measures.latencies().iter().map(|one| (one.what, one.between, one.count)).collect();
        assert_eq!(
            counts,
            [
                (Measured::Ack, Between::All, 1),
                (Measured::Delivery, Between::All, 2),
                (Measured::Delivery, Between::SameNode, 1),
                (Measured::Delivery, Between::AcrossNodes, 1),
            ]
        );
    }

    #[test]
    fn a_later_run_goes_on_in_the_timeline() {
        let mut first = Measures::new();
        first.begin(0);
        first.acknowledged(1, 1);
        first.next_second();
        let mut second = Measures::new();
        second.begin(0);
        second.acknowledged(1, 3);
        second.next_second();
        first.append(&second);
        assert_eq!(first.timeline().iter().map(|second| second.at_s).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(first.latencies()[0].count, 2);
    }
}
