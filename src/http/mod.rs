//! HTTP: the routes of the contract, errors, health and metrics.
//!
//! Turns requests into calls of other rooms and their answers into responses; decides nothing itself but who the
//! client is (address, origin, token). Invariant: every refusal has the contract's error body, an unknown path or a
//! wrong method included, and none repeats what came in.

mod accounts;
mod bearer;
mod body;
mod client_address;
mod error;
mod health;
mod origin;
mod socket;

use std::sync::Arc;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{HttpRequest, Resource, Route, web};

pub use health::{Found, Readiness};

use client_address::TrustedProxies;
use origin::AllowedOrigins;

use crate::accounts::Accounts;
use crate::config::HttpSettings;
use crate::connection::Connections;
use crate::telemetry::Metrics;

/// What the routes for clients work with, on each worker thread.
#[derive(Clone)]
pub struct Site {
    accounts: Accounts,
    connections: Arc<Connections>,
    proxies: TrustedProxies,
    origins: AllowedOrigins,
}

impl Site {
    /// By the configuration.
    pub fn new(settings: &HttpSettings, accounts: Accounts, connections: Arc<Connections>) -> Self {
        Self {
            accounts,
            connections,
            proxies: TrustedProxies::new(settings.trusted_proxies.clone()),
            origins: AllowedOrigins::new(settings.allowed_origins.clone()),
        }
    }
}

/// The calls of clients. The site has to be there as app data.
pub fn client_routes(routes: &mut web::ServiceConfig) {
    routes
        .service(path("/v1/ws", "GET", web::get().to(socket::upgrade)))
        .service(path("/v1/register", "POST", web::post().to(accounts::register)))
        .service(path("/v1/login", "POST", web::post().to(accounts::login)))
        .service(path("/v1/logout", "POST", web::post().to(accounts::logout)))
        .service(path("/v1/users", "GET", web::get().to(accounts::user_by_name)))
        .service(path("/v1/users/{user_id}", "GET", web::get().to(accounts::user_by_id)))
        .service(path("/v1/me/public_key", "PUT", web::put().to(accounts::replace_public_key)))
        .service(path("/v1/me/password", "PUT", web::put().to(accounts::change_password)))
        .service(path("/v1/me", "DELETE", web::delete().to(accounts::close_account)))
        .default_service(web::to(error::no_such_path));
}

/// Health and metrics. Readiness and metrics have to be there as app data.
pub fn operations_routes(routes: &mut web::ServiceConfig) {
    routes
        .service(path("/livez", "GET", web::get().to(health::livez)))
        .service(path("/readyz", "GET", web::get().to(health::readyz)))
        .service(path("/metrics", "GET", web::get().to(health::metrics)))
        .default_service(web::to(error::no_such_path));
}

/// Every other call, while there is no node yet that could answer it.
pub fn porch_routes(routes: &mut web::ServiceConfig) {
    routes.default_service(web::to(error::not_there_yet));
}

/// A path with its one method; another one is answered with 405 and which it is.
fn path(pattern: &'static str, method: &'static str, route: Route) -> Resource {
    let wrong_method = move |request: HttpRequest| std::future::ready(error::wrong_method(&request, method));
    web::resource(pattern).route(route).default_service(web::to(wrong_method))
}

/// Counts answers by route and status; wraps the whole app.
pub async fn count<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let metrics = request.app_data::<web::Data<Arc<Metrics>>>().cloned();
    let answer = next.call(request).await?;
    if let Some(metrics) = metrics {
        let route = answer.request().match_pattern();
        metrics.http(route.as_deref().unwrap_or("none"), answer.status().as_u16());
    }
    Ok(answer)
}

#[cfg(test)]
mod tests;
