//! What an operation is, and the operations whose result is read by a plain function.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sockbroker_proto::api::values::Netns as Selector;

use crate::error::Result;
use crate::netns::Netns;
use crate::request::{Attachments, Request};
use crate::wire::response::Response;

/// One call of the broker: what is sent, and how its result is read.
pub(crate) trait Operation {
    /// The parameters: a tuple passes them by position, a structure by name.
    type Params: Serialize;
    /// What the caller gets.
    type Output;

    /// The request to send.
    fn request(&self) -> &Request<'_, Self::Params>;

    /// Reads the result, in the buffer it was received in.
    fn read(&mut self, response: &mut Response<'_>) -> Result<Self::Output>;
}

/// An operation whose result is read by a function without state.
#[derive(Debug)]
pub(super) struct Call<'a, P, T> {
    request: Request<'a, P>,
    read: fn(&mut Response<'_>) -> Result<T>,
}

impl<'a, P: Serialize, T> Call<'a, P, T> {
    /// A call without payload.
    pub(super) fn new(
        method: &'a str,
        params: P,
        read: fn(&mut Response<'_>) -> Result<T>,
    ) -> Self {
        Self::of(Request::new(method, params), read)
    }

    /// A call in a network namespace. `params` makes the parameters from the one that selects it.
    pub(super) fn in_netns(
        method: &'a str,
        netns: Option<&Netns>,
        params: impl FnOnce(Option<Selector>) -> P,
        read: fn(&mut Response<'_>) -> Result<T>,
    ) -> Self {
        let (selector, file) = netns.map(Netns::parameter).unzip();
        Self::of(Request::new(method, params(selector)).with_file(file.flatten()), read)
    }

    pub(super) fn of(request: Request<'a, P>, read: fn(&mut Response<'_>) -> Result<T>) -> Self {
        Self { request, read }
    }
}

impl<P: Serialize, T> Operation for Call<'_, P, T> {
    type Params = P;
    type Output = T;

    fn request(&self) -> &Request<'_, P> {
        &self.request
    }

    fn read(&mut self, response: &mut Response<'_>) -> Result<T> {
        (self.read)(response)
    }
}

/// Reads a result that needs no conversion.
pub(super) fn json<T: DeserializeOwned>(response: &mut Response<'_>) -> Result<T> {
    response.value()
}

/// Any method by its wire name. The response has no attachments, so that bytes in it are base64.
pub(crate) fn named<T: DeserializeOwned>(
    method: &str,
    params: impl Serialize,
) -> impl Operation<Output = T> {
    Call::of(Request::new(method, params).with_attachments(Attachments::Refused), json)
}
