//! The nodes' rows: leases by the store's clock, reports, and what operators ask of a node.

use super::{NODE, OTHER, Session, Subject, report, user};
use crate::store::{Claim, NodeReport, WireVersions};

const LEASE: i64 = 10_000;

pub(crate) async fn a_renewal_tells_what_the_node_said_and_is_asked_for(subject: &Subject) {
    let Subject { store, advance, .. } = subject;
    let entered = store.now().await.unwrap();
    let first = store.renew_lease(NODE, LEASE, &report()).await.unwrap();
    assert_eq!((first.node_id, first.started_at, first.drain), (NODE, entered, false));
    assert_eq!((first.expires_at, first.bus_ok_at), (entered.plus_millis(LEASE), Some(entered)));
    assert_eq!(first.report, report());
    assert!(store.ask_to_drain(NODE).await.unwrap());
    assert!(!store.ask_to_drain(OTHER).await.unwrap(), "there is no such node");
    advance(LEASE / 2);
    let wire = WireVersions { oldest: 2, newest: 3 };
    let next = NodeReport { program: "1.2.4".to_owned(), wire, connections: 0, sessions: 90_000, bus_ok: true };
    let second = store.renew_lease(NODE, LEASE, &next).await.unwrap();
    assert_eq!((second.started_at, second.drain), (entered, true));
    assert_eq!(second.expires_at, entered.plus_millis(LEASE / 2 + LEASE));
    assert_eq!(second.report, next);
    assert_eq!(store.nodes().await.unwrap(), [second]);
}

pub(crate) async fn a_node_lives_until_its_lease_is_over(subject: &Subject) {
    let Subject { store, advance, .. } = subject;
    let session = Session::new(1, user(1)).made(&**store).await;
    store.renew_lease(OTHER, LEASE * 2, &report()).await.unwrap();
    store.renew_lease(NODE, LEASE, &report()).await.unwrap();
    let ids = || async { store.nodes().await.unwrap().into_iter().map(|node| node.node_id).collect::<Vec<_>>() };
    assert_eq!(ids().await, [NODE, OTHER]);
    advance(LEASE - 1);
    assert_eq!(ids().await, [NODE, OTHER]);
    advance(1);
    assert_eq!(ids().await, [OTHER]);
    assert!(!store.ask_to_drain(NODE).await.unwrap(), "a dead node is asked for nothing");
    store.end_lease(OTHER).await.unwrap();
    assert_eq!(ids().await, []);
    assert!(matches!(store.claim(session.id(), OTHER, true).await.unwrap(), Claim::Mine(_)));
}

pub(crate) async fn the_bus_was_in_reach_when_a_node_last_said_so(subject: &Subject) {
    let Subject { store, advance, .. } = subject;
    let without = NodeReport { bus_ok: false, ..report() };
    assert_eq!(store.renew_lease(NODE, LEASE, &without).await.unwrap().bus_ok_at, None, "never yet");
    advance(100);
    let then = store.now().await.unwrap();
    assert_eq!(store.renew_lease(NODE, LEASE, &report()).await.unwrap().bus_ok_at, Some(then));
    advance(100);
    let row = store.renew_lease(NODE, LEASE, &without).await.unwrap();
    assert_eq!((row.bus_ok_at, row.report.bus_ok), (Some(then), false));
}
