//! `conclave-chat`: a terminal client for people, on the reference client of the library.
//!
//! With a terminal it edits lines and prints what comes in above them; with a pipe it reads commands line by line.

mod arguments;
mod chat;
mod command;
mod input;
mod screen;
mod sign_in;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;
use screen::Screen;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("conclave-chat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (mut screen, input) = Screen::open(arguments.no_color)?;
    let (config, profile) = sign_in::sign_in(&arguments, &mut screen).await?;
    chat::run(config, profile, &arguments.name, screen, input).await
}
