//! Three nodes on one database and one Redis, and what is done to them: killed, stopped, paused, cut off.
//!
//! Whatever happens, what was acknowledged is seen by every member once, in its order and without a gap.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, LEASE, at, until_ready};
use crate::support::relay::Way;
use crate::support::*;

/// What a busy machine may add to any time that is measured here.
const SLACK: Duration = Duration::from_secs(4);

/// A member on each node; the session lives where it was made, on the first.
async fn three(cluster: &Cluster) -> ([Client; 3], [User; 3], String) {
    let ((mut alice, a), (mut bob, b), (mut carol, c)) =
        (cluster.client(0, "alice").await, cluster.client(1, "bob").await, cluster.client(2, "carol").await);
    let sid = plain(&mut alice, &mut [&mut bob, &mut carol]).await;
    ([alice, bob, carol], [a, b, c], sid)
}

fn message(sid: &str, id: &str) -> Value {
    json!({"session_id": sid, "markdown_text": id, "is_encrypted": false, "client_msg_id": id})
}

/// Says it again and again, as a client does, until it is taken; its `seq`.
async fn say(client: &mut Client, sid: &str, id: &str) -> u64 {
    within("a message to be taken", async {
        loop {
            match client.request("send_msg", message(sid, id)).await {
                Ok(reply) => return reply["seq"].as_u64().expect("a seq"),
                Err(refusal) => assert_eq!(refusal["retryable"], true, "{refusal}"),
            }
        }
    })
    .await
}

/// The next so many messages that a member sees, and that they are these, in order.
async fn sees(client: &mut Client, said: &[(u64, String)]) {
    for (seq, id) in said {
        let seen = client.expect("Msg").await;
        assert_eq!((seen["seq"].as_u64(), seen["client_msg_id"].as_str()), (Some(*seq), Some(id.as_str())));
    }
}

/// The same beside a message that was not acknowledged, and may be there or not.
async fn sees_beside(unknown: &str, client: &mut Client, said: &[(u64, String)]) {
    for (seq, id) in said {
        let seen = client.expect_where("Msg", |body| body["client_msg_id"] != unknown).await;
        assert_eq!((seen["seq"].as_u64(), seen["client_msg_id"].as_str()), (Some(*seq), Some(id.as_str())));
    }
}

/// That the history is dense, and each message stands once.
async fn history_is_whole(client: &mut Client, sid: &str, said: &[(u64, String)]) {
    let page = client.ok("fetch_msgs", json!({"session_id": sid, "limit": 1000})).await;
    let events = page["events"].as_array().expect("events");
    let seqs: Vec<u64> = events.iter().map(|event| event["body"]["seq"].as_u64().expect("a seq")).collect();
    assert!(seqs.windows(2).all(|two| two[1] == two[0] + 1), "{seqs:?}");
    for (seq, id) in said {
        let same: Vec<_> = events.iter().filter(|event| event["body"]["client_msg_id"] == id.as_str()).collect();
        assert_eq!((same.len(), same[0]["body"]["seq"].as_u64()), (1, Some(*seq)), "{id}");
    }
}

#[tokio::test]
async fn members_on_three_nodes_are_in_one_session() {
    let cluster = Cluster::start().await;
    let ([mut alice, mut bob, mut carol], users, sid) = three(&cluster).await;
    let mut said = Vec::new();
    for (number, client) in [&mut bob, &mut alice, &mut carol].into_iter().enumerate() {
        let id = format!("message-{number}");
        said.push((client.ok("send_msg", message(&sid, &id)).await["seq"].as_u64().expect("a seq"), id));
    }
    for client in [&mut alice, &mut bob, &mut carol] {
        sees(client, &said).await;
    }
    bob.ok("typing", json!({"session_id": sid})).await;
    carol.expect_where("Typing", |body| body["user_id"] == users[1].id.as_str()).await;
    alice.ok("kick_user", json!({"session_id": sid, "user_id": users[2].id})).await;
    let left = carol.expect("MemberLeft").await;
    assert_eq!((&left["user_id"], &left["reason"]), (&json!(users[2].id), &json!("kicked")));
    assert_eq!(cluster.nodes[0].metric("conclave_sessions_live").await, 1);
    assert_eq!(cluster.nodes[1].metric("conclave_sessions_live").await, 0);
    // Logged out on one node, gone on another.
    assert_eq!(at(&users[1], &cluster.nodes[0]).call("POST", "/v1/logout", None).await.status, 204);
    assert_eq!(bob.closed().await, 4001);
}

#[tokio::test]
async fn a_killed_owner_is_followed_as_soon_as_its_lease_is_over_and_nothing_is_lost() {
    let cluster = Cluster::start().await;
    let ([mut alice, mut bob, mut carol], users, sid) = three(&cluster).await;
    let mut said = vec![(say(&mut alice, &sid, "before").await, "before".to_owned())];
    cluster.nodes[0].signal("KILL");
    let killed = Instant::now();
    said.push((say(&mut bob, &sid, "first").await, "first".to_owned()));
    let without_service = killed.elapsed();
    println!("without service after a kill: {without_service:?}, of which {LEASE:?} are the lease");
    assert!(without_service < LEASE + Duration::from_secs(1) + SLACK, "{without_service:?}");
    for number in 0..20 {
        let id = format!("after-{number}");
        said.push((say(&mut carol, &sid, &id).await, id));
    }
    sees(&mut bob, &said).await;
    sees(&mut carol, &said).await;
    let mut alice = at(&users[0], &cluster.nodes[2]).connect().await;
    history_is_whole(&mut alice, &sid, &said).await;
}

#[tokio::test]
async fn a_node_that_is_stopped_hands_its_sessions_over_without_a_refusal() {
    let mut cluster = Cluster::start().await;
    let ([mut alice, mut bob, mut carol], _, sid) = three(&cluster).await;
    let (mut said, mut longest) = (Vec::new(), Duration::ZERO);
    for number in 0..200 {
        if number == 50 {
            cluster.nodes[0].terminate();
        }
        let (began, id) = (Instant::now(), format!("message-{number}"));
        said.push((bob.ok("send_msg", message(&sid, &id)).await["seq"].as_u64().expect("a seq"), id));
        longest = longest.max(began.elapsed());
    }
    println!("the longest answer while a node was drained: {longest:?}");
    assert!(longest < Duration::from_millis(200) + SLACK, "{longest:?}");
    alice.expect("GoingAway").await;
    assert_eq!(alice.closed().await, 1012);
    assert!(cluster.nodes[0].terminated().await.success());
    sees(&mut bob, &said).await;
    sees(&mut carol, &said).await;
    history_is_whole(&mut carol, &sid, &said).await;
}

#[tokio::test]
async fn a_node_that_slept_through_its_lease_commits_nothing_and_sends_its_clients_away() {
    let cluster = Cluster::start().await;
    let ([mut alice, mut bob, mut carol], users, sid) = three(&cluster).await;
    cluster.nodes[0].signal("STOP");
    // In its hands when it wakes.
    let in_hand = alice.send("send_msg", message(&sid, "in hand")).await;
    let mut said = Vec::new();
    for number in 0..5 {
        let id = format!("asleep-{number}");
        said.push((say(&mut bob, &sid, &id).await, id));
    }
    cluster.nodes[0].signal("CONT");
    let answer = alice.try_answer(in_hand).await;
    assert_eq!(alice.closed().await, 4005);
    said.push((say(&mut carol, &sid, "awake").await, "awake".to_owned()));
    // It went to the next owner, perhaps, and the connection ended before its answer came back.
    let unknown = match answer {
        Some(Ok(reply)) => {
            said.push((reply["seq"].as_u64().expect("a seq"), "in hand".to_owned()));
            "nothing"
        }
        Some(Err(_)) | None => "in hand",
    };
    said.sort();
    sees_beside(unknown, &mut carol, &said).await;
    until_ready(&cluster.nodes[0]).await;
    let mut alice = at(&users[0], &cluster.nodes[0]).connect().await;
    history_is_whole(&mut alice, &sid, &said).await;
    said.push((say(&mut alice, &sid, "back").await, "back".to_owned()));
    sees_beside(unknown, &mut bob, &said).await;
}

#[tokio::test]
async fn a_node_that_alone_has_lost_redis_gives_its_sessions_up_and_sends_its_clients_elsewhere() {
    let cluster = Cluster::start().await;
    let ([mut alice, mut bob, mut carol], users, _) = three(&cluster).await;
    let sid = plain(&mut carol, &mut [&mut alice, &mut bob]).await;
    cluster.to_redis[2].set(Way::Ended);
    let said = vec![(say(&mut alice, &sid, "without carol").await, "without carol".to_owned())];
    carol.expect("GoingAway").await;
    assert_eq!(carol.closed().await, 4005);
    assert_eq!(cluster.nodes[2].get("/readyz").await.status, 503);
    sees(&mut bob, &said).await;
    let mut elsewhere = at(&users[2], &cluster.nodes[1]).connect().await;
    history_is_whole(&mut elsewhere, &sid, &said).await;
    cluster.to_redis[2].set(Way::Open);
    until_ready(&cluster.nodes[2]).await;
    let mut carol = at(&users[2], &cluster.nodes[2]).connect().await;
    let back = vec![(say(&mut carol, &sid, "back").await, "back".to_owned())];
    sees(&mut bob, &back).await;
}

#[tokio::test]
async fn while_nobody_has_redis_clients_stay_and_the_sweep_delivers() {
    let mut cluster = Cluster::start().await;
    let ([mut alice, mut bob, mut carol], _, sid) = three(&cluster).await;
    cluster.redis.kill();
    let mut said = vec![(say(&mut alice, &sid, "at home").await, "at home".to_owned())];
    sees(&mut bob, &said).await;
    sees(&mut carol, &said).await;
    let refused = bob.request("send_msg", message(&sid, "from afar")).await;
    assert_eq!(refused.expect_err("nobody can reach its session")["code"], "unavailable");
    cluster.redis.start_again();
    let later = (say(&mut bob, &sid, "from afar").await, "from afar".to_owned());
    said.push(later.clone());
    for client in [&mut alice, &mut carol] {
        client.expect_where("Msg", |body| body["client_msg_id"] == "from afar").await;
    }
    history_is_whole(&mut carol, &sid, &said).await;
}
