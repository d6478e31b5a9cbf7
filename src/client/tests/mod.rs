//! The connection and the reconnecting client against a scripted node on loopback.

mod script;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::calls::Pong;
use super::e2ee::{Asking, News};
use super::identity::Identity;
use super::profile::Profile;
use super::secret::Secret;
use super::{Client, ClientConfig, ClientError, Connection, ConnectionOptions, HttpClient, NewsStream, Servers};
use crate::protocol::{Happening, Ping, ServerFrame};
use script::{ME, Node, Peer, S};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("nothing happened in time")
}

fn start(node: &Node) -> (Client, NewsStream) {
    start_at(node.address())
}

fn start_at(servers: impl Into<Servers>) -> (Client, NewsStream) {
    start_with(servers, ConnectionOptions::default())
}

fn start_with(servers: impl Into<Servers>, options: ConnectionOptions) -> (Client, NewsStream) {
    let identity = Arc::new(Identity::generate(2048, &mut rand::rng()).unwrap());
    let token = Secret::new("token".to_owned());
    let config = ClientConfig { options, ..ClientConfig::new(servers, ME.parse().unwrap(), token) };
    Client::start(config, Profile::in_memory(identity))
}

async fn seqs(news: &mut NewsStream, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    while seqs.len() < count {
        if let News::Event(event) = in_time(news.next()).await.unwrap() {
            seqs.push(event.seq);
        }
    }
    seqs
}

async fn hears(news: &mut NewsStream, like: impl Fn(&News) -> bool) -> News {
    loop {
        let next = in_time(news.next()).await.expect("the client has ended");
        if like(&next) {
            return next;
        }
    }
}

#[tokio::test]
async fn replies_find_their_requests_in_any_order() {
    let node = Node::bind().await;
    let options = ConnectionOptions::default();
    let (opened, mut peer) = tokio::join!(Connection::open(&node.address, &options), node.accept());
    let (connection, mut incoming) = opened.unwrap();
    let first = connection.submit(Ping {}).await.unwrap();
    let second = connection.submit(Ping {}).await.unwrap();
    let (one, two) = (peer.request("ping").await.0, peer.request("ping").await.0);
    assert!(one < two, "sent in the order submitted");
    peer.event(&json!({"type": "Typing", "body": {"session_id": S, "user_id": ME}})).await;
    peer.reply(two, &json!({"time": "2026-01-31T12:00:00.000Z"})).await;
    peer.refuse(one, "rate_limited").await;
    in_time(second.typed::<Pong>()).await.unwrap();
    let refused = in_time(first.outcome()).await.unwrap_err();
    assert!(refused.retryable());
    assert!(matches!(in_time(incoming.next()).await, Some(ServerFrame::Typing { .. })));
}

#[tokio::test]
async fn who_waits_for_a_reply_hears_of_the_end() {
    let node = Node::bind().await;
    let options = ConnectionOptions::default();
    let (opened, mut peer) = tokio::join!(Connection::open(&node.address, &options), node.accept());
    let (connection, mut incoming) = opened.unwrap();
    let waiting = connection.submit(Ping {}).await.unwrap();
    peer.request("ping").await;
    peer.event(&json!({"type": "GoingAway", "body": {"reconnect_after_ms": 7}})).await;
    peer.close(1012).await;
    assert!(matches!(in_time(waiting.outcome()).await, Err(ClientError::Closed(Some(1012)))));
    assert!(in_time(incoming.next()).await.is_none());
    let end = in_time(connection.ended()).await;
    assert_eq!((end.code, end.reconnect_after), (Some(1012), Some(Duration::from_millis(7))));
    assert!(matches!(connection.call(Ping {}).await, Err(ClientError::Closed(Some(1012)))));
}

#[tokio::test]
async fn a_frame_of_a_later_version_counts_with_its_seq() {
    let node = Node::bind().await;
    let options = ConnectionOptions::default();
    let (opened, mut peer) = tokio::join!(Connection::open(&node.address, &options), node.accept());
    let (_connection, mut incoming) = opened.unwrap();
    peer.event(&json!({"type": "Juggled", "body": {"session_id": S, "seq": 4}})).await;
    let odd = json!({"session_id": S, "seq": 5, "time": "2026-01-31T12:00:00.000Z", "user_id": ME, "reason": "flew"});
    peer.event(&json!({"type": "MemberLeft", "body": odd})).await;
    for expected in [4, 5] {
        match in_time(incoming.next()).await {
            Some(ServerFrame::UnknownEvent { seq, .. }) => assert_eq!(seq, expected),
            other => panic!("expected an unknown event, got {other:?}"),
        }
    }
}

/// Authenticates a client that is in S, with this much to catch up.
async fn welcome(peer: &mut Peer, last_seq: u64, from_seq: u64) -> serde_json::Value {
    peer.authenticated(last_seq).await;
    let (id, body) = peer.request("resume").await;
    peer.reply(id, &json!({"sessions": [{"session_id": S, "from_seq": from_seq}], "gone": []})).await;
    body
}

#[tokio::test]
async fn after_a_restart_of_the_node_the_client_goes_on_where_it_was() {
    let node = Node::bind().await;
    let (client, mut news) = start(&node);
    let mut peer = node.accept().await;
    assert_eq!(welcome(&mut peer, 2, 1).await, json!({}), "nothing is known yet");
    peer.role_changed(1).await;
    peer.role_changed(2).await;
    assert_eq!(seqs(&mut news, 2).await, [1, 2]);
    peer.event(&json!({"type": "GoingAway", "body": {"reconnect_after_ms": 1}})).await;
    peer.close(1012).await;
    hears(&mut news, |news| matches!(news, News::Disconnected)).await;

    let mut peer = node.accept().await;
    let resumed = welcome(&mut peer, 3, 3).await;
    assert_eq!(resumed, json!({"cursors": {S: {"seq": 2, "log": "the-log"}}}));
    peer.role_changed(2).await;
    peer.role_changed(3).await;
    assert_eq!(
        hears(&mut news, |news| matches!(news, News::Repeated { .. })).await,
        News::Repeated { session_id: S.parse().unwrap(), seq: 2 }
    );
    assert_eq!(seqs(&mut news, 1).await, [3], "what comes twice is told once");
    drop(client);
}

#[tokio::test]
async fn when_a_node_is_gone_the_client_goes_on_at_another_where_it_was() {
    let (going, staying) = (Node::bind().await, Node::bind().await);
    let (_client, mut news) = start_at(Servers::new(going.address(), [staying.address()]).unwrap());
    let mut peer = going.accept().await;
    welcome(&mut peer, 1, 1).await;
    peer.role_changed(1).await;
    assert_eq!(seqs(&mut news, 1).await, [1]);
    drop((going, peer));

    let mut peer = staying.accept().await;
    let resumed = welcome(&mut peer, 2, 2).await;
    assert_eq!(resumed, json!({"cursors": {S: {"seq": 1, "log": "the-log"}}}));
    peer.role_changed(2).await;
    assert_eq!(seqs(&mut news, 1).await, [2]);
    drop(peer);
    // Only the connection broke: the same node again, and the one that is gone is not asked.
    welcome(&mut staying.accept().await, 2, 3).await;
}

#[tokio::test]
async fn a_node_that_sends_its_clients_away_is_left_for_another_though_it_still_listens() {
    let (first, second) = (Node::bind().await, Node::bind().await);
    let (_client, mut news) = start_at(Servers::new(first.address(), [second.address()]).unwrap());
    let mut peer = first.accept().await;
    welcome(&mut peer, 0, 1).await;
    peer.event(&json!({"type": "GoingAway", "body": {"reconnect_after_ms": 1}})).await;
    peer.close(4005).await;
    hears(&mut news, |news| matches!(news, News::Disconnected)).await;
    let mut peer = second.accept().await;
    // It refuses for now: back to the first.
    let (id, _) = peer.request("authenticate").await;
    peer.refuse(id, "rate_limited").await;
    welcome(&mut first.accept().await, 0, 1).await;
    hears(&mut news, |news| matches!(news, News::Connected { .. })).await;
}

#[tokio::test]
async fn http_calls_go_to_an_address_that_can_be_reached() {
    let gone = Node::bind().await.address();
    let node = Node::bind().await;
    let http = HttpClient::new(Servers::new(gone, [node.address()]).unwrap());
    let (page, request) = in_time(async { tokio::join!(http.page("/readyz"), node.answer_a_call("200 OK")) }).await;
    assert_eq!(page.unwrap(), (200, "ok".to_owned()));
    assert!(request.starts_with("GET /readyz ") && request.contains(&node.address().authority()), "{request}");
}

#[tokio::test]
async fn an_http_call_after_one_that_was_answered_503_goes_to_another_address() {
    let (starting, ready) = (Node::bind().await, Node::bind().await);
    let http = HttpClient::new(Servers::new(starting.address(), [ready.address()]).unwrap());
    let refused = starting.answer_a_call("503 Service Unavailable");
    let (page, _) = in_time(async { tokio::join!(http.page("/readyz"), refused) }).await;
    assert_eq!(page.unwrap().0, 503);
    let (page, _) = in_time(async { tokio::join!(http.page("/readyz"), ready.answer_a_call("200 OK")) }).await;
    assert_eq!(page.unwrap().0, 200);
}

#[tokio::test]
async fn what_waits_for_a_connection_is_not_said_in_the_clear_if_the_session_became_encrypted_meanwhile() {
    let node = Node::bind().await;
    let (client, mut news) = start(&node);
    let mut peer = node.accept().await;
    welcome(&mut peer, 0, 1).await;
    hears(&mut news, |news| matches!(news, News::Connected { .. })).await;
    drop(peer);
    hears(&mut news, |news| matches!(news, News::Disconnected)).await;
    let saying = client.say(S.parse().unwrap(), "a secret");
    let serving = async {
        let mut peer = node.accept().await;
        peer.authenticated_in(0, Some(1)).await;
        let (id, _) = peer.request("resume").await;
        peer.reply(id, &json!({"sessions": [{"session_id": S, "from_seq": 1}], "gone": []})).await;
        peer.request("fetch_room_keys").await
    };
    tokio::select! {
        said = saying => panic!("nobody answered: {said:?}"),
        _ = in_time(serving) => {}
    }
}

#[tokio::test]
async fn what_keys_need_is_asked_for_until_the_node_answers() {
    let node = Node::bind().await;
    let options = ConnectionOptions { request_timeout: Duration::from_millis(200), ..ConnectionOptions::default() };
    let (client, _news) = start_with(node.address(), options);
    let serving = async {
        let mut peer = node.accept().await;
        peer.authenticated_in(0, Some(1)).await;
        let (id, _) = peer.request("resume").await;
        peer.reply(id, &json!({"sessions": [{"session_id": S, "from_seq": 1}], "gone": []})).await;
        let (_, unanswered) = peer.request("fetch_room_keys").await;
        let (id, again) = peer.request("fetch_room_keys").await;
        assert_eq!(unanswered, again);
        peer.refuse(id, "rate_limited").await;
        let (_, again) = peer.request("fetch_room_keys").await;
        assert_eq!(unanswered, again);
    };
    tokio::select! {
        said = client.say(S.parse().unwrap(), "a secret") => panic!("there is no key: {said:?}"),
        () = in_time(serving) => {}
    }
}

#[tokio::test]
async fn a_gap_is_told_and_read_again() {
    let node = Node::bind().await;
    let (_client, mut news) = start(&node);
    let mut peer = node.accept().await;
    welcome(&mut peer, 3, 1).await;
    peer.role_changed(1).await;
    peer.role_changed(3).await;
    let gap = hears(&mut news, |news| matches!(news, News::Gap { .. })).await;
    assert!(matches!(gap, News::Gap { expected: 2, came: 3, .. }));
    let mut peer = node.accept().await;
    let resumed = welcome(&mut peer, 3, 2).await;
    assert_eq!(resumed["cursors"][S]["seq"], json!(1));
    peer.role_changed(2).await;
    peer.role_changed(3).await;
    assert_eq!(seqs(&mut news, 2).await, [2, 3]);
}

#[tokio::test]
async fn a_dead_token_ends_the_client() {
    let node = Node::bind().await;
    let (client, mut news) = start(&node);
    let mut peer = node.accept().await;
    welcome(&mut peer, 0, 1).await;
    hears(&mut news, |news| matches!(news, News::Connected { .. })).await;
    peer.close(4001).await;
    hears(&mut news, |news| matches!(news, News::Stopped { .. })).await;
    assert!(in_time(news.next()).await.is_none());
    assert!(matches!(in_time(client.call(Ping {})).await, Err(ClientError::Stopped)));
}

#[tokio::test]
async fn events_are_acknowledged_together_and_notifications_after_they_were_told() {
    let node = Node::bind().await;
    let (_client, mut news) = start(&node);
    let mut peer = node.accept().await;
    welcome(&mut peer, 0, 1).await;
    for seq in 1..=20 {
        peer.role_changed(seq).await;
    }
    let body = json!({"session_id": S, "invitee_id": ME, "accepted": false});
    peer.event(&json!({"type": "AcceptSessionNotification", "inbox_id": "note", "body": body})).await;
    hears(&mut news, |news| matches!(news, News::Asking(Asking::InvitationAnswered { .. }))).await;
    let (mut acked, mut acks, mut inbox) = (0, 0, None);
    while acked < 20 || inbox.is_none() {
        let (id, name, body) = peer.any_request().await;
        match name.as_str() {
            "ack" => {
                acked = body["seq"].as_u64().unwrap();
                acks += 1;
            }
            "ack_inbox" => inbox = Some(body["inbox_ids"].clone()),
            other => panic!("unexpected {other}"),
        }
        peer.reply(id, &json!({})).await;
    }
    assert_eq!(inbox, Some(json!(["note"])));
    assert!(acks <= 3, "20 events in {acks} acknowledgements");
}

#[tokio::test]
async fn an_invitation_stays_until_it_is_answered() {
    let node = Node::bind().await;
    let (client, mut news) = start(&node);
    let mut peer = node.accept().await;
    welcome(&mut peer, 0, 1).await;
    let body = json!({"session_id": S, "inviter_id": ME, "expire_timestamp": "2026-01-31T12:00:00.000Z"});
    peer.event(&json!({"type": "InviteUserToSession", "inbox_id": "invitation", "body": body})).await;
    hears(&mut news, |news| matches!(news, News::Asking(Asking::Invitation { .. }))).await;
    let (session_id, inviter_id) = client.with_core(|core| core.invitations().next()).unwrap();
    let answer = async { in_time(client.answer_invitation(session_id, inviter_id, true)).await.unwrap() };
    let serve = async {
        // Nothing is acknowledged before the answer.
        let (id, _) = peer.request("accept_join_session_approval").await;
        peer.reply(id, &json!({})).await;
        peer.request("ack_inbox").await.1
    };
    let ((), acked) = tokio::join!(answer, serve);
    assert_eq!(acked, json!({"inbox_ids": ["invitation"]}));
}

#[tokio::test]
async fn closing_says_goodbye() {
    let node = Node::bind().await;
    let (client, mut news) = start(&node);
    let mut peer = node.accept().await;
    welcome(&mut peer, 0, 1).await;
    peer.role_changed(1).await;
    assert_eq!(seqs(&mut news, 1).await, [1]);
    let (_, ended) = tokio::join!(in_time(client.close()), peer.until_closed());
    assert!(ended, "a close frame, not a reset");
}

#[test]
fn events_are_of_the_kind_that_the_tests_send() {
    let text = script::role_changed(7).to_string();
    match crate::protocol::decode_server_frame(&text).unwrap() {
        ServerFrame::Event(event) => assert!(matches!(event.what, Happening::RoleChanged(_)) && event.seq == 7),
        other => panic!("expected an event, got {other:?}"),
    }
}
