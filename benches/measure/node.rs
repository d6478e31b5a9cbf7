//! The process that is measured: started here with a data directory of its own, or running already.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::crowd::PATIENCE;
use crate::machine;

/// What stands before the address in the line that a node prints when it takes connections.
const LISTENING: &str = "listening on http://";

/// Which node a scenario measures.
pub(crate) enum Target {
    /// A program, started for each scenario.
    Program { path: PathBuf, log: bool },
    /// A process that nobody here stops.
    Running { address: SocketAddr, pid: u32 },
}

/// A node that takes connections.
pub(crate) struct Node {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    /// From its start to its `listening` line.
    pub(crate) start_time: Duration,
    child: Option<Child>,
}

impl Target {
    /// A node for one scenario, on one core if it is to be.
    pub(crate) fn node(&self, data: &Path, core: Option<usize>) -> Result<Node> {
        match self {
            Self::Program { path, log } => {
                let mut command = Command::new(path);
                command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
                // Hashing passwords is not what is measured.
                command.env("CONCLAVE__ACCOUNTS__ARGON2_MEMORY_KIB", "8").env("CONCLAVE__ACCOUNTS__ARGON2_PASSES", "1");
                Node::start(command, core, *log)
            }
            Self::Running { address, pid } => {
                Ok(Node { address: *address, pid: *pid, start_time: Duration::ZERO, child: None })
            }
        }
    }

    /// Whether nodes can be stopped and started.
    pub(crate) fn is_program(&self) -> bool {
        matches!(self, Self::Program { .. })
    }
}

impl Node {
    /// Starts a program that says where it listens, and leaves this thread on the other core if it was given one.
    pub(crate) fn start(mut command: Command, core: Option<usize>, log: bool) -> Result<Self> {
        if let Some(core) = core {
            machine::pin(core); // a child has its parent's cores
        }
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        if core.is_some() {
            machine::pin(machine::CLIENT_CORE);
        }
        let mut child = child.with_context(|| format!("{} does not start", command.get_program().display()))?;
        let (found, address) = channel();
        listen_for_address(child.stdout.take().context("no stdout")?, found.clone(), log);
        listen_for_address(child.stderr.take().context("no stderr")?, found, log);
        let Ok(address) = address.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            bail!("the node ended, or did not say where it listens: {:?}", child.wait()?);
        };
        Ok(Self { address, pid: child.id(), start_time: began.elapsed(), child: Some(child) })
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        let child = self.child.as_mut().context("not ours to kill")?;
        child.kill()?;
        child.wait()?;
        self.child = None;
        Ok(())
    }

    /// SIGTERM, and how long it took until the node had ended well. A node that was not started here goes on.
    pub(crate) fn stop(mut self) -> Result<Duration> {
        let Some(mut child) = self.child.take() else { return Ok(Duration::ZERO) };
        let began = Instant::now();
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM)?;
        let status = child.wait()?;
        ensure!(status.success(), "the node ended with {status}");
        Ok(began.elapsed())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads what a node prints to its end, so that it never waits for us.
fn listen_for_address(output: impl Read + Send + 'static, found: Sender<SocketAddr>, log: bool) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if log {
                eprintln!("  node: {line}");
            }
            let Some((_, rest)) = line.split_once(LISTENING) else { continue };
            let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || "[]:.".contains(c))).unwrap_or(rest.len());
            if let Ok(address) = rest[..end].parse() {
                let _ = found.send(address); // only the first is waited for
            }
        }
    });
}
