//! The server: arguments, configuration, run, exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use actix_web::rt::System;
use clap::{Parser, Subcommand};
use conclave::config::{Config, Sources};
use conclave::server::{Server, administer, check_config, stop_signal, take_open_files};
use conclave::{admin, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A chat server whose group sessions are end-to-end encrypted.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes any free one [default: 127.0.0.1:8080]
    #[arg(long, global = true, value_name = "ADDR")]
    listen: Option<String>,
    /// Where to store [default: data]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// Settings in TOML; each can be set in the environment too, as CONCLAVE__SECTION__KEY
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How log lines look: pretty or json
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints what the configuration amounts to, and what is wrong in it
    CheckConfig,
    /// Shows the nodes, sessions and accounts of the cluster whose store is configured, and changes some things
    Admin(admin::Arguments),
}

fn main() -> ExitCode {
    run(Arguments::parse()).map_or_else(
        |error| {
            eprintln!("conclave: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run(Arguments { listen, data_dir, config, log_format, command }: Arguments) -> anyhow::Result<()> {
    let flags = [("http.listen", listen), ("store.data_dir", data_dir), ("telemetry.log_format", log_format)];
    let flags = flags.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    let config = Config::load(&Sources::of_process(config, flags))?;
    match command {
        Some(Command::CheckConfig) => print!("{}", check_config(&config)?),
        Some(Command::Admin(arguments)) => print!("{}", System::new().block_on(administer(&config, &arguments))?),
        None => System::new().block_on(serve(config))?,
    }
    Ok(())
}

async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::init_logs(&config.telemetry)?;
    take_open_files();
    // Before anybody knows that it is there, so that no signal ends it unheard.
    let stop = stop_signal()?;
    let server = Server::build(config).await?;
    println!("{}", server.greeting());
    server.run_until(stop).await.map_err(Into::into)
}
