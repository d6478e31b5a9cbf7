//! Pairs: many small sessions, each with one who speaks as fast as the node acknowledges. Node and client share all
//! cores.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::crowd::Crowd;
use crate::machine::CpuTime;
use crate::node::Target;
use crate::speaker::{Speaker, percentiles};
use crate::tally::{Delivered, Faults, compare};
use crate::wire::{Heard, Outgoing};
use crate::{accounts, room};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Sessions of two.
    #[arg(long, default_value_t = 50)]
    pairs: usize,
    /// Messages in flight of each speaker.
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// A session of two. The speaker is connection `2n`, the other one `2n + 1`.
struct Pair {
    session_id: String,
    speaker: Speaker,
    delivered: [Delivered; 2],
}

pub(crate) fn run(options: &Options, target: &Target) -> Result<Faults> {
    let Options { pairs, in_flight, payload, seconds } = *options;
    let data = tempfile::tempdir()?;
    let node = target.node(data.path(), None)?;
    let accounts = accounts::register(node.address, 2 * pairs)?;
    let mut crowd = Crowd::new()?;
    let who: Vec<_> =
        accounts.iter().map(|account| Ok((crowd.connect(node.address)?, account))).collect::<Result<_>>()?;
    room::authenticate(&mut crowd, &who)?;
    let mut rooms = Vec::with_capacity(pairs);
    for pair in 0..pairs {
        let both = [2 * pair, 2 * pair + 1];
        let (session_id, last) = room::open(&mut crowd, &both)?;
        room::resume(&mut crowd, &both.map(|who| (who, last)), &session_id, &mut |_, _| {})?;
        let delivered = [Delivered::after(last), Delivered::after(last)];
        rooms.push(Pair { speaker: Speaker::new(&session_id, payload, in_flight), session_id, delivered });
    }

    speak(&mut crowd, &mut rooms, Duration::from_secs(1))?;
    let acknowledged = |rooms: &[Pair]| rooms.iter().map(|pair| pair.speaker.acknowledged).sum::<u64>();
    rooms.iter_mut().for_each(|pair| pair.speaker.latencies.clear());
    let (began, before, so_far) = (Instant::now(), CpuTime::of(node.pid)?, acknowledged(&rooms));
    speak(&mut crowd, &mut rooms, Duration::from_secs(seconds))?;
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), CpuTime::of(node.pid)?.since(before));
    let (p50, p99) =
        percentiles(rooms.iter_mut().flat_map(|pair| std::mem::take(&mut pair.speaker.latencies)).collect());
    println!(
        "direct: {pairs} pairs, {in_flight} in flight each: {:.0} acknowledged durable messages/s, ack p50 {p50:.1?} p99 {p99:.1?}, \
         node's cpu {:.2} s user + {:.2} s system of {elapsed:.2} s",
        (acknowledged(&rooms) - so_far) as f64 / elapsed,
        cpu.user.as_secs_f64(),
        cpu.system.as_secs_f64(),
    );

    let mut faults = Faults::default();
    let mut stored_in_all = 0;
    for (nth, pair) in rooms.iter().enumerate() {
        let head = pair.speaker.head();
        pair.delivered.iter().for_each(|delivered| faults += delivered.faults(head));
        let stored = room::stored(&mut crowd, 2 * nth, &pair.session_id)?;
        stored_in_all += stored.len();
        faults += compare(&stored, &[room::told(&accounts[2 * nth], &pair.speaker.seqs)]);
    }
    println!("direct: {} acknowledged in all, {stored_in_all} stored; {faults}", acknowledged(&rooms));
    node.stop()?;
    Ok(faults)
}

/// All speak for so long, then everybody hears the end of it.
fn speak(crowd: &mut Crowd, rooms: &mut [Pair], time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    for (nth, pair) in rooms.iter_mut().enumerate() {
        pair.speaker.go_on();
        crowd.say(2 * nth, |outgoing| pair.speaker.speak(outgoing))?;
    }
    let mut silent_since = Instant::now();
    loop {
        let mut heard_any = false;
        crowd.poll(Duration::from_millis(20), &mut |who, heard, outgoing: &mut Outgoing| {
            heard_any = true;
            let pair = &mut rooms[who / 2];
            match heard {
                Heard::Event { seq } => pair.delivered[who % 2].take(seq),
                Heard::Reply(reply) => pair.speaker.answered(&reply, outgoing)?,
                Heard::Aside => {}
                Heard::Closed { code } => bail!("the node closed connection {who}, code {code:?}"),
            }
            Ok(())
        })?;
        if heard_any {
            silent_since = Instant::now();
        }
        if Instant::now() < end {
            continue;
        }
        rooms.iter_mut().for_each(|pair| pair.speaker.stop());
        let finished = |pair: &Pair| {
            let head = pair.speaker.head();
            pair.speaker.is_done() && pair.delivered.iter().all(|delivered| delivered.last >= head)
        };
        // What has not come after so long is lost, and is counted at the end.
        if rooms.iter().all(finished) || silent_since.elapsed() > Duration::from_secs(10) {
            return Ok(());
        }
    }
}
