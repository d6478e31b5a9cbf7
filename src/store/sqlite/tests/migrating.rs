//! Databases of former versions.

use sqlx::{ConnectOptions, Connection};

use super::super::open::migrator;
use crate::protocol::{ClientId, Timestamp};
use crate::session::state::RecentMsg;
use crate::store::conformance::{NODE, Session, user};
use crate::store::{Claim, EventRange, SqliteOptions, SqliteStore, Store};

/// One session in schema 2: two messages with ids of their sender's own, one of them forgotten, and one recalled.
async fn write_schema_2(file: &std::path::Path, session: &mut Session) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    migrator(2).run_direct(None, &mut connection, false).await.unwrap();
    let (id, sender) = (session.id(), user(1));
    let head = serde_json::to_string(&session.head).unwrap();
    sqlx::query("INSERT INTO sessions VALUES (?1, ?2, NULL, NULL, 1, 4, 4, 9, 0, 0, NULL, NULL, 0, NULL)")
        .bind(&id.as_bytes()[..])
        .bind(&sender.as_bytes()[..])
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query("INSERT INTO session_heads VALUES (?1, ?2, NULL)")
        .bind(&id.as_bytes()[..])
        .bind(head)
        .execute(&mut connection)
        .await
        .unwrap();
    for (seq, json) in [(1, "{\"n\":1}"), (2, ""), (3, "{\"n\":3}"), (4, "{\"n\":4}")] {
        sqlx::query("INSERT INTO events (session_id, seq, version, json) VALUES (?1, ?2, ?2, ?3)")
            .bind(&id.as_bytes()[..])
            .bind(seq)
            .bind(json)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    sqlx::query("INSERT INTO recalled VALUES (?1, 2, '{\"recalled\":2}')")
        .bind(&id.as_bytes()[..])
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query("INSERT INTO recent_msgs VALUES (?1, ?2, 'mine', 4, 9)")
        .bind(&id.as_bytes()[..])
        .bind(&sender.as_bytes()[..])
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_database_of_schema_2_keeps_its_events_and_what_it_remembers_of_messages() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = Session::new(1, user(1));
    write_schema_2(&dir.path().join("conclave.sqlite3"), &mut session).await;
    let store = SqliteStore::open(&SqliteOptions::new(dir.path())).await.unwrap();
    let page = store.events(session.id(), EventRange::After { after: 0, up_to: None }, 100, 1 << 20).await.unwrap();
    let texts: Vec<_> = page.rows.iter().map(|event| (event.seq, event.json.clone())).collect();
    let expected = [(1, "{\"n\":1}"), (2, "{\"recalled\":2}"), (3, "{\"n\":3}"), (4, "{\"n\":4}")];
    assert_eq!(texts, expected.map(|(seq, text)| (seq, text.into())));
    let Claim::Mine(claimed) = store.claim(session.id(), NODE, true).await.unwrap() else { panic!("not claimed") };
    let mine = ClientId("mine".into());
    let remembered = RecentMsg { sender: user(1), client_msg_id: mine, seq: 4, time: Timestamp::from_millis(9) };
    assert_eq!(claimed.snapshot.recent, [remembered]);
    store.close().await;
}
