//! Tests of the shared store on a real server: the shared suite, and what is PostgreSQL's alone.

mod collisions;
mod damage;
mod opening;
mod plans;
#[path = "../../../tests/it/support/postgres.rs"]
mod server;

use std::sync::Arc;

use server::Postgres;
use sqlx::{Connection, PgConnection};

use super::{PostgresOptions, PostgresStore};
use crate::store::conformance::{self, Subject};

/// Stands in for the database's clock: a moment that the test moves.
const CLOCK: &str = "
    CREATE TABLE clock (at bigint);
    INSERT INTO clock VALUES (40000);
    CREATE OR REPLACE FUNCTION conclave_now() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT at FROM clock';";

/// A store on a database of its own, and the database's name.
async fn fresh() -> (PostgresStore, String) {
    let url = Postgres::shared().database().await;
    let name = url.split(['/', '?']).nth(3).expect("a database's name").to_owned();
    (PostgresStore::open(&PostgresOptions::new(url)).await.unwrap(), name)
}

async fn open() -> Subject {
    let (store, database) = fresh().await;
    Postgres::shared().execute(&database, CLOCK).await;
    let advance = Box::new(move |millis| {
        let database = database.clone();
        let moved = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let sql = format!("UPDATE clock SET at = at + {millis}");
            runtime.block_on(Postgres::shared().execute(&database, &sql));
        });
        moved.join().unwrap();
    });
    Subject { store: Arc::new(store), advance, _keep: Box::new(()) }
}

conformance::suite!(open);

/// A connection beside the store's own.
async fn connect(database: &str) -> PgConnection {
    PgConnection::connect(&Postgres::shared().url(database)).await.unwrap()
}

/// Waits for a condition that must come to hold.
async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}
