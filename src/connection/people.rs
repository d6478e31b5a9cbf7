//! Who is connected to this node, and from where: for presence, and for the limits per user and per address.

use std::net::IpAddr;
use std::sync::Arc;

use crate::config::MAX_WORKERS;
use crate::protocol::UserId;
use crate::store::TokenHash;

use super::ConnectionKey;
use super::shards::Shards;
use super::throttle::Throttle;

/// The users and addresses of this node's connections. Invariant: an entry exists only as long as a connection does.
#[derive(Default)]
pub(super) struct People {
    users: Shards<UserId, Person>,
    addresses: Shards<IpAddr, usize>,
}

#[derive(Default)]
struct Person {
    /// The oldest first, each with the token that it came with.
    connections: Vec<(ConnectionKey, TokenHash)>,
    throttle: Arc<Throttle>,
    /// Whether the bus has confirmed the user's channel.
    confirmed: bool,
}

/// A limit on connections is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// One connection of an address; counted until it is dropped.
pub(super) struct AddressSlot {
    people: Arc<People>,
    address: IpAddr,
}

impl People {
    /// Counts a connection from an address.
    pub(super) fn come_from(self: &Arc<Self>, address: IpAddr, limit: usize) -> Result<AddressSlot, TooMany> {
        // A single IPv6 client has a whole network of addresses.
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => {
                let mut octets = v6.octets();
                octets[8..].fill(0);
                IpAddr::from(octets)
            }
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut shard = self.addresses.of(&address);
        let count = shard.entry(address).or_default();
        if *count >= limit {
            return Err(TooMany);
        }
        *count += 1;
        Ok(AddressSlot { people: Arc::clone(self), address })
    }

    /// Adds a user's connection; what their connections share.
    pub(super) fn arrive(
        &self,
        user_id: UserId,
        connection: ConnectionKey,
        token: TokenHash,
        limit: usize,
    ) -> Result<Arc<Throttle>, TooMany> {
        let mut shard = self.users.of(&user_id);
        let person = shard.entry(user_id).or_default();
        if person.connections.len() >= limit {
            return Err(TooMany);
        }
        person.connections.push((connection, token));
        Ok(Arc::clone(&person.throttle))
    }

    /// Removes a user's connection. Whether it was their last one here.
    pub(super) fn depart(&self, user_id: UserId, connection: ConnectionKey) -> bool {
        let mut shard = self.users.of(&user_id);
        let Some(person) = shard.get_mut(&user_id) else { return false };
        person.connections.retain(|(known, _)| *known != connection);
        let last = person.connections.is_empty();
        if last {
            shard.remove(&user_id);
        }
        last
    }

    /// Whether the bus has yet to confirm that this node listens for the user.
    pub(super) fn is_unconfirmed(&self, user_id: UserId) -> bool {
        self.users.of(&user_id).get(&user_id).is_some_and(|person| !person.confirmed)
    }

    /// The bus has confirmed it.
    pub(super) fn confirm(&self, user_id: UserId) {
        if let Some(person) = self.users.of(&user_id).get_mut(&user_id) {
            person.confirmed = true;
        }
    }

    /// Whether the user has a connection here.
    pub(super) fn is_here(&self, user_id: UserId) -> bool {
        self.users.of(&user_id).contains_key(&user_id)
    }

    /// The user's youngest connection.
    pub(super) fn youngest(&self, user_id: UserId) -> Option<ConnectionKey> {
        self.users.of(&user_id).get(&user_id)?.connections.last().map(|(connection, _)| *connection)
    }

    /// This connection of the user, or else their youngest.
    pub(super) fn this_or_youngest(&self, user_id: UserId, connection: ConnectionKey) -> Option<ConnectionKey> {
        let shard = self.users.of(&user_id);
        let connections = &shard.get(&user_id)?.connections;
        let this = connections.iter().find(|(known, _)| *known == connection);
        this.or(connections.last()).map(|(connection, _)| *connection)
    }

    /// Everybody who is here, and the tokens that they came with.
    pub(super) fn everybody(&self) -> Vec<(UserId, Vec<TokenHash>)> {
        let mut everybody = Vec::new();
        for shard in self.users.all() {
            everybody.extend(shard.iter().map(|(user_id, person)| {
                let mut tokens: Vec<TokenHash> = person.connections.iter().map(|(_, token)| *token).collect();
                tokens.dedup();
                (*user_id, tokens)
            }));
        }
        everybody
    }

    /// The worker threads that the user's connections are on.
    pub(super) fn workers_of(&self, user_id: UserId) -> Workers {
        let mut workers = Workers::default();
        if let Some(person) = self.users.of(&user_id).get(&user_id) {
            person.connections.iter().for_each(|(connection, _)| workers.add(connection.worker));
        }
        workers
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let mut shard = self.people.addresses.of(&self.address);
        if let Some(count) = shard.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.address);
            }
        }
    }
}

/// A set of worker threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Workers(u128);

impl Workers {
    /// How many there can be.
    pub(super) const MAX: usize = u128::BITS as usize;

    pub(super) const fn add(&mut self, worker: u16) {
        self.0 |= 1 << worker;
    }

    pub(super) const fn remove(&mut self, worker: u16) {
        self.0 &= !(1 << worker);
    }

    pub(super) const fn contains(self, worker: u16) -> bool {
        self.0 & 1 << worker != 0
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub(super) const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

// The configuration allows no thread that would get no bit.
const _: () = assert!(MAX_WORKERS <= Workers::MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::NodeId;

    const TOKEN: TokenHash = TokenHash([0; 32]);

    fn key(worker: u16, serial: u64) -> ConnectionKey {
        ConnectionKey { node: NodeId::from_bytes([7; 16]), worker, serial }
    }

    #[test]
    fn a_user_has_so_many_connections_and_the_youngest_is_asked() {
        let (people, user) = (People::default(), UserId::from_bytes([1; 16]));
        people.arrive(user, key(0, 1), TOKEN, 2).unwrap();
        people.arrive(user, key(3, 2), TOKEN, 2).unwrap();
        assert_eq!(people.arrive(user, key(0, 3), TOKEN, 2).unwrap_err(), TooMany);
        assert_eq!(people.youngest(user), Some(key(3, 2)));
        assert!(people.workers_of(user).contains(3));
        assert!(!people.depart(user, key(3, 2)));
        assert_eq!(people.youngest(user), Some(key(0, 1)));
        assert!(!people.workers_of(user).contains(3));
        assert!(people.depart(user, key(0, 1)));
        assert!(!people.is_here(user));
    }

    #[test]
    fn an_address_has_so_many_connections() {
        let people = Arc::new(People::default());
        let v4 = "192.0.2.1".parse().unwrap();
        let first = people.come_from(v4, 1).ok().unwrap();
        assert!(people.come_from(v4, 1).is_err());
        assert!(people.come_from("::ffff:192.0.2.1".parse().unwrap(), 1).is_err(), "the same, written otherwise");
        assert!(people.come_from("192.0.2.2".parse().unwrap(), 1).is_ok());
        drop(first);
        assert!(people.come_from(v4, 1).is_ok());
        let _one = people.come_from("2001:db8::1".parse().unwrap(), 1).ok().unwrap();
        assert!(people.come_from("2001:db8::2".parse().unwrap(), 1).is_err(), "a network of one client");
    }
}
