//! Opening the bus that the configuration names, and waiting for it.

use std::sync::Arc;
use std::time::Duration;

use super::StartError;
use crate::cluster::{Bus, ClusterSecret, Incoming, LocalBus, RedisBus, RedisOptions, RedisTrouble};
use crate::config::{BusKind, Config, Secret};
use crate::protocol::NodeId;
use crate::store::WireVersions;
use crate::telemetry::Metrics;

/// The bus of a node.
#[derive(Clone)]
pub(super) enum NodeBus {
    /// There is one node.
    Local(Arc<LocalBus>),
    /// Nodes reach each other through Redis.
    Redis(Arc<RedisBus>, Duration),
}

/// What the configuration says of Redis, with the files that it names read; nothing without one.
///
/// # Errors
/// If a file cannot be read, or is not what it should be.
pub(super) fn options(config: &Config) -> Result<Option<RedisOptions>, StartError> {
    let (cluster, redis) = (&config.cluster, &config.cluster_redis);
    match cluster.bus {
        BusKind::Local => return Ok(None),
        BusKind::Redis => {}
    }
    let wrong = |key, why: String| StartError::Bus { key, why };
    let read = |key, path: &std::path::Path| {
        std::fs::read(path).map_err(|error| wrong(key, format!("{} cannot be read: {error}", path.display())))
    };
    let (key, secret) = match (&cluster.secret, &cluster.secret_file) {
        (_, Some(path)) => ("cluster.secret_file", read("cluster.secret_file", path)?),
        // The absence of both was refused with the configuration.
        (secret, None) => {
            ("cluster.secret", secret.as_ref().map(Secret::expose).unwrap_or_default().as_bytes().to_vec())
        }
    };
    let secret = ClusterSecret::new(secret.trim_ascii_end())
        .ok_or_else(|| wrong(key, "expected at least 32 bytes, such as `openssl rand -hex 32` prints".to_owned()))?;
    let url = redis.url.as_ref().map(Secret::expose).unwrap_or_default();
    Ok(Some(RedisOptions {
        ca: redis.ca.as_deref().map(|path| read("cluster.redis.ca", path)).transpose()?,
        sharded: redis.sharded,
        prefix: redis.prefix.clone(),
        waiting_bytes: redis.waiting_bytes,
        patience: Duration::from_millis(redis.timeout_ms),
        ..RedisOptions::new(url, secret)
    }))
}

impl NodeBus {
    /// Opens it, or begins to; on a runtime.
    pub(super) fn open(
        config: &Config,
        me: NodeId,
        incoming: Arc<dyn Incoming>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        Ok(match options(config)? {
            None => Self::Local(Arc::new(LocalBus::default().join(incoming))),
            Some(options) => {
                let within = Duration::from_secs(config.cluster.connect_within_s);
                Self::Redis(Arc::new(RedisBus::start(options, me, incoming, Arc::clone(metrics))?), within)
            }
        })
    }

    pub(super) fn bus(&self) -> Arc<dyn Bus> {
        match self {
            Self::Local(bus) => Arc::clone(bus) as Arc<dyn Bus>,
            Self::Redis(bus, _) => Arc::clone(bus) as Arc<dyn Bus>,
        }
    }

    /// Resolves if the bus does not come in the time that it has at the start, or as soon as it is known that it cannot.
    pub(super) async fn given_up(&self) -> RedisTrouble {
        if let Self::Redis(bus, within) = self
            && let Err(trouble) = bus.connected(*within).await
        {
            return trouble;
        }
        std::future::pending().await
    }

    /// Speaks from now on so that all of these understand it.
    pub(super) fn set_peers(&self, peers: &[WireVersions]) {
        match self {
            Self::Local(_) => {}
            Self::Redis(bus, _) => bus.set_peers(peers),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn cluster() -> Config {
        let mut config = Config::default();
        config.cluster.bus = BusKind::Redis;
        config.cluster_redis.url = crate::config::Setting::from_text("redis://127.0.0.1");
        config
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_secret_comes_from_a_file_without_its_last_line_break() {
        let file = file("thirty-two bytes that nobody has\n");
        let mut config = cluster();
        config.cluster.secret_file = Some(file.path().to_owned());
        let options = options(&config).unwrap().unwrap();
        assert_eq!(format!("{:?}", options.secret), "ClusterSecret(32 bytes)");
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let (short, secret) = (file("too short"), file("thirty-two bytes that nobody has"));
        for (secret_file, ca, key) in [
            (short.path(), None, "cluster.secret_file: expected at least 32 bytes"),
            ("/no/such/secret".as_ref(), None, "cluster.secret_file: /no/such/secret cannot be read"),
            (secret.path(), Some("/no/such/ca.pem".into()), "cluster.redis.ca: /no/such/ca.pem cannot be read"),
        ] {
            let mut config = cluster();
            config.cluster.secret_file = Some(secret_file.to_owned());
            config.cluster_redis.ca = ca;
            let error = options(&config).err().unwrap().to_string();
            assert!(error.starts_with(key), "{error}");
        }
    }
}
