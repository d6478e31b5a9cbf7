//! Files that only their owner can read: sealed with a passphrase, replaced atomically, mode 0600.
//!
//! Owns the file format and the writing of it; what is inside is the caller's. The format is versioned:
//!
//! ```text
//! magic "conclave-vault" | version 1 | purpose | argon2id memory KiB, passes, lanes (u32 LE each) | salt 16
//! nonce 12 | AES-256-GCM ciphertext and tag, with everything before the nonce as additional data
//! ```
//! Invariant: a file is at any moment either its old content or its new one, and a write that returned is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::Rng;
use zeroize::Zeroizing;

const MAGIC: &[u8] = b"conclave-vault";
const VERSION: u8 = 1;
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const HEADER_BYTES: usize = MAGIC.len() + 2 + 12 + SALT_BYTES;
/// A file that asks for more than this to be opened was not written by us.
const MAX_COST: Cost = Cost { memory_kib: 1 << 20, passes: 64, lanes: 16 };

/// Why a vault could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The passphrase is wrong, or the file was changed by somebody without it.
    #[error("wrong passphrase, or the file is damaged")]
    Sealed,
    /// Not a vault of this version and purpose.
    #[error("not a key file that this version can read")]
    Format,
    /// Another process has this directory open.
    #[error("another client has these keys open")]
    InUse,
    /// The disk said no.
    #[error("cannot read or write the key file: {0}")]
    Io(#[from] io::Error),
}

/// What a sealed file holds: part of what is authenticated, so that one file is never taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// The RSA key pair.
    Identity = 1,
    /// Room keys and pinned fingerprints.
    KeyRing = 2,
}

/// What guessing a passphrase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory for one guess.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Cost {
    /// For people's files.
    pub const STANDARD: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };
    /// For tests and for files that live as long as a program run.
    pub const CHEAP: Self = Self { memory_kib: 64, passes: 1, lanes: 1 };

    fn derive(self, passphrase: &str, salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(|_| VaultError::Format)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
            .map_err(|_| VaultError::Format)?;
        Ok(key)
    }
}

/// One sealed file, open: its key is derived once, so that each later write costs only the encryption.
pub struct Vault {
    path: PathBuf,
    header: [u8; HEADER_BYTES],
    key: Zeroizing<[u8; 32]>,
}

impl Vault {
    /// Makes a new file with `content`; one that is there is an error.
    ///
    /// # Errors
    /// Where the file exists or cannot be written.
    pub fn create(
        path: &Path,
        purpose: Purpose,
        passphrase: &str,
        cost: Cost,
        content: &[u8],
    ) -> Result<Self, VaultError> {
        if path.exists() {
            return Err(VaultError::Io(io::ErrorKind::AlreadyExists.into()));
        }
        let mut salt = [0; SALT_BYTES];
        rand::rng().fill_bytes(&mut salt);
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&[VERSION, purpose as u8]);
        [cost.memory_kib, cost.passes, cost.lanes].iter().for_each(|n| header.extend_from_slice(&n.to_le_bytes()));
        header.extend_from_slice(&salt);
        let header = header.try_into().expect("the parts add up to HEADER_BYTES");
        let vault = Self { path: path.to_owned(), header, key: cost.derive(passphrase, &salt)? };
        vault.write(content)?;
        Ok(vault)
    }

    /// Opens a file and reads its content.
    ///
    /// # Errors
    /// [`VaultError::Sealed`] for a wrong passphrase, [`VaultError::Format`] for a file that is none of ours.
    pub fn open(path: &Path, purpose: Purpose, passphrase: &str) -> Result<(Self, Zeroizing<Vec<u8>>), VaultError> {
        let bytes = fs::read(path)?;
        let (header, sealed) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(VaultError::Format)?;
        let cost = read_header(header, purpose)?;
        let key = cost.derive(passphrase, &header[HEADER_BYTES - SALT_BYTES..])?;
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(VaultError::Format)?;
        let payload = Payload { msg: sealed, aad: header };
        let content = cipher(&key).decrypt(&Nonce::from(*nonce), payload).map_err(|_| VaultError::Sealed)?;
        Ok((Self { path: path.to_owned(), header: *header, key }, Zeroizing::new(content)))
    }

    /// Replaces the content. When this returns, the new content survives a power cut.
    ///
    /// # Errors
    /// Where the disk refuses; the old content is still there then.
    pub fn write(&self, content: &[u8]) -> Result<(), VaultError> {
        let mut nonce = [0; NONCE_BYTES];
        rand::rng().fill_bytes(&mut nonce);
        let payload = Payload { msg: content, aad: &self.header };
        let sealed = cipher(&self.key).encrypt(&Nonce::from(nonce), payload).map_err(|_| VaultError::Format)?;
        let draft = self.path.with_extension("new");
        let mut file = open_private(&draft)?;
        file.write_all(&self.header)?;
        file.write_all(&nonce)?;
        file.write_all(&sealed)?;
        file.sync_all()?;
        fs::rename(&draft, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new_from_slice(key).expect("32 bytes are AES-256's key")
}

fn read_header(header: &[u8; HEADER_BYTES], purpose: Purpose) -> Result<Cost, VaultError> {
    let rest = header.strip_prefix(MAGIC).ok_or(VaultError::Format)?;
    let (kind, rest) = rest.split_first_chunk::<2>().ok_or(VaultError::Format)?;
    if *kind != [VERSION, purpose as u8] {
        return Err(VaultError::Format);
    }
    let number = |index: usize| {
        let bytes = rest.get(index * 4..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes))
    };
    match (number(0), number(1), number(2)) {
        (Some(memory_kib), Some(passes), Some(lanes))
            if memory_kib <= MAX_COST.memory_kib && passes <= MAX_COST.passes && lanes <= MAX_COST.lanes =>
        {
            Ok(Cost { memory_kib, passes, lanes })
        }
        _ => Err(VaultError::Format),
    }
}

/// A new file that nobody else may read from the moment that it exists.
fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let file = options.mode(0o600).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        Ok(file)
    }
    #[cfg(not(unix))]
    options.open(path)
}

/// A directory that only its owner can look into.
pub(super) fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Holds a directory for this process until dropped; the file stays, the lock does not.
pub(super) fn lock_dir(path: &Path) -> Result<File, VaultError> {
    let file = open_private(&path.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(VaultError::InUse),
        Err(fs::TryLockError::Error(error)) => Err(VaultError::Io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(path: &Path, content: &[u8]) -> Vault {
        Vault::create(path, Purpose::KeyRing, "correct horse", Cost::CHEAP, content).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back_with_the_passphrase_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let vault = create(&path, b"first");
        vault.write(b"second secret").unwrap();
        let (_, content) = Vault::open(&path, Purpose::KeyRing, "correct horse").unwrap();
        assert_eq!(content.as_slice(), b"second secret");
        assert!(matches!(Vault::open(&path, Purpose::KeyRing, "wrong"), Err(VaultError::Sealed)));
        assert!(matches!(Vault::open(&path, Purpose::Identity, "correct horse"), Err(VaultError::Format)));
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        create(&path, b"x").write(b"y").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_changed_byte_anywhere_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        create(&path, b"content");
        let good = fs::read(&path).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            // The cost's bits would make opening slow before it fails; its upper bytes are over the limit at once.
            bad[index] ^= if (MAGIC.len() + 2..HEADER_BYTES - SALT_BYTES).contains(&index) { 0 } else { 1 };
            if bad == good {
                continue;
            }
            fs::write(&path, &bad).unwrap();
            assert!(Vault::open(&path, Purpose::KeyRing, "correct horse").is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_file_that_asks_for_absurd_work_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        create(&path, b"content");
        let mut bytes = fs::read(&path).unwrap();
        bytes[MAGIC.len() + 2..MAGIC.len() + 6].copy_from_slice(&u32::MAX.to_le_bytes());
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(Vault::open(&path, Purpose::KeyRing, "correct horse"), Err(VaultError::Format)));
    }

    #[test]
    fn a_directory_is_open_once() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_dir(dir.path()).unwrap();
        assert!(matches!(lock_dir(dir.path()), Err(VaultError::InUse)));
        drop(held);
        lock_dir(dir.path()).unwrap();
    }
}
