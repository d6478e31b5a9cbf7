//! The bus through Redis: pub/sub and nothing else, plain or sharded over a Redis Cluster.
//!
//! Redis keeps nothing of ours: what it loses, the store gives back, and [`Incoming::missed`] says where to look. To each
//! server there is one connection that sends and one that listens, so that a flood of what comes delays nothing that
//! goes, and a listener that Redis drops for being slow loses no message under way. Both come back by themselves.

mod dial;
mod listener;
mod names;
mod post;
mod publisher;
mod routes;
mod slots;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use dial::RedisTrouble;

use dial::Dialer;
use listener::Listening;
use names::{Names, Place};
use post::Post;
use publisher::Dropped;
use routes::Routes;

use super::envelope::{ClusterSecret, Kind};
use super::wire::{Message, Range, Wire};
use super::{Bus, BusError, Channel, Incoming, MAX_MESSAGE};
use crate::protocol::NodeId;
use crate::store::WireVersions;
use crate::telemetry::Metrics;

/// What a node needs to know of its Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// `redis://` or `rediss://` (TLS), `USER:PASSWORD@`, host and port. A secret.
    pub url: String,
    /// The certificate authority of `rediss://`, PEM; without one, those that browsers trust.
    pub ca: Option<Vec<u8>>,
    /// Whether it is a Redis Cluster.
    pub sharded: bool,
    /// Before the name of each channel; without braces.
    pub prefix: String,
    /// What all nodes of the cluster know.
    pub secret: ClusterSecret,
    /// The versions of the wire that are read.
    pub wire: Range,
    /// Bytes that may wait for each server.
    pub waiting_bytes: usize,
    /// How long Redis may take to answer.
    pub patience: Duration,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("url", &format_args!("{} bytes", self.url.len()))
            .field("sharded", &self.sharded)
            .field("prefix", &self.prefix)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

impl RedisOptions {
    /// With defaults for all that has one.
    pub fn new(url: &str, secret: ClusterSecret) -> Self {
        Self {
            url: url.to_owned(),
            ca: None,
            sharded: false,
            prefix: "conclave:".to_owned(),
            secret,
            wire: Wire::RANGE,
            waiting_bytes: 32 << 20,
            patience: Duration::from_secs(2),
        }
    }

    /// What Redis has to let its user do, as an ACL rule.
    fn needs(&self) -> String {
        let commands = if self.sharded {
            "+spublish +ssubscribe +sunsubscribe +cluster|slots"
        } else {
            "+publish +subscribe +unsubscribe"
        };
        format!("&{}* {commands} +ping", self.prefix)
    }
}

/// The bus of one node. Its connections live as long as it does.
pub struct RedisBus {
    post: Arc<Post>,
    routes: Arc<Routes>,
    patience: Duration,
    keeping: JoinHandle<()>,
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

impl RedisBus {
    /// Begins to connect; on a runtime. [`RedisBus::connected`] waits for it.
    ///
    /// # Errors
    /// If a setting cannot be used.
    pub fn start(
        options: RedisOptions,
        me: NodeId,
        incoming: Arc<dyn Incoming>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, RedisTrouble> {
        let needs = options.needs();
        let RedisOptions { url, ca, sharded, prefix, secret, wire, waiting_bytes, patience } = options;
        let dialer = Dialer::new(&url, ca, patience, needs)?;
        let post = Post::new(me, Names::new(&prefix), dialer, sharded, (secret, wire), incoming, metrics);
        let post = Arc::new(post);
        let routes = Arc::new(Routes::new(Arc::clone(&post), waiting_bytes));
        let keeping = tokio::spawn(Arc::clone(&routes).keep());
        Ok(Self { post, routes, patience, keeping })
    }

    /// Waits until messages come through.
    ///
    /// # Errors
    /// As soon as a setting is found to be wrong, or with what is in the way when the time is up.
    pub async fn connected(&self, within: Duration) -> Result<(), RedisTrouble> {
        let until = Instant::now() + within;
        loop {
            if let Ok(Ok(())) = timeout_at(until, self.probe()).await {
                return Ok(());
            }
            let late = Instant::now() >= until;
            match self.post.trouble() {
                Some(trouble) if late || trouble.is_final() => return Err(trouble),
                None if late => {
                    let at = self.post.dialer.seed().to_string();
                    return Err(RedisTrouble::Away { at, why: "no message came back in time".to_owned() });
                }
                Some(_) | None => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Writes the newest version of the wire that all of these read, as far as this release has it. Before this was
    /// called, the oldest.
    pub fn set_peers(&self, peers: &[WireVersions]) {
        if let Some(newest) = peers.iter().map(|peer| peer.newest).min() {
            self.post.set_wire(newest);
        }
    }

    fn away(&self, dropped: Dropped) -> BusError {
        BusError(match dropped {
            Dropped::Full => "too much waits for Redis".to_owned(),
            Dropped::Away | Dropped::Refused => self
                .post
                .trouble()
                .map_or_else(|| "not connected to Redis yet".to_owned(), |trouble| trouble.to_string()),
        })
    }
}

#[async_trait]
impl Bus for RedisBus {
    fn wire(&self) -> Wire {
        self.post.wire()
    }

    async fn publish(&self, channel: Channel, message: Message) -> Result<(), BusError> {
        let place = Place::Channel(channel);
        if message.bytes.len() > MAX_MESSAGE {
            self.routes.too_large(place);
            return Err(BusError::too_large(message.bytes.len()));
        }
        self.routes.send(place, Kind::Message, message).map_err(|dropped| self.away(dropped))
    }

    async fn subscribe(&self, channel: Channel) -> Result<(), BusError> {
        let place = Place::Channel(channel);
        let soon = match self.routes.want(place) {
            Listening::Confirmed => return Ok(()),
            Listening::Away => return Err(self.away(Dropped::Away)),
            Listening::Soon(soon) => soon,
        };
        match timeout(self.patience, soon).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.away(Dropped::Away)),
            Err(_) if self.routes.gave_up_waiting(place) => Ok(()),
            Err(_) => Err(BusError("Redis did not confirm a subscription in time".to_owned())),
        }
    }

    async fn unsubscribe(&self, channel: Channel) {
        self.routes.forget(Place::Channel(channel));
    }

    async fn probe(&self) -> Result<(), BusError> {
        let probes = self.routes.send_probes().map_err(|dropped| self.away(dropped))?;
        let all = futures_util::future::join_all(probes.into_iter().map(post::Probe::back));
        match timeout(self.patience, all).await {
            Ok(back) if back.iter().all(|back| *back) => Ok(()),
            Ok(_) | Err(_) => Err(BusError("no message came back from Redis in time".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
