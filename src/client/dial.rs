//! TCP, and TLS on it where the address says so: the one place where the client opens a socket.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::MaybeTlsStream;

use super::{ClientError, ServerAddress};

/// A byte stream to a server.
pub(super) type Stream = MaybeTlsStream<TcpStream>;

/// Whom the client believes: the usual public authorities.
static PUBLIC_AUTHORITIES: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    tls_config(roots)
});

/// TLS towards servers whose certificates the usual public authorities vouch for.
pub fn tls_public() -> Arc<ClientConfig> {
    Arc::clone(&PUBLIC_AUTHORITIES)
}

/// TLS towards servers whose certificates those in a PEM file vouch for.
///
/// # Errors
/// [`ClientError::Trust`] where there is no such file, or no certificate in it.
pub fn tls_trusting(pem: &Path) -> Result<Arc<ClientConfig>, ClientError> {
    let unusable = |why: &dyn std::fmt::Display| ClientError::Trust(format!("{}: {why}", pem.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(pem).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
    }
    if roots.is_empty() { Err(unusable(&"there is no certificate in it")) } else { Ok(tls_config(roots)) }
}

/// TLS towards servers whose certificates `roots` vouch for.
pub fn tls_config(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// Connects. `tls` replaces the public authorities, for servers with a certificate of their own making.
pub(super) async fn dial(server: &ServerAddress, tls: Option<&Arc<ClientConfig>>) -> Result<Stream, ClientError> {
    let failed = |error: std::io::Error| ClientError::Connect(error.to_string());
    let socket = TcpStream::connect((server.host.as_str(), server.port)).await.map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    if !server.tls {
        return Ok(MaybeTlsStream::Plain(socket));
    }
    let config = tls.unwrap_or(&PUBLIC_AUTHORITIES);
    let name = ServerName::try_from(server.host.clone()).map_err(|_| ClientError::Address)?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, socket).await.map_err(failed)?;
    Ok(MaybeTlsStream::Rustls(stream))
}
