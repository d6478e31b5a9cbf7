//! Refusals as HTTP answers: the contract's error body, with the status that fits.

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use serde::Serialize;

use crate::protocol::{ErrorCode, Refusal};

/// A refusal, on its way out.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct HttpError(#[from] pub(super) Refusal);

#[derive(Serialize)]
struct Body<'a> {
    error: &'a Refusal,
}

impl HttpError {
    fn answer(&self, status: StatusCode) -> HttpResponse {
        let mut answer = HttpResponse::build(status);
        if self.0.code == ErrorCode::Unauthenticated {
            answer.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        if let Some(seconds) = self.retry_after() {
            answer.insert_header((RETRY_AFTER, seconds));
        }
        answer.json(Body { error: &self.0 })
    }

    /// Seconds after which to try again, for what passes by itself.
    fn retry_after(&self) -> Option<u64> {
        let told = self.0.details.as_ref().and_then(|details| details.retry_after_ms);
        self.0.code.retryable().then(|| told.unwrap_or(1000).div_ceil(1000).max(1))
    }
}

impl ResponseError for HttpError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.answer(self.status_code())
    }
}

/// Answers a path that does not exist.
pub(super) async fn no_such_path() -> HttpResponse {
    HttpError(Refusal::new(ErrorCode::NotFound, "there is no such path")).error_response()
}

/// Answers whatever is asked of a node that has no store yet.
pub(super) async fn not_there_yet() -> HttpResponse {
    HttpError(Refusal::new(ErrorCode::Unavailable, "the node is starting")).error_response()
}

/// Answers a method that a path does not have; `allow` names those that it has.
pub(super) fn wrong_method(request: &HttpRequest, allow: &'static str) -> HttpResponse {
    let message = if request.method().as_str() == "OPTIONS" {
        "the path answers no preflight requests"
    } else {
        "the path does not have this method"
    };
    let mut answer =
        HttpError(Refusal::new(ErrorCode::InvalidArgument, message)).answer(StatusCode::METHOD_NOT_ALLOWED);
    answer.headers_mut().insert(ALLOW, actix_web::http::header::HeaderValue::from_static(allow));
    answer
}
