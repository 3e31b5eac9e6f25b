//! The stubs that the contract generates, over an asynchronous broker.

use jsonrpsee::core::client::{self, BatchResponse, ClientT};
use jsonrpsee::core::params::BatchRequestBuilder;
use jsonrpsee::core::traits::ToRpcParams;
use serde::de::DeserializeOwned;

use super::Broker;
use crate::call::{Call, Parts};
use crate::error::Error;
use crate::rpc::{batch_response, into_client};

impl ClientT for Broker {
    /// Waits for the answer all the same, so that errors are seen.
    async fn notification<Params: ToRpcParams + Send>(
        &self,
        method: &str,
        params: Params,
    ) -> Result<(), client::Error> {
        self.request::<serde_json::Value, _>(method, params).await.map(drop)
    }

    /// Bytes are base64, since the stubs could not find attachments.
    async fn request<R: DeserializeOwned, Params: ToRpcParams + Send>(
        &self,
        method: &str,
        params: Params,
    ) -> Result<R, client::Error> {
        let params = params.to_rpc_params()?;
        let call = Call::new(method, params, |reply| reply.value::<serde_json::Value>());
        let value = self.run(call.with_parts(Parts::Refused)).await.map_err(into_client)?;
        Ok(serde_json::from_value(value)?)
    }

    /// The calls one after the other: each ends before the next begins.
    async fn batch_request<'a, R: DeserializeOwned + std::fmt::Debug + 'a>(
        &self,
        batch: BatchRequestBuilder<'a>,
    ) -> Result<BatchResponse<'a, R>, client::Error> {
        let mut results = Vec::new();
        for (method, params) in batch.build()? {
            results.push(self.call(method, params).await);
        }
        let typed = |value| serde_json::from_value(value).map_err(Error::protocol);
        batch_response(results.into_iter().map(|result| result.and_then(typed)))
    }
}
