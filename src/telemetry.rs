//! Seeing into a node: logs, and every metric with its name.
//!
//! Each node has a registry of its own, so that several can run in one process. Invariant: no label takes its values
//! from the network; users, sessions and addresses are counted and never named.

use std::io::IsTerminal;
use std::sync::Arc;

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TEXT_FORMAT, TextEncoder,
};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, TelemetrySettings};
use crate::protocol::ErrorCode;
use crate::store::CommitError;

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `telemetry.log_level` is no filter.
    #[error("telemetry.log_level: expected a filter such as \"info\" or \"info,conclave=debug\": {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error("logs are set up already")]
    Twice,
}

/// Sends the process's logs to standard error. Once per process; tests do without.
///
/// # Errors
/// If the level is no filter, or logs are set up already.
pub fn init_logs(settings: &TelemetrySettings) -> Result<(), LogError> {
    let filter = EnvFilter::builder().parse(&settings.log_level)?;
    // A log that takes no more (a full disk) is no reason to panic, which is what saying so on the same stream does.
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match settings.log_format {
        LogFormat::Pretty => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LogError::Twice)
}

/// Makes a metric of each kind from its name, its help and what else it takes.
trait Metric: Sized + Clone {
    type Shape;
    fn make(
        name: &str,
        help: &str,
        shape: Self::Shape,
    ) -> prometheus::Result<(Self, Box<dyn prometheus::core::Collector>)>;
}

macro_rules! plain_metrics {
    ($($kind:ty),*) => {$(
        impl Metric for $kind {
            type Shape = ();
            fn make(name: &str, help: &str, (): ()) -> prometheus::Result<(Self, Box<dyn prometheus::core::Collector>)> {
                let metric = Self::new(name, help)?;
                Ok((metric.clone(), Box::new(metric)))
            }
        }
    )*};
}

plain_metrics!(IntCounter, IntGauge);

impl Metric for IntCounterVec {
    type Shape = &'static [&'static str];
    fn make(
        name: &str,
        help: &str,
        labels: Self::Shape,
    ) -> prometheus::Result<(Self, Box<dyn prometheus::core::Collector>)> {
        let metric = Self::new(Opts::new(name, help), labels)?;
        Ok((metric.clone(), Box::new(metric)))
    }
}

impl Metric for Histogram {
    type Shape = &'static [f64];
    fn make(
        name: &str,
        help: &str,
        buckets: Self::Shape,
    ) -> prometheus::Result<(Self, Box<dyn prometheus::core::Collector>)> {
        let metric = Self::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
        Ok((metric.clone(), Box::new(metric)))
    }
}

const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const ROWS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0];
const DEPTH: &[f64] = &[0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// Declares the metrics: field, type, name, help, and labels or buckets.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $name:literal, $help:literal, $shape:expr;)*) => {
        /// Every metric's name.
        pub const NAMES: &[&str] = &[$($name),*];

        /// A node's metrics. Fields count themselves; what has labels goes through methods.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            fn register(registry: Registry) -> prometheus::Result<Self> {
                $(
                    let ($field, collector) = <$kind as Metric>::make($name, $help, $shape)?;
                    registry.register(collector)?;
                )*
                Ok(Self { registry, $($field,)* })
            }
        }
    };
}

metrics! {
    connections: IntGauge = "conclave_connections", "Open WebSocket connections.", ();
    connections_opened: IntCounter = "conclave_connections_opened_total", "WebSocket connections ever opened.", ();
    connections_closed: IntCounterVec = "conclave_connections_closed_total", "WebSocket connections that ended, by close code; none: without one.", &["code"];
    slow_clients: IntCounter = "conclave_slow_client_cuts_total", "Connections cut off because the client did not read.", ();
    outbox_bytes: IntGauge = "conclave_outbox_bytes", "Bytes that wait to be read by clients.", ();
    deliveries: IntCounter = "conclave_deliveries_total", "Session events put into the outboxes of members.", ();
    inbox_deliveries: IntCounter = "conclave_inbox_deliveries_total", "Inbox events put into the outboxes of their users.", ();
    inbox_lapsed: IntCounter = "conclave_inbox_lapsed_total", "Inbox events that lapsed unacknowledged.", ();
    catch_ups: IntCounter = "conclave_catch_up_pages_total", "Pages of stored events read for connections that catch up.", ();
    commands: IntCounterVec = "conclave_commands_total", "Requests answered, by type and outcome (ok, or the error's code).", &["type", "outcome"];
    http_requests: IntCounterVec = "conclave_http_requests_total", "HTTP requests answered, by route and status.", &["route", "status"];
    sessions: IntGauge = "conclave_sessions_live", "Sessions that are in memory on this node.", ();
    activations: IntCounter = "conclave_session_activations_total", "Sessions loaded from the store.", ();
    session_panics: IntCounter = "conclave_session_panics_total", "Sessions that stopped by a bug.", ();
    mailbox_depth: Histogram = "conclave_session_mailbox_depth", "Commands already waiting for a session when one more came.", DEPTH;
    mailbox_full: IntCounter = "conclave_session_mailbox_full_total", "Commands refused because too many were waiting.", ();
    calls_waiting: IntGauge = "conclave_calls_waiting", "Commands that wait for a session to be found, or for the node that it lives on.", ();
    calls_sent: IntCounter = "conclave_calls_sent_total", "Commands sent to the node that their session lives on.", ();
    calls_resent: IntCounter = "conclave_calls_resent_total", "Times that commands were sent again: lost, unanswered, or the session had moved.", ();
    calls_expired: IntCounter = "conclave_calls_expired_total", "Commands refused because their session was not found, or its node did not answer, in time.", ();
    node_messages_dropped: IntCounter = "conclave_node_messages_dropped_total", "Messages between nodes that were dropped because too many waited.", ();
    commit_rows: Histogram = "conclave_commit_batch_rows", "Rows of one transaction.", ROWS;
    commit_seconds: Histogram = "conclave_commit_batch_seconds", "Seconds that one transaction took.", SECONDS;
    commit_queue: IntGauge = "conclave_commit_queue", "Commits that wait for the next transaction.", ();
    commit_failures: IntCounterVec = "conclave_commit_failures_total", "Commits of sessions that were not taken, by reason.", &["reason"];
    rotations: IntCounterVec = "conclave_rotations_total", "Rotations that ended, by cause and result.", &["cause", "result"];
    rotations_open: IntGauge = "conclave_rotations_open", "Rotations under way, in the whole store.", ();
    rotation_oldest_ms: IntGauge = "conclave_rotation_oldest_milliseconds", "Age of the oldest rotation under way.", ();
    members_without_key: IntGauge = "conclave_members_without_key", "Members of encrypted sessions without the current key, in the whole store.", ();
    bus_published: IntCounter = "conclave_bus_published_total", "Messages sent to other nodes.", ();
    bus_received: IntCounter = "conclave_bus_received_total", "Messages from other nodes.", ();
    bus_dropped: IntCounterVec = "conclave_bus_dropped_total", "Messages that did not leave, by reason; whoever missed them reads the store.", &["reason"];
    bus_rejected: IntCounterVec = "conclave_bus_rejected_total", "Envelopes on the bus that were not opened, by reason.", &["reason"];
    bus_missed: IntCounter = "conclave_bus_missed_total", "Channels that were told to read the store, because the bus may have lost something.", ();
    bus_reconnects: IntCounterVec = "conclave_bus_reconnects_total", "Attempts to connect to Redis again, by what the connection is for.", &["side"];
    bus_waiting_bytes: IntGauge = "conclave_bus_waiting_bytes", "Bytes that wait to be taken by Redis, or for its answer.", ();
    bus_gaps: IntCounter = "conclave_bus_gaps_total", "Gaps in a session's versions, filled from the store.", ();
    logins: IntCounter = "conclave_logins_total", "Logins that succeeded.", ();
    failed_logins: IntCounter = "conclave_failed_logins_total", "Logins with an unknown name or a wrong password.", ();
    registrations: IntCounter = "conclave_registrations_total", "Accounts made.", ();
    password_hashes: IntCounter = "conclave_password_hashes_total", "Passwords hashed or compared with a hash, each at its full price.", ();
    password_hashes_waiting: IntGauge = "conclave_password_hashes_waiting", "Passwords that wait to be hashed.", ();
    rate_limited: IntCounterVec = "conclave_rate_limited_total", "Requests refused because there were too many, by limit.", &["limit"];
    lease_renewals: IntCounter = "conclave_lease_renewals_total", "Renewals of this node's row in the store.", ();
    lease_failures: IntCounter = "conclave_lease_failures_total", "Renewals that failed.", ();
    probe_failures: IntCounterVec = "conclave_probe_failures_total", "Readiness probes that failed, by what was probed.", &["what"];
    ready: IntGauge = "conclave_ready", "Whether this node delivers and commits: 1 or 0.", ();
}

/// What a limit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Failed logins.
    FailedLogins,
    /// Registrations.
    Registrations,
    /// Requests of a user.
    Requests,
    /// Connections of a user.
    ConnectionsPerUser,
    /// Connections from an address.
    ConnectionsPerAddress,
    /// Asking for room keys.
    KeyRequests,
}

impl Limit {
    const fn label(self) -> &'static str {
        match self {
            Self::FailedLogins => "failed_logins",
            Self::Registrations => "registrations",
            Self::Requests => "requests",
            Self::ConnectionsPerUser => "connections_per_user",
            Self::ConnectionsPerAddress => "connections_per_address",
            Self::KeyRequests => "key_requests",
        }
    }
}

/// How a rotation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationResult {
    /// Every member has the new key, or is withheld.
    Finished,
    /// The number is spent for nothing.
    Void,
    /// Encryption was switched off, or the session ended.
    Off,
}

impl RotationResult {
    const fn label(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Void => "void",
            Self::Off => "off",
        }
    }
}

impl Metrics {
    /// A node's metrics, all at zero.
    pub fn new() -> Arc<Self> {
        let metrics = Self::register(Registry::new()).expect("names and labels are literals, tried by a test");
        // The process's processor time, memory and open files, under the names that they have everywhere.
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(ProcessCollector::for_self())).expect("these names are no others' here");
        Arc::new(metrics)
    }

    /// A request of a WebSocket was answered.
    pub fn command(&self, request: &'static str, refused: Option<ErrorCode>) {
        self.commands.with_label_values(&[request, refused.map_or("ok", ErrorCode::as_str)]).inc();
    }

    /// A connection ended, with a close code or without.
    pub fn closed(&self, code: Option<u16>) {
        let code = code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.connections_closed.with_label_values(&[&code]).inc();
    }

    /// An HTTP request was answered. `route` is a pattern, never a path.
    pub fn http(&self, route: &str, status: u16) {
        self.http_requests.with_label_values(&[route, &status.to_string()]).inc();
    }

    /// A rotation ended. `cause` is why the session was marked, or `demand`.
    pub fn rotation(&self, cause: &'static str, result: RotationResult) {
        self.rotations.with_label_values(&[cause, result.label()]).inc();
    }

    /// A session's commit was not taken.
    pub fn commit_failed(&self, error: &CommitError) {
        let reason = match error {
            CommitError::NotOwner => "not_owner",
            CommitError::AlreadyMade => "already_made",
            CommitError::Refused(_) => "refused",
            CommitError::Unknown(_) => "unknown",
            CommitError::Overloaded => "overloaded",
        };
        self.commit_failures.with_label_values(&[reason]).inc();
    }

    /// A request went over a limit.
    pub fn limited(&self, limit: Limit) {
        self.rate_limited.with_label_values(&[limit.label()]).inc();
    }

    /// Prometheus' text format.
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("a vector takes all that is written to it");
        text
    }

    /// The content type of [`Metrics::text`].
    pub const CONTENT_TYPE: &'static str = TEXT_FORMAT;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_of_one_process_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.logins.inc();
        assert!(String::from_utf8(one.text()).unwrap().contains("conclave_logins_total 1"));
        assert!(String::from_utf8(other.text()).unwrap().contains("conclave_logins_total 0"));
    }

    #[test]
    fn commands_are_counted_by_type_and_outcome() {
        let metrics = Metrics::new();
        metrics.command("send_msg", None);
        metrics.command("send_msg", Some(ErrorCode::Muted));
        let text = String::from_utf8(metrics.text()).unwrap();
        assert!(text.contains("conclave_commands_total{outcome=\"ok\",type=\"send_msg\"} 1"));
        assert!(text.contains("conclave_commands_total{outcome=\"muted\",type=\"send_msg\"} 1"));
    }

    #[test]
    fn every_name_is_of_this_house_and_stands_once() {
        let mut names = NAMES.to_vec();
        assert!(names.iter().all(|name| name.starts_with("conclave_")));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }

    #[test]
    fn a_filter_that_is_none_is_named() {
        let settings = TelemetrySettings { log_level: "loud,,=".to_owned(), ..TelemetrySettings::default() };
        assert!(init_logs(&settings).unwrap_err().to_string().starts_with("telemetry.log_level"));
    }
}
