//! The yardstick: one thread, blocking sockets, and for each message one `write` of a ready frame to each recipient.
//! No server that gives every recipient its own write can be faster than this.
//!
//! The writer is a process of its own, measured as a node is, and it is read by the client that reads a node. A byte
//! from the client asks for one message, and comes when all copies of the last have arrived: one in flight.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;

use crate::crowd::Crowd;
use crate::machine::{CpuTime, NODE_CORE};
use crate::node::Node;
use crate::wire::Heard;

/// What to measure.
#[derive(Args, Clone)]
#[group(skip)]
pub(crate) struct Options {
    /// Sockets to write to.
    #[arg(long, default_value_t = 1000)]
    pub(crate) members: usize,
    /// Bytes of a message's text; its frame is what a node would send.
    #[arg(long, default_value_t = 200)]
    pub(crate) payload: usize,
    /// Seconds.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
}

/// What the writer is told.
#[derive(Args)]
pub(crate) struct WriterOptions {
    #[arg(long)]
    members: usize,
    #[arg(long)]
    payload: usize,
}

/// Deliveries per second of the writer's processor time.
pub(crate) fn run(options: &Options) -> Result<f64> {
    let Options { members, payload, seconds } = *options;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare-writer", "--members", &members.to_string(), "--payload", &payload.to_string()]);
    let writer = Node::start(command, Some(NODE_CORE), false)?;
    let mut asks = TcpStream::connect(writer.address)?;
    asks.set_nodelay(true)?;
    let mut crowd = Crowd::new()?;
    for _ in 0..members {
        crowd.attach(TcpStream::connect(writer.address)?)?;
    }
    let mut message = |crowd: &mut Crowd| -> Result<()> {
        asks.write_all(&[1])?;
        let mut copies = 0;
        while copies < members {
            crowd.poll(Duration::from_secs(1), &mut |_, heard, _| match heard {
                Heard::Event { .. } => {
                    copies += 1;
                    Ok(())
                }
                Heard::Reply(_) | Heard::Aside | Heard::Closed { .. } => bail!("the bare loop ended"),
            })?;
        }
        Ok(())
    };
    message(&mut crowd)?;
    let (began, before, mut messages) = (Instant::now(), CpuTime::of(writer.pid)?, 0_usize);
    while began.elapsed() < Duration::from_secs(seconds) {
        message(&mut crowd)?;
        messages += 1;
    }
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), CpuTime::of(writer.pid)?.since(before));
    let deliveries = (messages * members) as f64;
    let per_cpu_second = deliveries / cpu.total();
    println!(
        "bare loop    : {per_cpu_second:>9.0} deliveries/cpu-s, {:>8.0} deliveries/s, cpu {:.2} s user + {:.2} s system of {elapsed:.2} s",
        deliveries / elapsed,
        cpu.user.as_secs_f64(),
        cpu.system.as_secs_f64(),
    );
    Ok(per_cpu_second)
}

/// The writer itself, until nobody asks any more.
pub(crate) fn write(options: &WriterOptions) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on http://{}", listener.local_addr()?);
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
        r#"{{"type":"Msg","body":{{"session_id":"0198c0de-0000-7000-8000-000000000001","seq":12345,"time":"2026-01-31T12:00:00.000Z","sender_id":"0198c0de-0000-7000-8000-0000000000aa","markdown_text":"{}","is_encrypted":false,"client_msg_id":"12345"}}}}"#,
        "x".repeat(payload)
    );
    let mut frame = vec![0x81, 126];
    frame.extend_from_slice(&(json.len() as u16).to_be_bytes());
    frame.extend_from_slice(json.as_bytes());
    frame
}
