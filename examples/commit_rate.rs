//! How many events a store commits each second, fsync included: 50 sessions, each with one commit of a few messages
//! under way, through the group commit. The embedded store, or PostgreSQL where a URL is given.
//!
//! `cargo run --release --example commit_rate -- [DATA_DIR|postgres://..] [SECONDS] [MESSAGES_PER_COMMIT] [SHARDS]`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use conclave::protocol::{
    ClientId, Frame, Happening, JoinPolicy, MemberJoined, Msg, NodeId, Role, SessionEvent, SessionId, Timestamp, UserId,
};
use conclave::session::state::{Change, E2ee, Head, Member, MemberKeys, RecentMsg};
use conclave::store::{
    BatchReport, GroupCommit, GroupCommitOptions, NodeReport, PostgresOptions, PostgresStore, SessionCommit,
    SqliteOptions, SqliteStore, Store, WireVersions, Write,
};
use uuid::Uuid;

const SESSIONS: usize = 50;

/// As many of a sender's ids are remembered at once; each further message has the oldest forgotten.
const REMEMBERED: u64 = 200;

#[derive(Default)]
struct Totals {
    batches: AtomicU64,
    rows: AtomicU64,
    busy_us: AtomicU64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let default = || std::env::temp_dir().join("conclave-commit-rate").to_string_lossy().into_owned();
    let place = args.next().unwrap_or_else(default);
    let seconds = args.next().map_or(Ok(10), |text| text.parse()).context("SECONDS")?;
    let per_commit: u64 = args.next().map_or(Ok(4), |text| text.parse()).context("MESSAGES_PER_COMMIT")?;
    let shards: usize = args.next().map_or(Ok(1), |text| text.parse()).context("SHARDS")?;
    let store: Arc<dyn Store> = if place.starts_with("postgres") {
        Arc::new(PostgresStore::open(&PostgresOptions { shards, ..PostgresOptions::new(place) }).await?)
    } else {
        Arc::new(SqliteStore::open(&SqliteOptions::new(place)).await?)
    };
    let totals = Arc::new(Totals::default());
    let seen = Arc::clone(&totals);
    let observer = move |report: BatchReport| {
        seen.batches.fetch_add(1, Ordering::Relaxed);
        seen.rows.fetch_add(report.rows as u64, Ordering::Relaxed);
        seen.busy_us.fetch_add(report.took.as_micros() as u64, Ordering::Relaxed);
    };
    let node = NodeId::from_bytes([0xbe; 16]);
    let wire = WireVersions { oldest: 1, newest: 1 };
    let report = NodeReport { program: "commit_rate".to_owned(), wire, connections: 0, sessions: 0, bus_ok: true };
    store.renew_lease(node, 3_600_000, &report).await?;
    let options = GroupCommitOptions { shards, ..GroupCommitOptions::default() };
    let commits = GroupCommit::start(Arc::clone(&store), node, options, Some(Arc::new(observer)));

    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let sessions: Vec<_> = (0..SESSIONS).map(|_| tokio::spawn(talk(commits.clone(), per_commit, end))).collect();
    let mut events = 0;
    for session in sessions {
        events += session.await??;
    }
    let took = started.elapsed().as_secs_f64();
    commits.shutdown().await;
    let batches = totals.batches.load(Ordering::Relaxed);
    println!("{events} events in {took:.1} s: {:.0} events/s", events as f64 / took);
    println!(
        "{batches} batches, {:.0} rows and {:.2} ms each",
        totals.rows.load(Ordering::Relaxed) as f64 / batches as f64,
        totals.busy_us.load(Ordering::Relaxed) as f64 / 1000.0 / batches as f64
    );
    store.close().await;
    Ok(())
}

/// One session that commits without a pause until `end`; the events that were stored.
async fn talk(commits: GroupCommit, per_commit: u64, end: Instant) -> anyhow::Result<u64> {
    let (session_id, user_id) = (SessionId::new(Uuid::now_v7()), UserId::new(Uuid::now_v7()));
    let mut commit = first(session_id, user_id);
    let mut stored = 0;
    loop {
        let (version, last_seq) = (commit.version, commit.last_seq);
        stored += commit.writes.iter().filter(|write| matches!(write.change, Change::Event(_))).count() as u64;
        commits.submit(commit).ok().context("the queue is full")?.await??;
        if Instant::now() >= end {
            return Ok(stored);
        }
        let writes = (last_seq + 1..=last_seq + per_commit).flat_map(|seq| message(session_id, user_id, seq)).collect();
        commit = SessionCommit {
            previous_version: version,
            version: version + 1,
            last_seq: last_seq + per_commit,
            remembered_from: (last_seq + per_commit).saturating_sub(REMEMBERED) + 1,
            head: None,
            writes,
            ..first(session_id, user_id)
        };
    }
}

fn message(session_id: SessionId, sender_id: UserId, seq: u64) -> Vec<Write> {
    let id = |seq: u64| ClientId(format!("{seq:036}").into());
    let msg = Msg {
        sender_id,
        markdown_text: "m".repeat(200),
        is_encrypted: false,
        key_epoch: None,
        client_msg_id: Some(id(seq)),
        content_type: None,
        recalled: false,
    };
    let event = SessionEvent { session_id, seq, time: Timestamp::from_millis(0), by: None, what: Happening::Msg(msg) };
    let mut writes = vec![event_write(event)];
    if seq > REMEMBERED + 1 {
        let (seq, time) = (seq - REMEMBERED, Timestamp::from_millis(0));
        let forgotten = RecentMsg { sender: sender_id, client_msg_id: id(seq), seq, time };
        writes.push(Write { change: Change::Forget(forgotten), frame: None });
    }
    writes
}

fn event_write(event: SessionEvent) -> Write {
    let frame = Some(Frame::text(&event.encode()));
    Write { change: Change::Event(event), frame }
}

fn first(session_id: SessionId, creator: UserId) -> SessionCommit {
    let time = Timestamp::from_millis(0);
    let what = Happening::MemberJoined(MemberJoined { user_id: creator, role: Role::Owner });
    let keys = MemberKeys::default();
    let member = Member { user_id: creator, role: Role::Owner, joined_at: time, first_seq: 1, keys };
    SessionCommit {
        session_id,
        fence: 1,
        previous_version: 0,
        version: 1,
        last_seq: 1,
        last_time: time,
        key_messages: 0,
        wants_keys: false,
        remembered_from: 2,
        head: Some(Head {
            session_id,
            creator,
            created_at: time,
            name: None,
            description: None,
            require_encryption: false,
            rotate_on_join: false,
            join_policy: JoinPolicy::Approval,
            e2ee: E2ee::Off { last_epoch: 0 },
            next_inbox: 1,
            passed_over: std::collections::BTreeMap::new(),
            declined: Vec::new(),
            ended: false,
        }),
        client_session_id: None,
        creation_reply: None,
        writes: vec![
            Write { change: Change::PutMember(member), frame: None },
            event_write(SessionEvent { session_id, seq: 1, time, by: Some(creator), what }),
        ],
    }
}
