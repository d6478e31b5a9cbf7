//! When a quiet client is pinged, and when it counts as gone. PURE.

use std::time::{Duration, Instant};

/// What the sweep remembers of one connection between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pulse {
    /// The last sign of life that was noticed.
    alive: Option<Instant>,
    pinged: Option<Instant>,
    /// The frames taken when something began to wait without progress, and since when.
    stuck: Option<(u64, Instant)>,
}

/// What a look at a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Fine,
    Ping,
    /// No pong in time.
    Gone,
    /// It has something to read, and reads none of it.
    Stalled,
}

/// What a look sees.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) now: Instant,
    /// Whether a frame came since the last look, or none could because the node itself does not read.
    pub(super) heard: bool,
    /// Frames taken so far, where some are still waiting.
    pub(super) waiting: Option<u64>,
}

impl Pulse {
    /// Looks at a connection that opened at `opened`.
    pub(super) fn look(&mut self, opened: Instant, look: Look, heartbeat: Duration, stall: Duration) -> Finding {
        let Look { now, heard, waiting } = look;
        match (waiting, self.stuck) {
            (Some(taken), Some((before, since))) if taken == before => {
                if now.duration_since(since) >= stall {
                    return Finding::Stalled;
                }
            }
            (Some(taken), _) => self.stuck = Some((taken, now)),
            (None, _) => self.stuck = None,
        }
        if heard {
            self.alive = Some(now);
        }
        let silent = now.duration_since(self.alive.unwrap_or(opened));
        if silent >= heartbeat * 2 {
            return Finding::Gone;
        }
        let due = self.pinged.unwrap_or(opened) + heartbeat;
        if now >= due {
            self.pinged = Some(now);
            return Finding::Ping;
        }
        Finding::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARTBEAT: Duration = Duration::from_secs(30);
    const STALL: Duration = Duration::from_secs(20);

    fn run(events: &[(u64, bool, Option<u64>, Finding)]) {
        let opened = Instant::now();
        let mut pulse = Pulse::default();
        for (second, heard, waiting, expected) in events {
            let look = Look { now: opened + Duration::from_secs(*second), heard: *heard, waiting: *waiting };
            assert_eq!(pulse.look(opened, look, HEARTBEAT, STALL), *expected, "second {second}");
        }
    }

    #[test]
    fn a_client_that_answers_pings_stays() {
        run(&[
            (1, false, None, Finding::Fine),
            (30, false, None, Finding::Ping),
            (31, true, None, Finding::Fine),
            (60, false, None, Finding::Ping),
            (61, true, None, Finding::Fine),
            (90, false, None, Finding::Ping),
        ]);
    }

    #[test]
    fn a_client_that_does_not_answer_is_gone() {
        run(&[(30, false, None, Finding::Ping), (59, false, None, Finding::Fine), (60, false, None, Finding::Gone)]);
    }

    #[test]
    fn a_client_that_reads_nothing_is_stalled_and_one_that_drips_is_not() {
        run(&[
            (1, true, Some(5), Finding::Fine),
            (20, true, Some(5), Finding::Fine),
            (21, true, Some(5), Finding::Stalled),
        ]);
        run(&[
            (1, true, Some(5), Finding::Fine),
            (20, true, Some(6), Finding::Fine),
            (39, true, Some(7), Finding::Ping),
            (40, true, None, Finding::Fine),
            (41, true, Some(7), Finding::Fine),
            (60, true, Some(7), Finding::Fine),
            (61, true, Some(7), Finding::Stalled),
        ]);
    }
}
