//! One file a theme of `proto::api`: decode, order, authorize, operate, encode.
//!
//! The files named like those of `proto/src/api` implement its traits. A handler authorizes the request,
//! looks the handle up, runs one operation and encodes the result: no decisions, no system calls.

pub mod metrics;
mod address;
mod admin;
mod audit;
mod broker;
mod cipher;
mod contents;
mod convert;
mod creation;
mod interface;
mod messages;
mod name;
mod number;
mod option;
mod permit;
mod policy;
mod poll;
mod session;
mod socket;
mod transfer;

use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::core::server::Methods;
use sockbroker_proto::api;

use crate::rpc::methods::MethodTable;

/// Implements every trait of the contract; all state is in the call's context.
#[derive(Debug, Clone, Copy)]
pub struct Handlers;

/// Every method of the contract and `rpc.discover`, by wire name.
pub fn methods() -> Result<MethodTable, RegisterMethodError> {
    with_further(Methods::new())
}

/// The same and `further` methods, which take any parameters; tests use them.
pub fn with_further(further: Methods) -> Result<MethodTable, RegisterMethodError> {
    let mut methods = contract()?;
    methods.merge(further)?;
    Ok(MethodTable::new(&methods, &api::parameters().collect()))
}

fn contract() -> Result<Methods, RegisterMethodError> {
    let mut methods = Methods::new();
    methods.merge(api::socket::SocketServer::into_rpc(Handlers))?;
    methods.merge(api::transfer::TransferServer::into_rpc(Handlers))?;
    methods.merge(api::batch::BatchServer::into_rpc(Handlers))?;
    methods.merge(api::option::OptionsServer::into_rpc(Handlers))?;
    methods.merge(api::name::NamesServer::into_rpc(Handlers))?;
    methods.merge(api::interface::InterfacesServer::into_rpc(Handlers))?;
    methods.merge(api::convert::ConvertServer::into_rpc(Handlers))?;
    methods.merge(api::session::ModuleServer::into_rpc(Handlers))?;
    methods.merge(api::session::SessionServer::into_rpc(Handlers))?;
    methods.merge(api::session::CallServer::into_rpc(Handlers))?;
    methods.merge(api::admin::HandlesServer::into_rpc(Handlers))?;
    methods.merge(api::admin::AdminServer::into_rpc(Handlers))?;
    methods.merge(api::policy::PolicyServer::into_rpc(Handlers))?;
    methods.merge(api::policy::RestrictServer::into_rpc(Handlers))?;
    methods.merge(api::broker::BrokerServer::into_rpc(Handlers))?;
    let mut discovery = RpcModule::new(api::document());
    discovery.register_method("rpc.discover", |_, document, _| document.clone())?;
    methods.merge(discovery)?;
    Ok(methods)
}
