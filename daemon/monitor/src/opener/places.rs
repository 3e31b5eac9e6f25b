//! The network namespaces of sockets, as rules judge them.

use sockbroker_policy::netns::Netns;
use sockbroker_policy::place::{Other, Place};

use super::calls::SystemCalls;
use super::judge::Refusal;
use super::namespaces::Found;
use crate::request::{Network, Unreachable};
use crate::socket_facts::KernelSocket;
use crate::subject::Connection;

/// A network namespace other than the broker's own, and what rules judge of it.
pub(super) struct Elsewhere<N> {
    pub(super) found: Found<N>,
    pub(super) place: Place,
}

/// Looks up the namespace in which a worker wants a socket, and what rules judge of it. `None` for the broker's own.
pub(super) fn look_up<S, C: Connection, K: SystemCalls<S, C>>(
    kernel: &K,
    network: &Network,
    connection: C,
) -> Result<Option<Elsewhere<K::Namespace>>, Refusal> {
    let (found, name) = match network {
        Network::Broker => return Ok(None),
        Network::Caller => (kernel.network_of(connection)?, None),
        Network::Named(name) => {
            let netns = name.parse().map_err(|_text| NOT_A_NAME)?;
            let Netns::Named(name) = netns else { return Err(NOT_A_NAME) };
            (kernel.named_network(&name)?, Some(name))
        }
    };
    match (kernel.own_network() == Some(found.cookie), name) {
        // The caller is in the broker's namespace.
        (true, None) => Ok(None),
        (true, Some(_)) => Err(Unreachable::BrokersOwn.into()),
        (false, name) => {
            let is_callers = connection.network().is_ok_and(|own| own == found.cookie);
            Ok(Some(Elsewhere { found, place: Place::Other(Other { is_callers, name }) }))
        }
    }
}

const NOT_A_NAME: Refusal = Refusal::Nonsense("it sent a wrong name of a network namespace");

/// The namespace of a socket, as rules judge it. The worker may know by which name the socket was made in it; the name is
/// looked up again.
pub(super) fn of_socket<S: KernelSocket, C: Connection>(
    kernel: &impl SystemCalls<S, C>,
    network: &Network,
    connection: C,
    socket: S,
) -> Result<Place, Refusal> {
    let Some(home) = kernel.own_network() else { return Ok(Place::Broker) };
    let Ok(cookie) = socket.network() else { return Ok(Place::unknown()) };
    if cookie == home {
        return Ok(Place::Broker);
    }
    let is_callers = connection.network().is_ok_and(|own| own == cookie);
    let name = match network {
        Network::Broker | Network::Caller => None,
        Network::Named(name) => {
            let Ok(Netns::Named(name)) = name.parse() else { return Err(NOT_A_NAME) };
            // The file can be gone, or belong to another namespace by now.
            let found = kernel.named_network(&name);
            found.is_ok_and(|found| found.cookie == cookie).then_some(name)
        }
    };
    Ok(Place::Other(Other { is_callers, name }))
}
