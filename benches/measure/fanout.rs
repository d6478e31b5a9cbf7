//! One member speaks, a thousand connected members hear it; node on one core, client on the other. Printed beside the
//! bare loop of the same run, because only the ratio means anything on another machine.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::crowd::Crowd;
use crate::machine::{CLIENT_CORE, CpuTime, NODE_CORE, pin};
use crate::node::{Node, Target};
use crate::speaker::{Speaker, percentiles};
use crate::tally::{Delivered, Faults, compare};
use crate::wire::{Heard, Outgoing};
use crate::{accounts, bare, room};

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    bare: bare::Options,
    /// Messages in flight, one measurement each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 16])]
    in_flight: Vec<usize>,
}

/// The session while it is spoken in. The first connection is the speaker's.
struct Room {
    crowd: Crowd,
    speaker: Speaker,
    delivered: Vec<Delivered>,
}

pub(crate) fn run(options: &Options, target: &Target) -> Result<Faults> {
    let bare::Options { members, payload, seconds } = options.bare;
    println!("fan-out to {members} connected members, {payload}-byte messages");
    let bare = bare::run(&options.bare)?;

    let data = tempfile::tempdir()?;
    let node = target.node(data.path(), Some(NODE_CORE))?;
    pin(CLIENT_CORE);
    let accounts = accounts::register(node.address, members)?;
    let mut crowd = Crowd::new()?;
    for some in accounts.chunks(200) {
        let some: Vec<_> =
            some.iter().map(|account| Ok((crowd.connect(node.address)?, account))).collect::<Result<_>>()?;
        room::authenticate(&mut crowd, &some)?;
    }
    let everyone: Vec<_> = (0..members).collect();
    let (session_id, last) = room::open(&mut crowd, &everyone)?;
    let mut delivered = vec![Delivered::after(last); members];
    let cursors: Vec<_> = everyone.iter().map(|&who| (who, last)).collect();
    room::resume(&mut crowd, &cursors, &session_id, &mut |who, heard| {
        if let Heard::Event { seq } = heard {
            delivered[who].take(seq);
        }
    })?;

    let mut room = Room { crowd, speaker: Speaker::new(&session_id, payload, 1), delivered };
    room.speak(1, Duration::from_millis(500))?;
    for &in_flight in &options.in_flight {
        room.measure(&node, in_flight, Duration::from_secs(seconds), bare)?;
    }

    let head = room.speaker.head();
    let mut faults = Faults::default();
    room.delivered.iter().for_each(|delivered| faults += delivered.faults(head));
    let stored = room::stored(&mut room.crowd, 0, &session_id)?;
    faults += compare(&stored, &[room::told(&accounts[0], &room.speaker.seqs)]);
    println!("{} messages acknowledged, {} stored; {faults}", room.speaker.acknowledged, stored.len());
    node.stop()?;
    Ok(faults)
}

impl Room {
    fn measure(&mut self, node: &Node, in_flight: usize, time: Duration, bare: f64) -> Result<()> {
        self.speaker.latencies.clear();
        let (began, before, deliveries) = (Instant::now(), CpuTime::of(node.pid)?, self.deliveries());
        self.speak(in_flight, time)?;
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), CpuTime::of(node.pid)?.since(before));
        let deliveries = (self.deliveries() - deliveries) as f64;
        let per_cpu_second = deliveries / cpu.total();
        let messages = self.speaker.latencies.len() as f64;
        let (p50, p99) = percentiles(std::mem::take(&mut self.speaker.latencies));
        println!(
            "{in_flight:>2} in flight : {per_cpu_second:>9.0} deliveries/cpu-s, {:>8.0} deliveries/s, cpu {:.2} s user + {:.2} s system of {elapsed:.2} s, \
             {:.0} messages/s, ack p50 {p50:.1?} p99 {p99:.1?}; ratio to the bare loop {:.2}",
            deliveries / elapsed,
            cpu.user.as_secs_f64(),
            cpu.system.as_secs_f64(),
            messages / elapsed,
            per_cpu_second / bare,
        );
        Ok(())
    }

    /// Speaks for so long, and waits until everybody has heard everything.
    fn speak(&mut self, in_flight: usize, time: Duration) -> Result<()> {
        let Self { crowd, speaker, delivered } = self;
        let began = Instant::now();
        speaker.in_flight = in_flight;
        speaker.go_on();
        crowd.say(0, |outgoing| speaker.speak(outgoing))?;
        let mut silent_since = Instant::now();
        loop {
            let mut heard_any = false;
            crowd.poll(Duration::from_millis(20), &mut |who, heard, outgoing: &mut Outgoing| {
                heard_any = true;
                match heard {
                    Heard::Event { seq } => delivered[who].take(seq),
                    Heard::Reply(reply) => speaker.answered(&reply, outgoing)?,
                    Heard::Aside => {}
                    Heard::Closed { code } => bail!("the node closed connection {who}, code {code:?}"),
                }
                Ok(())
            })?;
            if began.elapsed() > time {
                speaker.stop();
            }
            if heard_any {
                silent_since = Instant::now();
            }
            let head = speaker.head();
            let all_heard = speaker.is_done() && delivered.iter().all(|delivered| delivered.last >= head);
            // What has not come after so long is lost, and is counted at the end.
            if all_heard || silent_since.elapsed() > Duration::from_secs(10) {
                return Ok(());
            }
        }
    }

    fn deliveries(&self) -> u64 {
        self.delivered.iter().map(|delivered| delivered.count).sum()
    }
}
