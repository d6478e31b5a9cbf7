//! `get_session_info`, `set_session_info`, `list_members`.

use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn information_has_the_contracts_fields() {
    let node = Node::shared().await;
    let [mut a, mut b, _] = node.three().await;
    let made = a.ok("new_session", json!({"name": "Tea", "e2ee_on": true, "key_check": check(1)})).await;
    let sid = made["session_id"].as_str().expect("an id").to_owned();
    admit(&mut a, &mut b, &sid).await;
    let seen = info(&mut a, &sid).await;
    let (alice, bob) = (node_name(&seen, &a.user_id), node_name(&seen, &b.user_id));
    let mut expected = json!({
        "session_id": sid, "name": "Tea", "e2ee_on": true, "key_epoch": 1, "require_encryption": false,
        "rotate_on_join": false, "join_policy": "approval", "created_at": seen["created_at"], "last_seq": 2,
        "member_count": 2,
        "members": [
            {"user_id": a.user_id, "name": alice, "role": "owner", "joined_at": seen["members"][0]["joined_at"],
             "has_key": true, "muted": false},
            {"user_id": b.user_id, "name": bob, "role": "member", "joined_at": seen["members"][1]["joined_at"],
             "has_key": false, "muted": false},
        ],
        "join_requests": [], "invitations": [],
    });
    assert_eq!(seen, expected);
    assert!(alice.as_str().is_some_and(|name| name.starts_with("alice")));
    // A member does not see who asks and who is invited.
    let fields = expected.as_object_mut().expect("an object");
    fields.remove("join_requests");
    fields.remove("invitations");
    assert_eq!(info(&mut b, &sid).await, expected);
}

fn node_name(info: &Value, user_id: &str) -> Value {
    member(info, user_id)["name"].clone()
}

#[tokio::test]
async fn owner_and_admins_set_what_the_session_is() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    a.ok("set_role", json!({"session_id": sid, "user_id": b.user_id, "role": "admin"})).await;
    let new = json!({
        "session_id": sid, "name": "Tea", "description": "leaves", "require_encryption": true, "rotate_on_join": true,
        "join_policy": "closed",
    });
    refused_and_unchanged(&mut c, &mut a, &sid, "set_session_info", new.clone(), "permission_denied").await;
    assert_eq!(b.ok("set_session_info", new.clone()).await, json!({}));
    let mut changed = c.expect("SessionInfoChanged").await;
    assert_eq!(changed["by"], *b.user_id);
    let fields = changed.as_object_mut().expect("an object");
    for field in ["seq", "time", "by"] {
        fields.remove(field);
    }
    assert_eq!(changed, new);
    let seen = info(&mut c, &sid).await;
    for field in ["name", "description", "require_encryption", "rotate_on_join", "join_policy"] {
        assert_eq!(seen[field], new[field], "{field}");
    }
}

#[tokio::test]
async fn only_the_fields_that_changed_are_told() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    a.ok("set_session_info", json!({"session_id": sid, "name": "Tea", "rotate_on_join": false})).await;
    let changed = a.expect("SessionInfoChanged").await;
    assert_eq!(changed["name"], "Tea");
    for field in ["description", "require_encryption", "rotate_on_join", "join_policy"] {
        assert!(changed.get(field).is_none(), "{changed}");
    }
    // Nothing at all, and what is so already: done, and nobody hears of it.
    let before = info(&mut a, &sid).await;
    a.ok("set_session_info", of(&sid)).await;
    a.ok("set_session_info", json!({"session_id": sid, "name": "Tea", "join_policy": "approval"})).await;
    assert_eq!(info(&mut a, &sid).await, before);
    a.none("SessionInfoChanged").await;
}

#[tokio::test]
async fn wrong_information_is_refused() {
    let node = Node::shared().await;
    let mut a = node.client("alice").await;
    let sid = plain(&mut a, &mut []).await;
    let before = info(&mut a, &sid).await;
    for (field, value) in [
        ("name", json!(7)),
        ("description", json!([])),
        ("require_encryption", json!("yes")),
        ("rotate_on_join", json!(1)),
        ("join_policy", json!("Open")),
        ("join_policy", json!("")),
        ("name", json!("x".repeat(60_000))),
        ("description", json!("x".repeat(60_000))),
    ] {
        let error = a.refused("set_session_info", json!({"session_id": sid, field: value}), "invalid_argument").await;
        assert!(error["message"].as_str().expect("a message").starts_with(field), "{error}");
    }
    assert_eq!(info(&mut a, &sid).await, before);
}

#[tokio::test]
async fn members_are_listed_in_pages() {
    let node = Node::shared().await;
    let [mut a, mut b, mut c] = node.three().await;
    let sid = plain(&mut a, &mut [&mut b, &mut c]).await;
    let mut expected = vec![a.user_id.clone(), b.user_id.clone(), c.user_id.clone()];
    expected.sort_unstable();
    let mut seen = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = b.ok("list_members", json!({"session_id": sid, "after": after, "limit": 2})).await;
        let members = page["members"].as_array().expect("members");
        seen.extend(members.iter().map(|member| member["user_id"].as_str().expect("an id").to_owned()));
        after = members.last().expect("a member")["user_id"].clone();
        if page["more"] == false {
            break;
        }
        assert_eq!(members.len(), 2);
    }
    seen.sort_unstable();
    assert_eq!(seen, expected, "each once");
    let whole = b.ok("list_members", of(&sid)).await;
    assert_eq!(whole["more"], false);
    let seen = info(&mut b, &sid).await;
    for one in whole["members"].as_array().expect("members") {
        assert_eq!(one, member(&seen, one["user_id"].as_str().expect("an id")), "the same view");
    }
    for wrong in [json!({"after": "x"}), json!({"limit": 0}), json!({"limit": "2"})] {
        let mut body = wrong;
        body["session_id"] = json!(sid);
        b.refused("list_members", body, "invalid_argument").await;
    }
}
