//! What a scenario is made of: users, connections, sessions, who speaks, how fast. Pure.

use anyhow::{Result, ensure};

use crate::arguments::{Churn, Common, Direct, Fanout, Rooms, Soak};
use crate::engine::Pace;
use crate::report::model::Setting;

/// A session to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Users, the owner first.
    pub(crate) members: Vec<usize>,
    /// How many of them speak, from the first.
    pub(crate) speakers: usize,
}

/// Connections that are ended on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cuts {
    /// Each second.
    pub(crate) per_second: f64,
    /// All at once, so many times.
    pub(crate) storms: usize,
}

/// A scenario, ready to be run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: &'static str,
    pub(crate) users: usize,
    /// Connections of each user: those of user `n` are `n * devices` and the next.
    pub(crate) devices: usize,
    pub(crate) rooms: Vec<Room>,
    pub(crate) pace: Pace,
    pub(crate) cuts: Cuts,
    /// What was asked for, as reports tell it.
    pub(crate) settings: Vec<Setting>,
}

impl Plan {
    pub(crate) fn fanout(options: &Fanout) -> Result<Self> {
        let Fanout { common, sessions, members, speakers } = options;
        ensure!((1..=*members).contains(speakers), "--speakers is 1 to --members");
        Self::of("fanout", common, *sessions, *members, *speakers)
    }

    pub(crate) fn rooms(options: &Rooms) -> Result<Self> {
        let Rooms { common, sessions, members } = options;
        Self::of("rooms", common, *sessions, *members, *members)
    }

    pub(crate) fn direct(options: &Direct) -> Result<Self> {
        let Direct { common, sessions } = options;
        Self::of("direct", common, *sessions, 2, 2)
    }

    pub(crate) fn churn(options: &Churn) -> Result<Self> {
        let Churn { common, sessions, members, drops, storms } = options;
        ensure!(drops.is_finite() && (0.0..=1e5).contains(drops), "--drops is 0 to 100000");
        ensure!(*storms <= 1000, "--storms is 1000 at most");
        let plan = Self::of("churn", common, *sessions, *members, *members)?;
        let mut settings = plan.settings;
        let own = [("drops", drops.to_string()), ("storms", storms.to_string())];
        settings.extend(own.map(|(name, value)| Setting { name: name.to_owned(), value }));
        Ok(Self { cuts: Cuts { per_second: *drops, storms: *storms }, settings, ..plan })
    }

    /// A large session, small ones and pairs; every user has one connection and is in one of them.
    pub(crate) fn soak(options: &Soak) -> Result<Self> {
        let Soak { common, members, sessions, drops, .. } = options;
        ensure!(common.connections.is_none() && common.devices == 1, "soak has one connection for each user");
        ensure!(
            (2..=100_000).contains(members) && *sessions <= 10_000,
            "--members is 2 to 100000, --sessions 10000 at most"
        );
        ensure!(drops.is_finite() && (0.0..=1e5).contains(drops), "--drops is 0 to 100000");
        let plan = Self::of("soak", common, 1, *members, 2)?;
        let mut rooms = plan.rooms;
        let mut users = *members;
        for nth in 0..*sessions {
            let size = if nth % 2 == 0 { 10 } else { 2 };
            rooms.push(Room { members: (users..users + size).collect(), speakers: size });
            users += size;
        }
        let mut settings = common.settings();
        let own = [
            ("round", format!("{} s", options.round.as_secs_f64())),
            ("members", members.to_string()),
            ("sessions", sessions.to_string()),
            ("drops", drops.to_string()),
            ("encrypted-sessions", options.encrypted_sessions.to_string()),
            ("encrypted-members", options.encrypted_members.to_string()),
        ];
        settings.extend(own.map(|(name, value)| Setting { name: name.to_owned(), value }));
        Ok(Self { users, rooms, cuts: Cuts { per_second: *drops, storms: 0 }, settings, ..plan })
    }

    fn of(scenario: &'static str, common: &Common, sessions: usize, members: usize, speakers: usize) -> Result<Self> {
        common.check()?;
        ensure!((1..=100_000).contains(&sessions), "--sessions is 1 to 100000");
        ensure!((1..=100_000).contains(&members), "--members is 1 to 100000");
        ensure!(sessions.saturating_mul(members) <= 10_000_000, "--sessions times --members is 10000000 at most");
        let users = match common.connections {
            Some(connections) => connections / common.devices,
            None => sessions * members,
        };
        ensure!(users >= members, "{users} users are too few for sessions of {members} members");
        let room =
            |nth: usize| Room { members: (0..members).map(|at| (nth * members + at) % users).collect(), speakers };
        let pace = common.in_flight.map_or(Pace::per_second(common.rate), |in_flight| Pace::Closed { in_flight });
        let rooms = (0..sessions).map(room).collect();
        let mut settings = common.settings();
        let own = [("sessions", sessions), ("members", members), ("speakers", speakers)];
        settings.extend(own.map(|(name, value)| Setting { name: name.to_owned(), value: value.to_string() }));
        Ok(Self { scenario, users, devices: common.devices, rooms, pace, cuts: Cuts::default(), settings })
    }

    pub(crate) const fn connections(&self) -> usize {
        self.users * self.devices
    }

    /// The first connection of a user.
    pub(crate) const fn connection(&self, user: usize) -> usize {
        user * self.devices
    }

    /// Who speaks where: one of each session, then the next of each, so that neighbours are of different sessions.
    pub(crate) fn speakers(&self) -> Vec<(usize, usize)> {
        let most = self.rooms.iter().map(|room| room.speakers).max().unwrap_or(0);
        let nth_of_each = |nth: usize| {
            let rooms = self.rooms.iter().enumerate().filter(move |(_, room)| nth < room.speakers);
            rooms.map(move |(session, room)| (session, room.members[nth]))
        };
        (0..most).flat_map(nth_of_each).collect()
    }

    /// Frames of each session that are worth remembering: the more, the fewer sessions there are.
    pub(crate) fn remembered(&self) -> usize {
        (4096 / self.rooms.len().max(1)).clamp(4, 128)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn rooms(arguments: &[&str]) -> Result<Plan> {
        let arguments = ["conclave-load", "rooms"].iter().chain(arguments);
        match Arguments::parse_from(arguments).command {
            Command::Rooms(options) => Plan::rooms(&options),
            _ => panic!("rooms"),
        }
    }

    #[test]
    fn everybody_speaks_and_neighbours_are_of_different_sessions() {
        let plan = rooms(&["--sessions", "2", "--members", "3"]).unwrap();
        assert_eq!((plan.users, plan.connections()), (6, 6));
        assert_eq!(plan.speakers(), [(0, 0), (1, 3), (0, 1), (1, 4), (0, 2), (1, 5)]);
    }

    #[test]
    fn sessions_share_users_where_connections_are_fewer() {
        let plan = rooms(&["--sessions", "3", "--members", "3", "--connections", "8", "--devices", "2"]).unwrap();
        assert_eq!((plan.users, plan.connections(), plan.connection(3)), (4, 8, 6));
        let members: Vec<_> = plan.rooms.iter().map(|room| room.members.as_slice()).collect();
        assert_eq!(members, [[0, 1, 2], [3, 0, 1], [2, 3, 0]]);
        assert!(rooms(&["--members", "9", "--connections", "8"]).is_err());
    }
}
