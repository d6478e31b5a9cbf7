//! Getting in: keys on this device opened or made, the account registered or logged in to.

use std::path::Path;

use anyhow::{Context, bail};
use conclave::client::identity::Identity;
use conclave::client::profile::Profile;
use conclave::client::ring::KeptLogin;
use conclave::client::secret::Secret;
use conclave::client::vault::{Cost, VaultError};
use conclave::client::{ClientConfig, ClientError, HttpClient};
use conclave::protocol::ErrorCode;

use crate::arguments::Arguments;
use crate::screen::Screen;

const PASSWORD: &str = "CONCLAVE_CHAT_PASSWORD";
const PASSPHRASE: &str = "CONCLAVE_CHAT_PASSPHRASE";

/// Opens or makes the keys, and gets a token.
pub(crate) async fn sign_in(arguments: &Arguments, screen: &mut Screen) -> anyhow::Result<(ClientConfig, Profile)> {
    let dir = arguments.profile_dir()?;
    let tls = arguments.tls()?;
    let servers = arguments.servers()?;
    let http = HttpClient::new(servers.clone()).with_tls(tls.clone());
    let mut profile = if Profile::exists(&dir) { open(&dir, screen)? } else { make(&dir, arguments, screen).await? };
    let login = match kept_login(&http, &profile).await? {
        Some(login) => login,
        None => {
            let login = log_in(&http, arguments, &profile, screen).await?;
            profile.ring.login = Some(login.clone());
            profile.save().context("the login could not be kept")?;
            login
        }
    };
    screen.hint(&format!("your fingerprint: {}", profile.identity.public().fingerprint().grouped()));
    let mut config = ClientConfig::new(servers, login.user_id, login.token);
    config.options.tls = tls;
    Ok((config, profile))
}

fn open(dir: &Path, screen: &Screen) -> anyhow::Result<Profile> {
    let passphrase = ask(screen, PASSPHRASE, "Passphrase of your keys: ")?;
    match Profile::open(dir, passphrase.expose()) {
        Err(VaultError::InUse) => bail!("another conclave-chat has these keys open; give a second one its own --home"),
        opened => opened.context("your keys could not be opened"),
    }
}

async fn make(dir: &Path, arguments: &Arguments, screen: &Screen) -> anyhow::Result<Profile> {
    screen.notice("this device has no keys for this name yet: making a key pair");
    let passphrase = ask(screen, PASSPHRASE, "A passphrase to encrypt your keys with: ")?;
    if screen.interactive() && std::env::var_os(PASSPHRASE).is_none() {
        let again = ask(screen, PASSPHRASE, "Once more: ")?;
        anyhow::ensure!(passphrase == again, "the two passphrases differ");
    }
    let (dir, bits) = (dir.to_owned(), arguments.key_bits);
    let made = tokio::task::spawn_blocking(move || {
        let identity = Identity::generate(bits, &mut rand::rng())?;
        Ok::<_, ClientError>(Profile::create(&dir, passphrase.expose(), Cost::STANDARD, identity)?)
    });
    made.await?.context("the key files could not be made")
}

/// The login of the last time, if its token is still good.
async fn kept_login(http: &HttpClient, profile: &Profile) -> anyhow::Result<Option<KeptLogin>> {
    let Some(login) = profile.ring.login.clone() else { return Ok(None) };
    match http.user(&login.token, login.user_id).await {
        Ok(_) => Ok(Some(login)),
        Err(error) if matches!(error.code(), Some(ErrorCode::Unauthenticated | ErrorCode::NotFound)) => Ok(None),
        Err(error) => Err(error).context("the server cannot be asked"),
    }
}

async fn log_in(
    http: &HttpClient,
    arguments: &Arguments,
    profile: &Profile,
    screen: &Screen,
) -> anyhow::Result<KeptLogin> {
    let name = &arguments.name;
    let password = ask(screen, PASSWORD, &format!("Password of {name} on {}: ", arguments.server()?))?;
    let key = profile.identity.public();
    let login = match http.register(name, password.expose(), key, None).await {
        Ok(login) => {
            screen.good(&format!("registered {name}: welcome"));
            return Ok(KeptLogin { user_id: login.user_id, token: login.token });
        }
        Err(error) if error.code() == Some(ErrorCode::AlreadyExists) => {
            http.login(name, password.expose()).await.context("this name is taken, and logging in failed")?
        }
        Err(error) => return Err(error).context("registering failed"),
    };
    let known = http.user(&login.token, login.user_id).await.context("the account cannot be looked up")?;
    if known.key()? != *key {
        if !arguments.replace_key {
            bail!(
                "this account has another key pair: copy the directory {} from your other device, \
                 or use --replace-key to make this device's key pair the account's",
                arguments.profile_dir()?.display()
            );
        }
        http.set_public_key(&login.token, password.expose(), key).await.context("the key was not replaced")?;
        screen.alarm("the account's key pair was replaced: people will be warned, and room keys have to be sent anew");
    }
    screen.good(&format!("logged in as {name}"));
    Ok(KeptLogin { user_id: login.user_id, token: login.token })
}

/// Asks for a secret, unless the environment has it.
fn ask(screen: &Screen, variable: &str, question: &str) -> anyhow::Result<Secret> {
    if let Ok(value) = std::env::var(variable) {
        return Ok(Secret::new(value));
    }
    anyhow::ensure!(screen.interactive(), "without a terminal, set {variable} in the environment");
    Ok(Secret::new(rpassword::prompt_password(question)?))
}
