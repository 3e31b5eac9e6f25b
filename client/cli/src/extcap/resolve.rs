//! From an interface of Wireshark to a broker and the interface there.

use sockbroker_client::{Endpoint, Origin};

use super::args::ExtcapArgs;
use super::interface::Interface;
use crate::connection::failure;
use crate::failure::Failure;

/// The broker, and the name of the interface there.
pub(super) fn resolve(
    interface: &Interface,
    args: &ExtcapArgs,
) -> Result<(Endpoint, String), Failure> {
    let invalid = |error| failure("--broker", &error);
    let Interface::Configured(origin, name) = interface else {
        let endpoint = args.broker()?.parse().map_err(invalid)?;
        return Ok((endpoint, args.interface().to_owned()));
    };
    let configured = Endpoint::configured().map_err(|error| failure("SOCKBROKER", &error))?;
    let found = configured.into_iter().find(|(other, _)| other == origin);
    let (_, endpoint) = found.ok_or_else(|| {
        let missing = match origin {
            Origin::Environment => "SOCKBROKER is not set".to_owned(),
            Origin::Host(host) => {
                format!("there is no file ~/.config/sockbroker/{host}/ssh_config")
            }
            Origin::User | Origin::System => "XDG_RUNTIME_DIR is not set".to_owned(),
        };
        Failure::usage(format!("cannot find the broker of {}: {missing}", interface.value()))
    })?;
    Ok((endpoint, name.clone()))
}
