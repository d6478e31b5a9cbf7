//! The call that becomes a WebSocket.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use super::Site;
use super::error::HttpError;
use crate::connection;
use crate::protocol::Refusal;

pub(super) async fn upgrade(
    site: web::Data<Site>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, HttpError> {
    site.origins.check(request.headers())?;
    let address = site.proxies.client_of(&request);
    let answer = connection::upgrade(&request, payload, &site.connections, address).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(answer);
    }
    Err(HttpError(Refusal::invalid("upgrade", "expected the handshake of a websocket (RFC 6455)")))
}
