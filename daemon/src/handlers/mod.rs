//! The handlers of all methods, in one module for each module of `proto::api`.
//!
//! The modules with the names of those in `proto/src/api` implement its traits. A handler looks the handle up,
//! authorizes the request, runs one operation and encodes the result. It decides nothing itself, and makes no
//! system calls.

pub mod metrics;
pub mod query;
mod address;
mod admin;
mod audit;
mod broker;
mod capture;
pub mod channel;
mod contents;
mod convert;
mod creation;
mod delegation;
mod interface;
mod messages;
mod name;
mod option;
mod other_workers;
mod parameters;
mod permit;
mod policy;
mod poll;
mod replay;
mod session;
mod socket;
mod transfer;

use std::sync::LazyLock;

use serde_json::Value;
use sockbroker_proto::api::{self, DiscoverParams};
use sockbroker_proto::method::Register as _;

use crate::error::OpResult;
use crate::rpc::call::Call;
use crate::rpc::methods::{MethodTable, MethodTableBuilder};

/// Implements every trait of the contract. All state is in the context of the call.
#[derive(Debug, Clone, Copy)]
pub struct Handlers;

/// The table of all methods of the contract and `rpc.discover`.
pub fn methods() -> MethodTable {
    builder().build()
}

/// The same table, to which tests can add methods.
pub fn builder() -> MethodTableBuilder {
    let mut table = MethodTableBuilder::default();
    <Handlers as api::socket::SocketServer>::register(&mut table);
    <Handlers as api::delegation::DelegationServer>::register(&mut table);
    <Handlers as api::transfer::TransferServer>::register(&mut table);
    <Handlers as api::batch::BatchServer>::register(&mut table);
    <Handlers as api::option::OptionsServer>::register(&mut table);
    <Handlers as api::name::NamesServer>::register(&mut table);
    <Handlers as api::interface::InterfacesServer>::register(&mut table);
    <Handlers as api::capture::CaptureServer>::register(&mut table);
    <Handlers as api::channel::ChannelServer>::register(&mut table);
    <Handlers as api::convert::ConvertServer>::register(&mut table);
    <Handlers as api::session::ModuleServer>::register(&mut table);
    <Handlers as api::session::SessionServer>::register(&mut table);
    <Handlers as api::session::CallServer>::register(&mut table);
    <Handlers as api::admin::HandlesServer>::register(&mut table);
    <Handlers as api::admin::AdminServer>::register(&mut table);
    <Handlers as api::policy::PolicyServer>::register(&mut table);
    <Handlers as api::policy::RestrictServer>::register(&mut table);
    <Handlers as api::broker::BrokerServer>::register(&mut table);
    table.add::<DiscoverParams, _>(discover);
    table
}

#[expect(clippy::unnecessary_wraps, reason = "the type of a handler")]
fn discover(_: &Call, _: DiscoverParams) -> OpResult<&'static Value> {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(api::document);
    Ok(&DOCUMENT)
}
