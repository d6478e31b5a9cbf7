//! Plays every flow of the wire contract against a running node, says what happens, and checks each step.
//!
//! `cargo run --example walkthrough -- --server http://127.0.0.1:8080`. Exits with 1 at the first deviation. With
//! `--secrets-out FILE` it writes down every secret that it used, so that a test can search the server's files for
//! them. It leaves accounts with names of their own behind, and no session.

mod accounts;
mod devices;
mod farewell;
mod moderation;
mod person;
mod rooms;
mod secrets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use conclave::client::ServerAddress;

use person::Person;
use secrets::Secrets;

/// Plays each flow of the contract against a running node.
#[derive(Debug, Parser)]
struct Arguments {
    /// The node.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: ServerAddress,
    /// Where to write the secrets that were used: one a line, `kind`, a tab, the secret.
    #[arg(long)]
    secrets_out: Option<PathBuf>,
}

/// The people of the story.
struct Cast {
    alice: Person,
    bob: Person,
    carol: Person,
    dave: Person,
    erin: Person,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let secrets = Secrets::default();
    let outcome = play(&arguments.server, &secrets).await;
    if let Some(path) = &arguments.secrets_out
        && let Err(error) = secrets.write(path)
    {
        eprintln!("the secrets could not be written: {error}");
        return ExitCode::FAILURE;
    }
    match outcome {
        Ok(()) => {
            println!("\nEverything went as the contract says.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nDEVIATION: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn play(server: &ServerAddress, secrets: &Secrets) -> anyhow::Result<()> {
    let mut cast = accounts::register(server, secrets).await?;
    let table = rooms::encrypted_session(&mut cast, secrets).await?;
    rooms::join_requests(&mut cast, table, secrets).await?;
    rooms::rotations(&mut cast, table, secrets).await?;
    devices::lost_key(&mut cast, table, secrets).await?;
    cast = devices::offline_member(cast, table, secrets).await?;
    devices::second_device(&mut cast, table, secrets).await?;
    devices::catch_up(&mut cast, table).await?;
    moderation::recall(&mut cast, table, secrets).await?;
    moderation::roles_and_mutes(&mut cast, table, secrets).await?;
    moderation::bans(&mut cast, table, secrets).await?;
    moderation::encryption_switched(&mut cast, table, secrets).await?;
    moderation::repeats(&mut cast, table).await?;
    moderation::small_things(&mut cast, table).await?;
    devices::new_key_pair(&mut cast, table, secrets).await?;
    farewell::endings(cast, table, secrets).await
}

/// A heading.
fn chapter(text: &str) {
    println!("\n{text}");
}

/// A step that went well.
fn step(text: &str) {
    println!("  ok  {text}");
}
