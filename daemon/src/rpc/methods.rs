//! The method table: by wire name, how to decode a method's parameters and run it, and counters of its calls.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::value::RawValue;
use sockbroker_proto::error::ErrorKind;
use sockbroker_proto::method::{Parameters, Register, decode};

use crate::error::{OpError, OpResult};
use crate::observe::metrics::Outcomes;
use crate::rpc::argument;
use crate::rpc::call::Call;
use crate::rpc::encoded::EncodedResult;
use crate::rpc::error::RpcError;

/// The encoded result of a call, or its error.
pub type Outcome = Result<EncodedResult, RpcError>;

/// A call whose parameters are decoded.
pub enum Begun {
    /// The call has ended without waiting.
    Ended(Outcome),
    /// The call may wait, and has not run yet.
    Async(BoxFuture<'static, Outcome>),
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(outcome) => write!(f, "Ended({outcome:?})"),
            Self::Async(_) => f.write_str("Async"),
        }
    }
}

type Run = dyn Fn(&Call, Option<&RawValue>) -> Begun + Send + Sync;

/// One method.
pub struct Method {
    /// The wire name, such as `socket.recv`.
    pub name: &'static str,
    /// The names of its parameters, in order.
    pub parameters: &'static [&'static str],
    /// Counters of its calls, by how they ended.
    pub outcomes: Outcomes,
    run: Box<Run>,
}

impl Method {
    fn new(
        name: &'static str,
        parameters: &'static [&'static str],
        run: impl Fn(&Call, Option<&RawValue>) -> Begun + Send + Sync + 'static,
    ) -> Self {
        Self { name, parameters, outcomes: Outcomes::new(outcomes().count()), run: Box::new(run) }
    }

    /// The name without the namespace. Errors use it as the name of the call.
    pub fn call(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// Decodes the parameters and begins a call.
    pub fn begin(&self, call: &Call, params: Option<&RawValue>) -> Begun {
        (self.run)(call, params)
    }
}

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Method({})", self.name)
    }
}

/// Every method by wire name.
#[derive(Debug, Clone)]
pub struct MethodTable(Arc<HashMap<&'static str, Arc<Method>>>);

impl MethodTable {
    /// The method of this wire name.
    pub fn get(&self, name: &str) -> Option<&Arc<Method>> {
        self.0.get(name)
    }

    /// The counters of each method, sorted by wire name.
    pub fn outcomes(&self) -> BTreeMap<&'static str, &Outcomes> {
        self.0.values().map(|method| (method.name, &method.outcomes)).collect()
    }

    /// All wire names, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

/// Collects the methods of a table.
#[derive(Debug, Default)]
pub struct MethodTableBuilder(HashMap<&'static str, Arc<Method>>);

impl MethodTableBuilder {
    pub fn build(self) -> MethodTable {
        MethodTable(Arc::new(self.0))
    }

    /// Adds a method that is not in the contract. Its handler gets the parameters as JSON.
    pub fn add_untyped<H, F>(&mut self, name: &'static str, handler: H)
    where
        H: Fn(Call, Option<Box<RawValue>>) -> F + Send + Sync + 'static,
        F: Future<Output = OpResult<serde_json::Value>> + Send + 'static,
    {
        let run = move |call: &Call, params: Option<&RawValue>| {
            let handled = handler(call.clone(), params.map(RawValue::to_owned));
            Begun::Async(encoded(call.clone(), handled))
        };
        self.insert(Method::new(name, &[], run));
    }

    fn insert(&mut self, method: Method) {
        let before = self.0.insert(method.name, Arc::new(method));
        assert!(before.is_none(), "{before:?} is registered twice");
    }
}

impl Register for MethodTableBuilder {
    type Call = Call;
    type Error = OpError;

    fn add<P, H>(&mut self, handler: H)
    where
        P: Parameters,
        H: Fn(&Call, P) -> OpResult<P::Result> + Send + Sync + 'static,
    {
        let run = move |call: &Call, params: Option<&RawValue>| {
            let outcome = decode_params::<P>(params)
                .and_then(|params| handler(call, params).map_err(RpcError::from))
                .and_then(|result| call.encode(&result));
            Begun::Ended(outcome)
        };
        self.insert(Method::new(P::METHOD, P::NAMES, run));
    }

    fn add_async<P, H, F>(&mut self, handler: H)
    where
        P: Parameters,
        H: Fn(Call, P) -> F + Send + Sync + 'static,
        F: Future<Output = OpResult<P::Result>> + Send + 'static,
    {
        let run = move |call: &Call, params: Option<&RawValue>| match decode_params::<P>(params) {
            Ok(params) => Begun::Async(encoded(call.clone(), handler(call.clone(), params))),
            Err(error) => Begun::Ended(Err(error)),
        };
        self.insert(Method::new(P::METHOD, P::NAMES, run));
    }
}

fn encoded<T: serde::Serialize + Send + 'static>(
    call: Call,
    handled: impl Future<Output = OpResult<T>> + Send + 'static,
) -> BoxFuture<'static, Outcome> {
    async move { call.encode(&handled.await?) }.boxed()
}

fn decode_params<P: Parameters>(params: Option<&RawValue>) -> Result<P, RpcError> {
    decode(params).map_err(|error| argument::refused::<P>(params, error))
}

/// The index of an outcome in [`outcomes`].
pub(super) fn outcome(kind: Option<ErrorKind>) -> usize {
    kind.map_or(0, |kind| 1 + kind as usize)
}

/// The names of outcomes: `ok`, or the kind of an error.
pub(crate) fn outcomes() -> impl Iterator<Item = &'static str> {
    std::iter::once("ok").chain(ErrorKind::all().map(|kind| kind.entry().name))
}
