//! The interfaces of a network: `if_nameindex(3)`, `if_nametoindex(3)`, `if_indextoname(3)`.
//!
//! Interfaces that a socket or one of its addresses names are looked up on that socket:
//! `table::socket_endpoints`.

use sockbroker_sys::interface;

use crate::error::{During, OpError, OpResult};
use crate::network::Network;
use sockbroker_policy::Permit;
use sockbroker_policy::action::Interfaces;

impl Network {
    /// All interfaces: index and name.
    pub fn interfaces(&self, permit: Permit<Interfaces>) -> OpResult<Vec<(u32, String)>> {
        let Interfaces = permit.into_request();
        self.run(interface::list).during("if_nameindex")
    }

    /// The index of an interface. CPython drops the error number here.
    pub fn interface_index(&self, permit: Permit<Interfaces>, name: &str) -> OpResult<u32> {
        let Interfaces = permit.into_request();
        self.run(|| interface::index_of(name))
            .map_err(|_error| OpError::Plain("no interface with this name".to_owned()))
    }

    /// The name of an interface.
    pub fn interface_name(&self, permit: Permit<Interfaces>, index: u32) -> OpResult<String> {
        let Interfaces = permit.into_request();
        self.run(|| interface::name_of(index)).during("if_indextoname")
    }
}
