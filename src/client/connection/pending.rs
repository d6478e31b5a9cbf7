//! Requests without a reply yet, by number. Invariant: each is answered once; after the end nothing is taken in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::client::ClientError;
use crate::protocol::RequestId;

/// What a request comes to.
pub(super) type Outcome = Result<Box<RawValue>, ClientError>;

#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_id: RequestId,
    waiting: HashMap<RequestId, oneshot::Sender<Outcome>>,
    ended: Option<Option<u16>>,
}

impl Pending {
    /// A number and the place where its answer will come; the close code where the connection is over.
    pub(super) fn register(&self) -> Result<(RequestId, oneshot::Receiver<Outcome>), Option<u16>> {
        let mut state = self.lock();
        if let Some(code) = state.ended {
            return Err(code);
        }
        state.last_id += 1;
        let (id, (answer, receiver)) = (state.last_id, oneshot::channel());
        state.waiting.insert(id, answer);
        Ok((id, receiver))
    }

    /// Hands a reply to whoever waits for it; nobody may.
    pub(super) fn answer(&self, id: RequestId, outcome: Outcome) {
        let waiting = self.lock().waiting.remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send(outcome);
        }
    }

    pub(super) fn forget(&self, id: RequestId) {
        self.lock().waiting.remove(&id);
    }

    /// The connection is over: everybody who waits hears it.
    pub(super) fn end(&self, code: Option<u16>) {
        let waiting = {
            let mut state = self.lock();
            state.ended = Some(code);
            std::mem::take(&mut state.waiting)
        };
        for answer in waiting.into_values() {
            let _ = answer.send(Err(ClientError::Closed(code)));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
