//! From an interface of Wireshark to a broker and the interface there.

use sockbroker_client::{Endpoint, Origin};

use super::args::ExtcapArgs;
use super::interface::Interface;
use crate::connection::{Connection, failure};
use crate::failure::{Exit, Failure};

/// Connects to a broker.
pub(super) fn connect(endpoint: &Endpoint) -> Result<Connection, Failure> {
    Connection::to_endpoint(endpoint).map_err(without_private)
}

/// Removes the hint to start a broker with the option `--private`, which this program does not have.
fn without_private(failure: Failure) -> Failure {
    if failure.exit() == Exit::NoBroker { failure.with_hint(None) } else { failure }
}

/// The broker, and the name of the interface there.
pub(super) fn resolve(
    interface: &Interface,
    args: &ExtcapArgs,
) -> Result<(Endpoint, String), Failure> {
    let invalid = |error| failure("--broker", &error);
    let Interface::Configured(origin, name) = interface else {
        let endpoint = match args.broker() {
            Some(text) => text.parse().map_err(invalid)?,
            None => {
                Endpoint::find().map_err(|error| without_private(failure("connect", &error)))?
            }
        };
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
