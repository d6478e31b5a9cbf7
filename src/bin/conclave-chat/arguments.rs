//! The command line.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use conclave::client::{ServerAddress, Servers, tls_trusting};
use rustls::ClientConfig;

/// Chat on a Conclave server from a terminal, end-to-end encrypted.
///
/// The first use registers the name, or logs in, and makes a key pair that is kept in a file encrypted with a
/// passphrase. Without a terminal, the environment variables CONCLAVE_CHAT_PASSWORD and CONCLAVE_CHAT_PASSPHRASE take
/// the place of the questions, and commands are read from standard input.
#[derive(Debug, Parser)]
#[command(name = "conclave-chat", version)]
pub(crate) struct Arguments {
    /// The server. Given again: more addresses of it, which are tried in turn when one does not serve. Keys are kept under
    /// the first one: name the same one first each time.
    #[arg(long = "server", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: Vec<ServerAddress>,
    /// The account's name.
    #[arg(long)]
    pub(crate) name: String,
    /// Where keys are kept [default: the user's data directory].
    #[arg(long)]
    pub(crate) home: Option<PathBuf>,
    /// A PEM file of certificates to believe instead of the public authorities.
    #[arg(long)]
    pub(crate) trust: Option<PathBuf>,
    /// Where the account has another key pair already (of a device that is gone): replace it by this device's.
    #[arg(long)]
    pub(crate) replace_key: bool,
    /// Bits of a new RSA key pair.
    #[arg(long, default_value_t = conclave::client::identity::DEFAULT_BITS)]
    pub(crate) key_bits: usize,
    /// No colours, also on a terminal.
    #[arg(long)]
    pub(crate) no_color: bool,
}

impl Arguments {
    /// The first address: what the server is called.
    pub(crate) fn server(&self) -> anyhow::Result<&ServerAddress> {
        self.server.first().context("--server is missing")
    }

    /// All addresses.
    pub(crate) fn servers(&self) -> anyhow::Result<Servers> {
        Ok(Servers::new(self.server()?.clone(), self.server[1..].iter().cloned())?)
    }

    /// Where this account's keys are.
    pub(crate) fn profile_dir(&self) -> anyhow::Result<PathBuf> {
        let home = match &self.home {
            Some(home) => home.clone(),
            None => data_home().context("no home directory: say with --home where keys are to be kept")?,
        };
        let server = self.server()?.authority().replace([':', '[', ']'], "_");
        // Names come from the command line: no path may be made of one.
        anyhow::ensure!(
            self.name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !self.name.starts_with('.'),
            "names are made of a-z, 0-9, '.', '_' and '-'"
        );
        Ok(home.join(server).join(&self.name))
    }

    /// Whose certificates to believe; `None`: the public authorities.
    pub(crate) fn tls(&self) -> anyhow::Result<Option<Arc<ClientConfig>>> {
        self.trust.as_deref().map(|path| tls_trusting(path).context("--trust")).transpose()
    }
}

fn data_home() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = from("XDG_DATA_HOME").or_else(|| from("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("conclave-chat"))
}
