//! HTTP/1.1 on the control socket: POST for calls, GET for the OpenRPC document and the metrics, upgrade to
//! WebSocket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, ORIGIN};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sockbroker_proto::channel;
use soketto::handshake::http::{Server as Handshake, is_upgrade_request};

use super::authorization::FirstAuthorization;
use super::codec::Codec;
use super::connection;
use super::context::SharedContext;
use super::control_socket::{ConnectionIo, ControlSocket};
use super::part_share::PartShare;
use super::stalling::{Peer, Stalling};
use super::stream::Stream;
use super::upgrade::{Body, Upgraded, leave_http, text};
use super::upgraded_channel;
use crate::config::limits::size;
use crate::handlers::metrics::page;
use crate::principal::Principal;
use crate::rpc::core::{Core, Message};
use crate::session::connection::{Connection, Facts, Framing};
use crate::session::finished::LastCalls;

/// The header that names the session of a request.
const SESSION_HEADER: &str = "sockbroker-session";

/// Serves an HTTP connection until it ends, also as a WebSocket.
pub(super) async fn serve(shared: SharedContext, io: ConnectionIo, principal: Principal) {
    match serve_http(&shared, io, principal.clone()).await {
        Some(Upgraded::WebSocket(upgrade)) => serve_websocket(&shared, upgrade, principal).await,
        Some(Upgraded::Channel(upgrade, channel)) => {
            upgraded_channel::serve(&shared, upgrade, *channel, principal).await;
        }
        None => {}
    }
}

/// Serves HTTP until the connection ends or is upgraded.
async fn serve_http(
    shared: &SharedContext,
    io: ConnectionIo,
    principal: Principal,
) -> Option<Upgraded> {
    let stream = Some(Arc::downgrade(io.get_ref()));
    let facts = Facts { principal, framing: Framing::Http, descriptors: false, stream };
    let connection = Arc::new(Connection::begin(&shared.broker, facts));
    let peer = match Peer::of(io.get_ref()) {
        Ok(peer) => peer,
        Err(error) => {
            connection.log_failure(&error);
            return None;
        }
    };
    let io = Stalling::new(io, Duration::from_secs(shared.broker.limits.stall_seconds));
    let http = Arc::new(HttpConnection {
        shared: shared.clone(),
        connection: connection.clone(),
        peer,
        first: FirstAuthorization::default(),
        begins_channel: io.begins_channel(),
        upgraded: tokio::sync::Mutex::default(),
    });
    if let Err(error) = serve_requests(&http, io).await {
        tracing::debug!(connection = connection.number(), %error, "HTTP connection failed");
    }
    connection.end(LastCalls::default());
    http.upgraded.lock().await.take()
}

/// Serves requests until the connection ends, is upgraded, or has had its time after the begin of a shutdown.
async fn serve_requests(http: &Arc<HttpConnection>, io: Stalling) -> hyper::Result<()> {
    let limits = &http.shared.broker.limits;
    let service = service_fn(|request| {
        let http = http.clone();
        async move { Ok::<_, Infallible>(http.respond(request).await) }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.detect_seconds))
        .half_close(true)
        .max_buf_size(size(limits.head_bytes).max(8192));
    let serving = builder.serve_connection(TokioIo::new(io), service).with_upgrades();
    let mut shutdown = http.shared.shutdown.clone();
    tokio::pin!(serving);
    tokio::select! {
        result = serving.as_mut() => result,
        () = shutdown.until_end() => {
            serving.as_mut().graceful_shutdown();
            let drain = Duration::from_secs(limits.drain_seconds);
            tokio::time::timeout(drain, serving).await.unwrap_or(Ok(()))
        }
    }
}

/// What the requests of a connection share.
struct HttpConnection {
    shared: SharedContext,
    connection: Arc<Connection>,
    peer: Peer,
    first: FirstAuthorization,
    /// Whether a request has begun a channel.
    begins_channel: Arc<AtomicBool>,
    /// What the connection becomes after HTTP.
    upgraded: tokio::sync::Mutex<Option<Upgraded>>,
}

impl HttpConnection {
    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        let principal = self.connection.principal();
        if principal.is_remote() && !self.first.is_same(request.headers()) {
            let reason =
                "the token is not that of the first request: use a connection for each client";
            return text(StatusCode::UNAUTHORIZED, reason);
        }
        if let Some(token) = channel_token(&request) {
            let (shared, upgraded) = (&self.shared, &self.upgraded);
            let begun = upgraded_channel::begin(shared, principal, &token, request, upgraded).await;
            let begins = begun.status() == StatusCode::SWITCHING_PROTOCOLS;
            self.begins_channel.store(begins, Ordering::Relaxed);
            return begun;
        }
        if is_upgrade_request(&request) {
            return upgrade(request, &self.upgraded).await;
        }
        answer(&self.shared, &self.connection, &self.peer, request).await
    }
}

async fn answer(
    shared: &SharedContext,
    connection: &Arc<Connection>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    // Only web pages send this header, and they are refused.
    if request.headers().contains_key(ORIGIN) {
        return text(StatusCode::FORBIDDEN, "requests from web pages are refused");
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/openrpc.json") => json(sockbroker_proto::api::document().to_string()),
        (&Method::GET, "/metrics") => metrics(shared, connection).await,
        (&Method::POST, "/") => call(shared, connection, peer, request).await,
        (_, "/" | "/openrpc.json" | "/metrics") => {
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "POST calls to /, GET /openrpc.json or /metrics, or upgrade to a WebSocket",
            );
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "POST calls to /, or GET /openrpc.json or /metrics"),
    }
}

/// The counters, for callers with the grant `admin`.
async fn metrics(shared: &SharedContext, connection: &Arc<Connection>) -> Response<Body> {
    let (status, media, body) = match page(connection, &shared.methods).await {
        Ok(page) => (StatusCode::OK, "text/plain; version=0.0.4", page),
        Err(denial) => (StatusCode::FORBIDDEN, "text/plain", denial),
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// One POST: one message, and its answer.
async fn call(
    shared: &SharedContext,
    connection: &Arc<Connection>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<Body> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !media.trim().eq_ignore_ascii_case("application/json") {
        return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type must be application/json");
    }
    if let Some(token) = request.headers().get(SESSION_HEADER) {
        let key = connection.principal().key();
        let session = token.to_str().ok().and_then(|token| shared.broker.find(token, &key).ok());
        let attached = session.and_then(|session| connection.attach(session).ok());
        if attached.is_none() {
            let reason =
                "no session with this token, or the connection's present session holds handles";
            return text(StatusCode::FORBIDDEN, reason);
        }
    }
    let limit = size(shared.broker.limits.frame_bytes);
    let mut share = PartShare::default();
    let json = match body(request.into_body(), limit, connection, &mut share).await {
        Ok(json) => json,
        Err((status, reason)) => return text(status, reason),
    };
    let core = Core::new(connection.clone(), shared.methods.clone());
    let message = Message { json, ..Message::default() };
    let (mut core, mut answer) = connection::receive(core, message).await;
    if answer.is_none() {
        // A full close after a half-close wakes no task, so the peer is checked from time to time.
        answer = tokio::select! {
            ended = poll_fn(|context| core.poll_ended(context)) => ended,
            () = peer.gone() => None,
        };
    }
    // Notifications have no answer.
    let Some(answer) = answer else {
        return empty();
    };
    let mut response = Response::new(Full::new(answer.json));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Reads a body of at most `limit` bytes into one buffer, whose memory counts for the user. The error is the
/// status and the reason.
async fn body(
    body: Incoming,
    limit: usize,
    connection: &Connection,
    share: &mut PartShare,
) -> Result<Bytes, (StatusCode, &'static str)> {
    let mut hold = |bytes: usize| {
        let reason = "the limit buffered_bytes_per_user or buffered_bytes_in_all was exceeded";
        let held = share.hold(connection, (bytes, 0));
        held.map_err(|_exceeded| (StatusCode::SERVICE_UNAVAILABLE, reason))
    };
    // An announced length is checked before any of the body is read.
    let announced = body.size_hint().exact().unwrap_or(0).min(limit as u64);
    hold(size(announced))?;
    let mut buffer = BytesMut::with_capacity(size(announced));
    let mut body = Limited::new(body, limit);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() {
                (StatusCode::PAYLOAD_TOO_LARGE, "the body exceeds the limit frame_bytes")
            } else {
                (StatusCode::BAD_REQUEST, "the body is incomplete")
            }
        })?;
        if let Some(piece) = frame.data_ref() {
            if buffer.capacity() < buffer.len() + piece.len() {
                // The old buffer and the larger one exist together for a moment.
                let needed = buffer.len() + piece.len();
                let larger = needed.max(buffer.capacity() * 2).min(limit.max(needed));
                hold(buffer.capacity() + larger)?;
                buffer.reserve(larger - buffer.len());
                hold(buffer.capacity())?;
            }
            buffer.extend_from_slice(piece);
        }
    }
    Ok(buffer.freeze())
}

/// Answers a WebSocket handshake; the connection continues outside of HTTP.
async fn upgrade(
    mut request: Request<Incoming>,
    upgraded: &tokio::sync::Mutex<Option<Upgraded>>,
) -> Response<Body> {
    if request.headers().contains_key(ORIGIN) {
        return text(StatusCode::FORBIDDEN, "requests from web pages are refused");
    }
    match Handshake::new().receive_request(&request) {
        Ok(response) => {
            let upgrade = hyper::upgrade::on(&mut request);
            *upgraded.lock().await = Some(Upgraded::WebSocket(upgrade));
            response.map(|()| Body::default())
        }
        Err(_) => text(StatusCode::BAD_REQUEST, "the WebSocket handshake is incomplete"),
    }
}

/// The token of a request for a channel.
fn channel_token(request: &Request<Incoming>) -> Option<String> {
    request.uri().path().strip_prefix(channel::PATH).map(str::to_owned)
}

async fn serve_websocket(shared: &SharedContext, upgrade: OnUpgrade, principal: Principal) {
    let Some((io, input)) = leave_http(upgrade).await else { return };
    let stream = Some(Arc::downgrade(io.get_ref()));
    let facts = Facts { principal, framing: Framing::WebSocket, descriptors: false, stream };
    let connection = Arc::new(Connection::begin(&shared.broker, facts));
    let codec = Codec::websocket(shared.broker.limits.frame());
    connection::serve(
        shared.shutdown.clone(),
        Stream::Socket(ControlSocket::over(io)),
        codec,
        Core::new(connection, shared.methods.clone()),
        input,
    )
    .await;
}

fn json(body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty() -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
