//! What an HTTP connection becomes after an upgrade, and short answers.

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::control_socket::ConnectionIo;
use super::stalling::Stalling;
use crate::handlers::channel::Accepted;

pub(super) type Body = Full<Bytes>;

/// What a connection becomes after HTTP.
#[derive(Debug)]
pub(super) enum Upgraded {
    WebSocket(OnUpgrade),
    Channel(OnUpgrade, Box<Accepted>),
}

/// The connection after HTTP, and what was read of it before.
pub(super) async fn leave_http(upgrade: OnUpgrade) -> Option<(ConnectionIo, BytesMut)> {
    match upgrade.await {
        Ok(upgraded) => {
            let parts = upgraded.downcast::<TokioIo<Stalling>>().ok()?;
            Some((parts.io.into_inner().into_inner(), BytesMut::from(&parts.read_buf[..])))
        }
        Err(error) => {
            tracing::debug!(%error, "the upgrade failed");
            None
        }
    }
}

pub(super) fn text(status: StatusCode, body: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
