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
