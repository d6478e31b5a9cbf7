//! Reports made up for tests, the same ones each time.

use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::model::*;

/// Thirty seconds of `fanout` without a fault.
pub(crate) fn report() -> Report {
    seeded(1, 1.0)
}

/// The same with other noise, and latencies `factor` times as long.
pub(crate) fn seeded(seed: u64, factor: f64) -> Report {
    let mut random = StdRng::seed_from_u64(seed);
    let mut noise = |from: f64, to: f64| random.random_range(from..to) * factor;
    let (mut acks, mut deliveries) = (histogram(), histogram());
    for _ in 0..3000 {
        acks.record((800.0 + noise(0.0, 900.0)) as u64).unwrap();
        deliveries.record((900.0 + noise(0.0, 30.0).powi(3)) as u64).unwrap();
    }
    let timeline = (0..30)
        .map(|at_s| Second {
            at_s,
            sent: 50,
            acknowledged: 50,
            delivered: 50_000,
            refused: 0,
            reconnects: 0,
            ack_p50_us: Some(noise(1000.0, 1200.0) as u64),
            ack_p99_us: Some(noise(1900.0, 2600.0) as u64),
            delivery_p50_us: Some(noise(2000.0, 2300.0) as u64),
            delivery_p99_us: Some(noise(7000.0, 12_000.0) as u64),
        })
        .collect();
    Report {
        format: 1,
        scenario: "fanout".to_owned(),
        version: "0.1.0".to_owned(),
        started_at: "2026-05-04T10:20:30Z".parse().unwrap(),
        options: [("members", "1000"), ("sessions", "1"), ("rate", "50"), ("payload", "200"), ("duration", "30s")]
            .map(|(name, value)| Setting { name: name.to_owned(), value: value.to_owned() })
            .to_vec(),
        urls: vec!["ws://127.0.0.1:8080/v1/ws".to_owned()],
        machine: Machine { cores: 2, memory_bytes: 8 << 30, kernel: "Linux 6.12.0 x86_64".to_owned() },
        seconds: 30.0,
        counts: Counts {
            sent: 1500,
            acknowledged: 1500,
            delivered: 1_500_000,
            expected_deliveries: 1_500_000,
            ..Counts::default()
        },
        latencies: vec![
            Latency::of(Measured::Ack, Between::All, &acks),
            Latency::of(Measured::Delivery, Between::All, &deliveries),
        ],
        timeline,
        servers: vec![ServerProcess { pid: 4711, cpu_s: 12.5, rss_peak_bytes: 96 << 20, rss_end_bytes: 90 << 20 }],
        deliveries_per_cpu_s: Some(120_000.0),
        tester: Tester { cpu_share: 0.42, pacing_lag_p99_us: Some(310), is_bottleneck: false, why: None },
        longest_without_service_ms: Some(12.0),
        sessions: vec![SessionWait {
            session_id: "0198c0de-0000-7000-8000-000000000001".to_owned(),
            longest_wait_us: 12_000,
            acknowledged: 1500,
        }],
        interrupted: false,
        failures: Vec::new(),
        notes: Vec::new(),
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap()
}
