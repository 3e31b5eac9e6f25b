//! The method table: every method by wire name, with the names of its parameters and how its calls ended.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jsonrpsee::core::server::{MethodCallback, Methods};
use sockbroker_proto::error::ErrorKind;

use crate::observe::metrics::Outcomes;

/// One method.
#[derive(Clone)]
pub struct Method {
    /// The wire name.
    pub name: &'static str,
    /// The names of its parameters, in order; `None` for a method outside the contract.
    pub parameters: Option<&'static [&'static str]>,
    /// What runs it.
    pub callback: MethodCallback,
    /// How its calls ended.
    pub outcomes: Arc<Outcomes>,
}

impl Method {
    /// Its name without the namespace, as errors name the call.
    pub(super) fn call(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

impl std::fmt::Debug for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Method({})", self.name)
    }
}

/// Every method by wire name.
#[derive(Debug, Clone)]
pub struct MethodTable(Arc<HashMap<&'static str, Method>>);

impl MethodTable {
    /// The table of these methods. `parameters` has the names of each method's parameters, in order; a method
    /// without an entry takes any.
    pub fn new(
        methods: &Methods,
        parameters: &HashMap<&'static str, &'static [&'static str]>,
    ) -> Self {
        let table = methods.method_names().filter_map(|name| {
            let (name, callback) = methods.method_with_name(name)?;
            let parameters = parameters.get(name).copied();
            let (callback, outcomes) = (callback.clone(), counters());
            Some((name, Method { name, parameters, callback, outcomes }))
        });
        Self(Arc::new(table.collect()))
    }

    /// The method of this wire name.
    pub fn get(&self, name: &str) -> Option<&Method> {
        self.0.get(name)
    }

    /// How the calls of each method ended, by wire name in order.
    pub fn outcomes(&self) -> BTreeMap<&'static str, &Outcomes> {
        self.0.values().map(|method| (method.name, &*method.outcomes)).collect()
    }

    /// Every wire name, in no order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

/// What a call's end is counted as: its place in [`outcomes`].
pub(super) fn outcome(code: Option<i32>) -> usize {
    let known = |code| ErrorKind::all().position(|kind| kind.code() == code);
    // What the library calls otherwise is a limit: the answer is larger than a frame.
    code.map_or(0, |code| 1 + known(code).unwrap_or(ErrorKind::Limit as usize))
}

/// How calls end: well, or with a kind of error.
pub(crate) fn outcomes() -> impl Iterator<Item = &'static str> {
    std::iter::once("ok").chain(ErrorKind::all().map(|kind| kind.entry().name))
}

/// Counters for the calls of one method.
pub(super) fn counters() -> Arc<Outcomes> {
    Arc::new(Outcomes::new(outcomes().count()))
}
