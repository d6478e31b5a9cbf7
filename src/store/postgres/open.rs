//! Opening the shared store: waiting for the database, the schema, and what every connection is set to.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, SqlSafeStr};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::lanes::{History, Lanes, Timing};
use super::{PostgresOptions, PostgresStore};
use crate::store::{StoreError, StoreResult};

/// Every change of the schema, in order. A published one is never edited, and each leaves alone what the version before
/// it uses: for the length of an upgrade both work on the database.
const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "start", include_str!("../migrations/postgres/0001_start.sql")),
    (2, "commit", include_str!("../migrations/postgres/0002_commit.sql")),
];

/// The newest schema that this version knows.
pub(super) const KNOWN: i64 = MIGRATIONS.len() as i64;

/// The first and the longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

pub(super) async fn open(options: &PostgresOptions, absent: &Notify) -> StoreResult<PostgresStore> {
    let connect = connect_options(options)?;
    let mut connection = wait_for(&connect, options.connect_within, absent).await?;
    migrate(&mut connection).await?;
    // It has no time limits, and so no further use.
    let _ = timeout(ATTEMPT, connection.close()).await;

    let statement = options.statement_within.as_millis().to_string();
    let connect = connect.options([("statement_timeout", statement.as_str())]);
    // Every statement of a commit finds its rows by an index, whatever the statistics say: they are young when tables
    // are empty, and a plan is kept as long as its connection.
    let committing = connect.clone().options([
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("plan_cache_mode", "force_generic_plan"),
    ]);
    let history = Arc::new(History::default());
    let timing = Timing { acquire: options.acquire_within, statement: options.statement_within };
    let lanes = |most, connect: &PgConnectOptions| Lanes::new(most, connect.clone(), timing, Arc::clone(&history));
    let store = PostgresStore {
        daily: lanes(options.connections, &connect),
        committing: lanes(options.shards, &committing),
        vital: lanes(1, &connect),
        probing: lanes(1, &connect),
        probe_id: Uuid::now_v7(),
        history: Arc::clone(&history),
    };
    // The history's name has to be known before anybody asks for it.
    store.daily.lane().await?;
    Ok(store)
}

fn connect_options(options: &PostgresOptions) -> StoreResult<PgConnectOptions> {
    // The parser's own text may quote the URL, and with it the password.
    let options = PgConnectOptions::from_str(&options.url)
        .map_err(|_| StoreError::Unavailable("the URL of the database does not read".to_owned()))?;
    Ok(options.application_name("conclave").disable_statement_logging().statement_cache_capacity(256).options([
        ("synchronous_commit", "on"),
        ("jit", "off"),
        ("client_min_messages", "warning"),
        // A node that vanished is forgotten by the server too.
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
    ]))
}

/// Connects; waits while the database is not there yet or not ready, and says so.
async fn wait_for(options: &PgConnectOptions, within: Duration, absent: &Notify) -> StoreResult<PgConnection> {
    let started = Instant::now();
    let (mut pause, longest) = PAUSES;
    loop {
        let (why, waiting_helps) = match timeout(ATTEMPT, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => (why_not(&error), waiting_helps(&error)),
            Err(_) => ("no answer".to_owned(), true),
        };
        let place = options.get_socket().map_or_else(
            || format!("{}:{}", options.get_host(), options.get_port()),
            |socket| socket.display().to_string(),
        );
        let database = options.get_database().unwrap_or(options.get_username());
        if !waiting_helps {
            return Err(StoreError::Unavailable(format!("cannot use the database {database} at {place}: {why}")));
        }
        if started.elapsed() + pause >= within {
            return Err(StoreError::Unavailable(format!(
                "waited {} s in vain for the database {database} at {place}: {why}",
                within.as_secs()
            )));
        }
        tracing::warn!(place, database, error = why, "the database is not there yet; trying again");
        absent.notify_one();
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// What is wrong, with the setting that is about it.
fn why_not(error: &sqlx::Error) -> String {
    if is_about_tls(error) {
        return format!("{error}; in the URL, sslmode asks for TLS and sslrootcert names who signs the certificate");
    }
    error.to_string()
}

/// Whether it is the server's certificate, or who is to vouch for it. What is found in the handshake comes as an error of
/// reading and writing.
fn is_about_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(io) => {
            let tls = io.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
            matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
        }
        _ => false,
    }
}

/// Whether the database may be there a little later. A wrong password stays wrong, and so does a certificate.
fn waiting_helps(error: &sqlx::Error) -> bool {
    match error {
        error if is_about_tls(error) => false,
        sqlx::Error::Database(error) => {
            // Starting up, shutting down, too many connections.
            error.code().is_some_and(|code| code.starts_with("57P") || code == "53300")
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => true,
        _ => false,
    }
}

/// Brings the schema up to date; one node at a time, by a lock in the database.
async fn migrate(connection: &mut PgConnection) -> StoreResult<()> {
    let migrations = MIGRATIONS.map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    refuse_a_distant_future(connection).await?;
    let mut migrator = Migrator::with_migrations(migrations.into());
    match migrator.set_ignore_missing(true).run_direct(None, connection, false).await {
        Ok(()) => {}
        Err(MigrateError::Dirty(version)) => {
            return Err(StoreError::Corrupt(format!("an upgrade to schema {version} was broken off")));
        }
        Err(error) => {
            return Err(StoreError::Unavailable(format!("the schema could not be brought up to date: {error}")));
        }
    }
    // Another node may have gone on meanwhile.
    refuse_a_distant_future(connection).await
}

/// One version ahead is how a rolling upgrade looks from here; beyond that nobody promised anything.
async fn refuse_a_distant_future(connection: &mut PgConnection) -> StoreResult<()> {
    let unreadable =
        |error: sqlx::Error| StoreError::Unavailable(format!("the schema's version is unreadable: {error}"));
    let migrated: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(unreadable)?;
    if !migrated {
        return Ok(());
    }
    let newest: Option<i64> = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
        .map_err(unreadable)?;
    match newest {
        Some(newest) if newest > KNOWN + 1 => Err(StoreError::Corrupt(format!(
            "a newer version of conclave wrote the database: it has schema {newest}, this version works with up to {}",
            KNOWN + 1
        ))),
        Some(newest) if newest > KNOWN => {
            tracing::info!(newest, known = KNOWN, "the database is one version ahead of this node");
            Ok(())
        }
        Some(_) | None => Ok(()),
    }
}
