//! Wrapped room keys on their way: who may send them, to whom, and who reads them.

use serde_json::{Value, json};

use crate::support::*;

fn lost(sid: &str) -> Value {
    json!({"session_id": sid, "reason": "lost"})
}

#[tokio::test]
async fn a_holder_gives_the_current_key_to_a_member_without_it() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut []).await;
    admit(&mut a, &mut b, &sid).await;
    let ask = a.expect("SendRoomKeyNotification").await;
    let expected = json!({"session_id": sid, "user_id": b.user_id, "public_key": keys::SPKI, "key_epoch": 1});
    assert_eq!(ask, expected);
    assert_eq!(member(&info(&mut a, &sid).await, &b.user_id)["has_key"], false);

    let mut key = key_for(&sid, &b.user_id, 1);
    key.as_object_mut().expect("an object").remove("key_epoch");
    assert_eq!(a.ok("send_room_key", key).await, json!({}), "left out, the current one is meant");
    let frame = b.expect_frame("ReceiveRoomKeyNotification", |_| true).await;
    assert!(frame["inbox_id"].is_string());
    let mut expected = key_for(&sid, &a.user_id, 1);
    expected["room_key"] = key_for(&sid, &b.user_id, 1)["room_key"].take();
    assert_eq!(frame["body"], expected, "`user_id` is who sent it");
    assert_eq!(member(&info(&mut a, &sid).await, &b.user_id)["has_key"], true);
    let again = key_for(&sid, &b.user_id, 1);
    refused_and_unchanged_alone(&mut a, &sid, "send_room_key", again, "already_exists").await;
    settle(&sid, &mut a, &mut [&mut b]).await;
}

async fn refused_and_unchanged_alone(owner: &mut Client, sid: &str, name: &str, body: Value, code: &str) {
    let before = info(owner, sid).await;
    owner.refused(name, body, code).await;
    assert_eq!(info(owner, sid).await, before);
}

#[tokio::test]
async fn a_key_of_another_epoch_or_with_another_check_value_is_refused() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut []).await;
    admit(&mut a, &mut b, &sid).await;
    let good = key_for(&sid, &b.user_id, 1);
    let rows: &[(&str, Value, &[&str])] = &[
        ("key_epoch", json!(2), &["stale_room_key", "permission_denied"]),
        ("key_epoch", json!(u64::MAX), &["stale_room_key", "permission_denied"]),
        ("key_check", json!(check(2)), &["key_mismatch"]),
        ("user_id", json!(NOBODY), &["not_found"]),
        ("room_key", json!("bm8gcGFkZGluZw"), &["invalid_argument"]),
        ("room_key", json!("a2V_"), &["invalid_argument"]),
        ("room_key", json!(""), &["invalid_argument"]),
        ("signature", json!("!"), &["invalid_argument"]),
    ];
    let before = info(&mut a, &sid).await;
    for (field, value, codes) in rows {
        let mut body = good.clone();
        body[field] = value.clone();
        a.refused_any("send_room_key", body, codes).await;
    }
    assert_eq!(info(&mut a, &sid).await, before);
    b.none("ReceiveRoomKeyNotification").await;
    a.ok("send_room_key", good).await;
}

#[tokio::test]
async fn nobody_plants_a_key() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let mut stranger = node.client("stranger").await;
    let sid = encrypted(&mut a, &mut []).await;
    admit(&mut a, &mut b, &sid).await;
    admit(&mut a, &mut c, &sid).await;
    let before = info(&mut a, &sid).await;
    // Bob is a member without the key, and no rotator.
    for epoch in [1, 2] {
        let body = key_for(&sid, &c.user_id, epoch);
        b.refused_any("send_room_key", body, &["permission_denied", "stale_room_key"]).await;
        let bob = b.user_id.clone();
        let to_self = key_for(&sid, &bob, epoch);
        b.refused_any("send_room_key", to_self, &["permission_denied", "stale_room_key"]).await;
        let many = keys_for(&sid, &[&c.user_id], epoch);
        b.refused_any("send_room_keys", many, &["permission_denied", "stale_room_key"]).await;
    }
    stranger.refused("send_room_key", key_for(&sid, &c.user_id, 1), "not_a_member").await;
    assert_eq!(info(&mut a, &sid).await, before);
    c.none("ReceiveRoomKeyNotification").await;
}

#[tokio::test]
async fn a_holder_sends_to_oneself_for_ones_other_devices() {
    let node = Node::shared().await;
    let alice = node.user("alice").await;
    let mut a = alice.connect().await;
    let sid = encrypted(&mut a, &mut []).await;
    a.ok("send_room_key", key_for(&sid, &alice.id, 1)).await;
    let mut other = alice.connect().await;
    let page = other.ok("fetch_room_keys", of(&sid)).await;
    assert_eq!(page["room_keys"][0]["room_key"], key_for(&sid, &alice.id, 1)["room_key"]);
    assert_eq!(page["room_keys"][0]["user_id"], *alice.id);
}

#[tokio::test]
async fn keys_for_many_tell_who_could_not_be_given_one() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    admit(&mut a, &mut c, &sid).await;
    let reply = a.ok("send_room_keys", keys_for(&sid, &[&b.user_id, &c.user_id, NOBODY], 1)).await;
    c.expect("ReceiveRoomKeyNotification").await;
    let failed = reply["failed_members"].as_array().expect("a list");
    assert_eq!(failed.len(), 2, "{reply}");
    assert!(failed.contains(&json!({"user_id": b.user_id, "reason": "already_exists"})), "{reply}");
    assert!(failed.contains(&json!({"user_id": NOBODY, "reason": "not_found"})), "{reply}");
    assert_eq!(reply.as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(a.ok("send_room_keys", keys_for(&sid, &[], 1)).await, json!({"failed_members": []}));
    let mut wrong = keys_for(&sid, &[], 1);
    wrong["key_check"] = json!(check(9));
    a.refused("send_room_keys", wrong, "key_mismatch").await;
}

#[tokio::test]
async fn a_wrong_element_is_named_with_its_place() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = encrypted(&mut a, &mut []).await;
    let good = json!({"user_id": NOBODY, "room_key": "a2V5"});
    for (wrong, path) in [
        (json!({"user_id": "x", "room_key": "a2V5"}), "room_keys[3].user_id"),
        (json!({"user_id": NOBODY, "room_key": "*"}), "room_keys[3].room_key"),
        (json!({"user_id": NOBODY}), "room_keys[3].room_key"),
        (json!([NOBODY, "a2V5"]), "room_keys[3]"),
    ] {
        let body = json!({"session_id": sid, "room_keys": [good, good, good, wrong]});
        let error = a.refused("send_room_keys", body, "invalid_argument").await;
        assert!(error["message"].as_str().expect("a message").starts_with(&format!("{path}: ")), "{error}");
    }
    let body = json!({"session_id": sid, "room_keys": [], "withheld": [{"user_id": NOBODY}]});
    let error = a.refused("send_room_keys", body, "invalid_argument").await;
    assert!(error["message"].as_str().expect("a message").starts_with("withheld[0].reason: "), "{error}");
}

#[tokio::test]
async fn a_lost_key_is_asked_of_a_holder() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b, &mut c]).await;
    for reason in ["lost", "bad"] {
        let body = json!({"session_id": sid, "reason": reason});
        match b.request("request_room_key", body).await {
            Ok(reply) => assert_eq!(reply, json!({})),
            Err(error) => {
                // The second may come too soon after the first.
                assert_eq!((error["code"].as_str(), reason), (Some("rate_limited"), "bad"));
                break;
            }
        }
        assert_eq!(member(&info(&mut b, &sid).await, &b.user_id)["has_key"], false);
        let bob = b.user_id.clone();
        // One holder is asked: whichever it is, the other is not.
        let asked = within("a holder to be asked", async {
            loop {
                for client in [&mut a, &mut c] {
                    client.barrier().await;
                    if client.has("SendRoomKeyNotification") {
                        let ask = client.expect("SendRoomKeyNotification").await;
                        assert_eq!((&ask["user_id"], &ask["key_epoch"]), (&json!(bob), &json!(1)));
                        return_key(client, &sid, &bob).await;
                        return;
                    }
                }
            }
        });
        asked.await;
        b.expect("ReceiveRoomKeyNotification").await;
        assert_eq!(member(&info(&mut b, &sid).await, &bob)["has_key"], true);
    }
    a.none("SendRoomKeyNotification").await;
    c.none("SendRoomKeyNotification").await;
}

async fn return_key(client: &mut Client, sid: &str, user_id: &str) {
    client.ok("send_room_key", key_for(sid, user_id, 1)).await;
}

#[tokio::test]
async fn asking_for_a_key_over_and_over_is_rate_limited() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    for _ in 0..200 {
        if let Err(error) = b.request("request_room_key", lost(&sid)).await {
            assert_refusal(&error);
            assert_eq!(error["code"], "rate_limited");
            return;
        }
    }
    panic!("two hundred requests were taken");
}

#[tokio::test]
async fn wrong_reasons_are_refused() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = encrypted(&mut a, &mut []).await;
    for reason in [json!("gone"), json!(""), json!(7), Value::Null] {
        a.refused("request_room_key", json!({"session_id": sid, "reason": reason}), "invalid_argument").await;
    }
    assert_eq!(member(&info(&mut a, &sid).await, &a.user_id)["has_key"], true);
}

#[tokio::test]
async fn wrapped_keys_are_read_in_pages_by_epoch() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    for epoch in 2..=4 {
        assert_eq!(a.ok("e2eeize_session", of(&sid)).await, json!({"key_epoch": epoch}));
        a.ok("send_room_keys", keys_for(&sid, &[&b.user_id], epoch)).await;
        b.expect_where("RoomKeyRotated", |body| body["key_epoch"] == epoch).await;
    }
    let epochs = |page: &Value| -> Vec<u64> {
        page["room_keys"].as_array().expect("keys").iter().filter_map(|key| key["key_epoch"].as_u64()).collect()
    };
    let all = b.ok("fetch_room_keys", of(&sid)).await;
    assert_eq!((epochs(&all), &all["more"]), (vec![1, 2, 3, 4], &json!(false)));
    let page = b.ok("fetch_room_keys", json!({"session_id": sid, "after_epoch": 1, "limit": 2})).await;
    assert_eq!((epochs(&page), &page["more"]), (vec![2, 3], &json!(true)));
    let page = b.ok("fetch_room_keys", json!({"session_id": sid, "after_epoch": 4})).await;
    assert_eq!(page, json!({"room_keys": [], "more": false}));
    for wrong in [json!({"after_epoch": -1}), json!({"limit": 0})] {
        let mut body = wrong;
        body["session_id"] = json!(sid);
        b.refused("fetch_room_keys", body, "invalid_argument").await;
    }
    b.ok("fetch_room_keys", json!({"session_id": sid, "after_epoch": u64::MAX, "limit": u64::MAX})).await;
    // The owner made them and was sent none.
    assert_eq!(a.ok("fetch_room_keys", of(&sid)).await["room_keys"], json!([]));
}

#[tokio::test]
async fn who_comes_back_reads_no_keys_of_before() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let sid = encrypted(&mut a, &mut [&mut b]).await;
    b.ok("leave_session", of(&sid)).await;
    admit(&mut a, &mut b, &sid).await;
    assert_eq!(b.ok("fetch_room_keys", of(&sid)).await["room_keys"], json!([]));
}
