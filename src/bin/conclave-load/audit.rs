//! After a run: each session's history is read through `fetch_msgs` and compared with what was acknowledged and shown.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::engine::{Ask, AskError, Engine};
use crate::plan::Plan;
use crate::stop;
use crate::verify::Past;
use crate::wire::{self, Text};

/// Bytes that a page may have, roughly.
const PAGE_BYTES: usize = 4 << 20;
/// Events that a page may have.
const PAGE: usize = 1000;
/// How long reading may take after an interruption.
const IMPATIENCE: Duration = Duration::from_secs(10);
/// How long to wait before another member is asked.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    more: bool,
}

/// Where a session's history ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// Its last event.
    pub(crate) head: u64,
    /// How many messages of the run it has.
    pub(crate) messages: u64,
}

/// Reads and compares all histories; `None` for one that could not be read, which is a failure, or for which there was
/// no time after an interruption.
pub(crate) fn histories(
    engine: &mut Engine,
    plan: &Plan,
    payload: usize,
    patience: impl Fn() -> Duration,
) -> Result<Vec<Option<End>>> {
    let began = Instant::now();
    let mut ends = Vec::with_capacity(plan.rooms.len());
    for session in 0..plan.rooms.len() as u32 {
        if engine.state.is_hopeless() || (stop::asked() && began.elapsed() > IMPATIENCE) {
            ends.push(None);
            continue;
        }
        match history(engine, plan, session, payload, patience()) {
            Ok(past) => {
                engine.state.ledger.compare(session, &past);
                ends.push(Some(End { head: past.head, messages: past.messages.len() as u64 }));
            }
            Err(error) => {
                engine.state.fail(&format!("{error:#}"));
                ends.push(None);
            }
        }
    }
    Ok(ends)
}

fn history(engine: &mut Engine, plan: &Plan, session: u32, payload: usize, patience: Duration) -> Result<Past> {
    let limit = (PAGE_BYTES / (payload + 500)).clamp(1, PAGE);
    let mut past = Past { head: engine.state.ledger.base(session), ..Past::default() };
    loop {
        let body = format!(
            r#"{{"session_id":"{}","after_seq":{},"limit":{limit}}}"#,
            engine.state.session_id(session),
            past.head
        );
        let page = ask_any(engine, plan, session, "fetch_msgs", &body, patience)?;
        let page: Page<'_> =
            serde_json::from_str(page.get()).context("a page of history is not that of the contract")?;
        let before = past.head;
        for event in &page.events {
            take(engine, session, event, &mut past);
        }
        if !page.more {
            return Ok(past);
        }
        if past.head <= before {
            bail!("a page of history has nothing new, and says that there is more");
        }
    }
}

fn take(engine: &mut Engine, session: u32, event: &RawValue, past: &mut Past) {
    match wire::read(event.get().as_bytes()) {
        Ok(Text::Msg(msg)) => {
            let source = engine.state.check(session, &msg);
            past.messages.push((msg.seq, source));
            past.head = past.head.max(msg.seq);
        }
        Ok(Text::Event { seq, .. }) => past.head = past.head.max(seq),
        Ok(Text::Reply(_) | Text::GoingAway { .. } | Text::Aside) | Err(_) => engine.state.ledger.unreadable(),
    }
}

/// Asks one member after the other until one is answered.
fn ask_any(
    engine: &mut Engine,
    plan: &Plan,
    session: u32,
    kind: &'static str,
    body: &str,
    patience: Duration,
) -> Result<Box<RawValue>> {
    let end = engine.state.clock.now() + patience.as_micros() as u64;
    let mut why = "nobody could be asked".to_owned();
    for member in plan.rooms[session as usize].members.iter().cycle() {
        match engine.ask_one(&Ask { who: plan.connection(*member), kind, body: body.to_owned(), done_if: None })? {
            Ok(page) => return Ok(page),
            Err(AskError::Refused { code, message, retryable: false, .. }) => {
                bail!("{kind} was refused: {message} ({code})")
            }
            Err(error) => why = error.to_string(),
        }
        if engine.state.clock.now() > end {
            break;
        }
        engine.until(AGAIN_AFTER, |_| false)?;
    }
    bail!("the history of a session could not be read: {why}")
}
