//! The interfaces of a network: `if_nameindex(3)`, `if_nametoindex(3)`, `if_indextoname(3)`.
//!
//! Interfaces that a socket or one of its addresses names are looked up on that socket:
//! `table::socket_endpoints`.

use sockbroker_sys::interface;

use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use crate::network::other_namespace::{self, Selection};
use sockbroker_monitor::request::InterfaceQuery;
use sockbroker_policy::Permit;
use sockbroker_policy::action::Interfaces;
use sockbroker_policy::namespace::Namespace;

/// All interfaces: index and name.
pub fn list(
    permit: Permit<Interfaces>,
    selection: &Selection,
    caller: &CallerIdentity,
) -> OpResult<Vec<(u32, String)>> {
    if *permit.namespace() != Namespace::Broker {
        let (call, query) = ("if_nameindex", InterfaceQuery::All);
        return other_namespace::interfaces(permit, selection, call, query, caller.privileged());
    }
    let Interfaces = permit.into_request();
    interface::list().during("if_nameindex")
}

/// The index of an interface. CPython drops the error number here.
pub fn index_of(
    permit: Permit<Interfaces>,
    selection: &Selection,
    name: &str,
    caller: &CallerIdentity,
) -> OpResult<u32> {
    let missing = || OpError::Plain("no interface with this name".to_owned());
    if *permit.namespace() != Namespace::Broker {
        let (call, query) = ("if_nametoindex", InterfaceQuery::Name(name.to_owned()));
        let found =
            other_namespace::interfaces(permit, selection, call, query, caller.privileged());
        return match found {
            Ok(found) => found.first().map(|(index, _)| *index).ok_or_else(missing),
            Err(OpError::Os { errno: libc::ENODEV, .. }) => Err(missing()),
            Err(error) => Err(error),
        };
    }
    let Interfaces = permit.into_request();
    interface::index_of(name).map_err(|_error| missing())
}

/// The name of an interface.
pub fn name_of(
    permit: Permit<Interfaces>,
    selection: &Selection,
    index: u32,
    caller: &CallerIdentity,
) -> OpResult<String> {
    if *permit.namespace() != Namespace::Broker {
        let (call, query) = ("if_indextoname", InterfaceQuery::Index(index));
        let found =
            other_namespace::interfaces(permit, selection, call, query, caller.privileged());
        let first = found?.into_iter().next();
        return Ok(first.ok_or(OpError::Os { call, errno: libc::ENXIO })?.1);
    }
    let Interfaces = permit.into_request();
    interface::name_of(index).during("if_indextoname")
}
