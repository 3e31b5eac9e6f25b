//! The outcome of a call whose connection has ended.

use serde::Deserialize;
use serde_json::value::RawValue;
use sockbroker_proto::api::session::CallState;

use super::call::{Call, Operation};
use crate::error::Result;
use crate::request::Request;
use crate::wire::response::{OwnedResponse, Response};

/// The outcome of a call whose connection has ended.
#[derive(Debug)]
pub(crate) struct Resolution {
    pub(crate) state: CallState,
    /// How many bytes a cancelled send had sent.
    pub(crate) sent: u64,
    /// The response of an answered call.
    pub(crate) answer: Option<OwnedResponse>,
}

/// Asks for the outcome of a call of another connection.
pub(crate) fn resolve_call(connection: u64, id: u64) -> impl Operation<Output = Resolution> {
    #[derive(Deserialize)]
    struct Resolved<'a> {
        state: CallState,
        #[serde(borrow, default)]
        answer: Option<&'a RawValue>,
        #[serde(default)]
        sent: Option<u64>,
    }
    fn read(response: &mut Response<'_>) -> Result<Resolution> {
        let Resolved { state, answer, sent } = response.value()?;
        let descriptors = std::mem::take(&mut response.descriptors);
        let answer = answer.map(|answer| {
            OwnedResponse::of_parts(
                answer.get().as_bytes(),
                response.attachments,
                response.lengths.to_vec(),
                descriptors,
            )
        });
        Ok(Resolution { state, sent: sent.unwrap_or_default(), answer })
    }
    Call::of(Request::new("call.resolve", (connection, id)), read)
}
