//! The declaration of every method, with its parameter and result types: one file for each group of methods.
//!
//! Parameter names and order are Python's; methods of socket objects take `handle` first.
//! Parameters are sent by name or by position. The broker checks integers as Python's argument parser
//! does. Every method can fail with the errors of [`crate::error`]; its own documentation names only
//! errors with a particular meaning.
//!
//! `makefile` has no method: the client implements it with `recv` and `send`.

pub mod values;
pub mod socket;
pub mod delegation;
pub mod transfer;
pub mod batch;
pub mod option;
pub mod name;
pub mod interface;
pub mod capture;
pub mod channel;
pub mod convert;
pub mod session;
pub mod admin;
pub mod policy;
pub mod broker;

use crate::error::ErrorKind;
use crate::openrpc;

/// The namespaces, for the OpenRPC document and for the method table.
pub const NAMESPACES: [openrpc::Namespace; 18] = [
    socket::socket_methods,
    delegation::delegation_methods,
    transfer::transfer_methods,
    batch::batch_methods,
    option::options_methods,
    name::names_methods,
    interface::interfaces_methods,
    capture::capture_methods,
    channel::channel_methods,
    convert::convert_methods,
    session::module_methods,
    session::session_methods,
    session::call_methods,
    admin::handles_methods,
    admin::admin_methods,
    policy::policy_methods,
    policy::restrict_methods,
    broker::broker_methods,
];

/// The parameter names of every method, by wire name, in order.
pub fn parameters() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    [
        socket::SOCKET_PARAMETERS,
        delegation::DELEGATION_PARAMETERS,
        transfer::TRANSFER_PARAMETERS,
        batch::BATCH_PARAMETERS,
        option::OPTIONS_PARAMETERS,
        name::NAMES_PARAMETERS,
        interface::INTERFACES_PARAMETERS,
        capture::CAPTURE_PARAMETERS,
        channel::CHANNEL_PARAMETERS,
        convert::CONVERT_PARAMETERS,
        session::MODULE_PARAMETERS,
        session::SESSION_PARAMETERS,
        session::CALL_PARAMETERS,
        admin::HANDLES_PARAMETERS,
        admin::ADMIN_PARAMETERS,
        policy::POLICY_PARAMETERS,
        policy::RESTRICT_PARAMETERS,
        broker::BROKER_PARAMETERS,
    ]
    .into_iter()
    .flatten()
    .copied()
    .chain([("rpc.discover", &[][..])])
}

/// The complete OpenRPC document.
pub fn document() -> serde_json::Value {
    openrpc::document(NAMESPACES, errors(), errors_of, env!("CARGO_PKG_VERSION"))
}

/// The names of the errors of a method, without those of messages whose method is not known yet.
fn errors_of(method: &str, takes_handle: bool) -> Vec<&'static str> {
    let namespace = method.split('.').next().unwrap_or_default();
    let kinds = ErrorKind::all().filter(|kind| match kind {
        ErrorKind::Parse | ErrorKind::Request | ErrorKind::Method => false,
        ErrorKind::Argument
        | ErrorKind::Internal
        | ErrorKind::Cancelled
        | ErrorKind::Os
        | ErrorKind::Denied
        | ErrorKind::Session
        | ErrorKind::Limit => true,
        ErrorKind::Timeout | ErrorKind::Gai => namespace == "socket",
        ErrorKind::Host => method.starts_with("socket.gethostby"),
        ErrorKind::Policy => method == "admin.reload",
        ErrorKind::Interrupted => method == "socket.resume",
        ErrorKind::Handle => takes_handle || matches!(method, "socket.poll" | "policy.check"),
        ErrorKind::Descriptor => {
            namespace == "socket"
                || matches!(method, "call.resolve" | "capture.open" | "channel.open")
        }
    });
    kinds.map(|kind| kind.entry().name).collect()
}

/// The table of errors as OpenRPC error objects, by name.
fn errors() -> serde_json::Value {
    let entries = ErrorKind::all().map(|kind| {
        let entry = kind.entry();
        let object = serde_json::json!({ "code": entry.code, "message": entry.meaning });
        (entry.name.to_owned(), object)
    });
    serde_json::Value::Object(entries.collect())
}

/// The parameters of `rpc.discover`, which no trait declares: it has none.
#[cfg(feature = "server")]
#[derive(Debug)]
pub struct DiscoverParams;

#[cfg(feature = "server")]
impl crate::method::Parameters for DiscoverParams {
    const METHOD: &'static str = "rpc.discover";
    const NAMES: &'static [&'static str] = &[];
    type Result = &'static serde_json::Value;
    type Slots = ();

    fn decode_slot<'de, D: serde::Deserializer<'de>>(
        (): &mut (),
        index: usize,
        _: D,
    ) -> Result<(), D::Error> {
        Err(crate::method::unknown_index(index))
    }

    fn from_slots((): ()) -> Result<Self, &'static str> {
        Ok(Self)
    }
}
