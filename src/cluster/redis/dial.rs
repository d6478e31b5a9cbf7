//! Connections to Redis: how they are made, and what is wrong when they are not.
//!
//! Texts name servers and settings, and never a user's password: the URL is a secret.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion,
    RedisError, ServerError, ServerErrorKind, TlsCertificates,
};

/// Why Redis is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisTrouble {
    /// The URL cannot be read.
    #[error("cluster.redis.url: expected redis:// or rediss://, with USER:PASSWORD@ if Redis asks for it, and a host")]
    Url,
    /// The certificate authority's file cannot be read.
    #[error("cluster.redis.ca: {0}")]
    Ca(String),
    /// Nobody answers there, or not in time.
    #[error("no answer from Redis at {at}: {why}")]
    Away {
        /// Host and port.
        at: String,
        /// What the system says.
        why: String,
    },
    /// Its certificate is not to be trusted.
    #[error(
        "the certificate of Redis at {at} is not trusted: {why}; cluster.redis.ca names the authority that signs it"
    )]
    Certificate {
        /// Host and port.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// The user or the password is wrong, or there is none in the URL.
    #[error("Redis at {0} refuses the user or the password in cluster.redis.url")]
    Credentials(String),
    /// The user has too few rights.
    #[error("Redis at {at} does not let its user do this: {why}; it needs {needs}")]
    Rights {
        /// Host and port.
        at: String,
        /// What Redis says.
        why: String,
        /// The rights, as an ACL rule.
        needs: String,
    },
    /// Sharding is configured, and this is no cluster, or the other way round.
    #[error("Redis at {0} is no Redis Cluster: set cluster.redis.sharded = false, or name a node of one")]
    NoCluster(String),
    /// It is too old.
    #[error("Redis at {0} is too old: version 7.0 or later is needed")]
    Old(String),
    /// It answers with an error.
    #[error("Redis at {at} answers with an error: {why}")]
    Error {
        /// Host and port.
        at: String,
        /// What Redis says.
        why: String,
    },
}

impl RedisTrouble {
    /// Whether trying again is in vain as long as nobody changes a setting.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Url
            | Self::Ca(_)
            | Self::Certificate { .. }
            | Self::Credentials(_)
            | Self::Rights { .. }
            | Self::NoCluster(_)
            | Self::Old(_) => true,
            Self::Away { .. } | Self::Error { .. } => false,
        }
    }
}

/// A server of Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Makes connections, all with the same user and the same TLS.
pub(super) struct Dialer {
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    /// For connecting, and for each answer.
    patience: Duration,
    /// What the user has to be allowed to do.
    needs: String,
}

impl Dialer {
    pub(super) fn new(url: &str, ca: Option<Vec<u8>>, patience: Duration, needs: String) -> Result<Self, RedisTrouble> {
        let info = url.into_connection_info().map_err(|_| RedisTrouble::Url)?;
        let settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name("conclave", env!("CARGO_PKG_VERSION"));
        let certificates = match info.addr() {
            ConnectionAddr::TcpTls { .. } => Some(TlsCertificates { client_tls: None, root_cert: ca }),
            ConnectionAddr::Tcp(..) => None,
            _ => return Err(RedisTrouble::Url),
        };
        let this = Self { info: info.set_redis_settings(settings), certificates, patience, needs };
        this.client(&this.seed()).map_err(|error| RedisTrouble::Ca(error.to_string()))?;
        Ok(this)
    }

    /// The server that the URL names.
    pub(super) fn seed(&self) -> Address {
        let (host, port) = match self.info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port),
            _ => unreachable!("other kinds are refused in `new`"),
        };
        Address { host, port }
    }

    fn client(&self, at: &Address) -> redis::RedisResult<Client> {
        let Address { host, port } = at.clone();
        match &self.certificates {
            None => Client::open(self.info.clone().set_addr(ConnectionAddr::Tcp(host, port))),
            Some(certificates) => {
                let addr = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                Client::build_with_tls(self.info.clone().set_addr(addr), certificates.clone())
            }
        }
    }

    /// Connects and signs in. `push` takes what Redis says unasked.
    pub(super) async fn connect(
        &self,
        at: &Address,
        push: Option<impl AsyncPushSender>,
    ) -> Result<MultiplexedConnection, RedisTrouble> {
        let patience = Some(self.patience);
        let mut config = AsyncConnectionConfig::new().set_connection_timeout(patience).set_response_timeout(patience);
        if let Some(push) = push {
            config = config.set_push_sender(push);
        }
        let client = self.client(at).map_err(|error| self.trouble(at, &error))?;
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| self.trouble(at, &error))
    }

    /// What an error of the connection means.
    pub(super) fn trouble(&self, at: &Address, error: &RedisError) -> RedisTrouble {
        match error.kind() {
            ErrorKind::AuthenticationFailed => RedisTrouble::Credentials(at.to_string()),
            ErrorKind::RESP3NotSupported => RedisTrouble::Old(at.to_string()),
            ErrorKind::Io | ErrorKind::Parse => {
                let (at, why) = (at.to_string(), error.to_string());
                if is_untrusted(error) { RedisTrouble::Certificate { at, why } } else { RedisTrouble::Away { at, why } }
            }
            _ => self.code(at, error.code(), error.detail().unwrap_or("no details")),
        }
    }

    /// What an error that Redis answered with means.
    pub(super) fn refusal(&self, at: &Address, error: &ServerError) -> RedisTrouble {
        match error.kind() {
            Some(ServerErrorKind::NoPerm) => self.code(at, Some("NOPERM"), error.details().unwrap_or("no details")),
            _ => self.code(at, Some(error.code()), error.details().unwrap_or("no details")),
        }
    }

    fn code(&self, at: &Address, code: Option<&str>, details: &str) -> RedisTrouble {
        let at = at.to_string();
        match code.unwrap_or_default() {
            "WRONGPASS" | "NOAUTH" => RedisTrouble::Credentials(at),
            "NOPERM" => RedisTrouble::Rights { at, why: details.to_owned(), needs: self.needs.clone() },
            "NOPROTO" => RedisTrouble::Old(at),
            "ERR" if details.contains("cluster support disabled") => RedisTrouble::NoCluster(at),
            "ERR" if details.contains("unknown command") => RedisTrouble::Old(at),
            code => RedisTrouble::Error { at, why: format!("{code} {details}") },
        }
    }
}

/// Whether it is the server's certificate that ended the connection.
fn is_untrusted(error: &RedisError) -> bool {
    let shared = error.source().and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let io = shared.and_then(|shared| shared.downcast_ref::<std::io::Error>());
    let tls = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

/// Growing pauses between attempts, each by chance shorter, so that nodes do not come back all at once.
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(25);
    const LONGEST: Duration = Duration::from_secs(1);

    pub(super) const fn new() -> Self {
        Self { next: Self::FIRST }
    }

    pub(super) fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::random_range(0.5..1.0));
        self.next = (self.next * 2).min(Self::LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer(url: &str) -> Result<Dialer, RedisTrouble> {
        Dialer::new(url, None, Duration::from_secs(1), "+publish".to_owned())
    }

    #[test]
    fn urls_name_a_server_and_show_no_password() {
        let dialer = dialer("redis://someone:sesame@example.org:7000").ok().unwrap();
        assert_eq!(dialer.seed().to_string(), "example.org:7000");
        for url in ["", "http://example.org", "redis+unix:///tmp/sock", "redis://some one:sesame@", "sesame"] {
            let trouble = self::dialer(url).err().unwrap();
            assert_eq!(trouble, RedisTrouble::Url, "{url}");
            assert!(!trouble.to_string().contains("sesame"));
        }
    }

    #[test]
    fn pauses_grow_and_stay_bounded() {
        let mut backoff = Backoff::new();
        let pauses: Vec<Duration> = (0..20).map(|_| backoff.pause()).collect();
        assert!(pauses[0] < Duration::from_millis(25));
        assert!(pauses[19] >= Duration::from_millis(500) && pauses[19] <= Duration::from_secs(1));
    }

    #[test]
    fn only_settings_are_final() {
        let away = RedisTrouble::Away { at: String::new(), why: String::new() };
        assert!(!away.is_final());
        assert!(RedisTrouble::Credentials(String::new()).is_final());
    }
}
