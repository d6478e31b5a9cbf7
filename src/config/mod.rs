//! The node's settings: one struct per concern, and how they are put together.
//!
//! Layers, the later over the earlier: defaults, the file (TOML), `CONCLAVE__SECTION__KEY` in the environment, flags.
//! Invariants: a key that no struct has is refused, a value is read as the type of its field and never guessed
//! (`123` is a fine name of a directory), and everything that is wrong is said at once. The structs and their doc
//! comments are the source of `docs/CONFIG.md`; a test compares them.

mod layers;
mod sections;
mod value;

use std::fmt;
use std::path::PathBuf;

pub use sections::*;
pub use value::{BusKind, LogFormat, Secret, Setting, StoreKind};

use layers::Layers;

use crate::cluster::ClusterSecret;

/// Where settings come from besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: Option<PathBuf>,
    /// The environment, whole; only names that begin with `CONCLAVE__` are looked at.
    pub environment: Vec<(String, String)>,
    /// Flags of the command line, as keys such as `http.listen` and their values.
    pub flags: Vec<(&'static str, String)>,
}

impl Sources {
    /// The process's own environment, a file and flags.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(&'static str, String)>) -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        };
        Self { file, environment: std::env::vars_os().filter_map(utf8).collect(), flags }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands: a key, or the file as a whole.
    pub key: String,
    /// What is wrong, and what would be right.
    pub what: String,
    /// The layer that it came from; none for what follows from several settings together.
    pub origin: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)?;
        match &self.origin {
            Some(origin) => write!(f, " (from {origin})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the configuration is wrong in {} {}",
            self.0.len(),
            if self.0.len() == 1 { "place" } else { "places" }
        )?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl Config {
    /// Puts the layers together and checks them.
    ///
    /// # Errors
    /// With all that is wrong.
    pub fn load(sources: &Sources) -> Result<Self, ConfigErrors> {
        let mut problems = Vec::new();
        let mut layers = Layers::collect(sources, &mut problems);
        let config = Self::read(&mut layers, &mut problems);
        layers.refuse_the_rest(&Self::fields(), &mut problems);
        config.check(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigErrors(problems)) }
    }

    /// What no single field can say.
    fn check(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, what: &str| {
            problems.push(Problem { key: key.to_owned(), what: what.to_owned(), origin: None });
        };
        if self.http_tls.cert.is_some() != self.http_tls.key.is_some() {
            let missing = if self.http_tls.cert.is_some() { "http.tls.key" } else { "http.tls.cert" };
            wrong(missing, "expected a file, since the other half of the pair is set");
        }
        self.check_store(&mut wrong);
        self.check_bus(&mut wrong);
        if self.connections.outbox_bytes < self.limits.frame_bytes * 2 {
            wrong(
                "connections.outbox_bytes",
                "expected at least twice limits.frame_bytes, or the largest event never fits",
            );
        }
        if tracing_subscriber::EnvFilter::builder().parse(&self.telemetry.log_level).is_err() {
            wrong("telemetry.log_level", "expected a filter such as \"info\" or \"info,conclave=debug\"");
        }
        if self.http.operations_listen.is_some_and(|address| address.port() != 0 && address == self.http.listen) {
            wrong("http.operations_listen", "expected another address than http.listen");
        }
    }

    /// Whether the kind of store and its place fit together.
    fn check_store(&self, wrong: &mut impl FnMut(&str, &str)) {
        match (self.store.kind, &self.store_postgres.url) {
            (StoreKind::Postgres, None) => wrong(
                "store.postgres.url",
                "expected the URL of a database, such as \"postgres://user:password@host/conclave\", since store.kind \
                 is \"postgres\"",
            ),
            (StoreKind::Sqlite, Some(_)) => wrong(
                "store.kind",
                "expected \"postgres\", since store.postgres.url is set; leave the URL out to keep everything in \
                 store.data_dir",
            ),
            (StoreKind::Postgres, Some(url))
                if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) =>
            {
                wrong("store.postgres.url", "expected a URL that starts with \"postgres://\"");
            }
            (StoreKind::Postgres, Some(_)) | (StoreKind::Sqlite, None) => {}
        }
    }

    /// Whether a cluster has all that it needs.
    fn check_bus(&self, wrong: &mut impl FnMut(&str, &str)) {
        let (cluster, redis) = (&self.cluster, &self.cluster_redis);
        if cluster.secret.is_some() && cluster.secret_file.is_some() {
            wrong("cluster.secret_file", "expected none, since cluster.secret is set");
        }
        if cluster.secret.as_ref().is_some_and(|secret| secret.expose().len() < ClusterSecret::MIN_BYTES) {
            wrong("cluster.secret", "expected at least 32 bytes, such as `openssl rand -hex 32` prints");
        }
        if redis.prefix.contains(['{', '}']) {
            wrong("cluster.redis.prefix", "expected no braces");
        }
        match (cluster.bus, &redis.url) {
            (BusKind::Local, None) => return,
            (BusKind::Local, Some(_)) => {
                wrong("cluster.bus", "expected \"redis\", since cluster.redis.url is set");
                return;
            }
            (BusKind::Redis, None) => wrong(
                "cluster.redis.url",
                "expected the URL of a Redis, such as \"redis://user:password@host\", since cluster.bus is \"redis\"",
            ),
            (BusKind::Redis, Some(url))
                if !["redis://", "rediss://"].iter().any(|scheme| url.expose().starts_with(scheme)) =>
            {
                wrong("cluster.redis.url", "expected a URL that starts with \"redis://\" or \"rediss://\"");
            }
            (BusKind::Redis, Some(_)) => {}
        }
        if self.store.kind == StoreKind::Sqlite {
            wrong(
                "store.kind",
                "expected \"postgres\", since cluster.bus is \"redis\": nodes of a cluster share one store, and SQLite \
                 is for one node",
            );
        }
        if cluster.secret.is_none() && cluster.secret_file.is_none() {
            wrong(
                "cluster.secret",
                "expected at least 32 bytes that all nodes know and nobody else, since cluster.bus is \"redis\"; set it, \
                 or cluster.secret_file, to what `openssl rand -hex 32` prints",
            );
        }
    }
}

#[cfg(test)]
mod tests;
