//! A real PostgreSQL server for tests: one for the process, in a directory of its own, with a database for each test.
//!
//! The library's own tests use this file too, so it knows nothing but the standard library and sqlx. A machine without
//! PostgreSQL is one clear failure of each test that needs it. The server speaks over a Unix socket only.

#![allow(dead_code, reason = "the library's tests and those from outside each use a part")]

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;

/// What only whoever knows the password gets into.
pub(crate) const PASSWORD: &str = "a-password-for-tests";

const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A running server. It is killed when this is dropped.
pub(crate) struct Postgres {
    dir: TempDir,
    /// More of its command line.
    options: Vec<String>,
    child: Mutex<Child>,
}

impl Postgres {
    /// The server of all tests that do not stop theirs.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<(Postgres, Child)> = OnceLock::new();
        let (server, _) = SHARED.get_or_init(|| {
            let server = Self::start();
            // A static is never dropped, but its pipe is closed when the process ends, however it ends.
            let (id, dir) = (server.child().id(), server.dir.path().display());
            let script =
                format!("read -r _; kill -QUIT {id}; while kill -0 {id} 2>&-; do sleep 0.1; done; rm -rf '{dir}'");
            let watchdog = Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("a shell");
            (server, watchdog)
        });
        server
    }

    /// A server of one's own, to be damaged.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// A server with more options, such as `["-c", "ssl=on"]`. Files that it is to read can be put into its directory.
    pub(crate) fn start_with(options: impl FnOnce(&Path) -> Vec<String>) -> Self {
        let dir = tempfile::Builder::new().prefix("conclave-pg-").tempdir().expect("a directory");
        let options = options(dir.path());
        if let Some((user, group)) = unprivileged() {
            let files = std::fs::read_dir(dir.path()).expect("a directory").map(|file| file.expect("a file").path());
            for path in files.chain([dir.path().to_owned()]) {
                std::os::unix::fs::chown(path, Some(user), Some(group)).expect("it is root's to give");
            }
        }
        let password = dir.path().join("password");
        std::fs::write(&password, PASSWORD).expect("a file");
        std::fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("its mode");
        let made = program("initdb", dir.path())
            .args(["--auth=scram-sha-256", "--username=conclave", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--pwfile={}", password.display()))
            .arg("--pgdata")
            .arg(dir.path().join("data"))
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        let server = Self { child: Mutex::new(spawn(dir.path(), &options)), dir, options };
        server.wait();
        server
    }

    /// The URL of a new, empty database.
    pub(crate) async fn database(&self) -> String {
        self.url(&self.new_database().await)
    }

    /// The name of a new, empty database.
    pub(crate) async fn new_database(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await;
        name
    }

    /// The URL of a database by its name.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://conclave:{PASSWORD}@localhost/{database}?host={}", self.dir.path().display())
    }

    /// The URL of a database by its name, through whatever listens there and leads to [`Postgres::socket`].
    pub(crate) fn url_at(address: SocketAddr, database: &str) -> String {
        format!("postgres://conclave:{PASSWORD}@{address}/{database}?sslmode=disable")
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join(".s.PGSQL.5432")
    }

    /// Runs a statement in one of the databases.
    pub(crate) async fn execute(&self, database: &str, sql: &str) {
        Self::execute_at(&self.url(database), sql).await;
    }

    /// Runs a statement in a database by its URL.
    pub(crate) async fn execute_at(url: &str, sql: &str) {
        let mut connection = PgConnection::connect(url).await.expect("the server takes connections");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        connection.close().await.expect("a goodbye");
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().expect("nobody panics while holding it")
    }

    /// Ends all of it at once, as a power cut would.
    pub(crate) fn kill(&self) {
        let mut child = self.child();
        let workers = children(child.id());
        child.kill().expect("a running server");
        child.wait().expect("its end");
        workers.iter().for_each(|worker| signal("KILL", *worker));
    }

    /// Stops it in the middle of whatever it does; connections stay open and nothing answers.
    pub(crate) fn freeze(&self) {
        let id = self.child().id();
        signal("STOP", id);
        children(id).iter().for_each(|worker| signal("STOP", *worker));
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        let id = self.child().id();
        children(id).iter().for_each(|worker| signal("CONT", *worker));
        signal("CONT", id);
    }

    /// Starts it again with the same data.
    pub(crate) fn start_again(&self) {
        *self.child() = spawn(self.dir.path(), &self.options);
        self.wait();
    }

    /// Starts it again without waiting until it is there.
    pub(crate) fn begin_again(&self) {
        *self.child() = spawn(self.dir.path(), &self.options);
    }

    fn wait(&self) {
        let until = Instant::now() + STARTS_WITHIN;
        while !std::fs::read_to_string(self.dir.path().join("data/postmaster.pid"))
            .is_ok_and(|state| state.lines().any(|line| line.trim() == "ready"))
        {
            let mut child = self.child();
            if let Some(status) = child.try_wait().expect("a child") {
                // What is left of a killed one may hold its memory for a moment.
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                assert!(log.contains("pre-existing shared memory"), "the server ended with {status}: {log}");
                *child = spawn(self.dir.path(), &self.options);
            }
            assert!(Instant::now() < until, "the server is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.thaw();
        self.kill();
    }
}

fn spawn(dir: &Path, options: &[String]) -> Child {
    let log = std::fs::File::create(dir.join("log")).expect("a log file");
    program("postgres", dir)
        .arg("-D")
        .arg(dir.join("data"))
        .arg("-k")
        .arg(dir)
        .args(["-c", "listen_addresses=", "-c", "max_connections=500", "-c", "log_min_messages=warning"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the server's program")
}

/// One of PostgreSQL's programs, by a user that it accepts: it refuses root.
fn program(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(binary(name));
    command.current_dir(dir).env_remove("PGDATA");
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command
}

fn binary(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    versions.sort_by_key(|path| {
        let version = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    versions.extend(std::env::split_paths(&path));
    let found = versions.into_iter().map(|dir| dir.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!("PostgreSQL's {name} is missing: tests/run.sh installs it (Debian: apt install postgresql)")
    })
}

/// For root: somebody else's user and group.
fn unprivileged() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return None;
    }
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let entry = |name: &str| {
        let mut fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.find(|fields| fields.len() > 3 && fields[0] == name)?;
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    };
    Some(entry("postgres").or_else(|| entry("nobody")).expect("a user without rights"))
}

fn children(parent: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

fn signal(name: &str, process: u32) {
    // One that is gone by itself needs none.
    let _ = Command::new("kill").args([format!("-{name}"), process.to_string()]).stderr(Stdio::null()).status();
}
