//! Before a run: the nodes are there and of the right version, users are connected, what an earlier run left behind is
//! cleared away, sessions are made and everybody is in them.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::crowd::{Crowd, Ears, End, Heard};
use crate::engine::{Ask, Engine, Phase};
use crate::plan::Plan;
use crate::report::live::Live;
use crate::stop;
use crate::target::Endpoint;
use crate::users::User;
use crate::wire::Outgoing;

/// How long a node may take to answer the first question.
const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// How long connecting everybody may take without anybody getting on.
const STALLED: Duration = Duration::from_secs(60);

/// So many connections take long enough to be shown.
const SHOWN_FROM: usize = 1000;

/// Hears whether nodes take WebSockets.
struct Knock(Vec<Option<Result<(), End>>>);

impl Ears for Knock {
    fn wake(&mut self, _who: usize) {}

    fn hear(&mut self, who: usize, heard: Heard<'_>, _outgoing: &mut Outgoing) {
        let answer = match heard {
            Heard::Open => Ok(()),
            Heard::Ended(end) => Err(end),
            Heard::Text(_) => return,
        };
        self.0[who].get_or_insert(answer);
    }
}

/// Makes sure that each node is there and speaks this version.
pub(crate) fn knock(endpoints: &[Endpoint]) -> Result<()> {
    let mut crowd = Crowd::new(endpoints.len())?;
    let mut knock = Knock(vec![None; endpoints.len()]);
    for (who, endpoint) in endpoints.iter().enumerate() {
        crowd.dial(who, endpoint).with_context(|| format!("no connection to {}", endpoint.url))?;
    }
    let end = std::time::Instant::now() + FIRST_ANSWER;
    while knock.0.iter().any(Option::is_none) && std::time::Instant::now() < end && !stop::asked() {
        crowd.poll(Duration::from_millis(50), &mut knock)?;
    }
    for (endpoint, answer) in endpoints.iter().zip(knock.0) {
        let url = &endpoint.url;
        match answer {
            Some(Ok(())) => {}
            Some(Err(End::Unreachable(why))) => bail!("no server at {url}: {why}"),
            Some(Err(End::NotUpgraded(why))) => bail!("{url}: {why}"),
            Some(Err(End::Closed(_) | End::Broken)) => {
                let hint = if endpoint.tls.is_none() { " Then it is wss://" } else { "" };
                bail!(
                    "{url}: the server ended the connection instead of opening a WebSocket: does the server speak TLS there?{hint}"
                )
            }
            None => bail!("{url}: no answer within {} s", FIRST_ANSWER.as_secs()),
        }
    }
    Ok(())
}

/// Connects everybody, without resuming anything yet. Each user has so many connections.
pub(crate) fn connect(engine: &mut Engine, users: &[User], devices: usize) -> Result<()> {
    for user in users {
        for _ in 0..devices {
            engine.state.add_connection(user.token.expose());
        }
    }
    engine.state.want_all();
    wait_for_all(engine, Phase::Idle, "connected")
}

/// Everybody resumes: from now on events come.
pub(crate) fn resume(engine: &mut Engine) -> Result<()> {
    engine.state.serve();
    wait_for_all(engine, Phase::Live, "resumed")
}

fn wait_for_all(engine: &mut Engine, phase: Phase, what: &'static str) -> Result<()> {
    let all = engine.state.connections();
    let (mut arrived, mut since) = (0, engine.state.clock.now());
    let mut live = (all >= SHOWN_FROM).then(|| Live::counting(what, all as u64));
    loop {
        engine.step()?;
        let now = engine.state.in_phase(phase);
        if let Some(live) = &mut live {
            live.done(now as u64);
        }
        if now == all {
            live.into_iter().for_each(Live::finish);
            return Ok(());
        }
        if now > arrived {
            (arrived, since) = (now, engine.state.now());
        }
        ensure!(!stop::asked(), "stopped while setting up");
        let stalled = engine.state.now().saturating_sub(since) > STALLED.as_micros() as u64;
        let trouble = &engine.state.trouble;
        ensure!(!stalled, "only {arrived} of {all} connections were {what}, and nothing moves (last: {trouble})");
    }
}

/// Clears away what earlier runs of these users left behind.
pub(crate) fn clear_away(engine: &mut Engine, plan: &Plan) -> Result<()> {
    let (mut deletions, mut deleted, mut memberships) = (Vec::new(), BTreeSet::new(), Vec::new());
    for user in 0..plan.users {
        let who = plan.connection(user);
        for (session_id, role) in engine.state.take_named_sessions(who) {
            let body = format!(r#"{{"session_id":"{session_id}"}}"#);
            if role == "owner" {
                deletions.push(Ask { who, kind: "delete_session", body, done_if: Some("not_found") });
                deleted.insert(session_id);
            } else {
                memberships.push((who, session_id));
            }
        }
    }
    engine.ask_all(&deletions)?;
    let left = memberships.into_iter().filter(|(_, session_id)| !deleted.contains(session_id));
    let leave = |(who, session_id)| Ask {
        who,
        kind: "leave_session",
        body: format!(r#"{{"session_id":"{session_id}","force":true}}"#),
        done_if: Some("not_a_member"),
    };
    engine.ask_all(&left.map(leave).collect::<Vec<_>>())?;
    Ok(())
}

#[derive(Deserialize)]
struct Made {
    session_id: String,
}

#[derive(Deserialize)]
struct Info {
    last_seq: u64,
}

/// Makes the plan's sessions, and lets everybody in.
pub(crate) fn make_sessions(engine: &mut Engine, plan: &Plan, users: &[User]) -> Result<()> {
    let owner = |nth: usize| plan.connection(plan.rooms[nth].members[0]);
    // The client's own id makes a repeated one the same session.
    let run = format!("{:016x}", rand::random::<u64>());
    let new = |nth| Ask {
        who: owner(nth),
        kind: "new_session",
        body: format!(r#"{{"name":"load","e2ee_on":false,"client_session_id":"{run}.{nth}"}}"#),
        done_if: None,
    };
    let made = engine.ask_all(&(0..plan.rooms.len()).map(new).collect::<Vec<_>>())?;
    let ids: Vec<String> =
        made.iter().map(|made| read(made).map(|Made { session_id }| session_id)).collect::<Result<_>>()?;
    let open = |(nth, id): (usize, &String)| {
        let body = format!(r#"{{"session_id":"{id}","join_policy":"open"}}"#);
        Ask { who: owner(nth), kind: "set_session_info", body, done_if: None }
    };
    engine.ask_all(&ids.iter().enumerate().map(open).collect::<Vec<_>>())?;
    let joins = plan.rooms.iter().zip(&ids).flat_map(|(room, id)| {
        let join = move |&user| Ask {
            who: plan.connection(user),
            kind: "join_session",
            body: named(id),
            done_if: Some("already_exists"),
        };
        room.members[1..].iter().map(join)
    });
    engine.ask_all(&joins.collect::<Vec<_>>())?;
    let look =
        |(nth, id): (usize, &String)| Ask { who: owner(nth), kind: "get_session_info", body: named(id), done_if: None };
    let infos = engine.ask_all(&ids.iter().enumerate().map(look).collect::<Vec<_>>())?;
    for ((room, id), info) in plan.rooms.iter().zip(&ids).zip(&infos) {
        let Info { last_seq } = read(info)?;
        let session = engine.state.add_session(id, last_seq, plan.remembered());
        for &user in &room.members {
            (0..plan.devices).for_each(|device| engine.state.seat(plan.connection(user) + device, session));
        }
    }
    for (session, user) in plan.speakers() {
        let user_id = users[user].user_id.to_string();
        engine.state.add_speaker(plan.connection(user), session as u32, &user_id);
    }
    Ok(())
}

/// Deletes the sessions of a run.
pub(crate) fn delete_sessions(engine: &mut Engine, plan: &Plan) -> Result<()> {
    let delete = |(session, room): (u32, &crate::plan::Room)| {
        let body = named(engine.state.session_id(session));
        Ask { who: plan.connection(room.members[0]), kind: "delete_session", body, done_if: Some("not_found") }
    };
    let deletions: Vec<Ask> = (0..).zip(&plan.rooms).map(delete).collect();
    engine.ask_all(&deletions).map(drop)
}

fn named(session_id: &str) -> String {
    format!(r#"{{"session_id":"{session_id}"}}"#)
}

fn read<'a, T: Deserialize<'a>>(body: &'a RawValue) -> Result<T> {
    serde_json::from_str(body.get()).context("the server's answer is not that of the contract")
}
