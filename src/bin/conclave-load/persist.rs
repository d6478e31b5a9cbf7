//! Calls of the library's that are made again while the server cannot do them now: it is busy, or its node has died.

use std::time::{Duration, Instant};

use conclave::client::ClientError;
use conclave::protocol::ErrorCode;
use tokio::time::sleep;

use crate::stop;

/// How often a call is made at least: a server may want to be left alone for longer than one has patience.
const ATTEMPTS: u32 = 8;
/// How long to wait before the next, in milliseconds: at first, and at most without a hint of the server.
const AGAIN_AFTER_MS: (u64, u64) = (50, 2_000);

/// Makes a call, and again for so long while that may help.
pub(crate) async fn persist<T, F>(within: Duration, call: impl Fn() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let end = Instant::now() + within;
    let (first, most) = AGAIN_AFTER_MS;
    let mut attempt = 0;
    loop {
        let error = match call().await {
            Err(error) if error.retryable() && !stop::asked() => error,
            outcome => return outcome,
        };
        attempt += 1;
        if attempt >= ATTEMPTS && Instant::now() >= end {
            return Err(error);
        }
        let hint = match &error {
            ClientError::Refused(refusal) => refusal.details.as_ref().and_then(|details| details.retry_after_ms),
            _ => None,
        };
        sleep(Duration::from_millis((first << attempt.min(10)).min(most).max(hint.unwrap_or(0).min(60_000)))).await;
    }
}

/// What a request that was repeated without knowing whether it had been done is refused with if it had.
pub(crate) fn done(outcome: Result<(), ClientError>, if_done: ErrorCode) -> Result<(), ClientError> {
    match outcome {
        Err(error) if error.code() == Some(if_done) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Fails so often in this way, and then not.
    async fn made(failures: u32, error: fn() -> ClientError) -> (Result<(), ClientError>, u32) {
        let calls = Cell::new(0);
        let outcome = persist(Duration::from_secs(60), || {
            calls.set(calls.get() + 1);
            let outcome = if calls.get() > failures { Ok(()) } else { Err(error()) };
            async { outcome }
        });
        (outcome.await, calls.get())
    }

    #[tokio::test]
    async fn what_may_help_is_tried_again_and_nothing_else() {
        for error in [|| ClientError::Closed(Some(1012)), || ClientError::Connect("refused".to_owned())] {
            let (outcome, calls) = made(2, error).await;
            assert!(outcome.is_ok() && calls == 3);
        }
        let (outcome, calls) = made(2, || ClientError::Address).await;
        assert!(matches!(outcome, Err(ClientError::Address)) && calls == 1);
    }

    #[test]
    fn what_had_been_done_is_done() {
        let refused = |code| Err(ClientError::Refused(conclave::protocol::Refusal::new(code, "no")));
        assert!(done(refused(ErrorCode::AlreadyExists), ErrorCode::AlreadyExists).is_ok());
        assert!(done(refused(ErrorCode::Banned), ErrorCode::AlreadyExists).is_err());
        assert!(done(Err(ClientError::Timeout), ErrorCode::AlreadyExists).is_err());
    }
}
