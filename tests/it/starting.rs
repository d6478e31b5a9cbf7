//! The first frames of a connection: who it is.

use serde_json::json;

use crate::support::ws::Ws;
use crate::support::*;

#[tokio::test]
async fn the_reply_tells_who_one_is_where_and_what_the_node_takes() {
    let node = Node::shared().await;
    let user = node.user("alice").await;
    let client = user.authenticated().await;
    let started = &client.started;
    assert_eq!(started["user_id"], *user.id);
    assert!(started["node"].as_str().is_some_and(|node| !node.is_empty()));
    let limits = json!({"frame_bytes": 1_048_576, "requests_in_flight": 64, "requests_per_s": 5000});
    assert_eq!(started["limits"], limits);
    assert_eq!(started["sessions"], json!([]));
}

#[tokio::test]
async fn the_reply_lists_every_session_of_the_user() {
    let node = Node::shared().await;
    let (alice, bob) = (node.user("alice").await, node.user("bob").await);
    let (mut a, mut b) = (alice.connect().await, bob.connect().await);
    let made = a.ok("new_session", json!({"e2ee_on": true, "name": "Tea", "key_check": check(1)})).await;
    let one = made["session_id"].as_str().expect("an id").to_owned();
    assert_eq!(made["key_epoch"], 1);
    let two = plain(&mut a, &mut [&mut b]).await;

    let started = alice.authenticated().await.started;
    let sessions = started["sessions"].as_array().expect("sessions");
    assert_eq!(sessions.len(), 2);
    let find = |sid: &str| sessions.iter().find(|session| session["session_id"] == sid).expect("listed").clone();
    let mut first = find(&one);
    assert!(first["log"].as_str().is_some_and(|log| !log.is_empty()));
    first["log"] = json!("");
    let expected = json!({
        "session_id": one, "name": "Tea", "e2ee_on": true, "key_epoch": 1, "has_key": true, "role": "owner",
        "first_seq": 1, "last_seq": 1, "acked_seq": 0, "log": "",
    });
    assert_eq!(first, expected);
    let second = find(&two);
    assert_eq!((second.get("name"), second.get("key_epoch")), (None, None), "{second}");
    assert_eq!((&second["e2ee_on"], &second["has_key"]), (&json!(false), &json!(false)));

    // Bob's own `MemberJoined` is the first that he may see.
    let started = bob.authenticated().await.started;
    let theirs = &started["sessions"][0];
    assert_eq!((&theirs["session_id"], &theirs["role"]), (&json!(two), &json!("member")));
    let first = theirs["first_seq"].as_u64().expect("a seq");
    assert_eq!(first, 2, "the owner's was 1, and an invitation is no event");
    assert_eq!(theirs["acked_seq"], first - 1);
    assert_eq!(theirs["last_seq"], second["last_seq"]);
}

#[tokio::test]
async fn a_creator_hears_their_own_member_joined_as_the_first_event() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = a.ok("new_session", json!({"e2ee_on": false})).await["session_id"].take();
    let joined = a.expect("MemberJoined").await;
    assert_eq!(joined["session_id"], sid);
    assert_eq!((&joined["seq"], &joined["user_id"], &joined["role"]), (&json!(1), &json!(a.user_id), &json!("owner")));
}

#[tokio::test]
async fn ping_is_answered_before_authenticate() {
    let node = Node::shared().await;
    let mut client = node.user("early").await.unauthenticated().await;
    let time = client.ok("ping", json!({})).await["time"].take();
    assert_eq!(time.as_str().map(str::len), Some("2026-01-31T12:00:00.000Z".len()), "{time}");
}

#[tokio::test]
async fn anything_else_first_is_unauthenticated_and_the_connection_stays() {
    let node = Node::shared().await;
    let user = node.user("early").await;
    let mut client = user.unauthenticated().await;
    client.refused("new_session", json!({"e2ee_on": false}), "unauthenticated").await;
    client.refused("resume", json!({}), "unauthenticated").await;
    client.refused("send_msg", text(NOBODY, "x"), "unauthenticated").await;
    client.refused("ack_inbox", json!({"inbox_ids": []}), "unauthenticated").await;
    // Whatever it says, and whether there is such a request at all.
    client.refused("new_session", json!({}), "unauthenticated").await;
    client.refused("send_msg", json!({"session_id": 7}), "unauthenticated").await;
    client.refused("no_such_request", json!({}), "unauthenticated").await;
    // What may come first is judged by its arguments.
    client.refused("authenticate", json!({"token": 7}), "invalid_argument").await;
    client.ok("authenticate", json!({"token": user.token})).await;
}

#[tokio::test]
async fn a_bad_token_in_a_frame_is_refused_and_then_closed() {
    let node = Node::shared().await;
    for body in [json!({"token": "secret-nonsense"}), json!({}), json!({"token": ""})] {
        let mut client = node.user("stranger").await.unauthenticated().await;
        let error = client.refused("authenticate", body, "unauthenticated").await;
        assert!(!error.to_string().contains("secret-nonsense"), "{error}");
        assert_eq!(client.closed().await, 4001);
    }
}

#[tokio::test]
async fn the_token_may_come_with_the_upgrade() {
    let node = Node::shared().await;
    let user = node.user("upgrade").await;
    let bearer = format!("Bearer {}", user.token);
    let ws = Ws::open(node.address, &[("Authorization", &bearer)]).await;
    let mut client = Client::on(ws.unwrap_or_else(|answer| panic!("{}", answer.status)));
    // It still has to be said.
    client.refused("resume", json!({}), "unauthenticated").await;
    assert_eq!(client.ok("authenticate", json!({})).await["user_id"], *user.id);
    client.ok("resume", json!({})).await;
}

#[tokio::test]
async fn a_bad_token_on_the_upgrade_is_401() {
    let node = Node::shared().await;
    let Err(answer) = Ws::open(node.address, &[("Authorization", "Bearer nonsense")]).await else {
        panic!("upgraded");
    };
    answer.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_second_authenticate_or_resume_is_an_invalid_argument() {
    let node = Node::shared().await;
    let user = node.user("twice").await;
    let mut client = user.connect().await;
    client.refused("authenticate", json!({"token": user.token}), "invalid_argument").await;
    client.refused("resume", json!({}), "invalid_argument").await;
    client.refused("resume", json!({"cursors": {}}), "invalid_argument").await;
    client.ok("ping", json!({})).await;
}

#[tokio::test]
async fn sub_protocols() {
    let node = Node::shared().await;
    let offered =
        |protocols: &'static str| async move { Ws::open(node.address, &[("Sec-WebSocket-Protocol", protocols)]).await };
    let chosen = |ws: Result<Ws, http::Answer>| ws.unwrap_or_else(|answer| panic!("{}", answer.status)).sub_protocol;
    assert_eq!(chosen(offered("conclave.v1.json").await).as_deref(), Some("conclave.v1.json"));
    assert_eq!(chosen(offered("conclave.v2.cbor, conclave.v1.json").await).as_deref(), Some("conclave.v1.json"));
    assert_eq!(chosen(Ws::open(node.address, &[]).await), None);
    assert_eq!(chosen(offered("").await), None, "an empty header offers nothing");
    let twice = [("Sec-WebSocket-Protocol", "chat"), ("Sec-WebSocket-Protocol", "conclave.v1.json")];
    assert_eq!(chosen(Ws::open(node.address, &twice).await).as_deref(), Some("conclave.v1.json"));
    for others in ["chat", "conclave.v2.cbor, chat"] {
        let Err(answer) = offered(others).await else { panic!("upgraded for {others}") };
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
}

#[tokio::test]
async fn no_session_event_comes_before_resume() {
    let node = Node::shared().await;
    let (alice, bob) = (node.user("alice").await, node.user("bob").await);
    let (mut a, mut b) = (alice.connect().await, bob.connect().await);
    let sid = plain(&mut a, &mut [&mut b]).await;
    let mut second = bob.authenticated().await;
    mark(&sid, &mut a, &mut [&mut b]).await;
    second.none("Msg").await;
    second.ok("resume", json!({})).await;
    second.expect_where("Msg", |body| body["markdown_text"] == "a mark").await;
}

#[tokio::test]
async fn one_user_may_have_many_connections_and_each_hears_everything_once() {
    let node = Node::shared().await;
    let (alice, mut b) = (node.user("alice").await, node.client("bob").await);
    let mut one = alice.connect().await;
    let sid = plain(&mut one, &mut [&mut b]).await;
    let mut two = alice.connect().await;
    two.expect_where("Msg", |_| true).await;
    let seq = mark(&sid, &mut b, &mut [&mut one, &mut two]).await;
    for client in [&mut one, &mut two] {
        client.none_where("Msg", |body| body["seq"] == seq).await;
    }
}
