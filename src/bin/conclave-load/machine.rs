//! What the operating system says of this machine and its processes, and the few things asked of it: cores, files,
//! processor time, memory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::report::model::Machine;

/// Files that this program opens beside its connections.
const SPARE_FILES: u64 = 64;

/// Keeps this thread, and what it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    ensure!(core < CpuSet::MAX_CPU, "there is no core {core}");
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("core {core} cannot be had"))
}

/// Takes as many open files as this process may have; tells how many connections that allows.
pub(crate) fn raise_connection_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where it fails the limit stays what it is, which is what is told.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(SPARE_FILES)
}

/// This machine, as reports tell it.
pub(crate) fn describe() -> Machine {
    let uname = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    Machine {
        cores: cores(),
        memory_bytes: memory_bytes().unwrap_or(0),
        kernel: [uname.sysname(), uname.release(), uname.machine()].map(text).join(" "),
    }
}

/// Cores that this program may use.
pub(crate) fn cores() -> u32 {
    sched_getaffinity(None).map_or(1, |cores| cores.count())
}

fn memory_bytes() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Processor time of a process, all its threads together, to the tick (10 ms as a rule).
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    // The second field is a name in brackets, which may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no process name in stat")?;
    let ticks = |nth: usize| -> Result<f64> {
        let field = fields.split_whitespace().nth(nth).context("stat is too short")?;
        Ok(field.parse::<f64>()?)
    };
    Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / rustix::param::clock_ticks_per_second() as f64))
}

/// Cores of this machine that run, whoever may use them.
pub(crate) fn cores_online() -> usize {
    std::fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|ranges| count_of(&ranges)).unwrap_or(1)
}

/// How many numbers are in a list such as `0-3,8`.
fn count_of(ranges: &str) -> Option<usize> {
    let count = |range: &str| -> Option<usize> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        (last.parse::<usize>().ok()? + 1).checked_sub(first.parse().ok()?)
    };
    ranges.trim().split(',').map(count).sum()
}

/// How long this program's threads were ready to run and had no core, so far: something else ran on theirs.
pub(crate) fn waited_for_a_core() -> Duration {
    let waited = |task: std::fs::DirEntry| -> Option<u64> {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split_whitespace().nth(1)?.parse().ok()
    };
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    Duration::from_nanos(tasks.filter_map(waited).sum())
}

/// Resident memory of a process.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in status")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_counted() {
        assert_eq!(["0\n", "0-1", "0-3,8", "0,2-3"].map(count_of), [1, 2, 5, 3].map(Some));
        assert_eq!(["", "x", "3-1"].map(count_of), [None; 3]);
        assert!(cores_online() >= 1);
    }
}
