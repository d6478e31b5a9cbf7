//! The server: puts the rooms together, and has the order in which a node starts and stops.
//!
//! Start: the listener's address, so that a port that is taken costs nothing; the store, with its lock on the data
//! directory, or behind a porch where it is not there yet; the lease, and with it the clock; group commit; the
//! way to connections, and the bus, which may come later; sessions; accounts; upkeep; and last the doors open. Stop is
//! the same backwards: not ready, nobody let in, connections sent away, the clients' door shut, sessions and their
//! commits finished, the lease given up, the store closed, and last the operators' door.

mod bus;
mod doors;
mod program;
mod service;
mod store;
mod tls;
mod upkeep;
mod wiring;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use program::{AdministerError, administer, check_config, stop_signal, take_open_files};
pub use tls::TlsError;

use bus::NodeBus;
use doors::{Door, Doorway, Porch, cores};
use store::{Awaited, Opening};
use upkeep::{Upkeep, UpkeepParts};
use wiring::{LeasedCommits, Ripples};

use crate::accounts::{AccountParts, Accounts, Token};
use crate::cluster::{Lease, RedisTrouble};
use crate::config::{BusKind, Config};
use crate::connection::{ConnectionParts, Connections, Recovery, Subscriptions};
use crate::http::{Readiness, Site};
use crate::protocol::{CloseCode, NodeId};
use crate::session::{Clock, MayTakeOver, SessionParts, Sessions, SessionsOptions, SystemClock};
use crate::store::{GroupCommit, Retention, Store, StoreError};
use crate::telemetry::Metrics;

/// What clients have to take their last frames in and to answer the close, when the node stops.
const GOODBYE: Duration = Duration::from_secs(3);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened to.
    #[error("{key}: cannot listen on {address}: {error}")]
    Listen {
        /// The setting.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The store cannot be opened.
    #[error("{key}: {error}")]
    Store {
        /// The setting that names it.
        key: &'static str,
        /// Why.
        error: StoreError,
    },
    /// A file of the bus cannot be used.
    #[error("{key}: {why}")]
    Bus {
        /// The setting.
        key: &'static str,
        /// Why.
        why: String,
    },
    /// The bus cannot be opened.
    #[error(transparent)]
    Redis(#[from] RedisTrouble),
}

/// A node that is ready to run: its addresses are bound, and its doors closed.
pub struct Server {
    doorway: Doorway,
    stage: Stage,
}

/// How far the start has come.
enum Stage {
    /// Everything is put together.
    Built(Box<Node>),
    /// The store is not there yet.
    Waiting(Box<Waiting>),
}

/// What a node has while it waits for its store.
struct Waiting {
    config: Config,
    store: Awaited,
    signs: Signs,
    porch: Porch,
}

/// What is seen of a node from outside, before it has a store and after.
#[derive(Clone)]
struct Signs {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
}

/// The rooms behind the doors.
struct Node {
    config: Config,
    store: Arc<dyn Store>,
    lease: Arc<Lease>,
    commits: GroupCommit,
    sessions: Sessions,
    connections: Arc<Connections>,
    signs: Signs,
    site: Site,
    upkeep: UpkeepParts,
}

impl Server {
    /// Binds, opens the store and puts everything together, or begins to wait for a store that is not there yet:
    /// then the doors have a porch until it is, where `/readyz` says so and clients are refused. On an actix runtime.
    ///
    /// # Errors
    /// If an address is taken, the store is in use or damaged, or a certificate cannot be used.
    pub async fn build(config: Config) -> Result<Self, StartError> {
        let doorway = Doorway::bind(&config)?;
        let signs = Signs { readiness: Arc::default(), metrics: Metrics::new() };
        let stage = match store::begin(&config).await? {
            Opening::Open(store) => Stage::Built(Box::new(Node::build(config, store, signs).await?)),
            Opening::Awaited(store) => {
                signs.readiness.wait_for_store(true);
                let porch = doorway.open_porch(&config.http, &signs)?;
                Stage::Waiting(Box::new(Waiting { config, store, signs, porch }))
            }
        };
        Ok(Self { doorway, stage })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.doorway.client_address()
    }

    /// Where clients connect, as a URL.
    pub fn url(&self) -> String {
        self.doorway.url()
    }

    /// Where health and metrics are, if they have a listener of their own.
    pub fn operations_addr(&self) -> Option<SocketAddr> {
        self.doorway.operations_address()
    }

    /// Where everything is kept, for people.
    pub fn place(&self) -> String {
        store::place(match &self.stage {
            Stage::Built(node) => &node.config,
            Stage::Waiting(waiting) => &waiting.config,
        })
    }

    /// Opens the doors, as soon as the store is there, and runs until `stop` resolves; then ends everything in order,
    /// within `shutdown.deadline_s`.
    ///
    /// # Errors
    /// If the store does not come within `store.postgres.connect_within_s`, a listener fails while the node runs, or the
    /// bus does not come within `cluster.connect_within_s`. Until both are there, `/readyz` says what is missing.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Self { doorway, stage } = self;
        tokio::pin!(stop);
        let node = match stage {
            Stage::Built(node) => node,
            Stage::Waiting(waiting) => match waiting.end(stop.as_mut()).await.map_err(io::Error::other)? {
                Some(node) => Box::new(node),
                None => return Ok(()),
            },
        };
        let doors = doorway.open(&node).map_err(io::Error::other)?;
        let upkeep = Upkeep::start(node.upkeep.clone());
        let handles: Vec<ServerHandle> = doors.iter().map(Door::handle).collect();
        let mut running: Vec<JoinHandle<io::Result<()>>> =
            doors.into_iter().map(|door| actix_web::rt::spawn(door)).collect();
        let failed = tokio::select! {
            () = stop => None,
            (ended, ..) = futures_util::future::select_all(&mut running) => Some(ended.map_err(io::Error::other)),
            trouble = node.upkeep.bus.given_up() => Some(Ok(Err(io::Error::other(trouble)))),
        };
        tracing::info!("the node is stopping");
        let deadline = Duration::from_secs(node.config.shutdown.deadline_s);
        if timeout(deadline, node.stop(&handles, &upkeep)).await.is_err() {
            tracing::warn!("the node did not stop in time; what was not committed was not acknowledged either");
        }
        match failed {
            None => Ok(()),
            Some(Ok(ended)) => ended.and(Err(io::Error::other("a listener ended by itself"))),
            Some(Err(panic)) => Err(panic),
        }
    }
}

impl Waiting {
    /// Until the store is there and everything is put together; nothing if the node is to stop before.
    async fn end(self, stop: impl Future<Output = ()>) -> Result<Option<Node>, StartError> {
        let Self { config, store, signs, porch } = self;
        let built = async {
            let store = store.await?;
            signs.readiness.wait_for_store(false);
            Node::build(config, store, signs).await
        };
        let built = tokio::select! {
            () = stop => None,
            built = built => Some(built),
        };
        porch.close().await;
        built.transpose()
    }
}

impl Node {
    async fn build(config: Config, store: Arc<dyn Store>, signs: Signs) -> Result<Self, StartError> {
        let Signs { readiness, metrics } = signs.clone();
        let system_clock = Arc::new(SystemClock::default());
        let clock: Arc<dyn Clock> = Arc::clone(&system_clock) as Arc<dyn Clock>;
        let lifetime = Duration::from_secs(config.cluster.lease_s);
        let on_time = Box::new(move |now| system_clock.set(now));
        let lease = Lease::take(lifetime, Arc::clone(&store), on_time, Arc::clone(&metrics)).await;
        let lease = lease.map_err(|error| StartError::Store { key: "store", error })?;
        let commits = store::start_commits(&config, Arc::clone(&store), lease.node_id(), &metrics);
        let subscriptions = Subscriptions::new(lease.node_id(), Arc::clone(&metrics));
        let bus = NodeBus::open(&config, lease.node_id(), Arc::new(subscriptions.clone()), &metrics)?;
        subscriptions.attach(bus.bus(), config.cluster.lane_bytes);
        // Without a bus to them there are no other nodes: the embedded store has a lock on its directory.
        let is_alone = config.cluster.bus == BusKind::Local;
        let parts = SessionParts {
            store: Arc::clone(&store),
            commits: Arc::new(LeasedCommits { commits: commits.clone(), lease: Arc::clone(&lease) }),
            deliveries: Arc::new(subscriptions.clone()),
            presence: Arc::new(subscriptions.clone()),
            clock: Arc::clone(&clock),
            may_take_over: may_take_over(is_alone, &lease),
            metrics: Arc::clone(&metrics),
        };
        let sessions = Sessions::start(session_options(&config, lease.node_id()), parts);
        if let Err(error) = subscriptions.meet(sessions.peers()).await {
            tracing::warn!(%error, "other nodes cannot reach this one yet");
        }
        let time = Arc::clone(&clock);
        let connections = Connections::new(ConnectionParts {
            store: Arc::clone(&store),
            sessions: Arc::new(sessions.clone()),
            subscriptions: subscriptions.clone(),
            settings: config.connections.clone(),
            limits: config.limits.clone(),
            node: lease.node_id(),
            clock: Arc::new(move || time.now()),
            token_hash: |text| Token::parse(text).map(|token| token.hash()),
            metrics: Arc::clone(&metrics),
        });
        let ripples = Ripples { subscriptions: subscriptions.clone(), sessions: sessions.clone() };
        let parts = AccountParts {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            aftermath: Arc::new(ripples),
            metrics: Arc::clone(&metrics),
        };
        let accounts = Accounts::new(&config, parts);
        let time = Arc::clone(&clock);
        let recovery = Recovery::new(Arc::clone(&store), subscriptions.clone(), Arc::new(move || time.now()));
        let upkeep = UpkeepParts {
            store: Arc::clone(&store),
            bus,
            lease: Arc::clone(&lease),
            clock,
            sessions: sessions.clone(),
            subscriptions,
            connections: Arc::clone(&connections),
            recovery,
            readiness,
            metrics,
            retention: retention(&config),
            sweep_every: Duration::from_secs(config.cluster.sweep_s),
            hurried_sweep_every: Duration::from_millis(config.cluster.cut_off_sweep_ms),
            bus_is_gone: Arc::default(),
            reconnect_spread_ms: config.shutdown.reconnect_spread_ms,
            is_alone,
        };
        let site = Site::new(&config.http, accounts, Arc::clone(&connections));
        Ok(Self { config, store, lease, commits, sessions, connections, signs, site, upkeep })
    }

    /// Ends everything, in order.
    async fn stop(&self, doors: &[ServerHandle], upkeep: &Upkeep) {
        self.signs.readiness.stop();
        upkeep.stop_sweeping();
        // What was acknowledged is stored already; what is under way is finished or answered with `unavailable`. The
        // doors stay open meanwhile, so that newcomers and probes are told.
        let quarter = Duration::from_secs(self.config.shutdown.deadline_s) / 4;
        self.connections.shut();
        self.connections.close_all(CloseCode::Restart, self.config.shutdown.reconnect_spread_ms);
        let silent = timeout(GOODBYE.min(quarter), self.connections.gone()).await.is_err();
        tracing::debug!(silent, "the connections were sent away");
        let (clients, operations) = doors.split_at(1);
        for door in clients {
            door.stop(true).await;
        }
        let left = self.sessions.stop(quarter).await;
        if left > 0 {
            tracing::warn!(left, "sessions did not finish in time");
        }
        self.commits.shutdown().await;
        self.connections.flush().await;
        if let Err(error) = self.lease.give_up().await {
            tracing::warn!(%error, "the lease was not given up and will lapse");
        }
        self.store.close().await;
        // What was said to other nodes has left when this comes back.
        let _ = timeout(GOODBYE.min(quarter), self.upkeep.bus.bus().probe()).await;
        for door in operations {
            door.stop(false).await;
        }
    }
}

fn session_options(config: &Config, node_id: NodeId) -> SessionsOptions {
    let threads = config.sessions.threads;
    SessionsOptions {
        node_id,
        threads: if threads > 0 { threads } else { cores().div_ceil(2) },
        mailbox: config.sessions.mailbox,
        idle: Duration::from_secs(config.sessions.idle_s),
        call_deadline: Duration::from_millis(config.cluster.call_deadline_ms),
        waiting: config.waiting(),
        roll_call_every: Duration::from_millis(config.cluster.roll_call_ms),
        rules: config.rules(),
    }
}

/// A node that is alone takes at once what its former life owned.
fn may_take_over(is_alone: bool, lease: &Arc<Lease>) -> MayTakeOver {
    let lease = Arc::clone(lease);
    Arc::new(move || is_alone || lease.is_old())
}

fn retention(config: &Config) -> Retention {
    Retention {
        inbox_per_user: config.limits.inbox_per_user,
        ended_ms: i64::try_from(config.store.ended_s.saturating_mul(1000)).unwrap_or(i64::MAX),
        batch: config.store.prune_rows,
    }
}

#[cfg(test)]
mod tests;
