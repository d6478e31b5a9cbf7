//! The two ends of a line of calls: what is lost, doubled or late, and an owner that changes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: NodeId = NodeId::from_bytes([0xa; 16]);
const B: NodeId = NodeId::from_bytes([0xb; 16]);

fn calls(items: &[(CallId, char)]) -> Calls<char> {
    let mut calls = Calls::default();
    items.iter().for_each(|(id, item)| calls.push(*id, *item, 0));
    calls
}

fn sent(calls: &mut Calls<char>, owner: NodeId, new_line: CallId) -> Vec<(CallId, CallId, CallId)> {
    let sending = calls.send_to(owner, 0, new_line);
    sending.iter().map(|call| (call.ticket.id, call.ticket.line, call.ticket.after)).collect()
}

fn ticket(id: CallId, line: CallId, after: CallId, settled: CallId) -> Ticket {
    Ticket { id, line, after, settled }
}

#[test]
fn each_call_names_the_one_before_it() {
    let mut calls = calls(&[(3, 'a'), (5, 'b')]);
    assert_eq!(sent(&mut calls, A, 6), [(3, 6, 0), (5, 6, 3)]);
    calls.push(9, 'c', 0);
    assert_eq!(sent(&mut calls, A, 10), [(9, 6, 5)]);
    assert_eq!(sent(&mut calls, A, 11), []);
}

#[test]
fn what_was_not_taken_is_sent_again_in_a_new_line() {
    let mut calls = calls(&[(3, 'a'), (5, 'b'), (6, 'c')]);
    sent(&mut calls, A, 7);
    assert!(calls.not_taken(A, 7, 5));
    assert_eq!(sent(&mut calls, B, 8), [(5, 8, 0), (6, 8, 5)], "3 was taken, and is answered by A");
    assert!(!calls.not_taken(A, 7, 5), "A has nothing more to say about them");
    assert_eq!(calls.answered(3).unwrap().item, 'a');
    assert!(calls.answered(3).is_none(), "once");
}

#[test]
fn what_was_perhaps_taken_goes_to_the_next_owner_only_where_it_may_be_repeated() {
    let mut calls = calls(&[(1, 'M'), (2, 'k'), (3, 'M')]);
    sent(&mut calls, A, 4);
    calls.push(5, 'k', 0);
    calls.moved(B, 10, |item| *item == 'M');
    assert_eq!(sent(&mut calls, B, 6), [(1, 6, 0), (3, 6, 1), (5, 6, 3)], "5 had not been sent");
    assert!(calls.expire(10 + LATE_MS - 1, u64::MAX).is_empty(), "A's answer may be on its way");
    let expired: Vec<_> = calls.expire(10 + LATE_MS, u64::MAX).into_iter().map(|call| call.id).collect();
    assert_eq!(expired, [2]);
}

#[test]
fn what_comes_home_leaves_behind_what_may_have_been_done() {
    let mut calls = calls(&[(1, 'M'), (2, 'k')]);
    sent(&mut calls, A, 3);
    calls.push(4, 'k', 0);
    calls.moved(B, 0, |item| *item == 'M');
    assert_eq!(calls.take_home(), ['M', 'k']);
    assert_eq!(calls.answered(2).unwrap().item, 'k', "its late answer is taken");
    assert!(calls.is_empty());
}

#[test]
fn calls_lapse_with_their_deadline() {
    let mut calls = calls(&[(1, 'a')]);
    calls.push(2, 'b', 50);
    let lapsed: Vec<_> = calls.expire(100, 100).into_iter().map(|call| call.id).collect();
    assert_eq!(lapsed, [1]);
    assert_eq!(calls.len(), 1);
}

#[test]
fn an_unanswered_call_is_sent_again_as_it_was() {
    let mut calls = calls(&[(1, 'a'), (2, 'b')]);
    sent(&mut calls, A, 3);
    calls.answered(1).unwrap();
    assert!(calls.resend(RESEND_MS - 1).is_none());
    let (owner, call) = calls.resend(RESEND_MS).unwrap();
    assert_eq!((owner, call.ticket), (A, ticket(2, 3, 1, 1)));
    assert!(calls.resend(RESEND_MS).is_none(), "not all the time");
}

#[test]
fn a_line_takes_each_call_once_and_behind_the_one_before_it() {
    let mut line: Line<char> = Line::default();
    assert_eq!(line.arrive(ticket(3, 9, 0, 0), 0), Arrival::New);
    assert_eq!(line.arrive(ticket(3, 9, 0, 0), 0), Arrival::Known);
    assert_eq!(line.arrive(ticket(5, 9, 3, 0), 0), Arrival::New);
    line.answer(3, 'x');
    assert_eq!(line.arrive(ticket(3, 9, 0, 0), 0), Arrival::Answered('x'), "the answer was lost");
    assert_eq!(line.arrive(ticket(6, 9, 5, 3), 0), Arrival::New);
    assert_eq!(line.arrive(ticket(3, 9, 0, 0), 0), Arrival::Known, "settled: kept no longer");
}

#[test]
fn a_line_with_a_gap_is_over_and_another_one_goes_on() {
    let mut line: Line<char> = Line::default();
    assert_eq!(line.arrive(ticket(3, 9, 0, 0), 0), Arrival::New);
    assert_eq!(line.arrive(ticket(6, 9, 5, 0), 0), Arrival::Refused(4));
    assert_eq!(line.arrive(ticket(5, 9, 3, 0), 0), Arrival::Refused(4), "late: the sender may have sent it elsewhere");
    assert_eq!(line.arrive(ticket(6, 10, 5, 0), 0), Arrival::Refused(4), "the first of the new line is missing");
    assert_eq!(line.arrive(ticket(5, 11, 0, 0), 0), Arrival::New);
    assert_eq!(line.arrive(ticket(6, 9, 5, 0), 0), Arrival::Known, "of a line that is over");
    assert_eq!(line.arrive(ticket(6, 11, 5, 0), 0), Arrival::New);
}

#[test]
fn what_was_given_back_comes_again_in_another_line_only() {
    let mut line: Line<char> = Line::default();
    assert_eq!(line.arrive(ticket(3, 9, 0, 0), 0), Arrival::New);
    line.give_back(3);
    assert_eq!(line.arrive(ticket(4, 9, 3, 0), 0), Arrival::Refused(3));
    assert_eq!(line.arrive(ticket(3, 9, 0, 0), 0), Arrival::Refused(3), "a late double");
    assert_eq!(line.arrive(ticket(3, 10, 0, 0), 0), Arrival::New);
}

/// What happens next on the way between a sender and two nodes that may own the session.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        repeatable: bool,
    },
    /// The message at this place of those under way arrives, and stays for a double where `again`.
    Arrive {
        index: usize,
        again: bool,
    },
    Lose {
        index: usize,
    },
    /// The owner answers its oldest call.
    Answer,
    /// The session moves to the other node, which is told nothing; `died`: the old one never answers again.
    Move {
        died: bool,
    },
    Time,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<bool>().prop_map(|repeatable| Step::Submit { repeatable }),
        8 => (0..8_usize, any::<bool>()).prop_map(|(index, again)| Step::Arrive { index, again }),
        2 => (0..8_usize).prop_map(|index| Step::Lose { index }),
        4 => Just(Step::Answer),
        1 => any::<bool>().prop_map(|died| Step::Move { died }),
        2 => Just(Step::Time),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Message {
    Call { to: usize, ticket: Ticket },
    NotTaken { by: usize, line: CallId, from: CallId },
    Answer(CallId),
}

const NODES: [NodeId; 2] = [A, B];

/// A sender that learns of a move as the store would tell it, two receivers, and a bus that loses, doubles and delays.
struct World {
    calls: Calls<bool>,
    lines: [Line<()>; 2],
    /// What each has taken and not answered.
    hands: [Vec<CallId>; 2],
    owner: usize,
    route: usize,
    bus: Vec<Message>,
    next: CallId,
    now: u64,
    /// What took effect, in order.
    done: Vec<CallId>,
    answered: BTreeSet<CallId>,
    repeatable: BTreeSet<CallId>,
}

impl World {
    fn send(&mut self) {
        let to = self.route;
        self.next += 1;
        let sending = self.calls.send_to(NODES[to], self.now, self.next);
        self.bus.extend(sending.iter().map(|call| Message::Call { to, ticket: call.ticket }));
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Call { to, ticket } => self.arrive(to, ticket),
            Message::NotTaken { by, line, from } => {
                if self.calls.not_taken(NODES[by], line, from) && by == self.route {
                    self.look();
                }
            }
            Message::Answer(id) => {
                if self.calls.answered(id).is_some() {
                    assert!(self.answered.insert(id), "{id} was answered twice");
                }
            }
        }
    }

    fn arrive(&mut self, to: usize, ticket: Ticket) {
        let Ticket { id, line, .. } = ticket;
        match self.lines[to].arrive(ticket, self.now) {
            Arrival::New if to == self.owner => {
                // A repeated message is known by its sender's id, and done once.
                if !self.done.contains(&id) || !self.repeatable.contains(&id) {
                    self.done.push(id);
                }
                self.hands[to].push(id);
            }
            Arrival::New => {
                self.lines[to].give_back(id);
                self.bus.push(Message::NotTaken { by: to, line, from: id });
            }
            Arrival::Answered(()) => self.bus.push(Message::Answer(id)),
            Arrival::Known => {}
            Arrival::Refused(from) => self.bus.push(Message::NotTaken { by: to, line, from }),
        }
    }

    /// Asks the store.
    fn look(&mut self) {
        self.route = self.owner;
        self.calls.moved(NODES[self.route], self.now, |repeatable| *repeatable);
        self.send();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Submit { repeatable } => {
                self.next += 1;
                if repeatable {
                    self.repeatable.insert(self.next);
                }
                self.calls.push(self.next, repeatable, self.now);
                self.send();
            }
            Step::Arrive { index, again } if index < self.bus.len() => {
                let message = if again { self.bus[index] } else { self.bus.remove(index) };
                self.take(message);
            }
            Step::Lose { index } if index < self.bus.len() => drop(self.bus.remove(index)),
            Step::Arrive { .. } | Step::Lose { .. } => {}
            Step::Answer => self.answer_one(),
            Step::Move { died } => {
                // A session moves when nothing is under way in it, or when its node dies.
                let hands = std::mem::take(&mut self.hands[self.owner]);
                if !died {
                    self.bus.extend(hands.iter().map(|id| Message::Answer(*id)));
                    hands.iter().for_each(|id| self.lines[self.owner].answer(*id, ()));
                }
                // No message outlives two moves.
                let next = 1 - self.owner;
                let to_next = |message: &Message| matches!(message, Message::Call { to, .. } if *to == next);
                let (early, rest) = std::mem::take(&mut self.bus).into_iter().partition(to_next);
                self.bus = rest;
                let early: Vec<Message> = early;
                early.into_iter().for_each(|message| self.take(message));
                self.owner = next;
            }
            Step::Time => {
                self.now += RESEND_MS;
                if let Some((owner, call)) = self.calls.resend(self.now) {
                    let to = usize::from(owner == B);
                    self.bus.push(Message::Call { to, ticket: call.ticket });
                }
                if self.calls.unanswered_for(self.now).is_some_and(|wait| wait >= DOUBT_MS) {
                    self.look();
                }
                self.calls.expire(self.now, 60 * RESEND_MS);
            }
        }
    }

    fn answer_one(&mut self) {
        let owner = self.owner;
        if !self.hands[owner].is_empty() {
            let id = self.hands[owner].remove(0);
            self.lines[owner].answer(id, ());
            self.bus.push(Message::Answer(id));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_is_lost_doubled_or_moved_each_call_is_done_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut world = World {
            calls: Calls::default(),
            lines: [Line::default(), Line::default()],
            hands: [Vec::new(), Vec::new()],
            owner: 0,
            route: 0,
            bus: Vec::new(),
            next: 0,
            now: 0,
            done: Vec::new(),
            answered: BTreeSet::new(),
            repeatable: BTreeSet::new(),
        };
        for step in steps {
            world.step(step);
        }
        // Then the bus is well again.
        for _ in 0..200 {
            while !world.bus.is_empty() {
                let message = world.bus.remove(0);
                world.take(message);
            }
            world.answer_one();
            world.step(Step::Time);
            if world.calls.is_empty() {
                break;
            }
        }
        prop_assert!(world.calls.is_empty(), "{:?}", world.calls);
        let mut sorted = world.done.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(&world.done, &sorted, "in order, and once");
        for id in &world.answered {
            prop_assert!(world.done.contains(id), "{} was answered and not done", id);
        }
    }
}
