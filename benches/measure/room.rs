//! A session and its connected members: how they come in, and what its store holds.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::accounts::Account;
use crate::crowd::{Ask, Crowd};
use crate::tally::{Acknowledged, Stored};
use crate::wire::Heard;

/// Requests under way at once while a room is filled: fewer than a session's mailbox holds.
const AT_ONCE: usize = 256;
const PAGE: u64 = 1000;

/// Authenticates each connection as the account beside it.
pub(crate) fn authenticate(crowd: &mut Crowd, who: &[(usize, &Account)]) -> Result<()> {
    let ask = |&(who, account): &(usize, &Account)| Ask { who, kind: "authenticate", body: account.authenticate() };
    crowd.ask(who.iter().map(ask).collect(), &mut |_, _| {})?;
    Ok(())
}

/// The first of `members` opens a plain session, the others join it. Tells its id and its last event.
pub(crate) fn open(crowd: &mut Crowd, members: &[usize]) -> Result<(String, u64)> {
    let (&owner, others) = members.split_first().context("a session has members")?;
    let ask = |who, kind, body| vec![Ask { who, kind, body }];
    let made =
        crowd.ask(ask(owner, "new_session", r#"{"name":"measured","e2ee_on":false}"#.to_owned()), &mut |_, _| {})?;
    let session_id = text(&made[0], "session_id")?;
    let body = format!(r#"{{"session_id":"{session_id}","join_policy":"open"}}"#);
    crowd.ask(ask(owner, "set_session_info", body), &mut |_, _| {})?;
    let named = format!(r#"{{"session_id":"{session_id}"}}"#);
    for some in others.chunks(AT_ONCE) {
        let joins = some.iter().map(|&who| Ask { who, kind: "join_session", body: named.clone() });
        crowd.ask(joins.collect(), &mut |_, _| {})?;
    }
    let info = crowd.ask(ask(owner, "get_session_info", named), &mut |_, _| {})?;
    let last = info[0]["last_seq"].as_u64().context("no last_seq")?;
    Ok((session_id, last))
}

/// Resumes each connection after `seq` of the session; events that follow at once go to `ears`.
pub(crate) fn resume(
    crowd: &mut Crowd,
    members: &[(usize, u64)],
    session_id: &str,
    ears: &mut impl FnMut(usize, Heard<'_>),
) -> Result<()> {
    for some in members.chunks(AT_ONCE) {
        let resumes = some.iter().map(|&(who, seq)| Ask {
            who,
            kind: "resume",
            body: format!(r#"{{"cursors":{{"{session_id}":{{"seq":{seq}}}}}}}"#),
        });
        crowd.ask(resumes.collect(), ears)?;
    }
    Ok(())
}

/// All messages of a session as its store has them, asked for by one of its members.
pub(crate) fn stored(crowd: &mut Crowd, member: usize, session_id: &str) -> Result<Vec<Stored>> {
    let mut stored = Vec::new();
    let mut after = 0;
    loop {
        let body = format!(r#"{{"session_id":"{session_id}","after_seq":{after},"limit":{PAGE}}}"#);
        let page = crowd.ask(vec![Ask { who: member, kind: "fetch_msgs", body }], &mut |_, _| {})?;
        let events = page[0]["events"].as_array().context("no events")?;
        for event in events {
            let body = &event["body"];
            after = body["seq"].as_u64().context("an event without seq")?;
            if event["type"] == "Msg" {
                let number = text(body, "client_msg_id")?.parse()?;
                stored.push(Stored { seq: after, sender_id: text(body, "sender_id")?, number });
            }
        }
        if page[0]["more"] != true {
            return Ok(stored);
        }
    }
}

/// What a speaker was told, beside who it was.
pub(crate) fn told<'a>(account: &'a Account, seqs: &'a [Option<u64>]) -> Acknowledged<'a> {
    Acknowledged { sender_id: &account.user_id, seqs }
}

fn text(value: &Value, field: &str) -> Result<String> {
    Ok(value[field].as_str().with_context(|| format!("no {field}"))?.to_owned())
}
