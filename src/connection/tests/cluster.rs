//! Several nodes on one store and one bus: a session lives on one of them, its members are connected anywhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::support::{Ground, Raw, SOON, TestNode, TestUser, plain_session, report};
use super::wire::Illness;
use crate::cluster::UserSignal;
use crate::config::Config;
use crate::protocol::SessionId;

const CLUSTER: [u8; 3] = [0xa1, 0xa2, 0xa3];

async fn cluster() -> (Arc<Ground>, Vec<TestNode>) {
    cluster_with(|_| {}).await
}

async fn cluster_with(change: impl Fn(&mut Config)) -> (Arc<Ground>, Vec<TestNode>) {
    let ground = Ground::new().await;
    let mut nodes = Vec::new();
    for number in CLUSTER {
        nodes.push(TestNode::on(&ground, number, &change).await);
    }
    (ground, nodes)
}

/// A user on each node, all in one plain session that lives on the first.
async fn three(nodes: &[TestNode]) -> ([Raw; 3], [TestUser; 3], Value) {
    let users = [nodes[0].user().await, nodes[0].user().await, nodes[0].user().await];
    let mut one = nodes[0].resume(&users[0]).await;
    let mut two = nodes[1].resume(&users[1]).await;
    let mut three = nodes[2].resume(&users[2]).await;
    let session = plain_session(&mut one, &mut [&mut two, &mut three]).await;
    // Live from here on: what is never stored reaches them too.
    for (raw, user) in [(&mut two, &users[1]), (&mut three, &users[2])] {
        while raw.event("MemberJoined").await["user_id"] != user.id.to_string() {}
    }
    ([one, two, three], users, session)
}

fn text(session: &Value, text: &str) -> Value {
    json!({"session_id": session, "markdown_text": text, "is_encrypted": false, "client_msg_id": text})
}

fn id_of(session: &Value) -> SessionId {
    session.as_str().unwrap().parse().unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, held).await.unwrap_or_else(|_| panic!("{what}"));
}

#[actix_web::test]
async fn a_message_reaches_members_on_every_node_and_its_sender_is_answered() {
    let (_ground, nodes) = cluster().await;
    let ([mut one, mut two, mut three], users, session) = three(&nodes).await;
    let reply = two.call("send_msg", text(&session, "from two")).await;
    for raw in [&mut one, &mut two, &mut three] {
        let msg = raw.event("Msg").await;
        assert_eq!((&msg["seq"], &msg["markdown_text"]), (&reply["seq"], &json!("from two")));
        assert_eq!(msg["sender_id"], users[1].id.to_string());
    }
    assert_eq!([nodes[0].sessions.live(), nodes[1].sessions.live(), nodes[2].sessions.live()], [1, 0, 0]);
    assert_eq!(
        three.refused("kick_user", json!({"session_id": session, "user_id": users[0].id})).await,
        "permission_denied"
    );
}

#[actix_web::test]
async fn joining_kicking_and_typing_are_seen_on_other_nodes() {
    let (ground, nodes) = cluster().await;
    let ([mut one, mut two, mut three], users, session) = three(&nodes).await;
    two.call("typing", json!({"session_id": session})).await;
    assert_eq!(one.event("Typing").await["user_id"], users[1].id.to_string());
    assert_eq!(three.event("Typing").await["user_id"], users[1].id.to_string());
    let newcomer = ground.user().await;
    let mut fourth = nodes[2].resume(&newcomer).await;
    two.call("invite_user_to_session", json!({"session_id": session, "invitee": newcomer.id})).await;
    let invitation = fourth.event("InviteUserToSession").await;
    assert_eq!(invitation["inviter_id"], users[1].id.to_string());
    let accept = json!({"session_id": session, "inviter_id": users[1].id, "accepted": true});
    fourth.call("accept_join_session_approval", accept).await;
    assert_eq!(fourth.event("MemberJoined").await["user_id"], newcomer.id.to_string());
    assert_eq!(two.event("AcceptSessionNotification").await["invitee_id"], newcomer.id.to_string());
    one.call("kick_user", json!({"session_id": session, "user_id": newcomer.id})).await;
    assert_eq!(fourth.event("MemberLeft").await["reason"], "kicked");
    assert_eq!(three.event("MemberLeft").await["user_id"], newcomer.id.to_string());
    assert_eq!(fourth.refused("send_msg", text(&session, "still here")).await, "not_a_member");
}

#[actix_web::test]
async fn a_token_that_dies_on_one_node_ends_the_connection_on_another() {
    let (ground, nodes) = cluster().await;
    let user = ground.user().await;
    let mut raw = nodes[1].resume(&user).await;
    let hash = super::support::hash_of(&user.token).unwrap();
    ground.store.remove_token(hash).await.unwrap();
    nodes[0].subscriptions.signal(user.id, UserSignal::TokenDead(hash)).await;
    assert_eq!(raw.close_code().await, Some(4001));
    // And where the bus has lost that, the sweep finds it.
    let other = ground.user().await;
    let mut raw = nodes[1].resume(&other).await;
    ground.store.remove_token(super::support::hash_of(&other.token).unwrap()).await.unwrap();
    nodes[1].recovery.everything().await.unwrap();
    assert_eq!(raw.close_code().await, Some(4001));
}

#[actix_web::test]
async fn calls_that_nobody_answers_are_bounded_and_end_in_time() {
    let (ground, nodes) = cluster_with(|config| {
        config.cluster.call_bytes = 4000;
        config.cluster.call_deadline_ms = 500;
    })
    .await;
    let ([_one, mut two, _three], _, session) = three(&nodes).await;
    two.call("send_msg", text(&session, "before")).await;
    ground.wire.cut(nodes[0].id);
    let asked = pipeline(&mut two, &session, "unheard", 10).await;
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for request in asked {
        let answer = two.answer(request).await;
        *codes.entry(answer["body"]["code"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert_eq!(codes, BTreeMap::from([("overloaded".to_owned(), 7), ("unavailable".to_owned(), 3)]));
    assert_eq!(nodes[1].metrics.calls_waiting.get(), 0);
    assert_eq!(nodes[1].metrics.calls_expired.get(), 3);
}

#[actix_web::test]
async fn what_waits_for_one_node_is_bounded_and_leaves_the_others_alone() {
    for (calls, bytes) in [(3, usize::MAX), (usize::MAX, 4000)] {
        let limit = |config: &mut Config| {
            (config.cluster.node_calls, config.cluster.node_call_bytes) = (calls, bytes);
        };
        let (ground, nodes) = cluster_with(limit).await;
        let ([_one, mut two, mut three], _, session) = three(&nodes).await;
        let elsewhere = plain_session(&mut three, &mut [&mut two]).await;
        two.call("send_msg", text(&session, "before")).await;
        two.call("send_msg", text(&elsewhere, "before")).await;
        ground.wire.cut(nodes[0].id);
        let asked = pipeline(&mut two, &session, "unheard", 10).await;
        // Those beyond the limit are told at once, while the others wait for their node.
        for request in &asked[3..] {
            let refusal = two.answer(*request).await;
            assert_eq!((&refusal["body"]["code"], &refusal["body"]["retryable"]), (&json!("overloaded"), &json!(true)));
        }
        assert_eq!(nodes[1].metrics.calls_waiting.get(), 3);
        two.call("send_msg", text(&elsewhere, "meanwhile")).await;
        // Whatever waited goes to whoever owns the session next, and there is room again.
        ground.store.end_lease(nodes[0].id).await.unwrap();
        seqs(&mut two, asked[..3].to_vec()).await;
        assert_eq!(nodes[1].metrics.calls_waiting.get(), 0);
        let page = two.call("fetch_msgs", json!({"session_id": session, "limit": 100})).await;
        let said = page["events"].as_array().unwrap().iter().filter(|event| event["type"] == "Msg");
        assert_eq!(said.count(), 4);
    }
}

/// Sends without waiting, so many messages on one connection; their requests.
async fn pipeline(raw: &mut Raw, session: &Value, name: &str, count: usize) -> Vec<u64> {
    let mut requests = Vec::new();
    for number in 0..count {
        requests.push(raw.ask("send_msg", text(session, &format!("{name}-{number}"))).await);
    }
    requests
}

async fn seqs(raw: &mut Raw, requests: Vec<u64>) -> Vec<u64> {
    let mut seqs = Vec::new();
    for request in requests {
        let answer = raw.answer(request).await;
        seqs.push(answer["body"]["seq"].as_u64().unwrap_or_else(|| panic!("{answer}")));
    }
    seqs
}

#[actix_web::test]
async fn a_session_that_moves_while_many_speak_loses_nothing_and_keeps_their_order() {
    let (_ground, nodes) = cluster().await;
    let ([_one, mut two, mut three], _, session) = three(&nodes).await;
    let speaking = async {
        let mut all = (Vec::new(), Vec::new());
        for round in 0..20 {
            let asked = (
                pipeline(&mut two, &session, &format!("two-{round}"), 10).await,
                pipeline(&mut three, &session, &format!("three-{round}"), 10).await,
            );
            all.0.extend(seqs(&mut two, asked.0).await);
            all.1.extend(seqs(&mut three, asked.1).await);
        }
        all
    };
    let moving = async {
        // The owner is drained: it refuses, and another one goes on.
        nodes[0].sessions.stop(SOON).await;
        // From then on the session is given up wherever it is, again and again.
        loop {
            nodes.iter().for_each(|node| node.sessions.let_go());
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    let said = tokio::select! {
        said = speaking => said,
        () = moving => unreachable!("it never ends"),
    };
    let activations: u64 = nodes.iter().map(|node| node.metrics.activations.get()).sum();
    assert!(activations > 3, "it moved {activations} times only");
    assert!(said.0.windows(2).all(|two| two[0] < two[1]), "{:?}", said.0);
    assert!(said.1.windows(2).all(|two| two[0] < two[1]), "{:?}", said.1);
    let mut all: Vec<u64> = said.0.into_iter().chain(said.1).collect();
    all.sort_unstable();
    assert!(all.windows(2).all(|two| two[1] == two[0] + 1), "one after the other: {all:?}");
    assert_eq!(all.len(), 400);
}

#[actix_web::test]
async fn a_session_that_panics_while_other_nodes_send_loses_nothing_acknowledged_and_works_again() {
    let (_ground, nodes) = cluster().await;
    let ([mut one, mut two, mut three], _, session) = three(&nodes).await;
    let other = plain_session(&mut one, &mut [&mut two]).await;
    two.call("send_msg", text(&session, "before")).await;
    let mut acknowledged = BTreeMap::from([("before".to_owned(), 1)]);
    let mut refused = 0;
    for round in 0..3 {
        let names = [format!("two-{round}"), format!("three-{round}")];
        nodes[0].poison.give(id_of(&session));
        let asked = [
            pipeline(&mut two, &session, &names[0], 10).await, //
            pipeline(&mut three, &session, &names[1], 10).await,
        ];
        two.call("send_msg", text(&other, &format!("meanwhile-{round}"))).await;
        for (raw, (name, requests)) in [&mut two, &mut three].into_iter().zip(names.iter().zip(asked)) {
            for (number, request) in requests.into_iter().enumerate() {
                let answer = raw.answer(request).await;
                if answer["type"] == "error" {
                    let code = answer["body"]["code"].as_str().unwrap();
                    assert!(["internal", "unavailable"].contains(&code), "{answer}");
                    refused += 1;
                    // What a client does: the same again.
                    raw.call("send_msg", text(&session, &format!("{name}-{number}"))).await;
                }
                *acknowledged.entry(format!("{name}-{number}")).or_insert(0) += 1;
            }
        }
    }
    assert!(refused >= 3, "it panicked three times");
    let page = three.call("fetch_msgs", json!({"session_id": session, "limit": 1000})).await;
    let mut stored = BTreeMap::new();
    let events = page["events"].as_array().unwrap();
    let seqs: Vec<u64> = events.iter().map(|event| event["body"]["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1), "dense: {seqs:?}");
    for event in events {
        if let Some(id) = event["body"]["client_msg_id"].as_str() {
            *stored.entry(id.to_owned()).or_insert(0) += 1;
        }
    }
    assert_eq!(stored, acknowledged);
    // It died each time, and lives where it did.
    assert_eq!([nodes[0].sessions.live(), nodes[1].sessions.live(), nodes[2].sessions.live()], [2, 0, 0]);
    assert_eq!(nodes[0].metrics.sessions.get(), 2);
}

#[actix_web::test]
async fn a_drained_session_is_taken_over_at_once_though_its_former_node_is_gone() {
    let (ground, nodes) = cluster().await;
    let ([_one, mut two, mut three], _, session) = three(&nodes).await;
    two.call("send_msg", text(&session, "before")).await;
    let place = id_of(&session);
    assert_eq!(nodes[1].sessions.way_to(place), Some(nodes[0].id));
    assert_eq!(nodes[0].sessions.stop(SOON).await, 0);
    until("nobody heard that it was given up", || nodes[1].sessions.way_to(place).is_none()).await;
    ground.wire.cut(nodes[0].id);
    let began = Instant::now();
    two.call("send_msg", text(&session, "after")).await;
    assert!(began.elapsed() < Duration::from_millis(1000), "it waited for a dead node: {:?}", began.elapsed());
    assert_eq!(three.event("Msg").await["markdown_text"], "before");
    assert_eq!(three.event("Msg").await["markdown_text"], "after");
}

#[actix_web::test]
async fn an_owner_that_dies_is_followed_by_another_as_soon_as_its_lease_is_over() {
    let (ground, nodes) = cluster().await;
    let ([_one, mut two, mut three], _, session) = three(&nodes).await;
    two.call("send_msg", text(&session, "before")).await;
    ground.wire.cut(nodes[0].id);
    let first = two.ask("send_msg", text(&session, "between")).await;
    let kick = three.ask("leave_session", json!({"session_id": session})).await;
    ground.store.renew_lease(nodes[0].id, 500, &report()).await.unwrap();
    let began = Instant::now();
    let answer = two.answer(first).await;
    assert!(answer["body"]["seq"].is_u64(), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    // It may have been done before the node died: nobody does it twice.
    assert_eq!(three.answer(kick).await["body"]["code"], "unavailable");
    two.call("send_msg", text(&session, "after")).await;
    for expected in ["before", "between", "after"] {
        assert_eq!(three.event("Msg").await["markdown_text"], expected);
    }
}

#[actix_web::test]
async fn nothing_is_lost_doubled_or_out_of_order_on_a_bus_that_does_all_of_it() {
    let (ground, nodes) = cluster().await;
    let ([mut one, mut two, mut three], _, session) = three(&nodes).await;
    ground.wire.falls_ill(Illness { lost: 10, doubled: 10, late: 10 });
    let mut said: BTreeMap<u64, String> = BTreeMap::new();
    for round in 0..5 {
        for (raw, name) in [(&mut one, "one"), (&mut two, "two"), (&mut three, "three")] {
            let asked = pipeline(raw, &session, &format!("{name}-{round}"), 10).await;
            let seqs = seqs(raw, asked).await;
            assert!(seqs.windows(2).all(|two| two[0] < two[1]), "{name}: {seqs:?}");
            for (number, seq) in seqs.into_iter().enumerate() {
                assert_eq!(said.insert(seq, format!("{name}-{round}-{number}")), None, "one number for two");
            }
        }
    }
    assert_eq!(said.len(), 150);
    // What is still missing somewhere the sweep finds.
    for node in &nodes {
        node.recovery.everything().await.unwrap();
    }
    for raw in [&mut one, &mut two, &mut three] {
        let mut heard = Vec::new();
        while heard.len() < said.len() {
            let msg = raw.event("Msg").await;
            heard.push((msg["seq"].as_u64().unwrap(), msg["markdown_text"].as_str().unwrap().to_owned()));
        }
        assert_eq!(heard, said.clone().into_iter().collect::<Vec<_>>());
    }
}

#[actix_web::test]
async fn what_the_bus_lost_is_found_though_nobody_speaks_again() {
    let (ground, nodes) = cluster().await;
    let ([mut one, mut two, _three], _, session) = three(&nodes).await;
    one.call("send_msg", text(&session, "heard")).await;
    assert_eq!(two.event("Msg").await["markdown_text"], "heard");
    let newcomer = ground.user().await;
    let mut fourth = nodes[2].resume(&newcomer).await;
    ground.wire.falls_ill(Illness { lost: 100, ..Illness::default() });
    one.call("send_msg", text(&session, "lost")).await;
    one.call("invite_user_to_session", json!({"session_id": session, "invitee": newcomer.id})).await;
    for node in &nodes {
        node.recovery.everything().await.unwrap();
    }
    assert_eq!(two.event("Msg").await["markdown_text"], "lost");
    fourth.event("InviteUserToSession").await;
}

#[actix_web::test]
async fn an_idle_session_is_given_up_and_comes_to_life_where_it_is_spoken_to() {
    let (_ground, nodes) = cluster_with(|config| config.sessions.idle_s = 1).await;
    let ([mut one, mut two, _three], _, session) = three(&nodes).await;
    until("it is not given up", || nodes[0].sessions.live() == 0).await;
    two.call("send_msg", text(&session, "here now")).await;
    assert_eq!(one.event("Msg").await["markdown_text"], "here now");
    let (version, _) = nodes[0].store.position(id_of(&session)).await.unwrap().unwrap();
    assert!(version > 0 && nodes[0].sessions.live() + nodes[1].sessions.live() == 1);
}

#[actix_web::test]
async fn a_rotator_on_another_node_is_asked_behind_its_answer_and_holders_anywhere_after_that() {
    let (ground, nodes) = cluster_with(|config| config.cluster.roll_call_ms = 200).await;
    let owner = ground.user().await;
    let mut one = nodes[0].resume(&owner).await;
    let created = one.call("new_session", json!({"e2ee_on": true})).await;
    let session = created["session_id"].clone();
    let member = ground.user().await;
    let mut two = nodes[1].resume(&member).await;
    one.call("invite_user_to_session", json!({"session_id": session, "invitee": member.id})).await;
    two.event("InviteUserToSession").await;
    let accept = json!({"session_id": session, "inviter_id": owner.id, "accepted": true});
    two.call("accept_join_session_approval", accept).await;
    // The one who holds the key is asked for the newcomer's.
    let asked = one.event("SendRoomKeyNotification").await;
    assert_eq!(asked["user_id"], member.id.to_string());
    let key = json!({"session_id": session, "user_id": member.id, "room_key": "AAAA", "key_epoch": 1});
    one.call("send_room_key", key).await;
    two.event("ReceiveRoomKeyNotification").await;
    // A third one comes, and only the second is there to be asked, on a node that does not own the session.
    let third = ground.user().await;
    let mut three = nodes[2].resume(&third).await;
    two.call("invite_user_to_session", json!({"session_id": session, "invitee": third.id})).await;
    three.event("InviteUserToSession").await;
    drop(one);
    let key_holder = owner.id;
    until("the first is still here", || nodes[0].subscriptions.people_here().iter().all(|(id, _)| *id != key_holder))
        .await;
    let accept = json!({"session_id": session, "inviter_id": member.id, "accepted": true});
    three.call("accept_join_session_approval", accept).await;
    let asked = two.event("SendRoomKeyNotification").await;
    assert_eq!((&asked["user_id"], &asked["key_epoch"]), (&json!(third.id), &json!(1)));
    let key = json!({"session_id": session, "user_id": third.id, "room_key": "AAAA", "key_epoch": 1});
    two.call("send_room_key", key).await;
    three.event("ReceiveRoomKeyNotification").await;
    // Someone leaves: who speaks next, on another node, makes the new key, asked behind the answer.
    let mut one = nodes[0].resume(&owner).await;
    one.call("e2eeize_session", json!({"session_id": session})).await;
    assert_eq!(one.event("UpdateRoomKeyNotification").await["key_epoch"], 2);
    one.call("leave_session", json!({"session_id": session, "force": true})).await;
    let speak = two.ask("send_msg", text(&session, "marked")).await;
    let mut order = Vec::new();
    while order.len() < 2 {
        let frame = two.text().await.unwrap();
        if frame["reply_to"] == speak || frame["type"] == "UpdateRoomKeyNotification" {
            order.push(frame["type"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(order, ["send_msg", "UpdateRoomKeyNotification"]);
    assert_eq!(two.event("SendRoomKeyNotification").await["user_id"], third.id.to_string());
}
