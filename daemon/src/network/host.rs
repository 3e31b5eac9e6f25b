//! The name of the host, which belongs to the broker's UTS namespace and to no network.

use sockbroker_sys::host;

use crate::error::{During, OpResult};
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Hostname, SetHostname};

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
