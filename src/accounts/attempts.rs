//! How often somebody may try: a bucket per key that refills evenly over a minute.
//!
//! Keys are kept as hashes under a key of this process, so no name or address stays in memory. Invariant: at most
//! [`MOST`] buckets; when there are more, all are forgotten that have refilled, and if none has, all. What fills it
//! costs a password hash each, so nobody gets there within the minute that a bucket lives.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const MOST: usize = 100_000;
const MINUTE: Duration = Duration::from_secs(60);

/// Buckets of one kind.
pub(super) struct Attempts {
    hasher: RandomState,
    /// For each key, when its bucket will have refilled.
    full_at: Mutex<HashMap<u64, Instant>>,
}

/// How many a bucket holds, which is also how many it gets in a minute.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerMinute(pub(super) u32);

impl PerMinute {
    fn one(self) -> Duration {
        MINUTE / self.0.max(1)
    }
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), full_at: Mutex::default() }
    }

    /// Whether the bucket has one left; if not, how long until it has.
    pub(super) fn look(&self, key: impl Hash, rate: PerMinute, now: Instant) -> Result<(), Duration> {
        let key = self.hasher.hash_one(key);
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = full_at.get(&key).map_or(Duration::ZERO, |full_at| full_at.saturating_duration_since(now));
        // One is left as long as what is missing, with it taken too, fits into the minute.
        let over = (missing + rate.one()).saturating_sub(rate.one() * rate.0);
        if over.is_zero() { Ok(()) } else { Err(over) }
    }

    /// Takes one out, even if that was the last.
    pub(super) fn take(&self, key: impl Hash, rate: PerMinute, now: Instant) {
        let key = self.hasher.hash_one(key);
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST && !buckets.contains_key(&key) {
            buckets.retain(|_, full_at| *full_at > now);
            if buckets.len() >= MOST {
                buckets.clear();
            }
        }
        let full_at = buckets.entry(key).or_insert(now);
        *full_at = (*full_at).max(now) + rate.one();
    }
}

/// What counts as one address: all of an IPv6 network of 64 bits, which is what one customer gets.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: PerMinute = PerMinute(10);

    #[test]
    fn ten_are_free_and_the_eleventh_waits_for_a_tenth_of_a_minute() {
        let (attempts, now) = (Attempts::new(), Instant::now());
        for _ in 0..10 {
            assert_eq!(attempts.look("ann", TEN, now), Ok(()));
            attempts.take("ann", TEN, now);
        }
        assert_eq!(attempts.look("ann", TEN, now), Err(Duration::from_secs(6)));
        assert_eq!(attempts.look("ben", TEN, now), Ok(()), "another name has a bucket of its own");
        assert_eq!(attempts.look("ann", TEN, now + Duration::from_secs(6)), Ok(()));
        attempts.take("ann", TEN, now + Duration::from_secs(6));
        assert_eq!(attempts.look("ann", TEN, now + Duration::from_secs(6)), Err(Duration::from_secs(6)));
        assert_eq!(attempts.look("ann", TEN, now + Duration::from_secs(66)), Ok(()));
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let (attempts, now) = (Attempts::new(), Instant::now());
        for key in 0..MOST + 10 {
            attempts.take(key, TEN, now);
        }
        assert!(attempts.full_at.lock().unwrap().len() <= MOST);
    }

    #[test]
    fn an_address_is_what_one_customer_has() {
        let cases =
            [("10.1.2.3", "10.1.2.3"), ("::ffff:10.1.2.3", "10.1.2.3"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::")];
        for (address, expected) in cases {
            assert_eq!(network(address.parse().unwrap()), expected.parse::<IpAddr>().unwrap());
        }
    }
}
