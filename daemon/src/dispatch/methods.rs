//! The method table: every namespace of the contract merged, with the names of its parameters.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::core::server::{MethodCallback, Methods};
use sockbroker_proto::api::{
    self, admin, batch, broker, convert, interface, name, option, policy, session, socket, transfer,
};

use super::Handlers;
use super::metrics::counters;
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
    /// The methods of the contract.
    pub fn of_contract() -> Result<Self, RegisterMethodError> {
        Self::new(Methods::new())
    }

    /// The methods of the contract and `further` ones, which take any parameters; tests use them.
    pub fn new(further: Methods) -> Result<Self, RegisterMethodError> {
        let parameters: HashMap<_, _> = api::parameters().collect();
        let mut methods = contract()?;
        methods.merge(further)?;
        let names: Vec<_> = methods.method_names().collect();
        let table = names.into_iter().filter_map(|name| {
            let (name, callback) = methods.method_with_name(name)?;
            let parameters = parameters.get(name).copied();
            let (callback, outcomes) = (callback.clone(), counters());
            Some((name, Method { name, parameters, callback, outcomes }))
        });
        Ok(Self(Arc::new(table.collect())))
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

/// The namespaces and `rpc.discover`.
fn contract() -> Result<Methods, RegisterMethodError> {
    let mut methods = Methods::new();
    methods.merge(socket::SocketServer::into_rpc(Handlers))?;
    methods.merge(transfer::TransferServer::into_rpc(Handlers))?;
    methods.merge(batch::BatchServer::into_rpc(Handlers))?;
    methods.merge(option::OptionsServer::into_rpc(Handlers))?;
    methods.merge(name::NamesServer::into_rpc(Handlers))?;
    methods.merge(interface::InterfacesServer::into_rpc(Handlers))?;
    methods.merge(convert::ConvertServer::into_rpc(Handlers))?;
    methods.merge(session::ModuleServer::into_rpc(Handlers))?;
    methods.merge(session::SessionServer::into_rpc(Handlers))?;
    methods.merge(session::CallServer::into_rpc(Handlers))?;
    methods.merge(admin::HandlesServer::into_rpc(Handlers))?;
    methods.merge(admin::AdminServer::into_rpc(Handlers))?;
    methods.merge(policy::PolicyServer::into_rpc(Handlers))?;
    methods.merge(policy::RestrictServer::into_rpc(Handlers))?;
    methods.merge(broker::BrokerServer::into_rpc(Handlers))?;
    let mut discovery = RpcModule::new(api::document());
    discovery.register_method("rpc.discover", |_, document, _| document.clone())?;
    methods.merge(discovery)?;
    Ok(methods)
}
