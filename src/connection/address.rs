//! How a session reaches connections without knowing them: addresses, answers, and the one trait between them.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::cluster::{Publication, UserSignal};
use crate::protocol::{ErrorCode, Frame, Refusal, Reply, RequestId, UserId, encode_error, encode_reply};

/// One connection on this node: its worker thread, and a number that is not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// The hub that it is with.
    pub worker: u16,
    /// Which of its connections, ever.
    pub serial: u64,
}

/// Who asked, and where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user, authenticated.
    pub user_id: UserId,
    /// The connection that the request came from.
    pub connection: ConnectionKey,
    /// The request's id on that connection.
    pub request_id: RequestId,
    /// The request's type.
    pub request: &'static str,
}

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
    pub asks: Vec<(ConnectionKey, Vec<Frame>)>,
}

/// The way to connections: of this node at once, and of all others over the bus.
pub trait Deliveries: Send + Sync + 'static {
    /// Delivers a parcel; resolves when the hubs have taken it, so that a session that is faster than they waits.
    fn deliver(&self, parcel: Parcel) -> BoxFuture<'static, ()>;

    /// Delivers an answer from a place that cannot wait. Bounded by the requests in flight.
    fn answer_now(&self, answer: Answer);
}

/// Who is connected.
pub trait Presence: Send + Sync + 'static {
    /// One of the user's authenticated connections, the youngest first.
    fn connection_of(&self, user_id: UserId) -> Option<ConnectionKey>;
}

/// The duty to answer one request. Dropped unanswered it refuses by itself, so that no request stays in flight
/// because an actor died.
pub struct ReplySlot {
    caller: Caller,
    deliveries: Option<Arc<dyn Deliveries>>,
}

impl ReplySlot {
    /// For the request of `caller`.
    pub fn new(caller: Caller, deliveries: Arc<dyn Deliveries>) -> Self {
        Self { caller, deliveries: Some(deliveries) }
    }

    /// Who asked.
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Makes the answer, to be delivered in a parcel.
    pub fn answer(mut self, outcome: &Result<Reply, Refusal>) -> Answer {
        self.deliveries = None;
        self.encode(outcome)
    }

    /// Refuses at once, outside of any parcel.
    pub fn refuse_now(mut self, refusal: Refusal) {
        if let Some(deliveries) = self.deliveries.take() {
            deliveries.answer_now(self.encode(&Err(refusal)));
        }
    }

    fn encode(&self, outcome: &Result<Reply, Refusal>) -> Answer {
        let Caller { connection, request_id, request, .. } = self.caller;
        let (json, refused) = match outcome {
            Ok(reply) => (encode_reply(request_id, request, reply), None),
            Err(refusal) => (encode_error(Some(request_id), refusal), Some(refusal.code)),
        };
        Answer { connection, request_id, refused, frame: Frame::text(&json) }
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
