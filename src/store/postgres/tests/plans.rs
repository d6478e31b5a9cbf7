//! No statement of the daily work looks at a whole table: each finds its rows by an index, however many there are.

use sqlx::{AssertSqlSafe, Row};

use super::super::reads;
use super::{connect, fresh};

/// Tables that grow with use; what is left may be looked at as a whole.
const GROWING: [&str; 12] = [
    "sessions",
    "session_heads",
    "events",
    "recent_msgs",
    "members",
    "restrictions",
    "room_keys",
    "inbox",
    "users",
    "tokens",
    "departures",
    "invitations",
];

#[tokio::test]
async fn reads_of_every_day_find_their_rows_by_an_index() {
    let (_store, database) = fresh().await;
    let mut connection = connect(&database).await;
    // What the statistics of an empty table would choose is not the question.
    for setting in ["enable_seqscan = off", "plan_cache_mode = force_generic_plan"] {
        sqlx::raw_sql(AssertSqlSafe(format!("SET {setting}"))).execute(&mut connection).await.unwrap();
    }
    let statements = [
        ("events_after", "uuid, bigint, bigint, bigint, bigint", reads::EVENTS_AFTER),
        ("events_before", "uuid, bigint, bigint, bigint, bigint", reads::EVENTS_BEFORE),
        ("inbox", "uuid", "SELECT * FROM inbox WHERE user_id = $1 ORDER BY id LIMIT 10"),
        ("members", "uuid", "SELECT * FROM members WHERE session_id = $1 ORDER BY user_id LIMIT 10"),
        ("sessions_of", "uuid", "SELECT session_id FROM members WHERE user_id = $1 ORDER BY session_id"),
    ];
    for (name, types, sql) in statements {
        let prepare = format!("PREPARE {name} ({types}) AS {sql}");
        sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut connection).await.unwrap();
        let nulls = vec!["NULL"; types.split(',').count()].join(", ");
        let explain = format!("EXPLAIN EXECUTE {name} ({nulls})");
        let steps = sqlx::raw_sql(AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        for step in steps {
            let step: String = step.get(0);
            let scans = GROWING.iter().any(|table| step.contains(&format!("Seq Scan on {table}")));
            assert!(!scans, "{step} in {name}");
        }
    }
}
