//! A run of a plan: set up, warm up, measure, wait for what is owed, read the histories, tell. One that says more than
//! memory is for does so in rounds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::arguments::Common;
use crate::engine::{Engine, Phase, Settings};
use crate::measures::Measures;
use crate::plan::{Cuts, Plan};
use crate::report::live::{Live, Moment};
use crate::report::model::{Counts, ServerProcess};
use crate::report::quantity::bytes;
use crate::sampling::Sampling;
use crate::target::{self, Endpoint};
use crate::users::{self, Keys, User};
use crate::waits::Waits;
use crate::{audit, machine, setup, stop};

/// How long a silence ends the wait for what is owed, where nothing is announced that could explain it.
const SILENCE: Duration = Duration::from_secs(10);
/// The same after an interruption: whoever interrupts does not want to wait.
const IMPATIENCE: Duration = Duration::from_secs(3);

/// What a run found.
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) measures: Measures,
    pub(crate) servers: Vec<ServerProcess>,
    /// This program's processor time over that of one core.
    pub(crate) share_of_a_core: f64,
    /// The share of the time in which it had something to do and no core to do it on.
    pub(crate) share_without_a_core: f64,
    pub(crate) seconds: f64,
    pub(crate) sessions: Waits,
    /// What went wrong beside the counts, and how often.
    pub(crate) failures: Vec<(String, u64)>,
    pub(crate) notes: Vec<String>,
    pub(crate) interrupted: bool,
    /// Storms that there were.
    pub(crate) storms: usize,
    /// It said all that one round may, and its time was not over.
    pub(crate) is_full: bool,
}

impl Outcome {
    /// Adds what ran after this.
    pub(crate) fn append(&mut self, later: Self) {
        self.measures.append(&later.measures);
        self.seconds += later.seconds;
        self.share_of_a_core = self.share_of_a_core.max(later.share_of_a_core);
        self.share_without_a_core = self.share_without_a_core.max(later.share_without_a_core);
        for (mine, other) in self.servers.iter_mut().zip(&later.servers) {
            mine.cpu_s += other.cpu_s;
            mine.rss_peak_bytes = mine.rss_peak_bytes.max(other.rss_peak_bytes);
            mine.rss_end_bytes = other.rss_end_bytes;
        }
        self.interrupted |= later.interrupted;
        self.storms += later.storms;
        self.is_full = later.is_full;
        self.add_counts(later);
    }

    /// Adds what ran at the same time.
    pub(crate) fn add_beside(&mut self, other: Self) {
        self.measures.add_beside(&other.measures);
        self.share_of_a_core = self.share_of_a_core.max(other.share_of_a_core);
        self.share_without_a_core = self.share_without_a_core.max(other.share_without_a_core);
        self.interrupted |= other.interrupted;
        self.add_counts(other);
    }

    /// Whether nothing was wrong.
    fn is_whole(&self) -> bool {
        self.failures.is_empty() && self.counts.faults().iter().all(|(_, count)| *count == 0)
    }

    fn add_counts(&mut self, other: Self) {
        self.sessions.add(other.sessions);
        add_counts(&mut self.counts, &other.counts);
        for (why, times) in other.failures {
            match self.failures.iter_mut().find(|(known, _)| *known == why) {
                Some((_, known)) => *known += times,
                None => self.failures.push((why, times)),
            }
        }
    }
}

fn add_counts(counts: &mut Counts, other: &Counts) {
    counts.sent += other.sent;
    counts.acknowledged += other.acknowledged;
    counts.in_doubt += other.in_doubt;
    counts.delivered += other.delivered;
    counts.expected_deliveries += other.expected_deliveries;
    counts.lost += other.lost;
    counts.missing += other.missing;
    counts.duplicated += other.duplicated;
    counts.disordered += other.disordered;
    counts.undecryptable += other.undecryptable;
    counts.misattributed += other.misattributed;
    counts.reconnects += other.reconnects;
    for (code, times) in &other.refused {
        *counts.refused.entry(code.clone()).or_default() += times;
    }
}

/// A round that would be shorter is not begun.
const SHORTEST: Duration = Duration::from_secs(1);

/// Runs a plan, in rounds of so many messages. Each is verified whole before the next begins; one with a fault is the
/// last, and its sessions stay.
pub(crate) fn run(plan: &Plan, common: &Common) -> Result<Outcome> {
    let mut total = round(plan, common)?;
    let mut rounds = 1;
    loop {
        let left = common.duration.saturating_sub(Duration::from_secs_f64(total.seconds));
        if !total.is_full || !total.is_whole() || left < SHORTEST || stop::asked() {
            break;
        }
        eprintln!("verified after {:.0} s: {} messages; going on", total.seconds, total.counts.acknowledged);
        let storms = plan.cuts.storms.saturating_sub(total.storms);
        let plan = Plan { cuts: Cuts { storms, ..plan.cuts }, ..plan.clone() };
        total.append(round(&plan, &Common { duration: left, ..common.clone() })?);
        rounds += 1;
    }
    if rounds > 1 {
        total.notes.push(format!("verified in {rounds} rounds, each with sessions of its own"));
    }
    Ok(total)
}

fn round(plan: &Plan, common: &Common) -> Result<Outcome> {
    let limit = machine::raise_connection_limit();
    let wanted = plan.connections();
    ensure!(
        wanted as u64 <= limit,
        "{wanted} connections are more than the {limit} that the limit of open files allows here: \
         raise it (ulimit -n), or lower --connections"
    );
    let endpoints = target::endpoints(common)?;
    setup::knock(&endpoints)?;
    let sampling = Sampling::start(&common.server_pids)?;
    let users = ready_users(plan, common, &endpoints)?;
    let settings = Settings {
        connections: wanted,
        expect_restarts: common.expect_restarts,
        timeout: common.timeout,
        give_up: common.patience,
        payload: common.payload,
        run: format!("{:08x}", rand::random::<u32>()),
    };
    let engine = Engine::new(settings, endpoints)?;
    let notes = vec![format!("{wanted} connections; the limit of open files allows {limit}")];
    let cuts = Cutting::new(plan);
    Run { plan, common, engine, sampling, notes, cuts, is_full: false }.all(&users)
}

/// Of fewer connections the server's memory tells nothing: it is what a process takes and gives back anyway.
const TELLING_CONNECTIONS: usize = 1000;

/// What connections and their sessions cost the servers in memory, by what was there before them.
fn tell_growth(grown: u64, connections: usize) -> String {
    let text = format!(
        "the servers' memory grew by {} from before the first connection until all were there with their sessions",
        bytes(grown)
    );
    if connections < TELLING_CONNECTIONS {
        return text;
    }
    format!("{text}: {} for each", bytes(grown / connections as u64))
}

fn ready_users(plan: &Plan, common: &Common, endpoints: &[Endpoint]) -> Result<Vec<User>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(users::ready(common, endpoints, Keys::Shared, plan.users))
}

/// The connections that a scenario ends itself.
struct Cutting {
    per_second: f64,
    storms: usize,
    done: u64,
    storms_done: usize,
}

impl Cutting {
    fn new(plan: &Plan) -> Self {
        Self { per_second: plan.cuts.per_second, storms: plan.cuts.storms, done: 0, storms_done: 0 }
    }
}

struct Run<'a> {
    plan: &'a Plan,
    common: &'a Common,
    engine: Engine,
    sampling: Sampling,
    notes: Vec<String>,
    cuts: Cutting,
    is_full: bool,
}

impl Run<'_> {
    fn all(mut self, users: &[User]) -> Result<Outcome> {
        self.set_up(users)?;
        self.engine.state.start_speaking(self.plan.pace);
        self.engine.until(self.common.warmup, |_| stop::asked())?;
        let seconds = self.measure()?;
        self.engine.state.stop_speaking();
        self.sampling.look()?;
        self.wait_for_answers()?;
        let patience = || if stop::asked() { IMPATIENCE } else { self.common.patience };
        let ends = audit::histories(&mut self.engine, self.plan, self.common.payload, patience)?;
        self.wait_for_deliveries(&ends)?;
        let outcome = self.conclude(seconds, &ends);
        Ok(outcome)
    }

    fn set_up(&mut self, users: &[User]) -> Result<()> {
        let (began, cpu) = (self.engine.state.clock.now(), self.sampling.server_cpu_now());
        let memory = self.sampling.memory();
        setup::connect(&mut self.engine, users, self.plan.devices)?;
        let took = self.engine.state.clock.now() - began;
        let cpu = self.sampling.server_cpu_now() - cpu;
        setup::clear_away(&mut self.engine, self.plan)?;
        setup::make_sessions(&mut self.engine, self.plan, users)?;
        setup::resume(&mut self.engine)?;
        let cpu = if cpu > 0.0 { format!(", for {cpu:.2} s of the servers' processor time") } else { String::new() };
        self.notes.push(format!("connected and authenticated in {:.2} s{cpu}", took as f64 / 1e6));
        if let (Some(before), Some(after)) = (memory, self.sampling.memory()) {
            self.notes.push(tell_growth(after.saturating_sub(before), self.plan.connections()));
        }
        Ok(())
    }

    /// Measures for as long as was asked for; tells how long that was.
    fn measure(&mut self) -> Result<f64> {
        self.engine.state.measures.begin(self.engine.state.clock.now());
        self.sampling.begin()?;
        let began = self.engine.state.clock.now();
        let mut live = (!self.common.quiet).then(|| Live::timed("measuring", self.common.duration));
        let mut second = 0;
        loop {
            let now = self.engine.state.clock.now() - began;
            let over =
                now >= self.common.duration.as_micros() as u64 || stop::asked() || self.engine.state.is_hopeless();
            if now >= (second + 1) * 1_000_000 {
                second += 1;
                // At the end of a second, so that the timeline has all of it.
                self.is_full = !over && self.engine.state.tally.sent >= self.common.verify_every;
                let moment = self.moment();
                if let Some(live) = &mut live {
                    live.at(Duration::from_micros(now), &moment);
                }
                self.sampling.look()?;
            }
            if over || self.is_full {
                live.into_iter().for_each(Live::finish);
                return Ok(now as f64 / 1e6);
            }
            self.cut(now)?;
            self.engine.step()?;
        }
    }

    /// A second is over: what happened in it.
    fn moment(&mut self) -> Moment {
        let state = &mut self.engine.state;
        let second = state.measures.next_second();
        Moment::of(&second, state.ledger.faults().total() + state.tally.errors())
    }

    /// Ends the connections that are to be ended by now.
    fn cut(&mut self, now: u64) -> Result<()> {
        let due = (now as f64 / 1e6 * self.cuts.per_second) as u64;
        let all = self.plan.connections();
        while self.cuts.done < due {
            // A stride that meets all of them, whatever their number.
            let who = (self.cuts.done * 7919 % all as u64) as usize;
            let politely = self.cuts.done.is_multiple_of(2);
            self.cuts.done += 1;
            if self.engine.state.phase(who) == Phase::Live {
                self.engine.cut(who, politely)?;
            }
        }
        let part = self.common.duration.as_micros() as u64 / (self.cuts.storms as u64 + 1);
        if self.cuts.storms_done < self.cuts.storms && now >= part * (self.cuts.storms_done as u64 + 1) {
            self.cuts.storms_done += 1;
            self.storm()?;
        }
        Ok(())
    }

    /// Cuts all connections at once, and waits until they are back.
    fn storm(&mut self) -> Result<()> {
        let (began, cpu) = (self.engine.state.clock.now(), self.sampling.server_cpu_now());
        let all = self.plan.connections();
        for who in 0..all {
            if self.engine.state.phase(who) == Phase::Live {
                self.engine.cut(who, false)?;
            }
        }
        let over = self.engine.until(self.common.patience, |state| {
            state.in_phase(Phase::Live) == all || stop::asked() || state.is_hopeless()
        })?;
        let took = (self.engine.state.clock.now() - began) as f64 / 1e6;
        if over && self.engine.state.in_phase(Phase::Live) == all {
            let cpu = self.sampling.server_cpu_now() - cpu;
            let cpu =
                if cpu > 0.0 { format!(", for {cpu:.2} s of the servers' processor time") } else { String::new() };
            self.notes.push(format!("all {all} connections were cut at once and had resumed {took:.2} s later{cpu}"));
        } else {
            self.engine.state.fail("not all connections came back after they were cut");
        }
        Ok(())
    }

    /// How long nothing may come before what is still owed counts as lost.
    fn silence(&self) -> Duration {
        match (stop::asked(), self.common.expect_restarts) {
            (true, _) => IMPATIENCE,
            (false, true) => self.common.patience,
            (false, false) => SILENCE.min(self.common.patience),
        }
    }

    /// Waits until everything that was said has an answer.
    fn wait_for_answers(&mut self) -> Result<()> {
        self.wait(|state| state.open() == 0, |state| state.tally.acknowledged + state.tally.delivered)
    }

    /// Waits until everybody has everything that the histories have.
    fn wait_for_deliveries(&mut self, ends: &[Option<audit::End>]) -> Result<()> {
        self.wait(
            |state| {
                state.seats().all(|(_, session, delivered)| {
                    ends[session as usize].is_none_or(|end| delivered.last() >= end.head)
                })
            },
            |state| state.tally.delivered,
        )
    }

    /// Waits while there is progress.
    fn wait(
        &mut self,
        done: impl Fn(&crate::engine::State) -> bool,
        progress: impl Fn(&crate::engine::State) -> u64,
    ) -> Result<()> {
        let mut before = progress(&self.engine.state);
        loop {
            let silence = self.silence();
            let mut looked = 0;
            let over = self.engine.until(silence, |state| {
                // Looking at everybody is not for each turn.
                let look = state.now() >= looked + 50_000;
                if look {
                    looked = state.now();
                }
                look && (done(state) || progress(state) != before)
            })?;
            let now = progress(&self.engine.state);
            if done(&self.engine.state) || !over || now == before || self.engine.state.is_hopeless() {
                return Ok(());
            }
            before = now;
        }
    }

    fn conclude(mut self, seconds: f64, ends: &[Option<audit::End>]) -> Outcome {
        let state = &mut self.engine.state;
        let (mut expected, mut absent, mut faults) = (0, 0, Vec::new());
        for (who, session, delivered) in state.seats() {
            let here = state.phase(who) == Phase::Live;
            absent += u64::from(!here);
            match ends[session as usize] {
                Some(end) if here => {
                    expected += end.messages;
                    faults.push(delivered.faults(end.head));
                }
                // What it was given was checked; what it was not given, it could not take, or nobody knows.
                Some(_) | None => {
                    expected += delivered.count();
                    faults.push(delivered.faults(delivered.last()));
                }
            }
        }
        faults.into_iter().for_each(|faults| state.ledger.add(faults));
        if absent > 0 {
            state.fail("at the end a member was not connected and could not be given the rest");
        }
        let unread = ends.iter().filter(|end| end.is_none()).count();
        if unread > 0 {
            self.notes.push(format!("the histories of {unread} sessions were not read, and not compared"));
        }
        state.measures.add_up();
        let now = state.clock.now();
        let services = (0..).zip(state.ledger.services(now));
        let sessions = Waits::new(services.map(|(session, service)| (state.session_id(session).to_owned(), service)));
        let faults = state.ledger.faults();
        let counts = state.tally.counts(faults, state.open(), expected, self.common.expect_restarts);
        if counts.in_doubt > 0 && !stop::asked() {
            state.fail("messages had no answer when the run ended");
        }
        let failures: Vec<(String, u64)> = std::mem::take(&mut state.tally.failures).into_iter().collect();
        let whole = failures.is_empty() && counts.faults().iter().all(|(_, count)| *count == 0);
        let measures = std::mem::replace(&mut state.measures, Measures::new());
        self.notes.push(sessions.tell());
        if state.nodes().len() > 1 {
            self.notes.push(format!("connections were on {} nodes", state.nodes().len()));
        }
        // What failed stays, to be looked at.
        if whole
            && !stop::asked()
            && let Err(error) = setup::delete_sessions(&mut self.engine, self.plan)
        {
            self.notes.push(format!("the run's sessions were not deleted: {error:#}"));
        }
        Outcome {
            counts,
            measures,
            servers: self.sampling.servers(),
            share_of_a_core: self.sampling.share_of_a_core(),
            share_without_a_core: self.sampling.share_without_a_core(),
            seconds,
            sessions,
            failures,
            notes: self.notes,
            interrupted: stop::asked(),
            storms: self.cuts.storms_done,
            is_full: self.is_full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_for_each_connection_only_where_there_are_enough() {
        let few = tell_growth(90 << 20, 20);
        assert!(few.contains("grew by 90 MiB") && !few.contains("each"), "{few}");
        assert!(tell_growth(20_480_000, 1000).ends_with(": 20 KiB for each"));
    }
}
