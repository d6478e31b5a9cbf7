//! Opening: several nodes at once, other versions' schemas, the history's name, a database that is not there.

use std::time::Duration;

use super::server::{PASSWORD, Postgres};
use super::{connect, fresh};
use crate::store::conformance::{Session, user};
use crate::store::{PostgresOptions, PostgresStore, Store, StoreError};

async fn log(store: &PostgresStore) -> String {
    store.sessions_of(user(1)).await.unwrap().remove(0).overview.log
}

#[tokio::test]
async fn three_nodes_may_start_at_once_on_an_empty_database() {
    let options = PostgresOptions::new(Postgres::shared().database().await);
    let (a, b, c) =
        tokio::join!(PostgresStore::open(&options), PostgresStore::open(&options), PostgresStore::open(&options));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    Session::new(1, user(1)).made(&a).await;
    assert_eq!((log(&a).await, log(&b).await), (log(&c).await, log(&c).await), "one history");
}

#[tokio::test]
async fn a_schema_one_version_ahead_is_accepted_and_two_are_refused() {
    let (store, database) = fresh().await;
    store.close().await;
    let options = PostgresOptions::new(Postgres::shared().url(&database));
    let add = |version: i64| {
        format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES ({version}, 'later', TRUE, 'x', 0)"
        )
    };
    Postgres::shared().execute(&database, &add(super::super::open::KNOWN + 1)).await;
    let store = PostgresStore::open(&options).await.unwrap();
    Session::new(1, user(1)).made(&store).await;
    Postgres::shared().execute(&database, &add(super::super::open::KNOWN + 2)).await;
    let refused = PostgresStore::open(&options).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt(_)));
    assert!(refused.to_string().contains("a newer version of conclave wrote the database"), "{refused}");
}

#[tokio::test]
async fn a_copied_database_is_another_history() {
    let (store, database) = fresh().await;
    Session::new(1, user(1)).made(&store).await;
    let first = log(&store).await;
    store.close().await;
    let options = PostgresOptions::new(Postgres::shared().url(&database));
    let store = PostgresStore::open(&options).await.unwrap();
    assert_eq!(log(&store).await, first, "the same after a restart");
    store.close().await;
    let copy = format!("{database}_copy");
    // A connection that was just closed may still be on its way out.
    let mut admin = connect("postgres").await;
    let gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = $1";
    while !sqlx::query_scalar::<_, bool>(gone).bind(&database).fetch_one(&mut admin).await.unwrap() {
        tokio::task::yield_now().await;
    }
    Postgres::shared().execute("postgres", &format!("CREATE DATABASE {copy} TEMPLATE {database}")).await;
    let store = PostgresStore::open(&PostgresOptions::new(Postgres::shared().url(&copy))).await.unwrap();
    assert_ne!(log(&store).await, first);
}

#[tokio::test]
async fn a_database_that_comes_late_is_waited_for() {
    let server = Postgres::start();
    let url = server.database().await;
    server.kill();
    let options = PostgresOptions::new(url);
    let opening = tokio::spawn(async move { PostgresStore::open(&options).await });
    tokio::task::yield_now().await;
    server.begin_again();
    opening.await.unwrap().unwrap().probe().await.unwrap();
}

#[tokio::test]
async fn refusals_name_the_database_and_never_the_password() {
    let good = Postgres::shared().database().await;
    let open = async |url: &str| {
        let options = PostgresOptions { connect_within: Duration::ZERO, ..PostgresOptions::new(url) };
        assert!(!format!("{options:?}").contains("word"), "{options:?}");
        let refused = PostgresStore::open(&options).await.unwrap_err().to_string();
        assert!(!refused.contains(PASSWORD) && !refused.contains("wrong-one"), "{refused}");
        refused
    };
    let refused = open(&good.replace(PASSWORD, "wrong-one")).await;
    assert!(refused.contains("password authentication failed for user \"conclave\""), "{refused}");
    let refused = open(&Postgres::shared().url("nowhere")).await;
    assert!(refused.contains("cannot use the database nowhere at"), "{refused}");
    let refused = open(&good.replace("host=", "host=/nowhere")).await;
    assert!(refused.contains("waited 0 s in vain for the database test_"), "{refused}");
    let refused = open("postgres://conclave:wrong-one@[host/db").await;
    assert!(refused.contains("does not read"), "{refused}");
}
