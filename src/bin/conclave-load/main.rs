//! `conclave-load`: measures a server under load, verifies what it delivers, and shows what it found.

mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Measures a Conclave server under load and verifies what it delivers.
#[derive(Debug, Parser)]
#[command(name = "conclave-load", version)]
enum Arguments {
    /// Make the page of a report that was written with --json.
    Render {
        report: PathBuf,
        /// Where the page goes.
        #[arg(long, value_name = "FILE")]
        html: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse() {
        Arguments::Render { report, html } => report::render(&report, &html),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conclave-load: {error:#}");
            ExitCode::from(2)
        }
    }
}
