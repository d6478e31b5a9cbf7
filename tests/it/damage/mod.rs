//! The damage that operators fear, done to real processes while people speak, and counted: by `conclave-load`, which
//! verifies every delivery, and whose own counts must all be 0. Each prints what it did and how long it was felt.
//!
//! One after the other is done to the same cluster, as far as they are of a kind: so it also has to heal. With
//! `tests/run.sh --damage 10m` there is more load, and what is promised is asked for without slack.

mod keys;
mod nodes;
mod readers;
mod servers;
mod ways;

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::DEADLINE;
use crate::support::cluster::Cluster;
use crate::support::load::{Ended, FAULTS, Load};

/// Set by `tests/run.sh --damage`.
const LONG: &str = "CONCLAVE_TEST_DAMAGE";

/// How much is done.
struct Scale {
    sessions: usize,
    /// More of them, that have nothing to do with a damaged node.
    bystanders: usize,
    rate: usize,
    /// What a busy machine may add to any time that is measured.
    slack: Duration,
}

fn scale() -> Scale {
    match std::env::var_os(LONG) {
        Some(_) => Scale { sessions: 45, bystanders: 10, rate: 450, slack: Duration::from_secs(1) },
        None => Scale { sessions: 9, bystanders: 2, rate: 90, slack: Duration::from_secs(4) },
    }
}

/// A cluster that is damaged in one way after another while people speak.
struct Damaged {
    cluster: Cluster,
    /// What the tester does meanwhile, and in how many sessions.
    scenario: String,
    sessions: usize,
    /// Where it keeps its users.
    users: Arc<TempDir>,
    /// Where those are kept who have nothing to do with a damaged node.
    bystanders: Arc<TempDir>,
}

impl Damaged {
    /// While members of many small sessions speak. Of four members the owners, whose nodes own the sessions, are on all
    /// nodes alike.
    fn new(cluster: Cluster) -> Self {
        let Scale { sessions, rate, .. } = scale();
        Self::during(cluster, format!("rooms --sessions {sessions} --members 4 --rate {rate}"), sessions)
    }

    /// While the tester does something else.
    fn during(cluster: Cluster, scenario: String, sessions: usize) -> Self {
        let directory = || Arc::new(TempDir::new().expect("a directory"));
        Self { cluster, scenario, sessions, users: directory(), bystanders: directory() }
    }

    /// Does to one node, whose id goes with it, what [`Self::suffers`] does to all.
    async fn node_suffers(
        &mut self,
        node: usize,
        what: &str,
        seconds: u64,
        damage: impl AsyncFnOnce(&mut Cluster, &str),
    ) -> Felt {
        let id = self.cluster.id_of(node).await;
        let damage = async |cluster: &mut Cluster| damage(cluster, &id).await;
        let felt = self.run(&format!("node {node} {what}"), seconds, Some((node, &id)), damage).await;
        assert!(felt.elsewhere < scale().slack, "people who have nothing to do with it: {felt}");
        felt
    }

    /// Does one damage while people speak for so many seconds. Afterwards nothing is lost, doubled or out of order, and
    /// all nodes are ready.
    async fn suffers(&mut self, what: &str, seconds: u64, damage: impl AsyncFnOnce(&mut Cluster)) -> Felt {
        self.run(what, seconds, None, damage).await
    }

    async fn run(
        &mut self,
        what: &str,
        seconds: u64,
        of: Option<(usize, &str)>,
        damage: impl AsyncFnOnce(&mut Cluster),
    ) -> Felt {
        let scenario = &self.scenario;
        let timing = format!("--duration {seconds}s --warmup 0s --timeout 3s");
        let arguments = format!("{scenario} {timing} --expect-restarts");
        let load = Load::start_in(Arc::clone(&self.users), &arguments, &self.fronts(|_| true));
        let elsewhere = of.map(|(damaged, _)| {
            let Scale { bystanders, .. } = scale();
            let arguments = format!("rooms --sessions {bystanders} --members 4 --rate {} {timing}", 10 * bystanders);
            Load::start_in(Arc::clone(&self.bystanders), &arguments, &self.fronts(|node| node != damaged))
        });
        let sessions = self.sessions + elsewhere.as_ref().map_or(0, |_| scale().bystanders);
        let owners = self.owners_of_busy_sessions(sessions).await;
        let began = Instant::now();
        damage(&mut self.cluster).await;
        let took = began.elapsed();
        let ended = load.ended().await;
        let elsewhere = match elsewhere {
            Some(load) => Some(load.ended().await),
            None => None,
        };
        let felt = Felt::of(&ended, elsewhere.as_ref(), &owners, of.map(|(_, id)| id));
        let mut line = format!("damage: {what}, for {:.1} s:", took.as_secs_f64());
        for count in ["acknowledged", "delivered", "reconnects"].iter().chain(&FAULTS) {
            line.push_str(&format!(" {count} {},", ended.count(count)));
        }
        line.push_str(&format!(" {felt}\n"));
        std::io::stderr().write_all(line.as_bytes()).expect("standard error");
        ended.was_whole();
        elsewhere.inspect(Ended::was_whole);
        self.cluster.until_ready().await;
        assert!(self.cluster.nodes.iter().all(|node| !node.log().contains("panicked")), "a node has panicked");
        felt
    }

    /// Where the clients of these nodes connect.
    fn fronts(&self, of: impl Fn(usize) -> bool) -> Vec<SocketAddr> {
        let fronts = self.cluster.fronts.iter().enumerate();
        fronts.filter(|(node, _)| of(*node)).map(|(_, front)| front.address).collect()
    }

    /// Waits until that many sessions are spoken in, which are all of the run; who owns them then.
    async fn owners_of_busy_sessions(&self, sessions: usize) -> BTreeMap<String, String> {
        let looking = async {
            loop {
                let all = self.cluster.sessions().await;
                let busy = all.iter().filter(|(_, session)| is_busy(session));
                let owners: BTreeMap<_, _> = busy
                    .filter_map(|(id, session)| Some((id.clone(), session["owner"].as_str()?.to_owned())))
                    .collect();
                if owners.len() == sessions {
                    return owners;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        // Users are registered first, some of them with keys of their own.
        tokio::time::timeout(4 * DEADLINE, looking).await.expect("messages flow in all sessions")
    }
}

impl Drop for Damaged {
    /// What failed is told with what the nodes say of it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.cluster.nodes {
                eprintln!("the log of {}:\n{}", node.address, node.log());
            }
        }
    }
}

/// Whether something has been said there since the tester made it.
fn is_busy(session: &Value) -> bool {
    session["name"] == "load" && session["last_seq"].as_u64().is_some_and(|seq| seq > 10)
}

/// How long a damage was felt: the longest that a message waited from when it was due until it was acknowledged.
struct Felt {
    /// In sessions that the damaged node owned.
    its: Duration,
    /// In all others of those whose members are spread over all nodes.
    others: Duration,
    /// In sessions that have neither their owner nor a member on it.
    elsewhere: Duration,
}

impl Felt {
    fn of(ended: &Ended, elsewhere: Option<&Ended>, owners: &BTreeMap<String, String>, damaged: Option<&str>) -> Self {
        let damaged_owned = |id: &str| damaged.is_some_and(|node| owners[id] == node);
        let longest = |waits: &[(&str, Duration)], of: &dyn Fn(&str) -> bool| {
            waits.iter().filter(|(id, _)| of(id)).map(|(_, waited)| *waited).max().unwrap_or_default()
        };
        let waits = waits(ended);
        let its = longest(&waits, &damaged_owned);
        assert!(damaged.is_none() || its > Duration::ZERO, "it owned none of {owners:?}");
        let others = longest(&waits, &|id| !damaged_owned(id));
        let elsewhere = elsewhere.map(self::waits).unwrap_or_default();
        assert!(!elsewhere.iter().any(|(id, _)| damaged_owned(id)), "sessions live where they are made: {owners:?}");
        Self { its, others, elsewhere: longest(&elsewhere, &|_| true) }
    }
}

/// The longest wait in each session.
fn waits(ended: &Ended) -> Vec<(&str, Duration)> {
    let sessions = ended.report["sessions"].as_array().expect("sessions").iter();
    let wait = |session: &Value| Duration::from_micros(session["longest_wait_us"].as_u64().expect("a time"));
    sessions.map(|session| (session["session_id"].as_str().expect("an id"), wait(session))).collect()
}

impl Display for Felt {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let (its, others, elsewhere) = (self.its.as_millis(), self.others.as_millis(), self.elsewhere.as_millis());
        match its {
            0 => write!(to, "without service for at most {others} ms"),
            _ => write!(
                to,
                "without service for at most {its} ms, in sessions of other nodes {others} ms, in those without a member \
                 on it {elsewhere} ms"
            ),
        }
    }
}
