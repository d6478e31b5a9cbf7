//! `conclave-load`: puts a server under load, measures it, and verifies what it delivers.
//!
//! ```text
//! arguments, plan        what is asked for
//! target, machine        where the nodes are; what this machine allows
//! users, setup, persist  users, connections and sessions to speak with
//! crowd, socket, wire    thousands of WebSockets on one thread
//! engine/                what is said and heard on them
//! verify/                PURE: what was promised, checked
//! measures, sampling     figures as they come in
//! waits                  how long each session waited
//! audit                  the server's history, read at the end
//! run                    one run, from its set-up to its outcome
//! rotation/              end-to-end encryption, on the library's clients
//! soak                   rounds of all of it
//! yardstick              a bare loop to compare with
//! report/                the outcome, told
//! ```

mod arguments;
mod audit;
mod crowd;
mod engine;
mod machine;
mod measures;
mod outcome;
mod persist;
mod plan;
mod report;
mod rotation;
mod run;
mod sampling;
mod setup;
mod soak;
mod socket;
mod stop;
mod tally;
mod target;
mod users;
mod verify;
mod waits;
mod wire;
mod yardstick;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::arguments::{Arguments, Command, Common};
use crate::plan::Plan;
use crate::report::model::Setting;
use crate::run::Outcome;

fn main() -> ExitCode {
    match go(&Arguments::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("conclave-load: {error:#}");
            if stop::asked() { ExitCode::from(stop::INTERRUPTED) } else { ExitCode::from(2) }
        }
    }
}

fn go(command: &Command) -> Result<ExitCode> {
    let (plan, common) = match command {
        Command::Fanout(options) => (Plan::fanout(options)?, &options.common),
        Command::Rooms(options) => (Plan::rooms(options)?, &options.common),
        Command::Direct(options) => (Plan::direct(options)?, &options.common),
        Command::Churn(options) => (Plan::churn(options)?, &options.common),
        Command::Rotation(options) => {
            options.check()?;
            return measured("rotation", options.settings(), &options.common, || rotation::run(options));
        }
        Command::Soak(options) => {
            let settings = soak::settings(options)?;
            return measured("soak", settings, &options.common, || soak::run(options));
        }
        Command::Yardstick(options) => {
            stop::listen()?;
            return say(&yardstick::run(options)?);
        }
        Command::BareWriter(options) => return yardstick::write(options).map(|()| ExitCode::SUCCESS),
        Command::Render { report, html, svg } => {
            return say(&report::render(report, html.as_deref(), svg.as_deref())?);
        }
        Command::Compare { a, b, force } => return say(&report::compare(a, b, *force)?),
    };
    measured(plan.scenario, plan.settings.clone(), common, || run::run(&plan, common))
}

/// Runs a scenario, and tells what it found.
fn measured(
    scenario: &str,
    settings: Vec<Setting>,
    common: &Common,
    run: impl FnOnce() -> Result<Outcome>,
) -> Result<ExitCode> {
    stop::listen()?;
    outcome::check_places(common)?;
    let started_at = jiff::Timestamp::now();
    outcome::tell(run()?, scenario, settings, common, started_at)
}

/// A closed pipe is an error and no panic.
fn say(text: &str) -> Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
