//! The rules, one by one: what is right passes, and each thing that is wrong is called by its name.

use super::*;

const RUN: &str = "run";
const ANN: &str = "ann";
const BEN: &str = "ben";

/// A session in which Ann (speaker 0) and Ben (speaker 1) speak; its events before the run end with 3.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(RUN);
    let session = ledger.add_session(3);
    ledger.add_speaker(session, ANN);
    ledger.add_speaker(session, BEN);
    ledger
}

fn heard<'a>(sender_id: &'a str, client_msg_id: &'a str) -> Heard<'a> {
    Heard { session: 0, sender_id, client_msg_id: Some(client_msg_id) }
}

/// A history of Ann's and Ben's messages: `(seq, speaker, number)`.
fn past(messages: &[(u64, u32, u32)]) -> Past {
    let source = |&(seq, speaker, number): &(u64, u32, u32)| (seq, Some(Source { speaker, number, due: 0 }));
    let head = messages.iter().map(|(seq, ..)| *seq).max().unwrap_or(3);
    Past { messages: messages.iter().map(source).collect(), head }
}

#[test]
fn everything_in_order_is_no_fault() {
    let mut ledger = ledger();
    for (seq, speaker) in [(4, 0), (5, 1), (6, 0)] {
        let number = ledger.say(speaker, 0);
        let id = ledger.client_msg_id(speaker, number);
        let sender = [ANN, BEN][speaker as usize];
        let source = ledger.identify(heard(sender, &id)).unwrap();
        assert_eq!((source.speaker, source.number), (speaker, number));
        ledger.seen(0, seq, source);
        ledger.seen(0, seq, source);
        ledger.acknowledge(speaker, number, seq, 10);
    }
    ledger.compare(0, &past(&[(4, 0, 0), (5, 1, 0), (6, 0, 1)]));
    let mut delivered = Delivered::after(3);
    (4..=6).for_each(|seq| delivered.take(seq));
    ledger.add(delivered.faults(6));
    assert_eq!(ledger.faults(), Faults::default());
}

#[test]
fn a_connection_that_misses_an_event_lost_it() {
    let mut delivered = Delivered::after(3);
    [4, 6, 7].into_iter().for_each(|seq| delivered.take(seq));
    assert_eq!(delivered.faults(7), Faults { lost: 1, ..Faults::default() });
    assert_eq!(delivered.faults(9), Faults { lost: 3, ..Faults::default() }, "the end is owed too");
}

#[test]
fn an_event_that_comes_again_is_duplicated() {
    let mut delivered = Delivered::after(3);
    [4, 4, 5, 4].into_iter().for_each(|seq| delivered.take(seq));
    assert_eq!(delivered.faults(5), Faults { duplicated: 2, ..Faults::default() });
    assert_eq!((delivered.last(), delivered.count()), (5, 4));
    let mut old = Delivered::after(3);
    old.take(2);
    assert_eq!(old.faults(3), Faults { duplicated: 1, ..Faults::default() }, "before where it resumed");
}

#[test]
fn an_event_that_comes_late_is_disordered_and_not_lost() {
    let mut delivered = Delivered::after(3);
    [5, 4, 6].into_iter().for_each(|seq| delivered.take(seq));
    assert_eq!(delivered.faults(6), Faults { disordered: 1, ..Faults::default() });
    delivered.take(5);
    assert_eq!(delivered.faults(6), Faults { disordered: 1, duplicated: 1, ..Faults::default() });
}

#[test]
fn a_gap_without_end_costs_no_memory_without_end() {
    let mut delivered = Delivered::after(3);
    delivered.take(1 << 60);
    assert_eq!(delivered.faults(1 << 60).lost, (1 << 60) - 4);
    delivered.take((1 << 60) - 1);
    assert_eq!(delivered.faults(1 << 60), Faults { lost: (1 << 60) - 5, disordered: 1, ..Faults::default() });
}

#[test]
fn a_message_under_another_name_or_that_nobody_sent_is_misattributed() {
    let mut ledger = ledger();
    ledger.say(0, 0);
    let wrong = [
        (BEN, "run.0.0"),
        ("nobody", "run.0.0"),
        (ANN, "run.0.1"),
        (ANN, "run.7.0"),
        (ANN, "other.0.0"),
        (ANN, "run.0.x"),
        (ANN, ""),
    ];
    for ((sender, id), misattributed) in wrong.into_iter().zip(1..) {
        assert_eq!(ledger.identify(heard(sender, id)), None, "{sender} {id}");
        assert_eq!(ledger.faults(), Faults { misattributed, ..Faults::default() });
    }
    assert!(ledger.identify(heard(ANN, "run.0.0")).is_some());
    let elsewhere = ledger.add_session(0);
    assert!(ledger.identify(Heard { session: elsewhere, ..heard(ANN, "run.0.0") }).is_none(), "another session");
}

#[test]
fn two_members_who_are_shown_different_messages_under_one_seq_are_disordered() {
    let mut ledger = ledger();
    let (one, other) = (Source { speaker: 0, number: 0, due: 0 }, Source { speaker: 1, number: 0, due: 0 });
    ledger.say(0, 0);
    ledger.say(1, 0);
    ledger.seen(0, 4, one);
    ledger.seen(0, 4, other);
    assert_eq!(ledger.faults(), Faults { disordered: 1, ..Faults::default() });
}

#[test]
fn an_acknowledged_message_that_the_history_lacks_is_missing() {
    let mut ledger = ledger();
    for seq in [4, 5] {
        let number = ledger.say(0, 0);
        ledger.acknowledge(0, number, seq, 1);
    }
    ledger.compare(0, &past(&[(4, 0, 0)]));
    assert_eq!(ledger.faults(), Faults { missing: 1, ..Faults::default() });
}

#[test]
fn a_message_that_was_shown_and_is_not_in_the_history_is_missing_once() {
    let mut ledger = ledger();
    let (first, second) = (ledger.say(0, 0), ledger.say(0, 0));
    ledger.seen(0, 4, Source { speaker: 0, number: first, due: 0 });
    ledger.seen(0, 5, Source { speaker: 0, number: second, due: 0 });
    ledger.acknowledge(0, second, 5, 1);
    ledger.compare(0, &past(&[]));
    assert_eq!(ledger.faults(), Faults { missing: 2, ..Faults::default() });
}

#[test]
fn a_message_that_was_never_acknowledged_may_be_in_the_history_once() {
    for (history, duplicated) in [(&[][..], 0), (&[(4, 0, 0)], 0), (&[(4, 0, 0), (5, 0, 0)], 1)] {
        let mut ledger = ledger();
        let number = ledger.say(0, 0);
        ledger.repeat(0, number);
        ledger.compare(0, &past(history));
        assert_eq!(ledger.faults(), Faults { duplicated, ..Faults::default() });
    }
}

#[test]
fn a_message_at_another_place_than_was_told_is_disordered() {
    let mut ledger = ledger();
    let number = ledger.say(0, 0);
    ledger.acknowledge(0, number, 4, 1);
    ledger.compare(0, &past(&[(5, 0, 0)]));
    assert_eq!(ledger.faults(), Faults { disordered: 1, ..Faults::default() });
    // Told twice, differently.
    ledger.acknowledge(0, number, 6, 1);
    assert_eq!(ledger.faults(), Faults { disordered: 2, ..Faults::default() });
}

#[test]
fn what_one_sender_said_stands_in_its_order_unless_it_was_repeated() {
    for (repeated, disordered) in [(None, 1), (Some(0), 0), (Some(1), 0)] {
        let mut ledger = ledger();
        ledger.say(0, 0);
        ledger.say(0, 0);
        ledger.say(1, 0);
        if let Some(number) = repeated {
            ledger.repeat(0, number);
        }
        ledger.compare(0, &past(&[(4, 0, 1), (5, 1, 0), (6, 0, 0)]));
        assert_eq!(ledger.faults(), Faults { disordered, ..Faults::default() }, "{repeated:?}");
    }
}

#[test]
fn a_history_out_of_order_is_disordered() {
    let mut ledger = ledger();
    ledger.say(0, 0);
    ledger.say(1, 0);
    ledger.compare(0, &past(&[(5, 0, 0), (4, 1, 0)]));
    assert_eq!(ledger.faults(), Faults { disordered: 1, ..Faults::default() });
}

#[test]
fn texts_are_told_apart_and_need_no_escapes() {
    let texts = Texts::new(200);
    assert_eq!(texts.of(1, 2).len(), 200);
    assert_eq!(texts.of(1, 2), texts.of(1, 2));
    assert_ne!(texts.of(1, 2), texts.of(2, 1));
    assert_ne!(texts.of(1, 2), texts.of(1, 3));
    assert!(texts.of(1, 2).chars().all(|c| c.is_ascii_alphanumeric() || c == ' ' || c == '.'));
    assert_eq!(Texts::new(usize::MAX).of(0, 0).len(), Texts::MAX);
}

#[test]
fn the_longest_wait_counts_what_is_still_open_and_acknowledgements_count_once() {
    let mut ledger = ledger();
    let other = ledger.add_session(0);
    let served = |longest_wait, acknowledged| Service { longest_wait, acknowledged };
    let number = ledger.say(0, 100);
    assert_eq!(ledger.acknowledge(0, number, 4, 350), 250);
    assert_eq!(ledger.acknowledge(0, number, 4, 350), 250);
    assert_eq!(ledger.services(400), [served(250, 1), served(0, 0)]);
    let late = ledger.add_speaker(other, ANN);
    ledger.say(late, 1_000);
    assert_eq!(ledger.services(2_000), [served(250, 1), served(1_000, 0)]);
}
