//! Every secret that the walkthrough used: none of them may be found in a server's files or logs.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use conclave::client::Client;
use conclave::client::identity::Identity;

/// Characters of a private key's base64 per line: a PEM line, so that a part of a key is found too.
const PIECE: usize = 64;

#[derive(Default)]
pub(crate) struct Secrets(Mutex<BTreeSet<(&'static str, String)>>);

impl Secrets {
    /// A text that was sent encrypted.
    pub(crate) fn plaintext(&self, text: &str) {
        self.add("plaintext", text.to_owned());
        self.add("plaintext-base64", STANDARD.encode(text));
    }

    pub(crate) fn password(&self, password: &str) {
        self.add("password", password.to_owned());
    }

    pub(crate) fn token(&self, token: &str) {
        self.add("token", token.to_owned());
    }

    /// The private key, whole and in pieces. The first piece is the same for all RSA keys of its length.
    pub(crate) fn identity(&self, identity: &Identity) -> anyhow::Result<()> {
        let der = identity.to_pkcs8_der()?;
        let base64 = STANDARD.encode(&*der);
        // The first two pieces hold the header and the modulus's start, which the public key has too; the modulus
        // itself ends before the middle of the encoding.
        let secret_from = base64.len() / 3;
        for piece in base64.as_bytes()[secret_from..].chunks(PIECE).filter(|piece| piece.len() == PIECE) {
            self.add("private-key-base64-piece", String::from_utf8_lossy(piece).into_owned());
        }
        let private_part = &der[der.len() / 3..];
        for piece in private_part.chunks_exact(32) {
            self.add("private-key-hex-piece", hex(piece));
        }
        Ok(())
    }

    /// Every room key that a client has.
    pub(crate) fn room_keys(&self, client: &Client) {
        client.with_core(|core| {
            for (_, key) in core.ring().all() {
                self.add("room-key-hex", hex(key.expose()));
                self.add("room-key-base64", STANDARD.encode(key.expose()));
            }
        });
    }

    fn add(&self, kind: &'static str, value: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, value));
    }

    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = std::fs::File::create(path)?;
        for (kind, value) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            writeln!(file, "{kind}\t{value}")?;
        }
        file.sync_all()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
