//! Distributions of latencies between their histogram and their written form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use super::model::{Between, Latency, Measured};

/// The longest written form that is read: a histogram of any run is under 100 KiB.
const LONGEST: usize = 1024 * 1024;

impl Latency {
    /// Sums up a histogram of microseconds.
    pub(crate) fn of(what: Measured, between: Between, histogram: &Histogram<u64>) -> Self {
        Self {
            what,
            between,
            count: histogram.len(),
            min_us: histogram.min(),
            mean_us: histogram.mean(),
            p50_us: histogram.value_at_quantile(0.5),
            p90_us: histogram.value_at_quantile(0.9),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
            histogram: encode(histogram),
        }
    }

    /// The whole distribution; what is wrong with its written form otherwise.
    pub(crate) fn histogram(&self) -> Result<Histogram<u64>, String> {
        if self.histogram.len() > LONGEST {
            return Err("a histogram is too long".to_owned());
        }
        let bytes = STANDARD.decode(&self.histogram).map_err(|error| format!("a histogram is not base64: {error}"))?;
        Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|error| format!("a histogram is not HDR V2: {error}"))
    }
}

fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("a vector takes all that is written to it");
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_one_to_a_thousand_are_what_they_should_be() {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        for value in 1..=1000 {
            histogram.record(value).unwrap();
        }
        let latency = Latency::of(Measured::Ack, Between::All, &histogram);
        assert_eq!(latency.count, 1000);
        assert_eq!(
            [latency.min_us, latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us],
            [1, 500, 900, 990, 999, 1000]
        );
        assert!((latency.mean_us - 500.5).abs() < 0.01, "{}", latency.mean_us);
        assert_eq!(latency.histogram().unwrap(), histogram);
    }

    #[test]
    fn nothing_measured_is_zeros_and_no_crash() {
        let latency = Latency::of(Measured::Ack, Between::All, &Histogram::new(3).unwrap());
        assert_eq!((latency.count, latency.p99_us, latency.max_us), (0, 0, 0));
        assert_eq!(latency.histogram().unwrap().len(), 0);
    }

    #[test]
    fn a_broken_histogram_is_an_error() {
        let mut latency = Latency::of(Measured::Ack, Between::All, &Histogram::new(3).unwrap());
        latency.histogram = "not base64!".to_owned();
        assert!(latency.histogram().unwrap_err().contains("base64"));
        latency.histogram = "AAAA".to_owned();
        assert!(latency.histogram().unwrap_err().contains("HDR"));
    }
}
