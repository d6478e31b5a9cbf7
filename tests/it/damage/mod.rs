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
    rate: usize,
    /// What a busy machine may add to any time that is measured.
    slack: Duration,
}

fn scale() -> Scale {
    match std::env::var_os(LONG) {
        Some(_) => Scale { sessions: 45, rate: 450, slack: Duration::from_secs(1) },
        None => Scale { sessions: 9, rate: 90, slack: Duration::from_secs(4) },
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
        Self { cluster, scenario, sessions, users: Arc::new(TempDir::new().expect("a directory")) }
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
        self.run(&format!("node {node} {what}"), seconds, Some(&id), damage).await
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
        of: Option<&str>,
        damage: impl AsyncFnOnce(&mut Cluster),
    ) -> Felt {
        let scenario = &self.scenario;
        let arguments = format!("{scenario} --duration {seconds}s --warmup 0s --timeout 3s --expect-restarts");
        let fronts: Vec<_> = self.cluster.fronts.iter().map(|front| front.address).collect();
        let load = Load::start_in(Arc::clone(&self.users), &arguments, &fronts);
        let owners = self.owners_of_busy_sessions().await;
        let began = Instant::now();
        damage(&mut self.cluster).await;
        let took = began.elapsed();
        let ended = load.ended().await;
        let felt = Felt::of(&ended, &owners, of);
        let mut line = format!("damage: {what}, for {:.1} s:", took.as_secs_f64());
        for count in ["acknowledged", "delivered", "reconnects"].iter().chain(&FAULTS) {
            line.push_str(&format!(" {count} {},", ended.count(count)));
        }
        line.push_str(&format!(" {felt}\n"));
        std::io::stderr().write_all(line.as_bytes()).expect("standard error");
        ended.was_whole();
        self.cluster.until_ready().await;
        assert!(self.cluster.nodes.iter().all(|node| !node.log().contains("panicked")), "a node has panicked");
        felt
    }

    /// Waits until all sessions of the run are spoken in; who owns them then.
    async fn owners_of_busy_sessions(&self) -> BTreeMap<String, String> {
        let looking = async {
            loop {
                let all = self.cluster.sessions().await;
                let busy = all.iter().filter(|(_, session)| is_busy(session));
                let owners: BTreeMap<_, _> = busy
                    .filter_map(|(id, session)| Some((id.clone(), session["owner"].as_str()?.to_owned())))
                    .collect();
                if owners.len() == self.sessions {
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
    /// In all others.
    others: Duration,
}

impl Felt {
    fn of(ended: &Ended, owners: &BTreeMap<String, String>, damaged: Option<&str>) -> Self {
        let mut felt = Self { its: Duration::ZERO, others: Duration::ZERO };
        let damaged_owned = |id: &str| damaged.is_some_and(|node| owners[id] == node);
        for session in ended.report["sessions"].as_array().expect("sessions") {
            let id = session["session_id"].as_str().expect("an id");
            let waited = Duration::from_micros(session["longest_wait_us"].as_u64().expect("a time"));
            let longest = if damaged_owned(id) { &mut felt.its } else { &mut felt.others };
            *longest = waited.max(*longest);
        }
        assert!(damaged.is_none() || felt.its > Duration::ZERO, "it owned none of {owners:?}");
        felt
    }
}

impl Display for Felt {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        let (its, others) = (self.its.as_millis(), self.others.as_millis());
        match its {
            0 => write!(to, "without service for at most {others} ms"),
            _ => write!(to, "without service for at most {its} ms, in sessions of other nodes {others} ms"),
        }
    }
}
