//! How a session reaches connections without knowing them: addresses, answers, and the one trait between them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::cluster::{Asked, CallAnswer, CallId, Caller, ConnectionKey, NodeMessage, Publication, UserSignal, Wire};
use crate::protocol::{ErrorCode, Frame, NodeId, Refusal, Reply, RequestId, SessionId, UserId};
use crate::protocol::{encode_error, encode_reply};

/// The answer to one request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where to.
    pub connection: ConnectionKey,
    /// Which request is no longer in flight.
    pub request_id: RequestId,
    /// Whether it was refused; for the metrics.
    pub refused: Option<ErrorCode>,
    /// The reply or the refusal.
    pub frame: Frame,
    /// The call that it answers, where the request came from another node.
    pub call: Option<(SessionId, CallId)>,
}

/// What leaves a session at once: when its commit is durable, or when there was nothing to commit.
#[derive(Debug, Default)]
pub struct Parcel {
    /// Answers, in the order of their requests.
    pub answers: Vec<Answer>,
    /// The commit, for everybody who listens.
    pub publication: Option<Publication>,
    /// Signals to users' connections, behind the publication.
    pub signals: Vec<(UserId, UserSignal)>,
    /// Asks to a connection each, behind the publication.
    pub asks: Vec<Asked>,
}

/// The way to connections: of this node at once, and of all others over the bus.
pub trait Deliveries: Send + Sync + 'static {
    /// Delivers a parcel; resolves when the hubs have taken it, so that a session that is faster than they waits.
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, ()>;

    /// Delivers an answer from a place that cannot wait. Bounded by the requests in flight.
    fn answer_now(&self, answer: Answer);

    /// Sends a [`NodeMessage`] to another node, in the order of the calls; lossy. `encode`: what it is in a version.
    fn tell(&self, node: NodeId, encode: &dyn Fn(Wire) -> Bytes);
}

/// What other nodes turn to.
pub trait Peers: Send + Sync + 'static {
    /// Takes what another node says; what it has for connections of this node. Never waits.
    fn receive(self: Arc<Self>, from: NodeId, message: NodeMessage) -> Vec<Parcel>;

    /// A node has given a session up: it has to be looked for again. Never waits.
    fn released(self: Arc<Self>, session_id: SessionId, by: NodeId);
}

/// Who is connected.
pub trait Presence: Send + Sync + 'static {
    /// One of the user's authenticated connections, the youngest first.
    fn connection_of(&self, user_id: UserId) -> Option<ConnectionKey>;
}

/// Where a request of another node's connection came from.
pub struct Origin {
    /// Which session it is for.
    pub session_id: SessionId,
    /// The other node's number for it.
    pub call: CallId,
    /// The other node's number for the line that it came in.
    pub line: CallId,
    /// Keeps the answer, in case it is lost on the way.
    pub keep: Arc<dyn Fn(CallAnswer) + Send + Sync>,
}

/// The duty to answer one request. Dropped unanswered it refuses by itself, so that no request stays in flight
/// because an actor died.
pub struct ReplySlot {
    caller: Caller,
    origin: Option<Origin>,
    deliveries: Option<Arc<dyn Deliveries>>,
}

impl ReplySlot {
    /// For the request of `caller`, who is connected to this node.
    pub fn new(caller: Caller, deliveries: Arc<dyn Deliveries>) -> Self {
        Self { caller, origin: None, deliveries: Some(deliveries) }
    }

    /// For the request of `caller`, who is connected to another node.
    pub fn from_afar(caller: Caller, origin: Origin, deliveries: Arc<dyn Deliveries>) -> Self {
        Self { caller, origin: Some(origin), deliveries: Some(deliveries) }
    }

    /// Who asked.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whether the caller is connected to another node.
    pub const fn is_from_afar(&self) -> bool {
        self.origin.is_some()
    }

    /// Makes the answer, to be delivered in a parcel.
    pub fn answer(mut self, outcome: &Result<Reply, Refusal>) -> Answer {
        self.deliveries = None;
        self.encode(outcome)
    }

    /// Makes the answer of what another node has answered.
    pub fn pass_on(mut self, refused: Option<ErrorCode>, frame: Frame) -> Answer {
        self.deliveries = None;
        let Caller { connection, request_id, .. } = self.caller;
        Answer { connection, request_id, refused, frame, call: None }
    }

    /// Refuses at once, outside of any parcel.
    pub fn refuse_now(mut self, refusal: Refusal) {
        if let Some(deliveries) = self.deliveries.take() {
            deliveries.answer_now(self.encode(&Err(refusal)));
        }
    }

    /// Leaves the answer to the node that the request came from, if it came from one: its line and number there.
    pub fn take_back(mut self) -> Option<(CallId, CallId)> {
        let Origin { call, line, .. } = self.origin.as_ref()?;
        let numbers = (*line, *call);
        self.deliveries = None;
        Some(numbers)
    }

    fn encode(&self, outcome: &Result<Reply, Refusal>) -> Answer {
        let Caller { connection, request_id, request, .. } = self.caller;
        let (json, refused) = match outcome {
            Ok(reply) => (encode_reply(request_id, request, reply), None),
            Err(refusal) => (encode_error(Some(request_id), refusal), Some(refusal.code)),
        };
        let frame = Frame::text(&json);
        let call = self.origin.as_ref().map(|origin| {
            (origin.keep)(CallAnswer { id: origin.call, refused, frame: frame.clone() });
            (origin.session_id, origin.call)
        });
        Answer { connection, request_id, refused, frame, call }
    }
}

impl Drop for ReplySlot {
    fn drop(&mut self) {
        let Some(deliveries) = self.deliveries.take() else { return };
        let refusal = if std::thread::panicking() {
            Refusal::new(ErrorCode::Internal, "the request failed in the server")
        } else {
            Refusal::new(ErrorCode::Unavailable, "the session is moving, try again")
        };
        deliveries.answer_now(self.encode(&Err(refusal)));
    }
}
