//! HTTP: accounts, tokens, public keys, and what is said when it goes wrong.

use serde_json::{Value, json};

use crate::support::*;

fn new_account(name: &str) -> Value {
    json!({"name": name, "password": PASSWORD, "public_key": keys::SPKI})
}

#[tokio::test]
async fn registering_gives_a_user_and_a_token() {
    let node = Node::shared().await;
    let name = unique("dora");
    let mut body = new_account(&name);
    body["display_name"] = json!("Dora the Explorer");
    let made = node.post("/v1/register", &body).await.expect(201);
    let id = made["user_id"].as_str().expect("an id");
    assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'), "a UUIDv7: {id}");
    assert_eq!(id, id.to_lowercase());
    let expires = made["expires_at"].as_str().expect("a time");
    assert!(is_time(expires), "{expires}");

    let user = User { address: node.address, id: id.to_owned(), token: text(&made, "token"), name: name.clone() };
    let expected = json!({
        "user_id": id, "name": name, "display_name": "Dora the Explorer", "public_key": keys::SPKI,
        "fingerprint": keys::FINGERPRINT,
    });
    assert_eq!(user.call("GET", &format!("/v1/users/{id}"), None).await.expect(200), expected);
    assert_eq!(user.call("GET", &format!("/v1/users?name={name}"), None).await.expect(200), expected);
}

#[tokio::test]
async fn what_an_account_does_not_have_is_left_out() {
    let node = Node::shared().await;
    let user = node.user("plain").await;
    let shown = user.call("GET", &format!("/v1/users/{}", user.id), None).await.expect(200);
    assert!(shown.get("display_name").is_none(), "{shown}");
    let mut body = new_account(&unique("null"));
    body["display_name"] = Value::Null;
    body["later"] = json!({"unknown": true});
    node.post("/v1/register", &body).await.expect(201);
}

/// Time on the wire: RFC 3339, UTC, milliseconds.
fn is_time(text: &str) -> bool {
    let shape = text.bytes().map(|byte| if byte.is_ascii_digit() { b'0' } else { byte });
    shape.eq("0000-00-00T00:00:00.000Z".bytes())
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_else(|| panic!("{field}: {value}")).to_owned()
}

#[tokio::test]
async fn a_public_key_is_taken_in_four_forms_and_given_in_one() {
    let node = Node::shared().await;
    for form in [keys::SPKI, keys::PKCS1, keys::SPKI_PEM, keys::PKCS1_PEM] {
        let user = node.user_with_key("forms", form).await;
        let shown = user.call("GET", &format!("/v1/users/{}", user.id), None).await.expect(200);
        assert_eq!(shown["public_key"], keys::SPKI);
        assert_eq!(shown["fingerprint"], keys::FINGERPRINT);
    }
}

#[tokio::test]
async fn a_wrong_registration_is_refused_with_the_field_and_without_what_was_sent() {
    let node = Node::shared().await;
    let good = new_account(&unique("good"));
    let rows: &[(&str, Value)] = &[
        ("name", json!("ab")),
        ("name", json!("a".repeat(33))),
        ("name", json!("Alice")),
        ("name", json!("al ice")),
        ("name", json!("älice")),
        ("name", json!("")),
        ("name", json!(7)),
        ("name", Value::Null),
        ("password", json!("short-one")),
        ("password", json!("x".repeat(1025))),
        ("password", json!("1234567890")),
        ("password", json!("password123")),
        ("password", json!(["a list of words"])),
        ("password", Value::Null),
        ("public_key", json!("")),
        ("public_key", json!("no base64!")),
        ("public_key", json!("bm8ga2V5")),
        ("public_key", json!(keys::SMALL)),
        ("public_key", json!(keys::EVEN_EXPONENT)),
        ("public_key", json!(keys::ELLIPTIC)),
        ("public_key", json!(&keys::SPKI[..200])),
        ("public_key", Value::Null),
        ("display_name", json!(7)),
    ];
    for (field, value) in rows {
        let mut body = good.clone();
        body[field] = value.clone();
        let error = node.post("/v1/register", &body).await.refused(400, "invalid_argument");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains(field), "{field} = {value}: {message}");
        if let Some(value) = value.as_str().filter(|value| value.len() > 8) {
            assert!(!message.contains(value), "{message}");
        }
    }
    for field in ["name", "password", "public_key"] {
        let mut body = good.clone();
        body.as_object_mut().expect("an object").remove(field);
        let error = node.post("/v1/register", &body).await.refused(400, "invalid_argument");
        assert!(error["message"].as_str().expect("a message").contains(field), "{error}");
    }
    // None of it took the name.
    node.post("/v1/register", &good).await.expect(201);
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused() {
    let node = Node::shared().await;
    for path in ["/v1/register", "/v1/login"] {
        for body in ["", "{", "null", "[]", "7", "\"name\""] {
            let answer = http::call(node.address, "POST", path, &[], Some(body.as_bytes())).await;
            answer.refused(400, "invalid_argument");
        }
        let answer = http::call(node.address, "POST", path, &[], Some(b"{\"name\": \"\xff\xfe\"}")).await;
        answer.refused(400, "invalid_argument");
    }
}

#[tokio::test]
async fn a_body_larger_than_any_can_be_is_too_large() {
    let node = Node::shared().await;
    let mut body = new_account(&unique("large"));
    body["display_name"] = json!("x".repeat(8 << 20));
    node.post("/v1/register", &body).await.refused(413, "too_large");
}

#[tokio::test]
async fn a_name_is_given_out_once() {
    let node = Node::shared().await;
    let user = node.user("once").await;
    node.post("/v1/register", &new_account(&user.name)).await.refused(409, "already_exists");
}

#[tokio::test]
async fn names_at_the_edges_of_what_is_allowed_are_taken() {
    let node = Node::start(&[]).await;
    for name in ["abc", "a.b", "0-_", "a23456789012345678901234567890.2"] {
        let made = node.post("/v1/register", &new_account(name)).await;
        made.expect(201);
    }
    let mut body = new_account(&unique("long-password"));
    body["password"] = json!("p7".repeat(512));
    node.post("/v1/register", &body).await.expect(201);
}

#[tokio::test]
async fn login_gives_another_token_for_the_same_user() {
    let node = Node::shared().await;
    let user = node.user("login").await;
    let body = json!({"name": user.name, "password": PASSWORD});
    let again = node.post("/v1/login", &body).await.expect(200);
    assert_eq!(again["user_id"], *user.id);
    assert_ne!(again["token"], *user.token);
    assert!(is_time(again["expires_at"].as_str().expect("a time")));
    // The first token goes on.
    user.call("GET", &format!("/v1/users/{}", user.id), None).await.expect(200);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_are_told_alike() {
    let node = Node::shared().await;
    let user = node.user("alike").await;
    let wrong = node.post("/v1/login", &json!({"name": user.name, "password": "not the password"})).await;
    let unknown = node.post("/v1/login", &json!({"name": unique("nobody"), "password": "not the password"})).await;
    assert_eq!(wrong.refused(401, "unauthenticated"), unknown.refused(401, "unauthenticated"));
}

#[tokio::test]
async fn logout_kills_this_token_and_no_other() {
    let node = Node::shared().await;
    let user = node.user("logout").await;
    let body = json!({"name": user.name, "password": PASSWORD});
    let other = node.post("/v1/login", &body).await.expect(200);
    let other = User { token: text(&other, "token"), ..user.clone() };
    let (mut one, mut two) = (user.connect().await, other.connect().await);

    let answer = user.call("POST", "/v1/logout", None).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    user.call("GET", &format!("/v1/users/{}", user.id), None).await.refused(401, "unauthenticated");
    user.call("POST", "/v1/logout", None).await.refused(401, "unauthenticated");
    assert_eq!(one.closed().await, 4001, "a connection of a dead token is closed");
    two.ok("ping", json!({})).await;
    other.call("GET", &format!("/v1/users/{}", user.id), None).await.expect(200);
}

#[tokio::test]
async fn calls_without_a_token_that_lives_are_unauthenticated() {
    let node = Node::shared().await;
    let user = node.user("tokens").await;
    let calls = [
        ("POST", "/v1/logout".to_owned()),
        ("GET", format!("/v1/users/{}", user.id)),
        ("GET", format!("/v1/users?name={}", user.name)),
        ("PUT", "/v1/me/public_key".to_owned()),
        ("PUT", "/v1/me/password".to_owned()),
        ("DELETE", "/v1/me".to_owned()),
    ];
    let body = json!({"password": PASSWORD, "new_password": "another password", "public_key": keys::SPKI}).to_string();
    for (method, path) in &calls {
        for bearer in [None, Some("Bearer nonsense"), Some("Bearer "), Some("Basic YTpi")] {
            let headers: Vec<(&str, &str)> = bearer.map(|bearer| ("Authorization", bearer)).into_iter().collect();
            let answer = http::call(node.address, method, path, &headers, Some(body.as_bytes())).await;
            let error = answer.refused(401, "unauthenticated");
            assert!(!error.to_string().contains("nonsense"), "{error}");
        }
    }
}

#[tokio::test]
async fn users_that_are_not_there_are_not_found() {
    let node = Node::shared().await;
    let user = node.user("looking").await;
    user.call("GET", &format!("/v1/users/{NOBODY}"), None).await.refused(404, "not_found");
    user.call("GET", &format!("/v1/users?name={}", unique("nobody")), None).await.refused(404, "not_found");
    user.call("GET", "/v1/users", None).await.refused(400, "invalid_argument");
    let answer = user.call("GET", "/v1/users/not-a-uuid", None).await;
    assert!([400, 404].contains(&answer.status), "{}", answer.status);
    assert!(answer.json()["error"]["code"].is_string(), "{}", answer.text);
}

#[tokio::test]
async fn a_path_that_is_none_is_answered_with_an_error_of_the_contract() {
    let node = Node::shared().await;
    node.get("/v1/nothing").await.refused(404, "not_found");
}

#[tokio::test]
async fn a_new_public_key_is_heard_in_every_session_of_the_user() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let (mut a, mut b) = (alice.connect().await, node.client("bob").await);
    let one = encrypted(&mut a, &mut [&mut b]).await;
    let two = plain(&mut b, &mut [&mut a]).await;

    let body = json!({"public_key": keys::OTHER_SPKI, "password": PASSWORD});
    assert_eq!(alice.call("PUT", "/v1/me/public_key", Some(body)).await.status, 204);
    for sid in [&one, &two] {
        let heard = b.expect_where("PublicKeyChanged", |body| body["session_id"] == **sid).await;
        assert_eq!(heard["user_id"], *alice.id);
        assert_eq!(heard["fingerprint"], keys::OTHER_FINGERPRINT);
    }
    let shown = alice.call("GET", &format!("/v1/users/{}", alice.id), None).await.expect(200);
    assert_eq!(
        (&shown["public_key"], &shown["fingerprint"]),
        (&json!(keys::OTHER_SPKI), &json!(keys::OTHER_FINGERPRINT))
    );
    // They count as without key, so that a holder is asked, with the new key.
    let ask = b.expect("SendRoomKeyNotification").await;
    assert_eq!((&ask["user_id"], &ask["public_key"]), (&json!(alice.id), &json!(keys::OTHER_SPKI)));
    assert_eq!(member(&info(&mut b, &one).await, &alice.id)["has_key"], false);
}

#[tokio::test]
async fn the_account_changes_with_its_password_only() {
    let node = Node::shared().await;
    let user = node.user("careful").await;
    let wrong = "not the password";
    let calls = [
        ("PUT", "/v1/me/public_key", json!({"public_key": keys::OTHER_SPKI, "password": wrong})),
        ("PUT", "/v1/me/password", json!({"password": wrong, "new_password": "another password"})),
        ("DELETE", "/v1/me", json!({"password": wrong})),
    ];
    for (method, path, body) in calls {
        user.call(method, path, Some(body)).await.refused(403, "permission_denied");
        user.call(method, path, Some(json!({}))).await.refused(400, "invalid_argument");
    }
    let shown = user.call("GET", &format!("/v1/users/{}", user.id), None).await.expect(200);
    assert_eq!(shown["fingerprint"], keys::FINGERPRINT);
    node.post("/v1/login", &json!({"name": user.name, "password": PASSWORD})).await.expect(200);
    // And a new key or password is checked as in a registration.
    let key = json!({"public_key": keys::SMALL, "password": PASSWORD});
    user.call("PUT", "/v1/me/public_key", Some(key)).await.refused(400, "invalid_argument");
    let password = json!({"password": PASSWORD, "new_password": "short"});
    user.call("PUT", "/v1/me/password", Some(password)).await.refused(400, "invalid_argument");
}

#[tokio::test]
async fn a_new_password_kills_the_other_tokens() {
    let node = Node::shared().await;
    let user = node.user("renewed").await;
    let login = json!({"name": user.name, "password": PASSWORD});
    let other = User { token: text(&node.post("/v1/login", &login).await.expect(200), "token"), ..user.clone() };
    let (mut mine, mut others) = (user.connect().await, other.connect().await);
    let body = json!({"password": PASSWORD, "new_password": "another password"});
    assert_eq!(user.call("PUT", "/v1/me/password", Some(body)).await.status, 204);

    assert_eq!(others.closed().await, 4001);
    other.call("GET", &format!("/v1/users/{}", user.id), None).await.refused(401, "unauthenticated");
    user.call("GET", &format!("/v1/users/{}", user.id), None).await.expect(200);
    mine.ok("ping", json!({})).await;
    node.post("/v1/login", &login).await.refused(401, "unauthenticated");
    node.post("/v1/login", &json!({"name": user.name, "password": "another password"})).await.expect(200);
}

#[tokio::test]
async fn a_closed_account_leaves_its_sessions_and_its_name_stays_taken() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let (mut a, mut b) = (alice.connect().await, node.client("bob").await);
    let sid = plain(&mut a, &mut [&mut b]).await;
    assert_eq!(alice.call("DELETE", "/v1/me", Some(json!({"password": PASSWORD}))).await.status, 204);

    let left = b.expect("MemberLeft").await;
    assert_eq!((&left["user_id"], &left["reason"]), (&json!(alice.id), &json!("left")));
    b.expect_where("RoleChanged", |body| body["role"] == "owner").await;
    let seen = info(&mut b, &sid).await;
    assert_eq!(seen["member_count"], 1);
    assert_eq!(member(&seen, &b.user_id)["role"], "owner");
    assert_eq!(a.closed().await, 4001);
    node.post("/v1/login", &json!({"name": alice.name, "password": PASSWORD})).await.refused(401, "unauthenticated");
    node.post("/v1/register", &new_account(&alice.name)).await.refused(409, "already_exists");
    alice.call("GET", &format!("/v1/users/{}", alice.id), None).await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn health_and_metrics_are_open() {
    let node = Node::shared().await;
    assert_eq!(node.get("/livez").await.status, 200);
    // A probe runs each second: right after the start there may be none yet.
    within("the node to be ready", async {
        while node.get("/readyz").await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let metrics = node.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text.contains("# TYPE "), "Prometheus text: {}", metrics.text);
}
