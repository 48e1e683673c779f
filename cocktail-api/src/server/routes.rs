//! What there is to ask.
//!
//! [`endpoints`] is the only list of routes: the router is built from it, and a test holds `openapi.json` against it.
//! An object stands at the end of its path, so that `shop/prod/web` needs no quoting. `GET` changes nothing.

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use cocktail_core::error::{Error, ErrorKind};

use super::failure::Failure;
use super::shared::Shared;
use super::{commands, exec, metrics, queries, streams};

/// One route.
struct Endpoint {
    #[cfg_attr(not(test), expect(dead_code, reason = "held against the description of the API"))]
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<Shared>,
}

fn query<T: 'static>(path: &'static str, handler: impl Handler<T, Shared>) -> Endpoint {
    Endpoint { method: "get", path, handler: get(handler) }
}

fn command<T: 'static>(path: &'static str, handler: impl Handler<T, Shared>) -> Endpoint {
    Endpoint { method: "post", path, handler: post(handler) }
}

fn endpoints() -> Vec<Endpoint> {
    vec![
        query("/v1/about", queries::about),
        query("/v1/openapi.json", openapi),
        query("/metrics", metrics::route),
        query("/v1/units", queries::units),
        query("/v1/containers", queries::containers),
        query("/v1/servers", queries::servers),
        query("/v1/endpoints", queries::endpoints),
        query("/v1/watch/endpoints", streams::endpoints),
        query("/v1/watch/builds", streams::builds),
        query("/v1/volumes", queries::volumes),
        query("/v1/usage", queries::usage),
        query("/v1/operations", queries::operations),
        query("/v1/events", streams::events),
        query("/v1/inspect/{*object}", queries::inspect),
        query("/v1/why/{*object}", queries::why),
        query("/v1/rollout/{*object}", queries::rollout),
        query("/v1/history/{*object}", queries::history),
        query("/v1/logs/{*object}", streams::logs),
        command("/v1/plan", queries::plan),
        command("/v1/apply", commands::apply),
        command("/v1/scale/{*object}", commands::scale),
        command("/v1/extend/{*object}", commands::extend),
        command("/v1/reduce/{*object}", commands::reduce),
        command("/v1/stop/{*object}", commands::stop),
        command("/v1/start/{*object}", commands::start),
        command("/v1/restart/{*object}", commands::restart),
        command("/v1/steer/{*object}", commands::steer),
        command("/v1/rollback/{*object}", commands::rollback),
        command("/v1/cordon/{*object}", commands::cordon),
        command("/v1/uncordon/{*object}", commands::uncordon),
        command("/v1/rearrange/{*object}", commands::rearrange),
        command("/v1/token/{*object}", commands::token),
        command("/v1/revoke/{*object}", commands::revoke),
        command("/v1/rotate", commands::rotate),
        command("/v1/remove/{*object}", commands::remove),
        command("/v1/down", commands::down),
        command("/v1/shutdown", commands::shutdown),
        command("/v1/exec/{*object}", exec::exec),
    ]
}

/// The whole API.
pub(super) fn router(shared: Shared) -> Router {
    endpoints()
        .into_iter()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.path, endpoint.handler))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared)
}

async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], crate::OPENAPI)
}

/// Not `NotFound`, which is about objects: a newer client must see that this Manager does not know the command.
async fn no_route(method: Method, uri: Uri) -> Failure {
    let error = Error::new(ErrorKind::Unsupported, format!("this Manager knows no {method} {}", uri.path()));
    Failure::of_request(StatusCode::NOT_FOUND, error)
}

async fn wrong_method(method: Method, uri: Uri) -> Failure {
    let error = Error::new(ErrorKind::Unsupported, format!("{} does not take {method}", uri.path()));
    Failure::of_request(StatusCode::METHOD_NOT_ALLOWED, error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_description_names_every_route_and_no_other() {
        let description: serde_json::Value = serde_json::from_str(crate::OPENAPI).unwrap();
        let described: BTreeSet<(String, String)> = description["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                methods.filter(|key| *key != "parameters").map(|method| (method.clone(), path.clone()))
            })
            .collect();
        let routed: BTreeSet<(String, String)> =
            endpoints().iter().map(|endpoint| (endpoint.method.to_owned(), endpoint.path.replace("{*", "{"))).collect();
        assert_eq!(routed, described);
    }
}
