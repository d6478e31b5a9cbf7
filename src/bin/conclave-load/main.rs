//! `conclave-load`: measures a server under load, verifies what it delivers, and shows what it found.

mod report;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures a Conclave server under load and verifies what it delivers.
#[derive(Debug, Parser)]
#[command(name = "conclave-load", version)]
enum Arguments {
    /// Show a report that was written with --json: its table, or its page with --html.
    Render {
        report: PathBuf,
        /// Make the page, in this file.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
    },
    /// Tell what got better and worse from one report to another, and whether it is more than noise.
    Compare {
        a: PathBuf,
        b: PathBuf,
        /// Also if they asked for different things.
        #[arg(long)]
        force: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse() {
        Arguments::Render { report, html } => report::render(&report, html.as_deref()).and_then(|text| say(&text)),
        Arguments::Compare { a, b, force } => report::compare(&a, &b, force).and_then(|text| say(&text)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conclave-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// A closed pipe is an error and no panic.
fn say(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}
