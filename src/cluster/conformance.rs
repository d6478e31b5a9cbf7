//! What every kind of bus does, as tests that each kind runs over itself.
//!
//! A kind gives `suite!` an async function that opens a bus without nodes; each behaviour becomes a test of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Bus, BusError, Channel, Incoming, MAX_MESSAGE, Message};
use crate::protocol::{NodeId, SessionId, UserId};

/// How long anything may take that has to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Joins a bus as one more node.
type Join = dyn Fn(Arc<dyn Incoming>) -> BoxFuture<'static, Arc<dyn Bus>> + Send + Sync;

/// A bus that nodes can join.
pub(crate) struct Subject {
    pub(crate) join: Box<Join>,
    /// What has to live as long as the bus.
    pub(crate) _keep: Box<dyn std::any::Any + Send + Sync>,
}

/// What a node heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Message(Channel, Bytes),
    Missed(Channel),
}

/// One node.
pub(crate) struct Peer {
    pub(crate) bus: Arc<dyn Bus>,
    heard: Mutex<UnboundedReceiver<Heard>>,
}

/// Writes down what a node hears.
pub(crate) struct Ear(UnboundedSender<Heard>);

impl Incoming for Ear {
    fn message(&self, channel: Channel, message: Message) {
        let _ = self.0.send(Heard::Message(channel, message.bytes));
    }

    fn missed(&self, channel: Channel) {
        let _ = self.0.send(Heard::Missed(channel));
    }
}

impl Ear {
    pub(crate) fn new() -> (Arc<Self>, UnboundedReceiver<Heard>) {
        let (sender, receiver) = unbounded_channel();
        (Arc::new(Self(sender)), receiver)
    }
}

impl Subject {
    pub(crate) async fn node(&self) -> Peer {
        let (ear, heard) = Ear::new();
        Peer { bus: (self.join)(ear).await, heard: Mutex::new(heard) }
    }

    async fn nodes<const N: usize>(&self) -> [Peer; N] {
        let mut nodes = Vec::new();
        for _ in 0..N {
            nodes.push(self.node().await);
        }
        nodes.try_into().ok().expect("as many as were made")
    }
}

impl Peer {
    pub(crate) async fn subscribe(&self, channel: Channel) {
        self.bus.subscribe(channel).await.expect("a bus");
    }

    pub(crate) async fn publish(&self, channel: Channel, payload: impl Into<Bytes>) {
        self.try_publish(channel, payload).await.expect("a bus");
    }

    pub(crate) async fn try_publish(&self, channel: Channel, payload: impl Into<Bytes>) -> Result<(), BusError> {
        let message = Message { wire: self.bus.wire(), bytes: payload.into() };
        self.bus.publish(channel, message).await
    }

    pub(crate) async fn next(&self) -> Heard {
        let heard = tokio::time::timeout(DEADLINE, async { self.heard.lock().await.recv().await }).await;
        heard.expect("something to hear in time").expect("an ear")
    }

    /// The next message, and nothing before it.
    pub(crate) async fn hears(&self, channel: Channel, payload: &[u8]) {
        assert_eq!(self.next().await, Heard::Message(channel, Bytes::copy_from_slice(payload)));
    }

    /// Waits for this, whatever comes before it.
    pub(crate) async fn hears_at_last(&self, what: &Heard) {
        while self.next().await != *what {}
    }

    /// What came and was not looked at.
    async fn heard_nothing_more(&self) {
        assert!(self.heard.lock().await.try_recv().is_err());
    }
}

pub(crate) fn session(n: u8) -> Channel {
    Channel::Session(SessionId::from_bytes([n; 16]))
}

pub(crate) fn user(n: u8) -> Channel {
    Channel::User(UserId::from_bytes([n; 16]))
}

pub(crate) fn node(n: u8) -> Channel {
    Channel::Node(NodeId::from_bytes([n; 16]))
}

macro_rules! behaviours {
    ($($behaviour:ident,)*) => {
        /// `suite!(open)`: a test for each behaviour, over a bus that `open().await` makes.
        macro_rules! suite {
            ($open:path) => {
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $behaviour() {
                        $crate::cluster::conformance::$behaviour(&$open().await).await;
                    }
                )*
            };
        }
        pub(crate) use suite;
    };
}

behaviours! {
    a_message_reaches_all_other_listeners_and_not_its_sender,
    who_is_confirmed_hears_all_that_is_sent_from_then_on,
    what_one_node_sends_comes_in_its_order,
    who_listens_no_longer_hears_no_more,
    who_listens_again_at_once_hears_again,
    listening_twice_is_listening_once,
    kinds_of_channels_do_not_mix,
    messages_come_whole_whatever_their_size,
    who_listens_is_told_of_a_message_that_is_too_large,
    sending_to_nobody_is_no_error,
    a_probe_comes_through,
}

pub(crate) async fn a_message_reaches_all_other_listeners_and_not_its_sender(subject: &Subject) {
    let [sender, one, other, deaf] = subject.nodes().await;
    for listener in [&sender, &one, &other] {
        listener.subscribe(session(1)).await;
        listener.subscribe(node(9)).await;
    }
    deaf.subscribe(node(9)).await;
    sender.publish(session(1), "hello").await;
    one.publish(node(9), "the end").await;
    one.hears(session(1), b"hello").await;
    other.hears_at_last(&Heard::Message(session(1), Bytes::from_static(b"hello"))).await;
    deaf.hears(node(9), b"the end").await;
    sender.hears(node(9), b"the end").await;
}

pub(crate) async fn who_is_confirmed_hears_all_that_is_sent_from_then_on(subject: &Subject) {
    let [sender, listener] = subject.nodes().await;
    for n in 0..200 {
        listener.subscribe(session(n)).await;
        sender.publish(session(n), vec![n]).await;
        listener.hears(session(n), &[n]).await;
    }
}

pub(crate) async fn what_one_node_sends_comes_in_its_order(subject: &Subject) {
    let [one, other, listener] = subject.nodes().await;
    listener.subscribe(node(1)).await;
    let send = async |from: &Peer, name: u8| {
        for n in 0..2000u32 {
            from.publish(node(1), [&[name][..], &n.to_be_bytes()].concat()).await;
            if n.is_multiple_of(100) {
                tokio::task::yield_now().await;
            }
        }
    };
    let receive = async {
        let mut next = [0u32; 2];
        while next != [2000; 2] {
            let Heard::Message(_, payload) = listener.next().await else { panic!("nothing is missed") };
            let number = u32::from_be_bytes(payload[1..].try_into().expect("four bytes"));
            let expected = &mut next[usize::from(payload[0])];
            assert_eq!(number, *expected);
            *expected += 1;
        }
    };
    tokio::join!(send(&one, 0), send(&other, 1), receive);
}

pub(crate) async fn who_listens_no_longer_hears_no_more(subject: &Subject) {
    let [sender, listener] = subject.nodes().await;
    listener.subscribe(session(1)).await;
    listener.subscribe(session(2)).await;
    listener.bus.unsubscribe(session(1)).await;
    sender.publish(session(1), "not heard").await;
    sender.publish(session(2), "heard").await;
    listener.hears(session(2), b"heard").await;
    listener.heard_nothing_more().await;
}

pub(crate) async fn who_listens_again_at_once_hears_again(subject: &Subject) {
    let [sender, listener] = subject.nodes().await;
    for n in 0..50 {
        listener.subscribe(session(1)).await;
        sender.publish(session(1), vec![n]).await;
        listener.hears(session(1), &[n]).await;
        listener.bus.unsubscribe(session(1)).await;
    }
}

pub(crate) async fn listening_twice_is_listening_once(subject: &Subject) {
    let [sender, listener] = subject.nodes().await;
    tokio::join!(listener.subscribe(session(1)), listener.subscribe(session(1)));
    listener.subscribe(session(1)).await;
    for payload in ["once", "and once more"] {
        sender.publish(session(1), payload).await;
        listener.hears(session(1), payload.as_bytes()).await;
    }
    listener.bus.unsubscribe(session(1)).await;
    listener.subscribe(session(2)).await;
    sender.publish(session(1), "not heard").await;
    sender.publish(session(2), "heard").await;
    listener.hears(session(2), b"heard").await;
}

pub(crate) async fn kinds_of_channels_do_not_mix(subject: &Subject) {
    let [sender, listener] = subject.nodes().await;
    for channel in [session(1), user(1), node(1)] {
        listener.subscribe(channel).await;
        sender.publish(channel, "hello").await;
        listener.hears(channel, b"hello").await;
    }
}

pub(crate) async fn messages_come_whole_whatever_their_size(subject: &Subject) {
    let [sender, listener] = subject.nodes().await;
    listener.subscribe(session(1)).await;
    for size in [0, 1, 255, 65_536, 4 << 20] {
        let payload: Vec<u8> = (0..size).map(|n: u32| n.to_le_bytes()[0] ^ 0x0d).collect();
        sender.publish(session(1), payload.clone()).await;
        listener.hears(session(1), &payload).await;
    }
}

pub(crate) async fn who_listens_is_told_of_a_message_that_is_too_large(subject: &Subject) {
    let [sender, listener] = subject.nodes().await;
    listener.subscribe(session(1)).await;
    assert!(sender.try_publish(session(1), vec![0; MAX_MESSAGE + 1]).await.is_err());
    assert_eq!(listener.next().await, Heard::Missed(session(1)));
    sender.publish(session(1), "small").await;
    listener.hears(session(1), b"small").await;
}

pub(crate) async fn sending_to_nobody_is_no_error(subject: &Subject) {
    let [sender, listener] = subject.nodes().await;
    sender.publish(session(1), "hello").await;
    listener.subscribe(session(1)).await;
    sender.publish(session(1), "now").await;
    // The first one may have been under way still when the other node listened.
    listener.hears_at_last(&Heard::Message(session(1), Bytes::from_static(b"now"))).await;
}

pub(crate) async fn a_probe_comes_through(subject: &Subject) {
    let [one, other] = subject.nodes().await;
    for node in [&one, &other] {
        assert_eq!(node.bus.probe().await, Ok(()));
        node.heard_nothing_more().await;
    }
}

mod local {
    use futures_util::FutureExt;

    use super::Subject;
    use crate::cluster::{Bus, Incoming, LocalBus};

    async fn open() -> Subject {
        let bus = LocalBus::default();
        let join = move |incoming: std::sync::Arc<dyn Incoming>| {
            let bus: std::sync::Arc<dyn Bus> = std::sync::Arc::new(bus.join(incoming));
            async { bus }.boxed()
        };
        Subject { join: Box::new(join), _keep: Box::new(()) }
    }

    super::suite!(open);
}
