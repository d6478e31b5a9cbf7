//! What a run found, as it is written to JSON and read back: the one type that measuring, showing and comparing share.
//!
//! It owns names and units. It judges nothing but [`Counts::faults`], and computes no more than a mean: who measures fills it.
//! Latencies are in microseconds, memory in bytes, everything else says its unit in its name.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format that this program writes, and the only one that it reads.
pub(crate) const FORMAT: u32 = 1;

/// The most sessions that a report names. Of more, those that waited longest; all others waited no longer than the last
/// of these.
pub(crate) const MOST_SESSIONS: usize = 1000;

/// One run of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// [`FORMAT`].
    pub(crate) format: u32,
    /// `fanout`, `rooms`, `direct`, `churn`, `rotation` or `soak`.
    pub(crate) scenario: String,
    /// The version of this program.
    pub(crate) version: String,
    pub(crate) started_at: Timestamp,
    /// What was asked for, defaults included, in the order of `--help`. Two runs are alike if these are: nothing that
    /// differs from run to run (file names, pids) belongs here.
    pub(crate) options: Vec<Setting>,
    /// The nodes, in the order of the command line.
    pub(crate) urls: Vec<String>,
    /// Where this program ran.
    pub(crate) machine: Machine,
    /// How long it measured, without connecting before and checking after.
    pub(crate) seconds: f64,
    pub(crate) counts: Counts,
    pub(crate) latencies: Vec<Latency>,
    /// One entry for each second that was measured, from 0 on and without a gap.
    pub(crate) timeline: Vec<Second>,
    /// One for each `--server-pid`.
    pub(crate) servers: Vec<ServerProcess>,
    /// Deliveries for each second of the servers' processor time, if their pids were given.
    pub(crate) deliveries_per_cpu_s: Option<f64>,
    pub(crate) tester: Tester,
    /// The longest that any message waited from when it was due until it was acknowledged: for who sent it, the server
    /// was not there.
    pub(crate) longest_without_service_ms: Option<f64>,
    /// The sessions that waited longest, the worst first: [`MOST_SESSIONS`] of them, or all if there were no more.
    #[serde(default)]
    pub(crate) sessions: Vec<SessionWait>,
    /// Whether it was stopped before its time: the figures are of what was measured until then.
    pub(crate) interrupted: bool,
    /// What else went wrong, so that the run did not pass, one sentence each.
    #[serde(default)]
    pub(crate) failures: Vec<String>,
    /// Whatever else a reader has to know, one sentence each.
    pub(crate) notes: Vec<String>,
}

impl Report {
    /// The mean of a second that was measured. Counts also have what came before and behind, and give no rate.
    pub(crate) fn rate(&self, of: fn(&Second) -> u64) -> f64 {
        let sum: u64 = self.timeline.iter().map(of).sum();
        sum as f64 / self.timeline.len().max(1) as f64
    }

    /// The latencies that tell something: without empty ones, and without the one node that all went over.
    pub(crate) fn telling_latencies(&self) -> impl Iterator<Item = &Latency> {
        let is_spread = self.latencies.iter().any(|one| one.between == Between::AcrossNodes && one.count > 0);
        self.latencies.iter().filter(move |one| one.count > 0 && (is_spread || one.between == Between::All))
    }
}

/// An option of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Setting {
    /// As on the command line, without its dashes.
    pub(crate) name: String,
    pub(crate) value: String,
}

/// The machine that the tester ran on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    /// Cores that this program may use.
    pub(crate) cores: u32,
    pub(crate) memory_bytes: u64,
    /// System, release and architecture: `Linux 6.12.0 x86_64`.
    pub(crate) kernel: String,
}

/// What was counted over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    /// Messages that were sent, each once, whatever the number of its repetitions.
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    /// Refusals by their code on the wire.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Messages that were neither acknowledged nor refused when the run ended. They may be stored or not.
    pub(crate) in_doubt: u64,
    /// Events of messages that members received.
    pub(crate) delivered: u64,
    /// Events of messages that members were owed.
    pub(crate) expected_deliveries: u64,
    /// Deliveries that were owed and never came.
    pub(crate) lost: u64,
    /// Acknowledged messages that the server's history does not have.
    pub(crate) missing: u64,
    /// Deliveries that came again, or messages that the history has twice.
    pub(crate) duplicated: u64,
    /// Deliveries that came behind a later one.
    pub(crate) disordered: u64,
    /// Deliveries whose text could not be read where it should be, or was not what was sent.
    pub(crate) undecryptable: u64,
    /// Deliveries under another sender's name.
    pub(crate) misattributed: u64,
    /// Connections that ended and were made again, without those that the scenario ends itself.
    pub(crate) reconnects: u64,
    /// Whether the reconnects were announced (`--expect-restarts`) or are the scenario's own.
    pub(crate) reconnects_expected: bool,
}

impl Counts {
    /// What breaks a promise, each with its name: the run passed if all are 0.
    pub(crate) fn faults(&self) -> [(&'static str, u64); 6] {
        [
            ("lost", self.lost),
            ("missing", self.missing),
            ("duplicated", self.duplicated),
            ("disordered", self.disordered),
            ("undecryptable", self.undecryptable),
            ("misattributed", self.misattributed),
        ]
    }

    /// All refusals.
    pub(crate) fn refusals(&self) -> u64 {
        self.refused.values().sum()
    }
}

/// What a latency is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Measured {
    /// From when a message was due (open loop) or sent (closed loop) to its acknowledgement.
    Ack,
    /// From the same moment to its event at a member.
    Delivery,
    /// Of a connection that came back: from dialling, for the first time since it was lost, to the reply to `resume`.
    Resume,
    /// From the start of a rotation of the room key to its end at a member.
    Rotation,
}

/// Between which nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Between {
    All,
    /// Sender and member were on one node.
    SameNode,
    /// They were on two.
    AcrossNodes,
}

/// A distribution of latencies, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latency {
    pub(crate) what: Measured,
    pub(crate) between: Between,
    pub(crate) count: u64,
    pub(crate) min_us: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
    /// The whole distribution: HDR histogram of microseconds, V2 with deflate, in base64.
    pub(crate) histogram: String,
}

/// What happened within one second of the run. Percentiles are of what ended in it; none if nothing did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Second {
    /// Seconds from the start of measuring to the start of this one.
    pub(crate) at_s: u32,
    pub(crate) sent: u64,
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    pub(crate) reconnects: u64,
    pub(crate) ack_p50_us: Option<u64>,
    pub(crate) ack_p99_us: Option<u64>,
    pub(crate) delivery_p50_us: Option<u64>,
    pub(crate) delivery_p99_us: Option<u64>,
}

/// How long one session waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionWait {
    /// As the server knows it.
    pub(crate) session_id: String,
    /// The longest that a message of it waited from when it was due until it was acknowledged, or until the run's end if
    /// it never was.
    pub(crate) longest_wait_us: u64,
    /// Its messages that were acknowledged.
    pub(crate) acknowledged: u64,
}

/// What a server's process used while it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerProcess {
    pub(crate) pid: u32,
    pub(crate) cpu_s: f64,
    pub(crate) rss_peak_bytes: u64,
    pub(crate) rss_end_bytes: u64,
}

/// The tester itself: whether the figures are the server's or its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tester {
    /// Its processor time over the time that its cores had: 1 is all of them, all the time.
    pub(crate) cpu_share: f64,
    /// How late messages were sent after they were due, 99 % of them at most. None in a closed loop.
    pub(crate) pacing_lag_p99_us: Option<u64>,
    /// Whether it held the run back.
    pub(crate) is_bottleneck: bool,
    /// The reason if it did, in a sentence.
    pub(crate) why: Option<String>,
}
