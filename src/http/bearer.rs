//! Who calls: the bearer token of a request.

use actix_web::dev::Payload;
use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use actix_web::{FromRequest, HttpRequest, web};
use futures_util::future::{FutureExt, LocalBoxFuture};

use super::Site;
use super::error::HttpError;
use crate::accounts::Bearer;
use crate::protocol::{ErrorCode, Refusal};

/// A caller who showed a live token.
pub(super) struct Caller(pub(super) Bearer);

impl FromRequest for Caller {
    type Error = HttpError;
    type Future = LocalBoxFuture<'static, Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let token = token_of(request.headers());
        let accounts = request.app_data::<web::Data<Site>>().map(|site| site.accounts.clone());
        async move {
            let none = || Refusal::new(ErrorCode::Unauthenticated, "expected a token: authorization: bearer <token>");
            let token = token?.ok_or_else(none)?;
            let accounts = accounts.ok_or_else(|| Refusal::new(ErrorCode::Internal, "the route has no accounts"))?;
            Ok(Self(accounts.authenticate(&token).await?))
        }
        .boxed_local()
    }
}

/// The token of an `Authorization: Bearer`, where there is such a header.
///
/// # Errors
/// `unauthenticated` for a header of another kind.
pub(super) fn token_of(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| Some(token.trim().to_owned()))
        .ok_or_else(|| Refusal::new(ErrorCode::Unauthenticated, "expected authorization: bearer <token>"))
}
