//! The engine of every scenario without encryption: thousands of connections on one thread, messages when they are
//! due, everything that comes handed to the ledger.
//!
//! [`Engine::step`] is one turn of its loop; who runs a scenario calls it until something is true. What is thought is
//! in [`State`], which knows no socket; the [`Crowd`] moves the bytes.
//!
//! ```text
//! state       what is known: connections, sessions, speakers; where replies go
//! hearing     deliveries
//! speaking    messages: due, sent, acknowledged, refused, said again
//! lives       a connection's life: dialled, authenticated, resumed, lost, dialled again
//! asking      requests of a scenario's own, and their answers
//! pace        when messages are due
//! ```

mod asking;
mod hearing;
mod lives;
mod pace;
mod speaking;
mod state;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

pub(crate) use asking::{Ask, AskError};
pub(crate) use pace::{Pace, Schedule};
pub(crate) use state::{Phase, Settings, State};

use crate::crowd::Crowd;
use crate::target::Endpoint;

/// The longest that a turn waits for something to come.
const TURN: Duration = Duration::from_millis(20);
/// How often timeouts are looked for.
const SWEEP_US: u64 = 100_000;

/// Microseconds since the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }
}

/// The connections, and what is known of them.
pub(crate) struct Engine {
    crowd: Crowd,
    endpoints: Vec<Endpoint>,
    pub(crate) state: State,
    swept: u64,
}

impl Engine {
    /// Nobody is connected yet.
    pub(crate) fn new(settings: Settings, endpoints: Vec<Endpoint>) -> Result<Self> {
        let crowd = Crowd::new(settings.connections)?;
        let state = State::new(settings, endpoints.len());
        Ok(Self { crowd, endpoints, state, swept: 0 })
    }

    /// One turn: says what is due, makes the connections that are wanted, hears what came.
    pub(crate) fn step(&mut self) -> Result<()> {
        self.state.look_at_the_clock();
        self.state.pace();
        self.state.say_again();
        if self.state.now() >= self.swept + SWEEP_US {
            self.swept = self.state.now();
            self.state.sweep();
            for who in std::mem::take(&mut self.state.to_probe) {
                self.state.probe(who, self.crowd.outgoing(who));
                self.crowd.flush(who)?;
            }
        }
        self.drop_lost();
        self.dial();
        for who in self.state.take_dirty() {
            self.state.speak(who, self.crowd.outgoing(who));
            self.crowd.flush(who)?;
        }
        let wait = self.state.next_due().map_or(TURN, |due| TURN.min(Duration::from_micros(due)));
        self.crowd.poll(wait, &mut self.state)?;
        self.drop_lost();
        match self.state.fatal.take() {
            Some(why) => bail!(why),
            None => Ok(()),
        }
    }

    /// Turns until something is true; tells whether it became true in time.
    pub(crate) fn until(&mut self, within: Duration, mut done: impl FnMut(&mut State) -> bool) -> Result<bool> {
        let end = self.state.clock.now() + within.as_micros() as u64;
        loop {
            if done(&mut self.state) {
                return Ok(true);
            }
            if self.state.clock.now() >= end {
                return Ok(false);
            }
            self.step()?;
        }
    }

    /// Ends a connection that is in service, as a client does or as a cable does; it comes back by itself.
    pub(crate) fn cut(&mut self, who: usize, politely: bool) -> Result<()> {
        if politely {
            self.crowd.say_goodbye(who)?;
        } else {
            self.crowd.drop_connection(who);
        }
        self.state.cut(who);
        self.drop_lost();
        Ok(())
    }

    fn dial(&mut self) {
        while let Some((who, endpoint)) = self.state.next_to_dial() {
            if let Err(error) = self.crowd.dial(who, &self.endpoints[endpoint]) {
                self.state.unreachable(who, &error.to_string());
            }
        }
    }

    /// Drops the sockets of connections that were lost: always before anybody is dialled in their places.
    fn drop_lost(&mut self) {
        for who in self.state.take_lost() {
            self.crowd.drop_connection(who);
        }
    }
}
