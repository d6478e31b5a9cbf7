//! The yardstick: one thread, blocking sockets, and for each message one `write` of a ready frame to each recipient. No
//! server that gives every recipient its own write can be faster than this.
//!
//! The writer is a process of its own, measured as a node is, and it is read by the crowd that reads a node. A byte
//! from this side asks for one message, and comes when all copies of the last have arrived: one in flight.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::arguments::{Writer, Yardstick};
use crate::crowd::{Crowd, Ears, Heard};
use crate::machine;
use crate::stop;
use crate::wire::Outgoing;

/// How long all copies of a message may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Counts what comes.
#[derive(Default)]
struct Copies {
    come: usize,
    ended: bool,
}

impl Ears for Copies {
    fn wake(&mut self, _who: usize) {}

    fn hear(&mut self, _who: usize, heard: Heard<'_>, _outgoing: &mut Outgoing) {
        match heard {
            Heard::Text(_) => self.come += 1,
            Heard::Ended(_) => self.ended = true,
            Heard::Open => {}
        }
    }
}

/// Ends the writer however this program ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures, and tells what was measured.
pub(crate) fn run(options: &Yardstick) -> Result<String> {
    let Yardstick { members, payload, duration, .. } = *options;
    ensure!((1..=100_000).contains(&members), "--members is 1 to 100000");
    ensure!((1..=65_000).contains(&payload), "--payload is 1 to 65000 bytes");
    let limit = machine::raise_connection_limit();
    ensure!(members as u64 <= limit, "{members} members are more than the {limit} that the limit of open files allows");
    let (writer, address) = start_writer(options)?;
    let mut asks = TcpStream::connect(address).context("no connection to the writer")?;
    asks.set_nodelay(true)?;
    let mut crowd = Crowd::new(members)?;
    for who in 0..members {
        crowd.attach(who, TcpStream::connect(address).context("no connection to the writer")?)?;
    }
    let mut message = || -> Result<()> {
        asks.write_all(&[1])?;
        let mut copies = Copies::default();
        let end = Instant::now() + PATIENCE;
        while copies.come < members {
            crowd.poll(Duration::from_secs(1), &mut copies)?;
            if copies.ended || Instant::now() > end {
                bail!("the writer ended, or is too slow");
            }
        }
        Ok(())
    };
    message()?;
    let (began, before, mut messages) = (Instant::now(), machine::cpu_time(writer.0.id())?, 0_usize);
    while began.elapsed() < duration && !stop::asked() {
        message()?;
        messages += 1;
    }
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), machine::cpu_time(writer.0.id())?.saturating_sub(before));
    let deliveries = (messages * members) as f64;
    Ok(format!(
        "yardstick: {members} recipients, {payload}-byte messages: {:.0} deliveries for each second of the writer's \
         processor time, {:.0} a second\n",
        deliveries / cpu.as_secs_f64().max(0.01),
        deliveries / elapsed
    ))
}

fn start_writer(options: &Yardstick) -> Result<(Running, SocketAddr)> {
    let Yardstick { members, payload, writer_core, .. } = options;
    let mut command = Command::new(std::env::current_exe().context("this program does not know where it is")?);
    command.args(["bare-writer", "--members", &members.to_string(), "--payload", &payload.to_string()]);
    if let Some(core) = writer_core {
        command.args(["--core", &core.to_string()]);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("the writer does not start")?;
    let mut writer = Running(child);
    let mut line = String::new();
    BufReader::new(writer.0.stdout.take().context("no pipe")?).read_line(&mut line)?;
    let address = line.trim().parse().context("the writer did not say where it listens")?;
    Ok((writer, address))
}

/// The writer itself, until nobody asks any more.
pub(crate) fn write(options: &Writer) -> Result<()> {
    options.core.map_or(Ok(()), machine::pin)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let (mut asks, _) = listener.accept()?;
    let mut recipients = Vec::with_capacity(options.members);
    while recipients.len() < options.members {
        let (recipient, _) = listener.accept()?;
        recipient.set_nodelay(true)?;
        recipients.push(recipient);
    }
    let frame = frame(options.payload);
    while asks.read(&mut [0])? > 0 {
        for recipient in &mut recipients {
            recipient.write_all(&frame)?;
        }
    }
    Ok(())
}

/// The frame of a message, as long as a node's.
fn frame(payload: usize) -> Vec<u8> {
    let json = format!(
        r#"{{"type":"Msg","body":{{"session_id":"0198c0de-0000-7000-8000-000000000001","seq":12345,"time":"2026-01-31T12:00:00.000Z","sender_id":"0198c0de-0000-7000-8000-0000000000aa","markdown_text":"{}","is_encrypted":false,"client_msg_id":"00000000.0.12345"}}}}"#,
        "x".repeat(payload)
    );
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&(json.len() as u16).to_be_bytes());
    frame.extend_from_slice(json.as_bytes());
    frame
}
