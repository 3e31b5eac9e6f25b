//! `GET /channel/TOKEN`: the connection becomes a channel.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, ORIGIN, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use sockbroker_proto::api::channel::ChannelFraming;
use sockbroker_proto::channel::{FRAMES, RAW};

use super::context::SharedContext;
use super::upgrade::{Body, Upgraded, leave_http, text};
use crate::handlers::channel::{self, Accepted, Refusal};
use crate::ops::channel::ClientEnd;
use crate::principal::Principal;
use crate::session::connection::{Connection, Facts, Framing};
use crate::session::finished::LastCalls;

/// Answers the request that begins a channel.
pub(super) async fn begin(
    shared: &SharedContext,
    principal: &Principal,
    token: &str,
    mut request: Request<Incoming>,
    upgraded: &tokio::sync::Mutex<Option<Upgraded>>,
) -> Response<Body> {
    if request.headers().contains_key(ORIGIN) {
        return text(StatusCode::FORBIDDEN, "requests from web pages are refused");
    }
    if request.method() != Method::GET {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "a channel begins with GET");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let Some((framing, name)) = framing(&request) else {
        let reason = "send Connection: upgrade, and Upgrade: sockbroker-channel or sockbroker-raw";
        let mut response = text(StatusCode::UPGRADE_REQUIRED, reason);
        let names = HeaderValue::from_static("sockbroker-channel, sockbroker-raw");
        response.headers_mut().insert(UPGRADE, names);
        return response;
    };
    // One answer for every token that is not valid, so that nothing is learned of others.
    let Some(pending) = shared.broker.channels.take(token, &principal.key()) else {
        return text(StatusCode::NOT_FOUND, "no channel has this token, or it was used already");
    };
    let accepted = match channel::accept(pending, framing) {
        Ok(accepted) => accepted,
        Err(Refusal::Closed) => {
            return text(StatusCode::CONFLICT, "the socket of this channel is closed");
        }
        Err(Refusal::Boundaries) => {
            let reason = "sockbroker-raw is for streams: use sockbroker-channel";
            return text(StatusCode::CONFLICT, reason);
        }
    };
    let upgrade = hyper::upgrade::on(&mut request);
    *upgraded.lock().await = Some(Upgraded::Channel(upgrade, Box::new(accepted)));
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(name));
    response
}

/// The framing that the fields `Connection` and `Upgrade` select, with its name.
fn framing(request: &Request<Incoming>) -> Option<(ChannelFraming, &'static str)> {
    let has = |field, word: &str| {
        let values = request.headers().get_all(field).iter();
        let values = values.filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
    };
    if !has(CONNECTION, "upgrade") {
        return None;
    }
    [(ChannelFraming::Frames, FRAMES), (ChannelFraming::Raw, RAW)]
        .into_iter()
        .find(|(_, name)| has(UPGRADE, name))
}

/// Serves a connection as a channel, until it ends or the broker stops.
pub(super) async fn serve(
    shared: &SharedContext,
    upgrade: OnUpgrade,
    accepted: Accepted,
    principal: Principal,
) {
    let Some((io, input)) = leave_http(upgrade).await else { return };
    let stream = Some(Arc::downgrade(io.get_ref()));
    let facts = Facts { principal, framing: Framing::Channel, descriptors: false, stream };
    let connection = Arc::new(Connection::begin(&shared.broker, facts));
    let mut shutdown = shared.shutdown.clone();
    let end = ClientEnd::new(io);
    channel::serve(&connection, accepted, (end, &input), shutdown.until_end()).await;
    connection.end(LastCalls::default());
}
