//! Measures a node: what it delivers per second of its own processor time, what an idle connection costs, how many
//! durable messages it acknowledges, and what a SIGKILL in the middle leaves behind.
//!
//! `cargo bench --bench measure` runs everything against the node that was built with it; `-- fanout` one scenario,
//! `-- --server-bin PATH ..` another build, `-- --url ADDR --pid PID ..` a node that runs already.
//!
//! Speed is printed and never judged: a slow day fails nothing. Loss is: the exit code is 1 if an acknowledged message
//! is not stored, or one was delivered twice, out of order, or not at all.

mod accounts;
mod bare;
mod crowd;
mod direct;
mod fanout;
mod idle;
mod kill;
mod machine;
mod node;
mod room;
mod speaker;
mod tally;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::node::Target;
use crate::tally::Faults;

/// Measures a node, and checks what it delivers.
#[derive(Parser)]
struct Arguments {
    /// The node's program; without it, the one that was built with this.
    #[arg(long, global = true, default_value = env!("CARGO_BIN_EXE_conclave"))]
    server_bin: PathBuf,
    /// A node that runs already, instead of one started for each scenario.
    #[arg(long, global = true, requires = "pid")]
    url: Option<SocketAddr>,
    /// The process of that node.
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Shows what the node logs.
    #[arg(long, global = true)]
    log: bool,
    /// What `cargo bench` adds.
    #[arg(long, global = true, hide = true)]
    bench: bool,
    #[command(subcommand)]
    scenario: Option<Scenario>,
}

#[derive(Subcommand)]
enum Scenario {
    /// A bare loop that writes a ready frame to each recipient: the yardstick of `fanout`.
    Bare(bare::Options),
    /// One speaker, many connected members; node and client on a core each.
    Fanout(fanout::Options),
    /// The memory of connections that do nothing.
    Idle(idle::Options),
    /// Pairs that speak as fast as they are acknowledged.
    Direct(direct::Options),
    /// SIGKILL while ten members speak, and what is left.
    Kill9(kill::Options),
    /// The process that `bare` measures.
    #[command(hide = true)]
    BareWriter(bare::WriterOptions),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    machine::raise_file_limit();
    let target = match (arguments.url, arguments.pid) {
        (Some(address), Some(pid)) => Target::Running { address, pid },
        (_, _) => Target::Program { path: arguments.server_bin, log: arguments.log },
    };
    let faults = match &arguments.scenario {
        Some(scenario) => scenario.run(&target)?,
        None => run_all(&target)?,
    };
    println!("{faults}");
    Ok(if faults.any() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

impl Scenario {
    fn run(&self, target: &Target) -> Result<Faults> {
        match self {
            Self::Bare(options) => bare::run(options).map(|_| Faults::default()),
            Self::Fanout(options) => fanout::run(options, target),
            Self::Idle(options) => idle::run(options, target),
            Self::Direct(options) => direct::run(options, target),
            Self::Kill9(options) => kill::run(options, target),
            Self::BareWriter(options) => bare::write(options).map(|()| Faults::default()),
        }
    }
}

/// Each scenario with its defaults, one after the other.
fn run_all(target: &Target) -> Result<Faults> {
    let mut all = Faults::default();
    for name in ["fanout", "idle", "direct", "kill9"] {
        let Arguments { scenario, .. } = Arguments::parse_from(["measure", name]);
        if let Some(scenario) = scenario {
            all += scenario.run(target)?;
        }
        println!();
    }
    Ok(all)
}
