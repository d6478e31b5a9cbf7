//! What the program around the server says, hears and takes: its greeting, the signals that end it, open files,
//! `check-config`, `admin`.

use std::fmt::Write;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::{Server, StartError, bus, store, tls};
use crate::admin::{self, AdminError};
use crate::config::{Config, Secret};

impl Server {
    /// What a person who has just started a node wants to know. The first line is for programs too.
    pub fn greeting(&self) -> String {
        let url = self.url();
        let operations = self.operations_addr().map_or_else(
            || format!("health and metrics are at {url}/readyz and {url}/metrics"),
            |address| format!("health and metrics are at http://{address}/readyz and http://{address}/metrics"),
        );
        format!(
            "listening on {url}\n\
             everything is stored in {}\n\
             {operations}\n\
             to try it, open a chat: cargo run --bin conclave-chat -- --server {url} --name ann\n\
             to stop it, press ctrl-c: nothing that was acknowledged is lost",
            self.place(),
        )
    }
}

/// Resolves at SIGTERM or SIGINT.
///
/// # Errors
/// If the process cannot listen to signals.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Takes as many open files as this process may have: each connection is one, and the soft limit that systems start
/// programs with is for those that use `select`.
pub fn take_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of open files stays what it is");
    }
}

/// What a configuration amounts to, as a file that would say the same.
///
/// # Errors
/// If the files that it names cannot be used.
pub fn check_config(config: &Config) -> Result<String, StartError> {
    tls::load(&config.http_tls)?;
    bus::options(config)?;
    let defaults = Config::fields();
    let mut report = String::from("# the configuration is sound; marked settings differ from their defaults\n");
    let fields = config.in_force();
    for (section, _) in Config::sections() {
        let _ = writeln!(report, "\n[{section}]");
        for (field, default) in fields.iter().zip(&defaults) {
            let Some((_, name)) = field.key.rsplit_once('.').filter(|(of, _)| *of == section) else { continue };
            let mark =
                if field.value == default.value { String::new() } else { format!("  # default: {}", default.value) };
            let _ = match field.value.as_str() {
                "none" => writeln!(report, "# {name} is not set{mark}"),
                Secret::HIDDEN => writeln!(report, "# {name} is set, and a secret"),
                value => writeln!(report, "{name} = {value}{mark}"),
            };
        }
    }
    Ok(report)
}

/// Why an operator's command was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdministerError {
    /// The store cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// What was asked cannot be done.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Does an operator's command on the configured store; what to print.
///
/// # Errors
/// If the store cannot be opened, or the command not be done.
pub async fn administer(config: &Config, arguments: &admin::Arguments) -> Result<String, AdministerError> {
    let store = store::open_store(config).await?;
    let report = admin::run(&*store, &arguments.command).await;
    store.close().await;
    let report = report?;
    Ok(if arguments.json { report.json() } else { report.text() })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::Sources;

    #[test]
    fn what_check_config_prints_says_the_same_again() {
        let mut config = Config::default();
        config.limits.page = 7;
        config.http.allowed_origins = vec!["https://chat.example.org".to_owned()];
        config.http.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        config.store.data_dir = "a \"quoted\" dir".into();
        let report = check_config(&config).unwrap();
        assert!(report.contains("page = 7  # default: 1000"));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(report.as_bytes()).unwrap();
        let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
        assert_eq!(Config::load(&sources), Ok(config));
    }

    #[test]
    fn a_secret_is_nowhere_in_what_is_printed() {
        let variables = [("STORE__KIND", "postgres"), ("STORE__POSTGRES__URL", "postgres://me:hunter2@host/db")];
        let environment = variables.map(|(name, value)| (format!("CONCLAVE__{name}"), value.to_owned())).into();
        let config = Config::load(&Sources { environment, ..Sources::default() }).unwrap();
        assert_eq!(config.store_postgres.url.as_ref().unwrap().expose(), "postgres://me:hunter2@host/db");
        let report = check_config(&config).unwrap();
        assert!(report.contains("kind = \"postgres\"  # default: \"sqlite\"\n"), "{report}");
        assert!(report.contains("# url is set, and a secret\n"), "{report}");
        assert!(!format!("{report} {config:?} {:?}", config.in_force()).contains("hunter2"));
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_said_to_be_so() {
        let mut config = Config::default();
        config.http_tls.cert = Some("/no/such/chain.pem".into());
        config.http_tls.key = Some("/no/such/key.pem".into());
        assert!(check_config(&config).unwrap_err().to_string().starts_with("http.tls.cert: "));
    }
}
