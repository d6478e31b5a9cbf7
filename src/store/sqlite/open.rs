//! Opening the embedded store: the data directory and its lock, the connections, the schema, the history's name.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, SqlSafeStr};
use uuid::Uuid;

use super::checkpoint;
use super::column::failed;
use super::readers::Readers;
use super::writer::Writer;
use super::{SqliteOptions, SqliteStore};
use crate::store::{StoreError, StoreResult};

const DATABASE: &str = "conclave.sqlite3";
const WAL: &str = "conclave.sqlite3-wal";
const LOCK: &str = "lock";

/// Every change of the schema, in order. A published one is never edited.
const MIGRATIONS: [(i64, &str, &str); 3] = [
    (1, "start", include_str!("../migrations/sqlite/0001_start.sql")),
    (2, "nodes", include_str!("../migrations/sqlite/0002_nodes.sql")),
    (3, "recent", include_str!("../migrations/sqlite/0003_recent.sql")),
];

/// What every connection is set to.
pub(super) const PRAGMAS: [(&str, &str); 6] = [
    ("synchronous", "FULL"),
    ("foreign_keys", "OFF"),
    // Milliseconds that a statement waits for a lock; only emptying the WAL and its readers ever meet.
    ("busy_timeout", "1000"),
    ("secure_delete", "ON"),
    ("temp_store", "MEMORY"),
    ("cache_size", "-32768"),
];

/// Connections for what is seldom read.
const SELDOM_READERS: u32 = 2;

/// How long a seldom read waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);

pub(super) async fn open(options: &SqliteOptions) -> StoreResult<SqliteStore> {
    let lock = lock_directory(&options.data_dir)?;
    let file = options.data_dir.join(DATABASE);
    let identity = make_database_file(&file).map_err(|error| unusable(&file, &error))?;
    let connect = SqliteConnectOptions::new()
        .filename(&file)
        .journal_mode(SqliteJournalMode::Wal)
        .statement_cache_capacity(256)
        .disable_statement_logging();
    // Small writes rarely fill the WAL; where nothing else does, they copy it.
    let connect = connect.pragma("wal_autocheckpoint", checkpoint::PAGES.to_string());
    let connect = PRAGMAS.into_iter().fold(connect, |connect, (pragma, value)| connect.pragma(pragma, value));
    let wal = options.data_dir.join(WAL);
    let writer = Writer::open(connect.clone(), wal, options.wal_bytes).await.map_err(failed)?;
    migrate(&mut *writer.connections().acquire().await.map_err(failed)?).await?;
    end_former_leases(&writer).await?;
    let log = history(&writer, &identity).await?;
    let readers = connect_readers(connect).await?;
    let reading = Readers::start(&file, options.readers).map_err(|error| unusable(&file, &error))?;
    Ok(SqliteStore { readers, reading, writer, clock: options.clock.clone(), log, lock })
}

async fn connect_readers(connect: SqliteConnectOptions) -> StoreResult<SqlitePool> {
    SqlitePoolOptions::new()
        .max_connections(SELDOM_READERS)
        .acquire_timeout(ACQUIRE)
        .test_before_acquire(false)
        .connect_with(connect.pragma("query_only", "ON"))
        .await
        .map_err(failed)
}

/// Makes the directory, open to its owner alone, and takes it for this process.
fn lock_directory(dir: &Path) -> StoreResult<File> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| unusable(dir, &error))?;
    let path = dir.join(LOCK);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = open.map_err(|error| unusable(&path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(dir, &mut file)),
        Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(|error| unusable(&path, &error))?;
    Ok(file)
}

fn in_use(dir: &Path, lock: &mut File) -> StoreError {
    let mut holder = String::new();
    let read = lock.rewind().and_then(|()| lock.take(32).read_to_string(&mut holder));
    let holder = match (read, holder.trim().parse::<u32>()) {
        (Ok(_), Ok(process)) => format!("process {process}"),
        (Ok(_) | Err(_), _) => "another process".to_owned(),
    };
    StoreError::Unavailable(format!("{holder} already uses the data directory {}", dir.display()))
}

fn unusable(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Unavailable(format!("cannot use {}: {error}", path.display()))
}

/// Makes the database's file readable by its owner alone before anything is in it (SQLite gives its WAL the same
/// mode), and tells which file it is, so that one copied back from a backup is known for another. Its number alone
/// would not do: a file system gives that of a removed file to the next one.
fn make_database_file(path: &Path) -> io::Result<String> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let metadata = file.metadata()?;
    // Not every file system knows it.
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(format!("{}/{}", metadata.ino(), born.as_nanos()))
}

async fn migrate(connection: &mut SqliteConnection) -> StoreResult<()> {
    match migrator(MIGRATIONS.len()).run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(version)) => Err(StoreError::Corrupt(format!(
            "a newer version of conclave wrote the database: it has schema {version}, this version knows {}",
            MIGRATIONS.len()
        ))),
        Err(error) => Err(StoreError::Unavailable(format!("the schema could not be brought up to date: {error}"))),
    }
}

/// Up to this version of the schema.
pub(super) fn migrator(version: usize) -> Migrator {
    let migrations = MIGRATIONS.into_iter().take(version).map(|(version, name, sql)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// The lock is ours: whoever has a lease in there is dead.
async fn end_former_leases(writer: &Writer) -> StoreResult<()> {
    let mut write = writer.begin().await?;
    sqlx::query("DELETE FROM nodes").execute(write.connection()).await.map_err(failed)?;
    Ok(write.commit().await?)
}

/// The history's name: a new one for a new database, and for one that came back as another file.
async fn history(writer: &Writer, identity: &str) -> StoreResult<String> {
    let mut write = writer.begin().await?;
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT name, value FROM meta").fetch_all(write.connection()).await.map_err(failed)?;
    write.undo().await;
    let meta = |key: &str| rows.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    match (meta("history"), meta("file")) {
        (Some(log), Some(file)) if file == identity => Ok(log),
        (former, _) => {
            if former.is_some() {
                tracing::warn!("the database is another file than before: clients read its history anew");
            }
            put_meta(writer, "file", identity).await?;
            new_history(writer).await
        }
    }
}

/// Gives the history a name that it never had.
pub(super) async fn new_history(writer: &Writer) -> StoreResult<String> {
    let log = Uuid::now_v7().simple().to_string();
    put_meta(writer, "history", &log).await?;
    Ok(log)
}

async fn put_meta(writer: &Writer, name: &str, value: &str) -> StoreResult<()> {
    let mut write = writer.begin().await?;
    sqlx::query("INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")
        .bind(name)
        .bind(value)
        .execute(write.connection())
        .await
        .map_err(failed)?;
    Ok(write.commit().await?)
}
