//! The certificate and key of `http.tls`.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsSettings;

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// `http.tls.cert`.
    #[error("http.tls.cert: expected a certificate chain as PEM: {0}")]
    Cert(pem::Error),
    /// `http.tls.key`.
    #[error("http.tls.key: expected a private key as PEM: {0}")]
    Key(pem::Error),
    /// They do not fit together.
    #[error("http.tls: {0}")]
    Pair(#[from] rustls::Error),
}

/// Reads the pair, if there is one.
///
/// # Errors
/// If a file is not what it should be, or they do not fit together.
pub(super) fn load(settings: &TlsSettings) -> Result<Option<ServerConfig>, TlsError> {
    let (Some(cert), Some(key)) = (&settings.cert, &settings.key) else { return Ok(None) };
    let chain = read_chain(cert).map_err(TlsError::Cert)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(TlsError::Key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Some(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) }
}
