//! Accounts on a real store: what each call does, what it refuses, and what it tells others.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt;
use rsa::pkcs1::der::Encode;
use rsa::pkcs1::der::asn1::UintRef;
use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::protocol::Timestamp;
use crate::store::{SqliteOptions, SqliteStore};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A public key that differs by `number`.
fn key(number: u8) -> String {
    use base64::Engine;
    let mut modulus = [number | 0x80; 256];
    modulus[255] |= 1;
    let key = rsa::pkcs1::RsaPublicKeyRef {
        modulus: UintRef::new(&modulus).unwrap(),
        public_exponent: UintRef::new(&[1, 0, 1]).unwrap(),
    };
    base64::engine::general_purpose::STANDARD.encode(key.to_der().unwrap())
}

#[derive(Default)]
struct Heard(Mutex<Vec<(UserId, UserSignal)>>);

impl Aftermath for Heard {
    fn signal(&self, user_id: UserId, signal: UserSignal) -> BoxFuture<'static, ()> {
        self.0.lock().unwrap().push((user_id, signal));
        async {}.boxed()
    }

    fn wake(&self, _: SessionId) {}
}

struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

struct House {
    accounts: Accounts,
    heard: Arc<Heard>,
    clock: Arc<TestClock>,
    metrics: Arc<Metrics>,
    _dir: TempDir,
}

async fn house(change: impl FnOnce(&mut Config)) -> House {
    let mut config = Config::default();
    config.accounts.argon2_memory_kib = 8;
    config.accounts.argon2_passes = 1;
    change(&mut config);
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap();
    let clock = Arc::new(TestClock(AtomicI64::new(store.now().await.unwrap().as_millis())));
    let (heard, metrics) = (Arc::new(Heard::default()), Metrics::new());
    let parts = AccountParts {
        store: Arc::new(store),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        aftermath: Arc::clone(&heard) as Arc<dyn Aftermath>,
        metrics: Arc::clone(&metrics),
    };
    House { accounts: Accounts::new(&config, parts), heard, clock, metrics, _dir: dir }
}

fn registration(name: &str) -> RegisterRequest {
    RegisterRequest {
        name: name.to_owned(),
        password: Password::new("a fine password"),
        public_key: key(1),
        display_name: None,
    }
}

fn credentials(name: &str, password: &str) -> LoginRequest {
    LoginRequest { name: name.to_owned(), password: Password::new(password) }
}

impl House {
    async fn registered(&self, name: &str) -> Bearer {
        let logged_in = self.accounts.register(registration(name), HERE).await.unwrap();
        self.accounts.authenticate(&logged_in.token.reveal()).await.unwrap()
    }

    async fn is_live(&self, token: &Token) -> bool {
        self.accounts.authenticate(&token.reveal()).await.is_ok()
    }

    fn heard(&self) -> Vec<(UserId, UserSignal)> {
        std::mem::take(&mut self.heard.0.lock().unwrap())
    }
}

#[actix_web::test]
async fn who_registers_is_logged_in_and_can_be_looked_up() {
    let house = house(|_| {}).await;
    let request = RegisterRequest { display_name: Some("Ann".to_owned()), ..registration("ann") };
    let logged_in = house.accounts.register(request, HERE).await.unwrap();
    let bearer = house.accounts.authenticate(&logged_in.token.reveal()).await.unwrap();
    assert_eq!(bearer.user_id, logged_in.user_id);
    assert_eq!(logged_in.expires_at.millis_since(house.clock.now()), 2_592_000_000);
    let view = house.accounts.user_by_id(logged_in.user_id).await.unwrap();
    assert_eq!((view.name.as_str(), view.display_name.as_deref()), ("ann", Some("Ann")));
    assert_eq!(parse_public_key(&view.public_key).unwrap().fingerprint, view.fingerprint);
    assert_eq!(house.accounts.user_by_name("ann").await.unwrap(), view);
}

#[actix_web::test]
async fn a_name_is_given_out_once_and_never_again() {
    let house = house(|_| {}).await;
    let bearer = house.registered("ann").await;
    let refused = house.accounts.register(registration("ann"), HERE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
    let close = CloseRequest { password: Password::new("a fine password") };
    house.accounts.close(bearer, close, HERE).await.unwrap();
    let refused = house.accounts.register(registration("ann"), HERE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::AlreadyExists);
}

#[actix_web::test]
async fn wrong_registrations_are_refused_by_field() {
    let house = house(|_| {}).await;
    let cases: [(RegisterRequest, &str); 4] = [
        (registration("Ann"), "name: "),
        (RegisterRequest { password: Password::new("short"), ..registration("ann") }, "password: "),
        (RegisterRequest { public_key: "nothing".to_owned(), ..registration("ann") }, "public_key: "),
        (RegisterRequest { display_name: Some(String::new()), ..registration("ann") }, "display_name: "),
    ];
    for (request, field) in cases {
        let refused = house.accounts.register(request, HERE).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidArgument);
        assert!(refused.message.starts_with(field), "{refused}");
    }
}

#[actix_web::test]
async fn a_wrong_name_and_a_wrong_password_are_refused_alike() {
    let house = house(|_| {}).await;
    house.registered("ann").await;
    let wrong_password = house.accounts.login(credentials("ann", "not the password"), HERE).await.unwrap_err();
    let wrong_name = house.accounts.login(credentials("ben", "a fine password"), HERE).await.unwrap_err();
    assert_eq!(wrong_password, wrong_name);
    assert_eq!(wrong_name.code, ErrorCode::Unauthenticated);
    assert_eq!(house.metrics.failed_logins.get(), 2);
    assert!(house.accounts.login(credentials("ann", "a fine password"), HERE).await.is_ok());
}

#[actix_web::test]
async fn a_wrong_name_and_a_wrong_password_cost_alike() {
    let house = house(|config| config.accounts.argon2_passes = 3).await;
    house.registered("ann").await;
    for (name, password) in [("ann", "not the password"), ("ben", "not the password"), ("ann", "a fine password")] {
        let before = house.metrics.password_hashes.get();
        let _ = house.accounts.login(credentials(name, password), HERE).await;
        assert_eq!(house.metrics.password_hashes.get() - before, 1, "{name}, {password}");
    }
    // One hash each, and of the same price.
    let price = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
    let inner = &house.accounts.inner;
    let ann = inner.parts.store.user_by_name("ann").await.unwrap().unwrap();
    assert_eq!(price(&ann.password_hash).as_deref(), Some("$argon2id$v=19$m=8,t=3,p=1"));
    assert_eq!(price(&inner.hashing.nobody()), price(&ann.password_hash));
}

#[actix_web::test]
async fn ten_failures_close_a_name_for_a_while_whether_it_exists_or_not() {
    let house = house(|_| {}).await;
    house.registered("ann").await;
    for name in ["ann", "nobody"] {
        for _ in 0..10 {
            let refused = house.accounts.login(credentials(name, "not the password"), HERE).await.unwrap_err();
            assert_eq!(refused.code, ErrorCode::Unauthenticated);
        }
        let refused = house.accounts.login(credentials(name, "a fine password"), HERE).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        let wait = refused.details.unwrap().retry_after_ms.unwrap();
        assert!((1..=6000).contains(&wait), "{wait}");
    }
    house.registered("ben").await;
    assert!(house.accounts.login(credentials("ben", "a fine password"), HERE).await.is_ok());
}

#[actix_web::test]
async fn an_address_may_fail_ten_times_as_often() {
    let house = house(|config| config.limits.failed_logins_per_minute = 2).await;
    house.registered("ann").await;
    for number in 0..20 {
        let name = format!("guess{number}");
        let refused = house.accounts.login(credentials(&name, "not the password"), HERE).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthenticated);
    }
    let refused = house.accounts.login(credentials("ann", "a fine password"), HERE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    let elsewhere = "192.0.2.1".parse().unwrap();
    assert!(house.accounts.login(credentials("ann", "a fine password"), elsewhere).await.is_ok());
}

#[actix_web::test]
async fn logins_that_succeed_do_not_count() {
    let house = house(|config| config.limits.failed_logins_per_minute = 1).await;
    house.registered("ann").await;
    for _ in 0..30 {
        house.accounts.login(credentials("ann", "a fine password"), HERE).await.unwrap();
    }
}

#[actix_web::test]
async fn registrations_are_limited_per_address_where_that_is_set() {
    let house = house(|config| config.limits.registrations_per_minute = 2).await;
    house.registered("one").await;
    house.registered("two").await;
    let refused = house.accounts.register(registration("three"), HERE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(house.accounts.register(registration("three"), "192.0.2.1".parse().unwrap()).await.is_ok());
}

#[actix_web::test]
async fn a_logout_ends_one_token_and_says_so() {
    let house = house(|_| {}).await;
    let bearer = house.registered("ann").await;
    let other = house.accounts.login(credentials("ann", "a fine password"), HERE).await.unwrap();
    house.accounts.logout(bearer).await.unwrap();
    assert_eq!(house.heard(), [(bearer.user_id, UserSignal::TokenDead(bearer.token))]);
    assert!(house.is_live(&other.token).await);
    assert_eq!(house.accounts.inner.parts.store.token_owner(bearer.token, house.clock.now()).await, Ok(None));
}

#[actix_web::test]
async fn a_token_lives_until_its_time() {
    let house = house(|config| config.accounts.token_lifetime_s = 60).await;
    let logged_in = house.accounts.register(registration("ann"), HERE).await.unwrap();
    house.clock.0.fetch_add(59_999, Ordering::Relaxed);
    assert!(house.is_live(&logged_in.token).await);
    house.clock.0.fetch_add(1, Ordering::Relaxed);
    assert!(!house.is_live(&logged_in.token).await);
}

#[actix_web::test]
async fn what_is_no_token_is_unauthenticated() {
    let house = house(|_| {}).await;
    let unknown = Token::random().reveal();
    let padded = format!("{unknown}=");
    for text in ["", "x", unknown.as_str(), padded.as_str(), "../../../etc", "\u{0}"] {
        let refused = house.accounts.authenticate(text).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthenticated);
    }
}

#[actix_web::test]
async fn the_oldest_tokens_go_when_there_are_too_many() {
    let house = house(|config| config.accounts.tokens_per_user = 2).await;
    let first = house.accounts.register(registration("ann"), HERE).await.unwrap();
    house.clock.0.fetch_add(1, Ordering::Relaxed);
    let second = house.accounts.login(credentials("ann", "a fine password"), HERE).await.unwrap();
    house.clock.0.fetch_add(1, Ordering::Relaxed);
    let third = house.accounts.login(credentials("ann", "a fine password"), HERE).await.unwrap();
    assert!(!house.is_live(&first.token).await);
    assert!(house.is_live(&second.token).await && house.is_live(&third.token).await);
}

#[actix_web::test]
async fn a_new_password_ends_the_other_tokens() {
    let house = house(|_| {}).await;
    let bearer = house.registered("ann").await;
    let other = house.accounts.login(credentials("ann", "a fine password"), HERE).await.unwrap();
    let change =
        |password, new| PasswordRequest { password: Password::new(password), new_password: Password::new(new) };
    let refused = house.accounts.change_password(bearer, change("a wrong one", "another password"), HERE).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::PermissionDenied);
    let refused = house.accounts.change_password(bearer, change("a fine password", "short"), HERE).await;
    assert_eq!(refused.unwrap_err().message, "new_password: expected 10 to 1024 bytes");
    assert!(house.heard().is_empty());
    house.accounts.change_password(bearer, change("a fine password", "another password"), HERE).await.unwrap();
    assert_eq!(house.heard(), [(bearer.user_id, UserSignal::TokensDead { except: Some(bearer.token) })]);
    assert!(!house.is_live(&other.token).await);
    assert!(house.accounts.login(credentials("ann", "a fine password"), HERE).await.is_err());
    assert!(house.accounts.login(credentials("ann", "another password"), HERE).await.is_ok());
}

#[actix_web::test]
async fn a_new_public_key_wants_the_password() {
    let house = house(|_| {}).await;
    let bearer = house.registered("ann").await;
    let before = house.accounts.user_by_id(bearer.user_id).await.unwrap();
    let request = |password| PublicKeyRequest { public_key: key(2), password: Password::new(password) };
    let refused = house.accounts.replace_public_key(bearer, request("a wrong one"), HERE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::PermissionDenied);
    assert_eq!(house.accounts.user_by_id(bearer.user_id).await.unwrap(), before);
    house.accounts.replace_public_key(bearer, request("a fine password"), HERE).await.unwrap();
    assert_ne!(house.accounts.user_by_id(bearer.user_id).await.unwrap().fingerprint, before.fingerprint);
}

#[actix_web::test]
async fn a_closed_account_is_gone() {
    let house = house(|_| {}).await;
    let bearer = house.registered("ann").await;
    let close = |password| CloseRequest { password: Password::new(password) };
    let refused = house.accounts.close(bearer, close("a wrong one"), HERE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::PermissionDenied);
    house.accounts.close(bearer, close("a fine password"), HERE).await.unwrap();
    assert_eq!(house.heard(), [(bearer.user_id, UserSignal::TokensDead { except: None })]);
    assert_eq!(house.accounts.user_by_id(bearer.user_id).await.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(house.accounts.user_by_name("ann").await.unwrap_err().code, ErrorCode::NotFound);
    let refused = house.accounts.login(credentials("ann", "a fine password"), HERE).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Unauthenticated);
}

#[actix_web::test]
async fn too_many_who_wait_are_refused_as_overload() {
    let house = house(|config| {
        config.limits.password_hashes_at_once = 1;
        config.limits.password_hashes_waiting = 1;
    })
    .await;
    let first = house.accounts.inner.hashing.turn().await.unwrap();
    let second = house.accounts.inner.hashing.turn();
    let mut second = std::pin::pin!(second);
    assert!(futures_util::poll!(&mut second).is_pending());
    let third = house.accounts.login(credentials("ann", "a fine password"), HERE).await.unwrap_err();
    assert_eq!(third.code, ErrorCode::Overloaded);
    drop(first);
    assert!(second.await.is_ok());
}

#[test]
fn secrets_do_not_show_themselves() {
    let token = Token::random();
    let shown = format!("{:?} {:?} {:?}", Password::new("a fine password"), token, registration("ann").password);
    assert_eq!(shown, "<password of 15 bytes> <token> <password of 15 bytes>");
    assert_eq!(Token::parse(&token.reveal()).unwrap().hash(), token.hash());
    assert_eq!(token.reveal().len(), 43);
}
