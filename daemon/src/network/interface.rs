//! Interfaces and the name of the host.

use sockbroker_sys::{host, interface};

use crate::error::{During, OpError, OpResult};
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Hostname, Interfaces, SetHostname};

/// `if_nameindex(3)`.
pub fn list(permit: Permit<Interfaces>) -> OpResult<Vec<(u32, String)>> {
    let Interfaces = permit.into_request();
    interface::list().during("if_nameindex")
}

/// `if_nametoindex(3)`. CPython drops the error number here.
pub fn index_of(permit: Permit<Interfaces>, name: &str) -> OpResult<u32> {
    let Interfaces = permit.into_request();
    interface::index_of(name)
        .map_err(|_error| OpError::Plain("no interface with this name".to_owned()))
}

/// `if_indextoname(3)`.
pub fn name_of(permit: Permit<Interfaces>, index: u32) -> OpResult<String> {
    let Interfaces = permit.into_request();
    interface::name_of(index).during("if_indextoname")
}

/// `gethostname(2)`.
pub fn hostname(permit: Permit<Hostname>) -> OpResult<String> {
    let Hostname = permit.into_request();
    let name = host::hostname().during("gethostname")?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// `sethostname(2)`.
pub fn set_hostname(permit: Permit<SetHostname>) -> OpResult<()> {
    let SetHostname { name } = permit.into_request();
    host::set_hostname(name.as_bytes()).during("sethostname")
}

/// The name behind an index in an address; empty for an interface that is gone, as in CPython.
pub fn name_in_address(index: u32) -> String {
    if index == 0 { String::new() } else { interface::name_of(index).unwrap_or_default() }
}
