//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::report::model::Setting;
use crate::users::DEFAULT_FILE;
use crate::verify::Texts;

/// Puts a Conclave server under load, measures it, and verifies what it delivers.
///
/// The exit status is 0 only if nothing was lost, missing, duplicated, disordered, undecryptable or misattributed, and
/// nothing else went wrong; 1 if something was; 2 if it could not be run; 130 if it was interrupted.
#[derive(Debug, Parser)]
#[command(name = "conclave-load", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Few senders, many members.
    Fanout(Fanout),
    /// Many sessions of a few members, who all speak.
    Rooms(Rooms),
    /// Pairs.
    Direct(Direct),
    /// Rooms whose members disconnect and resume while messages flow.
    Churn(Churn),
    /// End-to-end encrypted sessions whose members and room keys change while they speak, with real RSA and AES.
    Rotation(Rotation),
    /// All of it at once, for hours, in rounds that are verified one by one.
    Soak(Soak),
    /// What no server can beat: a bare loop that writes a ready frame to each recipient.
    Yardstick(Yardstick),
    /// The process that the yardstick measures.
    #[command(hide = true)]
    BareWriter(Writer),
    /// Show a report that was written with --json: its table, its page with --html, its plots with --svg.
    Render {
        report: PathBuf,
        /// Make the page, in this file.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        /// Make each plot a file in this folder, which is made if it is not there.
        #[arg(long, value_name = "FOLDER")]
        svg: Option<PathBuf>,
    },
    /// Tell what got better and worse from one report to another, and whether it is more than noise.
    Compare {
        a: PathBuf,
        b: PathBuf,
        /// Also if they asked for different things.
        #[arg(long)]
        force: bool,
    },
}

/// What every scenario takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// A node's WebSocket, ws:// or wss://; several spread the connections over nodes.
    #[arg(long = "url", value_name = "URL", default_value = "ws://127.0.0.1:8080/v1/ws")]
    pub(crate) urls: Vec<String>,
    /// A PEM file of certificates to believe instead of the public authorities.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Messages each second, over all sessions together, each at its time whatever becomes of the others (open loop).
    #[arg(long, default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// Instead of a rate: messages that each speaker has in flight, the next when one is acknowledged (closed loop).
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    pub(crate) in_flight: Option<usize>,
    /// Bytes of a message's text.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) payload: usize,
    /// How long to measure: 30s, 5m, 2h.
    #[arg(long, value_parser = duration, default_value = "30s")]
    pub(crate) duration: Duration,
    /// How long to speak before measuring; what is said then is verified like the rest.
    #[arg(long, value_parser = duration, default_value = "1s")]
    pub(crate) warmup: Duration,
    /// Messages after which a run pauses, is verified whole and goes on with new sessions. Until then each takes memory:
    /// some 40 bytes, and at the verification up to 200 if all are of one session.
    #[arg(long, value_name = "MESSAGES", default_value_t = 5_000_000)]
    pub(crate) verify_every: u64,
    /// Connections; as many as the sessions need if left out. What is beyond that is idle.
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<usize>,
    /// Connections of each user.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) devices: usize,
    /// Where users are kept between runs, with their passwords.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_FILE)]
    pub(crate) users: PathBuf,
    /// A process of the server, on this machine: its processor time and memory are told. Can be given again.
    #[arg(long = "server-pid", value_name = "PID")]
    pub(crate) server_pids: Vec<u32>,
    /// Nodes will be killed or restarted: connections that end are no failure. What is lost still is.
    #[arg(long)]
    pub(crate) expect_restarts: bool,
    /// How long an answer may take before its connection counts as dead.
    #[arg(long, value_parser = duration, default_value = "10s")]
    pub(crate) timeout: Duration,
    /// How long a connection tries to come back, how long the set-up tries what the server cannot do now, and how long the
    /// end of the run waits for what is owed.
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub(crate) patience: Duration,
    /// Writes the report as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Writes the report as a page with plots that stands alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Shows no live line.
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions.
    #[arg(long, default_value_t = 1)]
    pub(crate) sessions: usize,
    /// Members of each.
    #[arg(long, default_value_t = 1000)]
    pub(crate) members: usize,
    /// Members of each who speak.
    #[arg(long, default_value_t = 1)]
    pub(crate) speakers: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Rooms {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions.
    #[arg(long, default_value_t = 100)]
    pub(crate) sessions: usize,
    /// Members of each.
    #[arg(long, default_value_t = 10)]
    pub(crate) members: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Direct {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions of two.
    #[arg(long, default_value_t = 100)]
    pub(crate) sessions: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Churn {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions.
    #[arg(long, default_value_t = 20)]
    pub(crate) sessions: usize,
    /// Members of each.
    #[arg(long, default_value_t = 10)]
    pub(crate) members: usize,
    /// Connections that are ended each second, in turn: every second one without a word, as a cable is cut.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 5.0)]
    pub(crate) drops: f64,
    /// How often all connections are cut at once.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) storms: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Rotation {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Sessions.
    #[arg(long, default_value_t = 3)]
    pub(crate) sessions: usize,
    /// Members of each; each is a user with a key pair of its own.
    #[arg(long, default_value_t = 6)]
    pub(crate) members: usize,
    /// How often the owner of each session replaces its room key, beside what the server asks for; 0s: never.
    #[arg(long, value_parser = duration, default_value = "5s")]
    pub(crate) rotate_every: Duration,
    /// How often a member of each session leaves or is put out, and comes back; 0s: never.
    #[arg(long, value_parser = duration, default_value = "3s")]
    pub(crate) change_every: Duration,
}

impl Rotation {
    /// Refuses what this scenario does not do.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { common, sessions, members, .. } = self;
        common.check()?;
        common.check_length()?;
        ensure!(common.in_flight.is_none(), "rotation has no closed loop: give it a --rate");
        ensure!(common.connections.is_none() && common.devices == 1, "rotation has one connection for each member");
        ensure!(
            (1..=1000).contains(sessions) && (2..=1000).contains(members),
            "--sessions is 1 to 1000, --members 2 to 1000"
        );
        ensure!(sessions * members <= 10_000, "--sessions times --members is 10000 at most");
        Ok(())
    }

    /// What was asked for, as reports tell it.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let mut settings = self.common.settings();
        let own = [
            ("sessions", self.sessions.to_string()),
            ("members", self.members.to_string()),
            ("rotate-every", format!("{} s", self.rotate_every.as_secs_f64())),
            ("change-every", format!("{} s", self.change_every.as_secs_f64())),
        ];
        settings.extend(own.map(|(name, value)| Setting { name: name.to_owned(), value }));
        settings
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Soak {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How long a round lasts. Each makes new sessions, and is verified at its end.
    #[arg(long, value_parser = duration, default_value = "5m")]
    pub(crate) round: Duration,
    /// Members of the one large session, of whom two speak.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) members: usize,
    /// Small sessions: half of them of ten members, half of them pairs.
    #[arg(long, default_value_t = 20)]
    pub(crate) sessions: usize,
    /// Connections that are ended each second, in turn.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 1.0)]
    pub(crate) drops: f64,
    /// Encrypted sessions beside them, with a tenth of the rate.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) encrypted_sessions: usize,
    /// Members of each encrypted session.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) encrypted_members: usize,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Yardstick {
    /// Recipients.
    #[arg(long, default_value_t = 1000)]
    pub(crate) members: usize,
    /// Bytes of a message's text; its frame is what a node would send.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    pub(crate) payload: usize,
    /// How long to measure.
    #[arg(long, value_parser = duration, default_value = "5s")]
    pub(crate) duration: Duration,
    /// The core that the writer is to have for itself.
    #[arg(long, value_name = "CORE")]
    pub(crate) writer_core: Option<usize>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Writer {
    #[arg(long)]
    pub(crate) members: usize,
    #[arg(long)]
    pub(crate) payload: usize,
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

/// Reads `30s`, `5m`, `1h 30m`; a day at most.
fn duration(text: &str) -> Result<Duration, String> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let duration: jiff::SignedDuration = text.parse().map_err(|_| "expected a duration such as 30s, 5m or 2h")?;
    let duration = Duration::try_from(duration).map_err(|_| "a duration is not negative")?;
    if duration > DAY { Err("a day at most".to_owned()) } else { Ok(duration) }
}

/// The most messages of one ledger that is verified at the end alone.
const MOST_MESSAGES: f64 = 10e6;

impl Common {
    /// What was asked for, as reports tell it.
    pub(crate) fn settings(&self) -> Vec<Setting> {
        let seconds = |duration: Duration| format!("{} s", duration.as_secs_f64());
        let pace = match self.in_flight {
            Some(in_flight) => ("in-flight", in_flight.to_string()),
            None => ("rate", self.rate.to_string()),
        };
        let settings = [
            pace,
            ("payload", self.payload.to_string()),
            ("duration", seconds(self.duration)),
            ("warmup", seconds(self.warmup)),
            ("connections", self.connections.map(|number| number.to_string()).unwrap_or_default()),
            ("devices", self.devices.to_string()),
            ("expect-restarts", self.expect_restarts.to_string()),
        ];
        settings.into_iter().map(|(name, value)| Setting { name: name.to_owned(), value }).collect()
    }

    /// Refuses what cannot be meant.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.rate.is_finite() && (0.0..=1e7).contains(&self.rate), "--rate is 0 to 10000000");
        ensure!((1..=Texts::MAX).contains(&self.payload), "--payload is 1 to {} bytes", Texts::MAX);
        ensure!(self.in_flight.is_none_or(|n| (1..=10_000).contains(&n)), "--in-flight is 1 to 10000");
        ensure!(self.verify_every >= 1, "--verify-every is at least 1");
        ensure!(self.devices >= 1, "--devices is at least 1");
        ensure!(self.timeout >= Duration::from_millis(100), "--timeout is at least 100ms");
        Ok(())
    }

    /// Refuses what one ledger cannot hold, where there are no rounds.
    pub(crate) fn check_length(&self) -> Result<()> {
        ensure!(
            self.rate * (self.duration + self.warmup).as_secs_f64() <= MOST_MESSAGES,
            "these are more than {MOST_MESSAGES} messages, which are kept in memory until they are verified: \
             use a shorter --duration, or soak, which verifies in rounds"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "30", "-1s", "25h", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
