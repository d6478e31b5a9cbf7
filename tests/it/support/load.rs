//! `conclave-load` as a process, and what it found.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;

use super::DEADLINE;

/// What a run must not have found.
pub(crate) const FAULTS: [&str; 6] = ["lost", "missing", "duplicated", "disordered", "undecryptable", "misattributed"];

/// A tester that runs.
pub(crate) struct Load {
    child: Child,
    dir: Arc<TempDir>,
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// `null` where it wrote none.
    pub(crate) report: Value,
    _dir: Arc<TempDir>,
}

impl Load {
    pub(crate) fn start(arguments: &str, urls: &[SocketAddr]) -> Self {
        Self::start_in(Arc::new(directory()), arguments, urls)
    }

    /// In a directory that has the users of an earlier run, or will have those of this one.
    pub(crate) fn start_in(dir: Arc<TempDir>, arguments: &str, urls: &[SocketAddr]) -> Self {
        let _ = std::fs::remove_file(dir.path().join("report.json"));
        let mut arguments = format!("{arguments} --users users.json --json report.json");
        urls.iter().for_each(|url| arguments.push_str(&format!(" --url ws://{url}/v1/ws")));
        let child = spawn(dir.path(), &arguments);
        Self { child, dir }
    }

    /// With these arguments and no others.
    pub(crate) fn start_alone(arguments: &str) -> Self {
        let dir = directory();
        Self { child: spawn(dir.path(), arguments), dir: Arc::new(dir) }
    }

    pub(crate) async fn run(arguments: &str, urls: &[SocketAddr]) -> Ended {
        Self::start(arguments, urls).ended().await
    }

    pub(crate) async fn run_alone(arguments: &str) -> Ended {
        Self::start_alone(arguments).ended().await
    }

    pub(crate) fn interrupt(&self) {
        signal(self.child.id(), "-INT");
    }

    pub(crate) async fn ended(self) -> Ended {
        let Self { child, dir } = self;
        let output = output(child).await;
        let Output { status, stdout, stderr } = output;
        let report = std::fs::read(dir.path().join("report.json"))
            .map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).expect("a report is JSON"));
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ended { status: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr), report, _dir: dir }
    }
}

fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

fn spawn(dir: &Path, arguments: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave-load"));
    command.args(arguments.split_whitespace()).current_dir(dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the tester's binary")
}

fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill");
    assert!(sent.success());
}

/// What a child printed, when it has ended. One that does not end in time is killed.
pub(crate) async fn output(child: Child) -> Output {
    let pid = child.id();
    let mut ending = tokio::task::spawn_blocking(move || child.wait_with_output());
    match tokio::time::timeout(6 * DEADLINE, &mut ending).await {
        Ok(output) => output.expect("no panic").expect("its output"),
        Err(_) => {
            signal(pid, "-KILL");
            let output = ending.await.expect("no panic").expect("its output");
            panic!("it did not end in time: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

impl Ended {
    pub(crate) fn count(&self, what: &str) -> u64 {
        self.report["counts"][what].as_u64().unwrap_or_else(|| panic!("{what} is not in {}", self.said()))
    }

    pub(crate) fn said(&self) -> String {
        format!("status {}\n{}\n{}", self.status, self.stdout, self.stderr)
    }

    /// Asserts that nothing was wrong, and that there was something to be right; prints the counts.
    #[track_caller]
    pub(crate) fn passed(&self) {
        self.was_whole();
        self.tell();
    }

    /// Asserts that nothing was wrong, and that there was something to be right.
    #[track_caller]
    pub(crate) fn was_whole(&self) {
        assert_eq!(self.status, 0, "{}", self.said());
        assert!(self.count("acknowledged") > 20 && self.count("delivered") > 20, "{}", self.said());
        assert_eq!(self.count("delivered"), self.count("expected_deliveries"), "{}", self.said());
        FAULTS.iter().for_each(|fault| assert_eq!(self.count(fault), 0, "{fault}: {}", self.said()));
        let moves = |text: &str| text.contains(['\u{1b}', '\r']);
        assert!(!moves(&self.stdout) && !moves(&self.stderr), "pipes are no terminals: {}", self.said());
    }

    /// Prints the counts and the speed, past the capture of tests that pass: they are what a change is looked at by.
    fn tell(&self) {
        let mut line = format!("{}:", self.report["scenario"].as_str().expect("a scenario"));
        for count in ["sent", "acknowledged", "delivered", "reconnects"].iter().chain(&FAULTS) {
            line.push_str(&format!(" {count} {},", self.count(count)));
        }
        let latency =
            self.report["latencies"].as_array().and_then(|all| all.iter().find(|one| one["what"] == "delivery"));
        let p99 = latency.and_then(|latency| latency["p99_us"].as_u64()).expect("a latency");
        writeln!(std::io::stderr(), "{line} delivery p99 {p99} µs").expect("standard error");
    }

    /// Asserts that this was wrong, so often, and nothing else.
    #[track_caller]
    pub(crate) fn failed_with(&self, fault: &str, times: u64) {
        assert_eq!(self.status, 1, "{}", self.said());
        for one in FAULTS {
            assert_eq!(self.count(one), if one == fault { times } else { 0 }, "{one}: {}", self.said());
        }
    }

    /// Asserts that the report has so many sessions, the worst first, with all that was acknowledged.
    #[track_caller]
    pub(crate) fn names_sessions(&self, number: usize) {
        let sessions = self.report["sessions"].as_array().expect("a list");
        let number_of = |session: &Value, what: &str| session[what].as_u64().expect("a number");
        assert_eq!(sessions.len(), number, "{}", self.said());
        assert!(sessions.is_sorted_by_key(|session| std::cmp::Reverse(number_of(session, "longest_wait_us"))));
        assert!(sessions.iter().all(|session| session["session_id"].as_str().is_some_and(|id| id.len() == 36)));
        let acknowledged: u64 = sessions.iter().map(|session| number_of(session, "acknowledged")).sum();
        assert_eq!(acknowledged, self.count("acknowledged"), "{}", self.said());
    }

    /// Asserts that it did not run, and says why.
    #[track_caller]
    pub(crate) fn refused(&self, why: &str) {
        assert_ne!(self.status, 0, "{}", self.said());
        assert!(self.stderr.contains(why), "no {why:?} in: {}", self.said());
        assert!(!self.stderr.contains("panicked"), "{}", self.said());
    }
}
