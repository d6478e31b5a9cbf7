//! The calls about accounts: from HTTP to [`crate::accounts::Accounts`] and back, and nothing else.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use super::Site;
use super::bearer::Caller;
use super::body::Body;
use super::error::HttpError;
use crate::protocol::{Refusal, UserId};

type Answer = Result<HttpResponse, HttpError>;

pub(super) async fn register(site: web::Data<Site>, request: HttpRequest, body: Body) -> Answer {
    let logged_in = site.accounts.register(body.read()?, site.proxies.client_of(&request)).await?;
    Ok(HttpResponse::Created().json(logged_in))
}

pub(super) async fn login(site: web::Data<Site>, request: HttpRequest, body: Body) -> Answer {
    let logged_in = site.accounts.login(body.read()?, site.proxies.client_of(&request)).await?;
    Ok(HttpResponse::Ok().json(logged_in))
}

pub(super) async fn logout(site: web::Data<Site>, Caller(bearer): Caller) -> Answer {
    site.accounts.logout(bearer).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(super) async fn user_by_id(site: web::Data<Site>, _: Caller, path: web::Path<String>) -> Answer {
    let user_id: UserId = path.parse().map_err(|right| Refusal::invalid("user_id", &format!("expected {right}")))?;
    Ok(HttpResponse::Ok().json(site.accounts.user_by_id(user_id).await?))
}

/// The query of `GET /v1/users`.
#[derive(Deserialize)]
pub(super) struct ByName {
    name: String,
}

pub(super) async fn user_by_name(
    site: web::Data<Site>,
    _: Caller,
    query: Result<web::Query<ByName>, actix_web::Error>,
) -> Answer {
    let web::Query(ByName { name }) = query.map_err(|_| Refusal::invalid("name", "expected once in the query"))?;
    Ok(HttpResponse::Ok().json(site.accounts.user_by_name(&name).await?))
}

pub(super) async fn replace_public_key(
    site: web::Data<Site>,
    request: HttpRequest,
    Caller(bearer): Caller,
    body: Body,
) -> Answer {
    site.accounts.replace_public_key(bearer, body.read()?, site.proxies.client_of(&request)).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(super) async fn change_password(
    site: web::Data<Site>,
    request: HttpRequest,
    Caller(bearer): Caller,
    body: Body,
) -> Answer {
    site.accounts.change_password(bearer, body.read()?, site.proxies.client_of(&request)).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(super) async fn close_account(
    site: web::Data<Site>,
    request: HttpRequest,
    Caller(bearer): Caller,
    body: Body,
) -> Answer {
    site.accounts.close(bearer, body.read()?, site.proxies.client_of(&request)).await?;
    Ok(HttpResponse::NoContent().finish())
}
