//! Accounts: registering, logging in, looking people up.

use anyhow::ensure;
use conclave::client::{HttpClient, ServerAddress};
use conclave::protocol::ErrorCode;

use crate::person::{Person, refused};
use crate::secrets::Secrets;
use crate::{Cast, chapter, step};

pub(crate) async fn register(server: &ServerAddress, secrets: &Secrets) -> anyhow::Result<Cast> {
    chapter("Accounts");
    let run: u32 = rand::random();
    let named = |name: &str| format!("{name}-{run:08x}");
    let cast = Cast {
        alice: Person::register(server, named("alice"), secrets).await?,
        bob: Person::register(server, named("bob"), secrets).await?,
        carol: Person::register(server, named("carol"), secrets).await?,
        dave: Person::register(server, named("dave"), secrets).await?,
        erin: Person::register(server, named("erin"), secrets).await?,
    };
    step("alice, bob, carol, dave and erin register, each with a public key, and connect");

    let (alice, bob) = (&cast.alice, &cast.bob);
    let http = HttpClient::new(server.clone());
    let again = http.register(&alice.name, "another good password", bob.identity.public(), None).await;
    refused("registering a name that is taken", again, ErrorCode::AlreadyExists)?;
    step("a name that is taken is refused");
    refused("a wrong password", http.login(&alice.name, "not the password").await, ErrorCode::Unauthenticated)?;
    let nobody = http.login(&named("nobody"), "not the password").await;
    refused("an unknown name", nobody, ErrorCode::Unauthenticated)?;
    step("a wrong password and an unknown name are refused alike");
    let login = http.login(&alice.name, &alice.password).await?;
    secrets.token(login.token.expose());
    ensure!(login.user_id == alice.user_id, "login gives the user id of registering");
    ensure!(login.token != alice.token, "each login has a token of its own");
    step("alice logs in once more and gets another token");

    let by_name = alice.client.user_named(&bob.name).await?;
    let by_id = alice.client.user(bob.user_id).await?;
    ensure!(by_name == by_id, "looked up by name and by id, bob is the same");
    ensure!(by_name.key()? == *bob.identity.public(), "bob's public key is the one that he registered");
    refused("looking up nobody", alice.client.user_named(&named("nobody")).await, ErrorCode::NotFound)?;
    step("alice looks bob up by name and by id, and reckons the fingerprint of his key herself");
    Ok(cast)
}
