//! The name of the host, which belongs to the broker's UTS namespace and to no network.

use sockbroker_sys::host;

use crate::error::{During, OpResult};
use crate::network::caller_identity::CallerIdentity;
use sockbroker_monitor::request::Request;
use sockbroker_policy::Permit;
use sockbroker_policy::action::{Hostname, SetHostname};

/// `gethostname(2)`.
pub fn hostname(permit: Permit<Hostname>) -> OpResult<String> {
    let Hostname = permit.into_request();
    let name = host::hostname().during("gethostname")?;
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// `sethostname(2)`.
pub fn set_hostname(permit: Permit<SetHostname>, caller: &CallerIdentity) -> OpResult<()> {
    let SetHostname { name } = permit.into_request();
    let asked = match caller.privileged() {
        privileged if privileged.is_direct() => None,
        privileged => privileged.ask(Request::SetHostname { name: name.clone() }, None),
    };
    let set = || host::set_hostname(name.as_bytes());
    asked.map_or_else(set, |done| done.map(drop)).during("sethostname")
}
