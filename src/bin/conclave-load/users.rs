//! The users of runs: registered once, since servers hash passwords slowly on purpose, and kept in a file for the next
//! run. The file holds passwords and, for those who encrypt, private keys: only its owner may read it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use conclave::client::http::Login;
use conclave::client::identity::{Identity, PublicKey};
use conclave::client::secret::Secret;
use conclave::client::{ClientError, HttpClient};
use conclave::protocol::{ErrorCode, UserId};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::arguments::Common;
use crate::persist::persist;
use crate::stop;
use crate::target::{self, Endpoint};

/// Of a key pair whose private half was thrown away: users who do not encrypt share it.
const SHARED_KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAq9hGRIGczsRaROcMvd17wgFtCfMozD8m3hk6Osv+lfKbWy2qompSrNuA\
    uwhXhnMzLqNMTTk22oRn1eRfDMRCVmcBNh5jt58VEW0COy1D/GymcLZ0Ahpas255G+5WjAcLidXh2A84B//J0MLZgh3rD9bR3MV8\
    pRHpp5H4r0iy0/e9LYOpvzZdMdeDkkA1hYw5HAjHWW+DFeATCjIDMjKB81dzQ2TJfa2oEuWabcH08HDqJcV9YubgEXa2ZwzfyXrw\
    7yqCJEQakrh+wnNmqC2ZrLIgBLTiEi2+n9otEVeFGvzPPlblwlqkmvG0hz+d1JTNx0tluFdSeU2ezQSsJ/ZJ+wIDAQAB";
/// Calls to the server at once.
const AT_ONCE: usize = 16;
/// Users who are registered before the file is written again.
const SAVED_EVERY: usize = 256;
/// Bits of the keys of users who encrypt: the smallest that servers take, which are the fastest to make.
const KEY_BITS: usize = 2048;
/// A token that is good for less than this is replaced.
const TOKEN_LASTS: Duration = Duration::from_secs(24 * 3600);

/// A user of this program.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct User {
    name: String,
    password: Secret,
    pub(crate) user_id: UserId,
    pub(crate) token: Secret,
    expires_at_ms: i64,
    /// PKCS#8 DER in base64, for those with a key pair of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<Secret>,
}

/// Which users a scenario needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Who share a public key: nobody encrypts for them.
    Shared,
    /// Who have a key pair of their own each.
    Own,
}

/// The file.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    plain: Vec<User>,
    encrypting: Vec<User>,
}

/// Tells so many users who can log in, registering those who are not in the file yet.
pub(crate) async fn ready(common: &Common, endpoints: &[Endpoint], keys: Keys, count: usize) -> Result<Vec<User>> {
    let path = &common.users;
    let mut kept = Kept::open(path)?;
    let users = match keys {
        Keys::Shared => &kept.plain,
        Keys::Own => &kept.encrypting,
    };
    let known: Vec<User> = users.iter().take(count).cloned().collect();
    let desk = Desk {
        http: HttpClient::new(target::servers(endpoints, 0)?).with_tls(Some(target::trust(common)?)),
        patience: common.patience,
    };
    let mut done = desk.check(known).await?;
    let begun = SystemTime::now();
    while done.len() < count {
        ensure!(!stop::asked(), "stopped while registering users");
        let some = SAVED_EVERY.min(count - done.len());
        let more: Vec<User> =
            stream::iter(0..some).map(|_| desk.register(keys)).buffered(AT_ONCE).try_collect().await?;
        done.extend(more);
        kept.replace(keys, &done);
        kept.save(path)?;
        if begun.elapsed().is_ok_and(|elapsed| elapsed > Duration::from_secs(2)) {
            eprintln!("registered {} of {count} users", done.len());
        }
    }
    kept.replace(keys, &done);
    kept.save(path)?;
    Ok(done)
}

impl User {
    /// The key pair of a user who has one.
    pub(crate) fn identity(&self) -> Result<Identity> {
        let key = self.private_key.as_ref().context("a user without a key pair")?;
        let der = STANDARD.decode(key.expose()).context("a private key is not base64")?;
        Identity::from_pkcs8_der(&der).context("a private key cannot be read")
    }

    fn expired(&self) -> bool {
        let good_until = SystemTime::now() + TOKEN_LASTS;
        let good_until = good_until.duration_since(UNIX_EPOCH).map_or(i64::MAX, |since| since.as_millis() as i64);
        self.expires_at_ms < good_until
    }

    fn logged_in(mut self, login: Login) -> Self {
        (self.user_id, self.token, self.expires_at_ms) = (login.user_id, login.token, login.expires_at.as_millis());
        self
    }
}

impl Kept {
    fn open(path: &Path) -> Result<Self> {
        match fs::read(path) {
            Ok(bytes) => {
                let mode = fs::metadata(path)?.permissions().mode();
                ensure!(
                    mode & 0o077 == 0,
                    "{} holds passwords, and others can read it: chmod 600 it, or remove it",
                    path.display()
                );
                serde_json::from_slice(&bytes)
                    .with_context(|| format!("{} is no file of users: remove it, or name another", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// Puts users in the place of the first ones of their kind.
    fn replace(&mut self, keys: Keys, users: &[User]) {
        let kept = match keys {
            Keys::Shared => &mut self.plain,
            Keys::Own => &mut self.encrypting,
        };
        let rest = kept.split_off(users.len().min(kept.len()));
        *kept = users.iter().cloned().chain(rest).collect();
    }

    /// Writes a new file beside the old one and puts it in its place: a full disk leaves the old one whole.
    fn save(&self, path: &Path) -> Result<()> {
        let write = || -> io::Result<()> {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // Readable by its owner alone from the start.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        write().with_context(|| {
            format!("the users could not be kept in {}: they would have to be registered again", path.display())
        })
    }
}

/// Where users register and log in.
struct Desk {
    http: HttpClient,
    /// How long what the server cannot do now is tried.
    patience: Duration,
}

impl Desk {
    /// Makes sure that each can log in: the server may be another one by now, or have forgotten a token.
    async fn check(&self, users: Vec<User>) -> Result<Vec<User>> {
        let check = |user: User| async move {
            match persist(self.patience, || self.http.user(&user.token, user.user_id)).await {
                Ok(_) if !user.expired() => return Ok(user),
                Ok(_) => {}
                Err(error) if matches!(error.code(), Some(ErrorCode::Unauthenticated | ErrorCode::NotFound)) => {}
                Err(error) => return Err(unusable(error)),
            }
            let key = match &user.private_key {
                Some(_) => user.identity()?.public().clone(),
                None => shared_key()?,
            };
            let login = self.log_in(&user.name, &user.password, &key).await?;
            Ok(user.logged_in(login))
        };
        stream::iter(users).map(check).buffered(AT_ONCE).try_collect().await
    }

    async fn register(&self, keys: Keys) -> Result<User> {
        let identity = match keys {
            Keys::Shared => None,
            Keys::Own => {
                let made = tokio::task::spawn_blocking(|| Identity::generate(KEY_BITS, &mut rand::rng())).await?;
                Some(made.context("no key pair")?)
            }
        };
        let key = match &identity {
            Some(identity) => identity.public().clone(),
            None => shared_key()?,
        };
        let private_key = match &identity {
            Some(identity) => Some(Secret::new(STANDARD.encode(identity.to_pkcs8_der()?.as_slice()))),
            None => None,
        };
        let (name, password) = (new_name(), Secret::new(format!("{:032x}", rand::random::<u128>())));
        let Login { user_id, token, expires_at } = self.log_in(&name, &password, &key).await?;
        Ok(User { name, password, user_id, token, expires_at_ms: expires_at.as_millis(), private_key })
    }

    /// Registers, and logs in who is registered already. That one first: to another server every login would be a failed
    /// one, and servers limit those.
    async fn log_in(&self, name: &str, password: &Secret, key: &PublicKey) -> Result<Login> {
        let made = persist(self.patience, || self.http.register(name, password.expose(), key, None)).await;
        let login = match made {
            Err(error) if error.code() == Some(ErrorCode::AlreadyExists) => {
                persist(self.patience, || self.http.login(name, password.expose())).await
            }
            made => made,
        };
        login.map_err(unusable)
    }
}

fn shared_key() -> Result<PublicKey> {
    PublicKey::from_base64(SHARED_KEY).context("the shared key cannot be read")
}

/// A name that nobody has.
fn new_name() -> String {
    format!("load-{:016x}", rand::random::<u64>())
}

fn unusable(error: ClientError) -> anyhow::Error {
    anyhow::Error::new(error).context("the users cannot be made ready")
}

/// Where users are kept unless another place is named.
pub(crate) const DEFAULT_FILE: &str = "conclave-load-users.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        User {
            name: name.to_owned(),
            password: Secret::new("secret".to_owned()),
            user_id: "0198c0de-0000-7000-8000-000000000001".parse().unwrap(),
            token: Secret::new("token".to_owned()),
            expires_at_ms: 1,
            private_key: None,
        }
    }

    #[test]
    fn users_are_kept_where_only_their_owner_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.json");
        let mut kept = Kept::open(&path).unwrap();
        kept.plain = vec![user("a"), user("b"), user("c")];
        kept.replace(Keys::Shared, &[user("d"), user("e")]);
        kept.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let names = |kept: &Kept| kept.plain.iter().map(|user| user.name.clone()).collect::<String>();
        assert_eq!(names(&Kept::open(&path).unwrap()), "dec");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Kept::open(&path).err().unwrap().to_string().contains("chmod 600"));
    }

    #[test]
    fn a_damaged_file_or_a_full_disk_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.json");
        fs::write(&path, "{").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(Kept::open(&path).err().unwrap().to_string().contains("no file of users"));
        let nowhere = dir.path().join("missing").join("users.json");
        assert!(Kept::default().save(&nowhere).unwrap_err().to_string().contains("could not be kept"));
    }
}
