//! Which request gets which answer.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

use super::places::Place;
use super::token::Token;
use super::{AdminState, caller, ready};
use crate::commit_time::CommitTime;
use crate::ids::LinkName;
use crate::metrics;

/// No request needs a body; a polite `{}` passes.
const BODY_BYTES_MAX: usize = 1024;
/// It comes with the head.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Pausing writes one row on the source server.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

/// What the routes need.
pub(super) struct Door {
    pub(super) state: AdminState,
    pub(super) token: Option<Token>,
}

/// A path that exists.
enum Route<'a> {
    Status,
    Metrics,
    Health,
    Ready,
    Control {
        from: &'a str,
        to: &'a str,
        paused: bool,
    },
}

impl Door {
    /// Answers one request.
    pub(super) async fn answer<B>(&self, request: Request<B>, place: &Place) -> Answer
    where
        B: Body<Data: Send> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let Some(route) = route(head.uri.path()) else {
            return error(StatusCode::NOT_FOUND, "there is nothing at this path");
        };
        if let Some(refusal) = wrong_method(&route, &head.method) {
            return refusal;
        }
        if let Some(refusal) = self.refuse(&route, &head) {
            return refusal;
        }
        // Only who may ask is listened to.
        if let Some(refusal) = too_much(body).await {
            return refusal;
        }
        place.serves();
        match route {
            Route::Status => json(StatusCode::OK, &self.state.status(CommitTime::now())),
            Route::Metrics => self.metrics(),
            Route::Health => text(StatusCode::OK, "alive\n"),
            Route::Ready => self.ready().await,
            Route::Control { from, to, paused } => self.control(from, to, paused).await,
        }
    }

    /// Who may not: callers without the token, and web pages. Whoever knows the token may call the
    /// daemon by any name; a load balancer's check rarely can send one, and health tells little.
    fn refuse(&self, route: &Route<'_>, head: &hyper::http::request::Parts) -> Option<Answer> {
        if matches!(route, Route::Control { .. }) && caller::is_web_page(&head.headers) {
            return Some(error(
                StatusCode::FORBIDDEN,
                "web pages may not control links",
            ));
        }
        let Some(token) = &self.token else {
            return (!caller::host_is_ours(&head.headers)).then(|| {
                let words = "call this daemon by its address or as localhost: without a token \
                             other names may be a web page's";
                error(StatusCode::FORBIDDEN, words)
            });
        };
        if matches!(route, Route::Health | Route::Ready) {
            return None;
        }
        let offered = head.headers.get(AUTHORIZATION).and_then(caller::bearer);
        if offered.is_some_and(|offered| token.matches(offered)) {
            return None;
        }
        let words = "send the token of admin_token_file as `Authorization: Bearer TOKEN`";
        let mut answer = error(StatusCode::UNAUTHORIZED, words);
        answer
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Some(answer)
    }

    fn metrics(&self) -> Answer {
        let text = metrics::encode(
            &self.state.snapshots(CommitTime::now()),
            &self.state.about_node.snapshot(),
        );
        respond(StatusCode::OK, metrics::CONTENT_TYPE, text)
    }

    async fn ready(&self) -> Answer {
        let outgoing = self.state.snapshots(CommitTime::now());
        let incoming = self.state.incoming.incoming().await;
        let own = self.state.about_node.snapshot();
        match ready::reason(&outgoing, &incoming, &own.damage) {
            None => text(StatusCode::OK, "ready\n"),
            Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n")),
        }
    }

    async fn control(&self, from: &str, to: &str, paused: bool) -> Answer {
        let name = format!("{from}->{to}");
        let link = name.parse::<LinkName>().ok();
        let link = link.filter(|link| self.state.links.iter().any(|ours| ours.link() == link));
        let Some(link) = link else {
            let words = format!(
                "the daemon of {} does not run the link {name}",
                self.state.node
            );
            return error(StatusCode::NOT_FOUND, &words);
        };
        let done = self.state.control.set_paused(&link, paused);
        match tokio::time::timeout(CONTROL_TIMEOUT, done).await {
            Ok(Ok(())) => json(
                StatusCode::OK,
                &serde_json::json!({"link": name, "paused": paused}),
            ),
            Ok(Err(sentence)) => error(StatusCode::SERVICE_UNAVAILABLE, &sentence),
            Err(_) => {
                let words = format!("{} did not write it down in time: try again", link.from);
                error(StatusCode::GATEWAY_TIMEOUT, &words)
            }
        }
    }
}

/// No request needs a large body, or time for it.
async fn too_much<B>(body: B) -> Option<Answer>
where
    B: Body<Data: Send> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let read = Limited::new(body, BODY_BYTES_MAX).collect();
    match tokio::time::timeout(BODY_TIMEOUT, read).await {
        Ok(Ok(_)) => None,
        Ok(Err(_)) => {
            let words = "no request here needs so large a body";
            Some(error(StatusCode::PAYLOAD_TOO_LARGE, words))
        }
        Err(_) => {
            let words = "the body of the request did not come in time";
            Some(error(StatusCode::REQUEST_TIMEOUT, words))
        }
    }
}

fn route(path: &str) -> Option<Route<'_>> {
    let segments: Vec<_> = path.strip_prefix('/')?.splitn(5, '/').collect();
    Some(match segments[..] {
        ["status"] => Route::Status,
        ["metrics"] => Route::Metrics,
        ["healthz"] => Route::Health,
        ["readyz"] => Route::Ready,
        ["links", from, to, "pause"] => Route::Control {
            from,
            to,
            paused: true,
        },
        ["links", from, to, "resume"] => Route::Control {
            from,
            to,
            paused: false,
        },
        _ => return None,
    })
}

fn wrong_method(route: &Route<'_>, method: &Method) -> Option<Answer> {
    let allowed = match route {
        Route::Control { .. } => "POST",
        _ => "GET, HEAD",
    };
    if allowed.split(", ").any(|name| name == method.as_str()) {
        return None;
    }
    let mut answer = error(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("use {allowed} here"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    Some(answer)
}

fn error(status: StatusCode, sentence: &str) -> Answer {
    json(status, &serde_json::json!({ "error": sentence }))
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    let mut body = serde_json::to_vec(value).expect("the status has only string keys");
    body.push(b'\n');
    respond(status, JSON, body)
}

fn text(status: StatusCode, body: &str) -> Answer {
    respond(status, TEXT, body.to_owned())
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
