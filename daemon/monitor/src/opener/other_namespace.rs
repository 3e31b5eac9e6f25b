//! The network namespaces of sockets, as rules judge them.

use sockbroker_policy::namespace::{Namespace, Other, owns};
use sockbroker_policy::netns::Netns;

use super::calls::SystemCalls;
use super::judge::Refusal;
use super::namespaces::Found;
use crate::request::{SelectedNamespace, Unreachable};
use crate::socket_facts::KernelSocket;
use crate::subject::Connection;

/// A network namespace other than the broker's own, and what rules judge of it.
pub(super) struct OtherNamespace<N> {
    pub(super) found: Found<N>,
    pub(super) namespace: Namespace,
}

/// Looks up the namespace in which a worker wants a socket, and what rules judge of it. `None` for the broker's own.
pub(super) fn look_up<S: KernelSocket, C: Connection, K: SystemCalls<S, C>>(
    kernel: &K,
    network: &SelectedNamespace,
    connection: C,
    passed: Option<S>,
) -> Result<Option<OtherNamespace<K::Namespace>>, Refusal> {
    let (found, name) = match network {
        SelectedNamespace::Broker => return Ok(None),
        SelectedNamespace::Caller => (kernel.network_of(connection)?, None),
        SelectedNamespace::Named(name) => {
            let netns = name.parse().map_err(|_text| NOT_A_NAME)?;
            let Netns::Named(name) = netns else { return Err(NOT_A_NAME) };
            (kernel.named_network(&name)?, Some(name))
        }
        SelectedNamespace::Passed => {
            let passed = passed.ok_or(Refusal::Nonsense("it sent no network namespace"))?;
            (kernel.passed_network(passed)?, None)
        }
    };
    match (kernel.own_network() == Some(found.cookie), name) {
        (true, None) if *network == SelectedNamespace::Passed => {
            Err(Unreachable::BrokersOwn.into())
        }
        // The caller is in the broker's namespace.
        (true, None) => Ok(None),
        (true, Some(_)) => Err(Unreachable::BrokersOwn.into()),
        (false, name) => {
            let is_callers = connection.network().is_ok_and(|own| own == found.cookie);
            let is_passed = *network == SelectedNamespace::Passed;
            let is_owned = is_passed && is_owned(connection, found.owner);
            if is_passed && !is_owned {
                return Err(Unreachable::NotOwned.into());
            }
            Ok(Some(OtherNamespace {
                found,
                namespace: Namespace::Other(Other { is_callers, is_owned, name }),
            }))
        }
    }
}

fn is_owned(connection: impl Connection, owner: Option<u32>) -> bool {
    connection.subject(false).is_ok_and(|subject| owns(subject.uid, owner))
}

const NOT_A_NAME: Refusal = Refusal::Nonsense("it sent a wrong name of a network namespace");

/// The namespace of a socket, as rules judge it. The worker may know by which name the socket was made in it; the name is
/// looked up again.
pub(super) fn of_socket<S: KernelSocket, C: Connection>(
    kernel: &impl SystemCalls<S, C>,
    network: &SelectedNamespace,
    connection: C,
    socket: S,
) -> Result<Namespace, Refusal> {
    let Some(home) = kernel.own_network() else { return Ok(Namespace::Broker) };
    let Ok(cookie) = socket.network() else { return Ok(Namespace::unknown()) };
    if cookie == home {
        return Ok(Namespace::Broker);
    }
    let is_callers = connection.network().is_ok_and(|own| own == cookie);
    let name = match network {
        SelectedNamespace::Broker | SelectedNamespace::Caller | SelectedNamespace::Passed => None,
        SelectedNamespace::Named(name) => {
            let Ok(Netns::Named(name)) = name.parse() else { return Err(NOT_A_NAME) };
            // The file can be gone, or belong to another namespace by now.
            let found = kernel.named_network(&name);
            found.is_ok_and(|found| found.cookie == cookie).then_some(name)
        }
    };
    let is_owned = *network == SelectedNamespace::Passed
        && socket.network_owner().is_ok_and(|owner| is_owned(connection, owner));
    Ok(Namespace::Other(Other { is_callers, is_owned, name }))
}
