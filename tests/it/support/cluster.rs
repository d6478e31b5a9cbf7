//! Three nodes on one database and one Redis. Each has ways of its own to both, and one on which its clients come, so
//! that each can be cut off from anything, and be started anew where its clients expect it.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::redis::RedisServer;
use super::relay::{Relay, Server};
use super::*;

/// A node's lease in these tests.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

pub(crate) struct Cluster {
    pub(crate) redis: RedisServer,
    /// Its own, if it is to be damaged.
    pub(crate) postgres: Option<Arc<Postgres>>,
    /// The name of its database.
    database: String,
    pub(crate) nodes: Vec<Node>,
    /// In front of each node: where its clients connect, whichever process it is by now.
    pub(crate) fronts: Vec<Relay>,
    pub(crate) to_redis: Vec<Relay>,
    pub(crate) to_postgres: Vec<Relay>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more settings.
    pub(crate) async fn start_with(more: &[(&'static str, &str)]) -> Self {
        Self::start_on(None, more).await
    }

    /// With a database server of its own.
    pub(crate) async fn start_apart() -> Self {
        let postgres = tokio::task::spawn_blocking(Postgres::start).await.expect("no panic");
        Self::start_on(Some(Arc::new(postgres)), &[]).await
    }

    async fn start_on(own: Option<Arc<Postgres>>, more: &[(&'static str, &str)]) -> Self {
        let (redis, postgres) = (RedisServer::start(&[]), own.as_deref().unwrap_or_else(|| Postgres::shared()));
        let database = postgres.new_database().await;
        let (mut to_redis, mut to_postgres, mut starting) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            let redis = Relay::start(Server::Tcp(([127, 0, 0, 1], redis.port).into())).await;
            let way = Relay::start(Server::Unix(postgres.socket())).await;
            let settings = [
                ("store.kind", "postgres".to_owned()),
                ("store.postgres.url", Postgres::url_at(way.address, &database)),
                ("store.postgres.statement_timeout_ms", "2000".to_owned()),
                ("store.postgres.acquire_timeout_ms", "2000".to_owned()),
                ("cluster.bus", "redis".to_owned()),
                ("cluster.redis.url", format!("redis://{}/", redis.address)),
                ("cluster.secret", "what only the nodes of the tests know".to_owned()),
                ("cluster.lease_s", LEASE.as_secs().to_string()),
                ("cluster.sweep_s", "2".to_owned()),
                ("cluster.cut_off_sweep_ms", "300".to_owned()),
                ("shutdown.reconnect_spread_ms", "1".to_owned()),
            ];
            let more = more.iter().map(|(key, value)| (*key, (*value).to_owned()));
            let settings: Vec<_> = settings.into_iter().chain(more).collect();
            starting.push(tokio::spawn(async move {
                let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
                Node::start(&settings).await
            }));
            to_redis.push(redis);
            to_postgres.push(way);
        }
        let (mut nodes, mut fronts) = (Vec::new(), Vec::new());
        for node in starting {
            let node = node.await.expect("no panic");
            fronts.push(Relay::start(Server::Tcp(node.address)).await);
            nodes.push(node);
        }
        let cluster = Self { redis, postgres: own, database, nodes, fronts, to_redis, to_postgres };
        cluster.until_ready().await;
        cluster
    }

    pub(crate) async fn until_ready(&self) {
        for node in &self.nodes {
            until_ready(node).await;
        }
    }

    /// Starts a node that has ended anew. Clients come when it is ready, as through a balancer.
    pub(crate) async fn restart(&mut self, node: usize) {
        self.nodes[node].restart().await;
        until_ready(&self.nodes[node]).await;
        self.fronts[node].point_at(Server::Tcp(self.nodes[node].address));
    }

    /// The cluster's database, by a way that nobody cuts.
    pub(crate) fn database(&self) -> String {
        self.postgres.as_deref().unwrap_or_else(|| Postgres::shared()).url(&self.database)
    }

    /// What `conclave admin` says, as an operator would ask from another machine: again, while the database is on its way
    /// back.
    pub(crate) async fn admin(&self, arguments: &[&str]) -> Value {
        within("conclave admin to be answered", async {
            loop {
                let output = self.try_admin(arguments).await;
                if output.status.success() {
                    return serde_json::from_slice(&output.stdout).expect("JSON");
                }
                let why = String::from_utf8_lossy(&output.stderr);
                assert!(why.contains("the store is unavailable"), "{arguments:?}: {why}");
            }
        })
        .await
    }

    async fn try_admin(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
        command.args(["admin", "--json"]).args(arguments).current_dir(self.nodes[0].data().parent().expect("a folder"));
        command.env("CONCLAVE__STORE__KIND", "postgres").env("CONCLAVE__STORE__POSTGRES__URL", self.database());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
        output.expect("the server's binary")
    }

    /// The sessions by their ids, as `conclave admin` shows them.
    pub(crate) async fn sessions(&self) -> BTreeMap<String, Value> {
        let told = self.admin(&["sessions", "--limit", "10000"]).await;
        let sessions = told["sessions"].as_array().expect("sessions").iter();
        sessions.map(|session| (session["session_id"].as_str().expect("an id").to_owned(), session.clone())).collect()
    }

    /// Waits until others own what a node did.
    pub(crate) async fn until_owns_nothing(&self, id: &str) {
        within("a node's sessions to be taken over", async {
            while self.sessions().await.values().any(|session| session["owner"] == id) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// Waits until something was taken in each session that there is.
    pub(crate) async fn until_all_are_spoken_in(&self) {
        let before = self.sessions().await;
        let has_grown = |(id, now): (&String, &Value)| now["last_seq"].as_u64() > before[id]["last_seq"].as_u64();
        within("all sessions to be spoken in", async {
            while !self.sessions().await.iter().all(has_grown) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }

    /// The id of a node, which is another one each time that it starts.
    pub(crate) async fn id_of(&self, node: usize) -> String {
        let client = self.nodes[node].client("asker").await;
        let id = client.started["node"].as_str().expect("an id").to_owned();
        client.close().await;
        id
    }

    /// A user who is connected to one of the nodes.
    pub(crate) async fn client(&self, node: usize, name: &str) -> (Client, User) {
        let user = self.nodes[node].user(name).await;
        (user.connect().await, user)
    }
}

pub(crate) async fn until_ready(node: &Node) {
    node.until_ready_is(200).await;
}

/// The same user at another node.
pub(crate) fn at(user: &User, node: &Node) -> User {
    User { address: node.address, ..user.clone() }
}
