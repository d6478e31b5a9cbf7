//! Opening the store that the configuration names, and how much of it commits at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use super::StartError;
use crate::config::{Config, Secret, StoreKind};
use crate::protocol::NodeId;
use crate::store::{
    BatchReport, GroupCommit, GroupCommitOptions, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Store,
};
use crate::telemetry::Metrics;

/// How long opening a store may take until it counts as waiting: an upgrade of its schema can take long.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Seconds that a person waits for a database that does not answer.
const PERSON_WAITS_S: u64 = 3;

/// A store that is not there yet: it resolves when it is, or when the node has waited long enough.
pub(super) type Awaited = BoxFuture<'static, Result<Arc<dyn Store>, StartError>>;

/// What came of beginning to open the store.
pub(super) enum Opening {
    /// It is open.
    Open(Arc<dyn Store>),
    /// It is not there yet.
    Awaited(Awaited),
}

/// Opens it, or finds out that it has to be waited for.
pub(super) async fn begin(config: &Config) -> Result<Opening, StartError> {
    let absent = Arc::new(Notify::new());
    let mut opening = open(config.clone(), Arc::clone(&absent)).boxed();
    tokio::select! {
        store = &mut opening => store.map(Opening::Open),
        () = absent.notified() => Ok(Opening::Awaited(opening)),
        () = tokio::time::sleep(AT_ONCE) => Ok(Opening::Awaited(opening)),
    }
}

/// Opens it for `conclave admin`: a shared one that is away is not waited for as long as nodes do.
pub(super) async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let mut config = config.clone();
    let within = &mut config.store_postgres.connect_within_s;
    *within = PERSON_WAITS_S.min(*within);
    open(config, Arc::default()).await
}

async fn open(config: Config, absent: Arc<Notify>) -> Result<Arc<dyn Store>, StartError> {
    match config.store.kind {
        StoreKind::Sqlite => {
            let options = SqliteOptions {
                readers: config.store.readers,
                wal_bytes: config.store.wal_bytes,
                ..SqliteOptions::new(&config.store.data_dir)
            };
            let opened = SqliteStore::open(&options).await;
            Ok(Arc::new(opened.map_err(|error| StartError::Store { key: "store.data_dir", error })?))
        }
        StoreKind::Postgres => {
            let settings = &config.store_postgres;
            let options = PostgresOptions {
                // Its absence was refused with the configuration.
                url: settings.url.as_ref().map(Secret::expose).unwrap_or_default().to_owned(),
                connections: settings.connections,
                shards: settings.shards,
                acquire_within: Duration::from_millis(settings.acquire_timeout_ms),
                statement_within: Duration::from_millis(settings.statement_timeout_ms),
                connect_within: Duration::from_secs(settings.connect_within_s),
            };
            let opened = PostgresStore::open_saying(&options, &absent).await;
            Ok(Arc::new(opened.map_err(|error| StartError::Store { key: "store.postgres.url", error })?))
        }
    }
}

/// Where everything is kept, for people.
pub(super) fn place(config: &Config) -> String {
    match config.store.kind {
        StoreKind::Sqlite => {
            let data_dir = &config.store.data_dir;
            std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.clone()).display().to_string()
        }
        StoreKind::Postgres => "the database of store.postgres.url".to_owned(),
    }
}

/// Group commit with as many shards as the store commits at the same time; they share the bounds of what may wait.
pub(super) fn start_commits(
    config: &Config,
    store: Arc<dyn Store>,
    node_id: NodeId,
    metrics: &Arc<Metrics>,
) -> GroupCommit {
    let shards = match config.store.kind {
        StoreKind::Sqlite => 1,
        StoreKind::Postgres => config.store_postgres.shards,
    };
    let options = GroupCommitOptions {
        shards,
        queue_rows: config.store.queue_rows.div_ceil(shards),
        queue_bytes: config.store.queue_bytes.div_ceil(shards),
        batch_rows: config.store.batch_rows,
        batch_bytes: config.store.batch_bytes,
    };
    let metrics = Arc::clone(metrics);
    let waiting: Vec<AtomicI64> = (0..shards).map(|_| AtomicI64::new(0)).collect();
    let observer = move |report: BatchReport| {
        metrics.commit_rows.observe(report.rows as f64);
        metrics.commit_seconds.observe(report.took.as_secs_f64());
        if let Some(shard) = waiting.get(report.shard) {
            shard.store(i64::try_from(report.waiting_rows).unwrap_or(i64::MAX), Ordering::Relaxed);
        }
        metrics.commit_queue.set(waiting.iter().map(|shard| shard.load(Ordering::Relaxed)).sum());
    };
    GroupCommit::start(store, node_id, options, Some(Arc::new(observer)))
}
