//! A disk that takes no more, below a node that runs: writes are refused as `unavailable` and reads go on; the node
//! says that it is not ready; and when there is room again, all is well by itself.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_full_disk_refuses_writes_while_reads_go_on_and_the_node_recovers() {
    // The lease is not what this is about: it outlives the disk's bad minute.
    let node = Node::start(&[("store.kind", "sqlite"), ("cluster.lease_s", "60")]).await;
    let (alice, mut b) = (node.user("alice").await, node.client("bob").await);
    let mut a = alice.connect().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    let last = a.ok("send_msg", text(&sid, "before")).await["seq"].as_u64().expect("a seq");
    b.expect_where("Msg", |msg| msg["seq"] == last).await;
    node.until_ready_is(200).await;

    node.limit_files(Some(0));
    let mut refused = text(&sid, "x".repeat(10_000).as_str());
    refused["client_msg_id"] = json!("once");
    for _ in 0..3 {
        a.refused("send_msg", refused.clone(), "unavailable").await;
    }
    a.refused("new_session", json!({"e2ee_on": false}), "unavailable").await;
    let body = json!({"name": unique("carol"), "password": PASSWORD, "public_key": keys::SPKI});
    node.post("/v1/register", &body).await.refused(503, "unavailable");

    let page = b.ok("fetch_msgs", json!({"session_id": sid, "after_seq": last - 1})).await;
    assert_eq!(page["events"][0]["body"]["markdown_text"], "before");
    assert_eq!(page["events"].as_array().map(Vec::len), Some(1), "nothing of what was refused is there");
    assert_eq!(alice.authenticated().await.started["sessions"][0]["last_seq"], last, "tokens and memberships are read");
    let error = node.until_ready_is(503).await.json();
    assert_eq!(error["error"]["code"], "unavailable", "{error}");
    assert_eq!(node.get("/livez").await.status, 200);

    node.limit_files(None);
    node.until_ready_is(200).await;
    let seq = a.ok("send_msg", refused).await["seq"].as_u64().expect("a seq");
    assert_eq!(seq, last + 1, "what was refused took no place");
    b.expect_where("Msg", |msg| msg["seq"] == seq).await;
    node.post("/v1/register", &body).await.expect(201);
    b.none_where("Msg", |msg| msg["seq"] == seq).await;
}

#[tokio::test]
async fn a_node_that_cannot_renew_its_lease_commits_nothing_and_goes_on_when_it_can() {
    let node = Node::start(&[("store.kind", "sqlite"), ("cluster.lease_s", "3")]).await;
    let [mut a, mut b, _] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b]).await;
    node.limit_files(Some(0));
    node.until_ready_is(503).await;
    within("the lease to lapse", async {
        while !node.get("/metrics").await.text.contains("conclave_probe_failures_total{what=\"lease\"}") {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    a.refused("send_msg", text(&sid, "x"), "unavailable").await;
    node.limit_files(None);
    node.until_ready_is(200).await;
    mark(&sid, &mut a, &mut [&mut b]).await;
}
