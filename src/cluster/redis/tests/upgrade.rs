//! A rolling upgrade: nodes of two releases on one bus, of which the older reads one version only.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::server::Tap;
use super::*;
use crate::cluster::{Effect, NodeMessage, Nudge, Publication, Range, Row, UserSignal, Wire};
use crate::protocol::{Frame, SessionId, UserId};
use crate::store::WireVersions;

const SESSION: SessionId = SessionId::from_bytes([1; 16]);
const USER: UserId = UserId::from_bytes([2; 16]);
const PEER: NodeId = NodeId::from_bytes([3; 16]);
const CHANNELS: [Channel; 3] = [Channel::Session(SESSION), Channel::User(USER), Channel::Node(PEER)];

const OLD: Range = Range { oldest: Wire::V1, newest: Wire::V1 };
const NEW: Range = Range { oldest: Wire::V1, newest: Wire::Next };

/// What a node has understood.
#[derive(Debug, PartialEq)]
enum Understood {
    Publication(Publication),
    Signal(UserId, UserSignal),
    Told(NodeId, Vec<NodeMessage>),
}

/// Reads what comes as a node does.
struct Reader(UnboundedSender<(Wire, Understood)>);

impl Incoming for Reader {
    fn message(&self, channel: Channel, message: Message) {
        let wire = message.wire;
        let understood = match channel {
            Channel::Session(_) => Understood::Publication(Publication::decode(message).unwrap()),
            Channel::User(_) => {
                let (user_id, signal) = UserSignal::decode(message).unwrap();
                Understood::Signal(user_id, signal)
            }
            Channel::Node(_) => {
                let (from, told) = NodeMessage::unbundle(message).unwrap();
                Understood::Told(from, told)
            }
        };
        self.0.send((wire, understood)).unwrap();
    }

    fn missed(&self, _: Channel) {}
}

/// A node of a release.
struct Released {
    bus: RedisBus,
    range: Range,
    understood: UnboundedReceiver<(Wire, Understood)>,
    metrics: Arc<Metrics>,
}

impl Released {
    async fn start(options: &RedisOptions, range: Range) -> Self {
        let (sender, understood) = unbounded_channel();
        let (options, metrics) = (RedisOptions { wire: range, ..options.clone() }, Metrics::new());
        let bus = RedisBus::start(options, node_id(), Arc::new(Reader(sender)), Arc::clone(&metrics)).unwrap();
        bus.connected(DEADLINE).await.unwrap();
        for channel in CHANNELS {
            bus.subscribe(channel).await.unwrap();
        }
        Self { bus, range, understood, metrics }
    }

    /// Says one thing of each kind, as a node does: in the version that its bus writes now.
    async fn speak(&self) {
        let wire = self.bus.wire();
        let nudge = NodeMessage::Nudge(SESSION, Nudge::Tasks);
        let messages = [
            publication().encode(wire),
            UserSignal::Joined(SESSION, 7).encode(wire, USER),
            NodeMessage::bundle(wire, PEER, &[nudge.encode(wire), nudge.encode(wire)]),
        ];
        for (channel, message) in CHANNELS.into_iter().zip(messages) {
            self.bus.publish(channel, message).await.unwrap();
        }
    }

    /// The next three things that it hears are what another one has just said, in this version.
    async fn understands(&mut self, wire: Wire) {
        let nudge = NodeMessage::Nudge(SESSION, Nudge::Tasks);
        let expected = [
            Understood::Publication(publication()),
            Understood::Signal(USER, UserSignal::Joined(SESSION, 7)),
            Understood::Told(PEER, vec![nudge.clone(), nudge]),
        ];
        for expected in expected {
            let heard = within("something to hear", self.understood.recv()).await;
            assert_eq!(heard, Some((wire, expected)));
        }
    }

    fn of_unknown_versions(&self) -> u64 {
        self.metrics.bus_rejected.with_label_values(&["version"]).get()
    }
}

fn publication() -> Publication {
    let event = Row::Event { seq: 7, effect: Effect::None, frame: Frame::text(b"{}") };
    Publication { session_id: SESSION, version: 9, rows: vec![event] }
}

/// All of these know of each other, as their rows in the store say.
fn meet(nodes: &[&Released]) {
    let versions: Vec<WireVersions> = nodes.iter().map(|node| node.range.versions()).collect();
    nodes.iter().for_each(|node| node.bus.set_peers(&versions));
}

/// The version of what was said, as it stands on the bus.
fn version_seen(tap: &mut Tap) -> [u8; 2] {
    tap.next()[..2].try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_two_releases_understand_each_other_through_an_upgrade_and_after_it() {
    let server = RedisServer::start(&[]);
    let options = options(&server);
    let mut tap = server.tap(&format!("{}{}", options.prefix, CHANNELS[0]));
    let mut old = Released::start(&options, OLD).await;
    let mut new = Released::start(&options, NEW).await;

    // A node that has just begun knows nobody yet, and is understood by everybody.
    new.speak().await;
    old.understands(Wire::V1).await;
    assert_eq!(version_seen(&mut tap), [0, 1]);
    meet(&[&old, &new]);
    for _ in 0..2 {
        new.speak().await;
        old.understands(Wire::V1).await;
        old.speak().await;
        new.understands(Wire::V1).await;
        assert_eq!([version_seen(&mut tap), version_seen(&mut tap)], [[0, 1]; 2]);
    }

    // The last old one is gone: those that are left write the new version.
    let mut newer = Released::start(&options, NEW).await;
    meet(&[&new, &newer]);
    new.speak().await;
    newer.understands(Wire::Next).await;
    assert_eq!(version_seen(&mut tap), [0, 2]);

    // One that comes back to the old release hears nothing it would misread, until the others know of it.
    within("the old node to refuse them", async {
        while old.of_unknown_versions() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(old.understood.try_recv().is_err());
    meet(&[&old, &new, &newer]);
    new.speak().await;
    old.understands(Wire::V1).await;
    newer.understands(Wire::V1).await;
    assert_eq!(version_seen(&mut tap), [0, 1]);
    assert_eq!((new.of_unknown_versions(), newer.of_unknown_versions()), (0, 0));
}

#[test]
fn what_is_written_in_one_version_is_not_read_as_another() {
    let nudge = NodeMessage::Nudge(SESSION, Nudge::Tasks);
    for (wire, other) in [(Wire::V1, Wire::Next), (Wire::Next, Wire::V1)] {
        let as_other = |message: Message| Message { wire: other, ..message };
        assert!(Publication::decode(as_other(publication().encode(wire))).is_err());
        assert!(UserSignal::decode(as_other(UserSignal::Wake.encode(wire, USER))).is_err());
        let bundle = NodeMessage::bundle(wire, PEER, &[nudge.encode(wire)]);
        assert!(NodeMessage::unbundle(as_other(bundle)).is_err());
    }
    assert_eq!(OLD.up_to(0), Wire::V1);
    assert_eq!([NEW.up_to(0), NEW.up_to(1), NEW.up_to(2), NEW.up_to(9)], [Wire::V1, Wire::V1, Wire::Next, Wire::Next]);
}
