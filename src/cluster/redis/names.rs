//! The names of channels in Redis, both ways.

use crate::cluster::Channel;
use crate::protocol::NodeId;

/// What a channel in Redis is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A channel of the bus.
    Channel(Channel),
    /// All nodes listen to it.
    Everyone,
    /// One node's own, to hear itself; one for each of its lanes. The salt brings it to a slot of that lane's server.
    Probe {
        /// Whose.
        node: NodeId,
        /// Through which connections.
        lane: u32,
        /// Any number.
        salt: u16,
    },
}

/// Names with a prefix, so that clusters can share a Redis.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(super) fn name(&self, place: Place) -> String {
        let prefix = &self.prefix;
        match place {
            Place::Channel(channel) => format!("{prefix}{channel}"),
            Place::Everyone => format!("{prefix}all"),
            Place::Probe { node, lane, salt } => format!("{prefix}p:{node}:{lane}:{salt}"),
        }
    }

    pub(super) fn place(&self, name: &str) -> Option<Place> {
        let name = name.strip_prefix(&self.prefix)?;
        if name == "all" {
            return Some(Place::Everyone);
        }
        let (kind, id) = name.split_once(':')?;
        Some(match kind {
            "s" => Place::Channel(Channel::Session(id.parse().ok()?)),
            "u" => Place::Channel(Channel::User(id.parse().ok()?)),
            "n" => Place::Channel(Channel::Node(id.parse().ok()?)),
            "p" => {
                let mut parts = id.split(':');
                let node = parts.next()?.parse().ok()?;
                let (lane, salt) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
                Place::Probe { node, lane, salt }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{SessionId, UserId};

    #[test]
    fn every_name_leads_back_to_its_place() {
        let names = Names::new("conclave:");
        let node = NodeId::from_bytes([3; 16]);
        let places = [
            (Place::Everyone, "conclave:all"),
            (
                Place::Channel(Channel::Session(SessionId::from_bytes([1; 16]))),
                "conclave:s:01010101-0101-0101-0101-010101010101",
            ),
            (
                Place::Channel(Channel::User(UserId::from_bytes([2; 16]))),
                "conclave:u:02020202-0202-0202-0202-020202020202",
            ),
            (Place::Channel(Channel::Node(node)), "conclave:n:03030303-0303-0303-0303-030303030303"),
            (Place::Probe { node, lane: 4, salt: 5 }, "conclave:p:03030303-0303-0303-0303-030303030303:4:5"),
        ];
        for (place, name) in places {
            assert_eq!(names.name(place), name);
            assert_eq!(names.place(name), Some(place));
        }
        for name in ["other:all", "conclave:", "conclave:s:x", "conclave:p:x:1:2", "conclave:all:"] {
            assert_eq!(names.place(name), None, "{name}");
        }
    }
}
