//! What the operating system says of a process, and the few things asked of it: cores, files, processor time, memory.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// The core of the node, and of the bare loop, where a scenario pins them.
pub(crate) const NODE_CORE: usize = 0;
/// The core of this program then.
pub(crate) const CLIENT_CORE: usize = 1;

/// Keeps this thread, and what it starts from now on, on one core. Where there is no such core, nothing changes.
pub(crate) fn pin(core: usize) {
    let mut cores = CpuSet::new();
    cores.set(core);
    if let Err(error) = sched_setaffinity(None, &cores) {
        eprintln!("not pinned to core {core}: {error}");
    }
}

/// Takes as many open files as this process may have.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        eprintln!("open files stay limited to {:?}: {error}", limit.current);
    }
}

/// The open files that this process, and a node that it starts, may have.
pub(crate) fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Processor time of a process, all its threads together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTime {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl CpuTime {
    /// What the process has used so far, to the tick (10 ms as a rule).
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
        // The second field is a name in brackets, which may hold anything.
        let (_, fields) = stat.rsplit_once(')').context("no process name in stat")?;
        let ticks = |nth: usize| -> Result<Duration> {
            let field = fields.split_whitespace().nth(nth).context("stat is too short")?;
            let ticks: f64 = field.parse()?;
            Ok(Duration::from_secs_f64(ticks / rustix::param::clock_ticks_per_second() as f64))
        };
        Ok(Self { user: ticks(11)?, system: ticks(12)? })
    }

    /// What was used since.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }

    /// Both together.
    pub(crate) fn total(self) -> f64 {
        (self.user + self.system).as_secs_f64()
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
