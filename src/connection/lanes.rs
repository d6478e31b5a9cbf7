//! The order of one connection's requests, per session. PURE.
//!
//! Commands that go to the session at once follow each other without waiting: the session keeps their order. A read,
//! or a command that needs something looked up first, waits for what is under way, and whatever comes later waits for
//! it. Invariants: items leave a lane in the order they entered; an item that is alone has nothing beside it; a lane
//! without items does not exist. The number of items is bounded by the connection's requests in flight.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// How an item goes along with others of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Beside others that are together.
    Together,
    /// With nothing beside it, until it is done or has become one that is together.
    Alone,
}

/// A lane for each session that something is under way for.
#[derive(Debug)]
pub(super) struct Lanes<K, T>(HashMap<K, Lane<T>>);

#[derive(Debug)]
struct Lane<T> {
    together: usize,
    alone: bool,
    waiting: VecDeque<(Pace, T)>,
}

impl<K, T> Default for Lanes<K, T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Lane<T> {
    /// Lets go what may go now.
    fn release(&mut self) -> Vec<T> {
        let mut free = Vec::new();
        while let Some((pace, _)) = self.waiting.front() {
            match pace {
                _ if self.alone => break,
                Pace::Alone if self.together > 0 => break,
                Pace::Alone => self.alone = true,
                Pace::Together => self.together += 1,
            }
            free.extend(self.waiting.pop_front().map(|(_, item)| item));
        }
        free
    }
}

impl<K: Eq + Hash, T> Lanes<K, T> {
    /// Takes an item in; it comes back if it may go at once.
    pub(super) fn enter(&mut self, key: K, pace: Pace, item: T) -> Option<T> {
        let lane = self.0.entry(key).or_insert_with(|| Lane { together: 0, alone: false, waiting: VecDeque::new() });
        lane.waiting.push_back((pace, item));
        // At most the one that has just come: others would have left before.
        lane.release().pop()
    }

    /// The item that is alone needs to be so no longer: it is a command under way now.
    pub(super) fn joined(&mut self, key: &K) -> Vec<T> {
        let Some(lane) = self.0.get_mut(key) else { return Vec::new() };
        if lane.alone {
            lane.alone = false;
            lane.together += 1;
        }
        lane.release()
    }

    /// An item is done; those that may go now.
    pub(super) fn done(&mut self, key: &K) -> Vec<T> {
        let Some(lane) = self.0.get_mut(key) else { return Vec::new() };
        if lane.alone {
            lane.alone = false;
        } else {
            lane.together = lane.together.saturating_sub(1);
        }
        let free = lane.release();
        if lane.together == 0 && !lane.alone {
            self.0.remove(key);
        }
        free
    }

    /// Whether nothing of this key is under way or waiting.
    #[cfg(test)]
    pub(super) fn is_idle(&self, key: &K) -> bool {
        !self.0.contains_key(key)
    }

    /// Forgets everything, when the connection is over.
    pub(super) fn clear(&mut self) {
        self.0 = HashMap::new();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Pace::{Alone, Together};
    use super::*;

    #[test]
    fn commands_follow_each_other_without_waiting() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter('s', Together, 1), Some(1));
        assert_eq!(lanes.enter('s', Together, 2), Some(2));
        assert!(lanes.done(&'s').is_empty());
        assert!(lanes.done(&'s').is_empty());
        assert!(lanes.is_idle(&'s'));
    }

    #[test]
    fn a_read_waits_and_is_waited_for() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter('s', Together, 1), Some(1));
        assert_eq!(lanes.enter('s', Alone, 2), None);
        assert_eq!(lanes.enter('s', Together, 3), None);
        assert_eq!(lanes.enter('t', Alone, 9), Some(9), "another session's lane is another");
        assert_eq!(lanes.done(&'s'), [2]);
        assert_eq!(lanes.enter('s', Together, 4), None);
        assert_eq!(lanes.done(&'s'), [3, 4]);
    }

    #[test]
    fn a_looked_up_command_lets_the_next_ones_go() {
        let mut lanes = Lanes::default();
        assert_eq!(lanes.enter('s', Alone, 1), Some(1));
        assert_eq!(lanes.enter('s', Together, 2), None);
        assert_eq!(lanes.enter('s', Alone, 3), None);
        assert_eq!(lanes.joined(&'s'), [2]);
        assert!(lanes.done(&'s').is_empty());
        assert_eq!(lanes.done(&'s'), [3]);
        assert!(lanes.done(&'s').is_empty());
        assert!(lanes.is_idle(&'s'));
    }

    proptest! {
        #[test]
        fn order_is_kept_and_nothing_is_left(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..100),
        ) {
            let mut lanes = Lanes::default();
            let (mut out, mut under_way) = (Vec::new(), VecDeque::new());
            let mut went = |free: Vec<(usize, Pace)>, under_way: &mut VecDeque<Pace>| {
                for (number, pace) in free {
                    out.push(number);
                    under_way.push_back(pace);
                }
            };
            for (number, (alone, finish)) in steps.iter().enumerate() {
                let pace = if *alone { Alone } else { Together };
                went(lanes.enter('s', pace, (number, pace)).into_iter().collect(), &mut under_way);
                prop_assert!(under_way.len() <= 1 || under_way.iter().all(|pace| *pace == Together));
                if *finish && under_way.pop_front().is_some() {
                    went(lanes.done(&'s'), &mut under_way);
                }
                prop_assert!(under_way.len() <= 1 || under_way.iter().all(|pace| *pace == Together));
            }
            while under_way.pop_front().is_some() {
                went(lanes.done(&'s'), &mut under_way);
            }
            prop_assert_eq!(out, (0..steps.len()).collect::<Vec<_>>());
            prop_assert!(lanes.is_idle(&'s'));
        }
    }
}
