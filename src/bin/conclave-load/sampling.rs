//! The server's processes, and this one: processor time over the measurement, memory over the whole run.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::machine;
use crate::report::model::ServerProcess;

struct Process {
    pid: u32,
    cpu_before: Duration,
    cpu: Duration,
    rss_peak: u64,
    rss_end: u64,
}

/// Looks at processes once a second.
pub(crate) struct Sampling {
    processes: Vec<Process>,
    own_before: Duration,
    own: Duration,
    waited_before: Duration,
    waited: Duration,
    began: Instant,
    wall: Duration,
}

impl Sampling {
    /// Looks for the first time.
    pub(crate) fn start(pids: &[u32]) -> Result<Self> {
        let process = |&pid: &u32| {
            let cpu = machine::cpu_time(pid).with_context(|| format!("--server-pid {pid}: no such process here"))?;
            let rss = machine::resident_bytes(pid)?;
            Ok(Process { pid, cpu_before: cpu, cpu: Duration::ZERO, rss_peak: rss, rss_end: rss })
        };
        let processes = pids.iter().map(process).collect::<Result<_>>()?;
        let own = machine::cpu_time(std::process::id())?;
        Ok(Self {
            processes,
            own_before: own,
            own: Duration::ZERO,
            waited_before: Duration::ZERO,
            waited: Duration::ZERO,
            began: Instant::now(),
            wall: Duration::ZERO,
        })
    }

    /// The measurement begins.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.began = Instant::now();
        self.own_before = machine::cpu_time(std::process::id())?;
        self.waited_before = machine::waited_for_a_core();
        for process in &mut self.processes {
            // One that was killed meanwhile has a new pid, which nobody told.
            process.cpu_before = machine::cpu_time(process.pid).unwrap_or(process.cpu_before);
        }
        Ok(())
    }

    /// A second of the measurement is over, or all of it.
    pub(crate) fn look(&mut self) -> Result<()> {
        self.wall = self.began.elapsed();
        self.own = machine::cpu_time(std::process::id())?.saturating_sub(self.own_before);
        self.waited = machine::waited_for_a_core().saturating_sub(self.waited_before);
        for process in &mut self.processes {
            if let Ok(cpu) = machine::cpu_time(process.pid) {
                process.cpu = cpu.saturating_sub(process.cpu_before);
            }
            if let Ok(rss) = machine::resident_bytes(process.pid) {
                process.rss_end = rss;
                process.rss_peak = process.rss_peak.max(rss);
            }
        }
        Ok(())
    }

    /// Seconds of processor time that the servers have used so far, altogether.
    pub(crate) fn server_cpu_now(&self) -> f64 {
        let used = self.processes.iter().filter_map(|process| machine::cpu_time(process.pid).ok());
        used.map(|cpu| cpu.as_secs_f64()).sum()
    }

    /// Resident memory of all processes together; none without processes.
    pub(crate) fn memory(&self) -> Option<u64> {
        let now = |process: &Process| machine::resident_bytes(process.pid).unwrap_or(process.rss_end);
        (!self.processes.is_empty()).then(|| self.processes.iter().map(now).sum())
    }

    /// This program's processor time over that of one core: its engine has one thread.
    pub(crate) fn share_of_a_core(&self) -> f64 {
        if self.wall.is_zero() { 0.0 } else { self.own.as_secs_f64() / self.wall.as_secs_f64() }
    }

    /// The share of the time in which it had something to do and no core to do it on, in the same measure.
    pub(crate) fn share_without_a_core(&self) -> f64 {
        if self.wall.is_zero() { 0.0 } else { self.waited.as_secs_f64() / self.wall.as_secs_f64() }
    }

    /// The servers, as reports tell them.
    pub(crate) fn servers(&self) -> Vec<ServerProcess> {
        let told = |process: &Process| ServerProcess {
            pid: process.pid,
            cpu_s: process.cpu.as_secs_f64(),
            rss_peak_bytes: process.rss_peak,
            rss_end_bytes: process.rss_end,
        };
        self.processes.iter().map(told).collect()
    }
}
