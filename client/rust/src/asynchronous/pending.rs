//! A call in progress: the future of its response. Dropping it cancels the call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::connection::Connection;
use super::dropped::DroppedCall;
use crate::error::Result;
use crate::wire::response::OwnedResponse;

/// The future of a response.
#[derive(Debug)]
pub(super) struct PendingCall {
    connection: Arc<Connection>,
    id: u64,
    response: oneshot::Receiver<Result<OwnedResponse>>,
    /// What happens if the future is dropped; `None` when it has completed.
    on_drop: Option<DroppedCall>,
}

impl PendingCall {
    pub(super) fn new(
        connection: &Arc<Connection>,
        (id, response): (u64, oneshot::Receiver<Result<OwnedResponse>>),
        on_drop: DroppedCall,
    ) -> Self {
        Self { connection: Arc::clone(connection), id, response, on_drop: Some(on_drop) }
    }

    /// Asks the broker to cancel the call. The future completes with the response to that.
    pub(super) fn cancel(&self) {
        self.connection.cancel(self.id);
    }

    /// Drops the future without cancelling the call.
    pub(super) fn detach(mut self) {
        self.on_drop = None;
        self.connection.forget(self.id);
    }
}

impl Future for PendingCall {
    type Output = Result<OwnedResponse>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let response = std::task::ready!(Pin::new(&mut self.response).poll(context));
        self.on_drop = None;
        Poll::Ready(response.unwrap_or_else(|_ended| Err(self.connection.end_reason())))
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if let Some(on_drop) = self.on_drop.take() {
            self.connection.drop_call(self.id, on_drop, &mut self.response);
        }
    }
}
