//! The stubs that the contract generates, over a blocking broker.
//!
//! Their futures are ready at the first poll: everything has happened by then.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use jsonrpsee::core::client::{self, BatchResponse, ClientT};
use jsonrpsee::core::params::BatchRequestBuilder;
use jsonrpsee::core::traits::ToRpcParams;
use serde::de::DeserializeOwned;

use super::Broker;
use crate::call::{Call, Parts};
use crate::error::Result;
use crate::rpc::{batch_response, from_client, into_client};

/// The result of a stub's future, as this crate's error if it fails.
///
/// ```
/// use sockbroker_client::blocking::{Broker, complete};
/// use sockbroker_client::proto::api::name::NamesClient;
///
/// let broker = Broker::spawn()?;
/// let port = complete(NamesClient::getservbyname(&broker, "http".to_owned(), None))?;
/// assert_eq!(port, 80);
/// # Ok::<(), sockbroker_client::Error>(())
/// ```
pub fn complete<T>(
    future: impl Future<Output = std::result::Result<T, client::Error>>,
) -> Result<T> {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result.map_err(from_client),
            // Not one of ours: it wakes this thread when it goes on.
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Broker {
    /// A call as the stubs make it: bytes are base64, since they could not find attachments.
    fn stub<R: DeserializeOwned>(
        &self,
        method: &str,
        params: impl ToRpcParams,
    ) -> std::result::Result<R, client::Error> {
        let params = params.to_rpc_params()?;
        let call = Call::new(method, params, |reply| reply.value::<R>());
        self.run(call.with_parts(Parts::Refused)).map_err(into_client)
    }
}

impl ClientT for Broker {
    /// Waits for the answer all the same, so that errors are seen.
    async fn notification<Params: ToRpcParams + Send>(
        &self,
        method: &str,
        params: Params,
    ) -> std::result::Result<(), client::Error> {
        self.stub::<serde::de::IgnoredAny>(method, params).map(drop)
    }

    async fn request<R: DeserializeOwned, Params: ToRpcParams + Send>(
        &self,
        method: &str,
        params: Params,
    ) -> std::result::Result<R, client::Error> {
        self.stub(method, params)
    }

    /// The calls one after the other: each ends before the next begins.
    async fn batch_request<'a, R: DeserializeOwned + std::fmt::Debug + 'a>(
        &self,
        batch: BatchRequestBuilder<'a>,
    ) -> std::result::Result<BatchResponse<'a, R>, client::Error> {
        let calls = batch.build()?.into_iter();
        batch_response(calls.map(|(method, params)| {
            let call = Call::new(method, params, |reply| reply.value::<R>());
            self.run(call.with_parts(Parts::Refused))
        }))
    }
}
