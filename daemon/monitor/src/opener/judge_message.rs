//! Messages that workers send through the opener, as requests to the policy.

use std::time::Duration;

use sockbroker_policy::Permit;
use sockbroker_policy::action::{AncillaryItem, MessageContents, Send};
use sockbroker_policy::ancillary::class_of_ancillary;
use sockbroker_policy::membership::{hops, packet_info};
use sockbroker_policy::option::OptionClass;
use sockbroker_policy::socket_spec::JudgedSocket as _;
use sockbroker_policy::target::{SocketName, Target};
use sockbroker_policy::within::RightsIn;
use sockbroker_proto::address::Address;
use sockbroker_proto::socket_spec::SocketSpec;

use super::judge::{Refusal, address, socket_name};
use crate::request::Control;
use crate::socket_facts::{self, KernelSocket};

/// Combinations of ends and interfaces that one message can have.
const COMBINATIONS_MAX: usize = 4096;

/// A message of a worker.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) destination: Option<Vec<u8>>,
    pub(super) flags: i32,
    pub(super) control: Vec<Control>,
    pub(super) data: Vec<u8>,
}

/// Whether a message can need a capability: netlink, commands of Bluetooth, and ancillary data of some classes.
fn message_is_served(socket: SocketSpec, classes: &[OptionClass]) -> bool {
    const PRIVILEGED: [OptionClass; 3] =
        [OptionClass::Mark, OptionClass::Scheduling, OptionClass::Routing];
    match socket.domain {
        libc::AF_NETLINK => true,
        libc::AF_BLUETOOTH => socket.ty == libc::SOCK_RAW,
        libc::AF_INET | libc::AF_INET6 | libc::AF_PACKET => {
            classes.iter().any(|class| PRIVILEGED.contains(class))
        }
        _ => false,
    }
}

/// An item of ancillary data: level, type and bytes.
type Item<'a> = (i32, i32, &'a [u8]);

pub(super) fn send(
    rights: RightsIn<'_>,
    fd: impl KernelSocket,
    message: Message,
) -> Result<Permit<Send>, Refusal> {
    let Message { destination, flags, control, data } = message;
    let socket = fd.spec()?;
    let items: Vec<Item<'_>> =
        control.iter().map(|item| (item.level, item.kind, item.data.as_slice())).collect();
    let classes: Vec<_> =
        items.iter().map(|(level, kind, data)| class_of_ancillary(*level, *kind, data)).collect();
    let connects = flags & libc::MSG_FASTOPEN != 0 && socket.domain != libc::AF_NETLINK;
    if !message_is_served(socket, &classes) || connects || items.iter().any(is_checked_by_sender) {
        return Err(Refusal::NotServed);
    }
    let destination = destination.map(|bytes| address(socket, &bytes)).transpose()?;
    if destination.as_ref().is_some_and(is_unspecified) {
        // The kernel would put another host in its place, which nobody has judged.
        return Err(Refusal::Failed(libc::EACCES));
    }
    let peer = socket_name(fd.peer_address().ok(), socket);
    let mut request = Send::new(socket, destination.clone().map(Target::Address));
    request.own_headers = socket_facts::own_headers(fd, socket);
    // Only the worker knows the look-ups of its sessions.
    request.looked_up = Some(Duration::ZERO);
    request.ancillary = classes;
    let towards = destination.as_ref().or(peer.as_ref().and_then(SocketName::address));
    if socket.domain == libc::AF_NETLINK {
        let end = match towards {
            Some(Address::Netlink { pid, groups }) => (*pid, *groups),
            _ => (0, 0),
        };
        request.add_netlink_messages(end, Some(&data));
    }
    add_ends(&mut request, fd, &items, towards)?;
    if destination.is_none() || socket.has_connections() {
        request.remotes.extend(peer);
    }
    request.add_route(Some(&data));
    if request.own_headers {
        request.add_header(Some(&data));
    }
    if request.combinations() > COMBINATIONS_MAX {
        return Err(Refusal::Nonsense("it sent a message with too many ends"));
    }
    let item = |Control { level, kind, data }| AncillaryItem::Data { level, kind, data };
    request.contents = MessageContents {
        buffers: vec![data.into()],
        ancillary: control.into_iter().map(item).collect(),
        flags,
    };
    Ok(rights.authorize(request)?)
}

/// Whether the kernel checks an item against the process that sends it, which would be the opener: ids, and the
/// numbers of descriptors.
fn is_checked_by_sender(&(level, kind, _): &Item<'_>) -> bool {
    level == libc::SOL_SOCKET && [libc::SCM_CREDENTIALS, libc::SCM_RIGHTS].contains(&kind)
}

/// Adds the interfaces, the sources and the route that the items and the socket name.
fn add_ends(
    request: &mut Send,
    fd: impl KernelSocket,
    items: &[Item<'_>],
    towards: Option<&Address>,
) -> Result<(), Refusal> {
    let socket = request.socket;
    let named: Vec<_> =
        items.iter().filter_map(|(level, kind, data)| packet_info(*level, *kind, data)).collect();
    let mut indexes: Vec<u32> = named.iter().map(|(_, index)| *index).collect();
    indexes.extend(towards.and_then(socket_facts::interface_index));
    if [libc::AF_INET, libc::AF_INET6].contains(&socket.domain) {
        indexes.extend(socket_facts::bound_device(fd));
        indexes.extend(socket_facts::unicast_interfaces(fd, socket.domain));
    }
    indexes.sort_unstable();
    indexes.dedup();
    request.interfaces = socket_facts::interface_names(fd, indexes)?;
    let sources = named.into_iter().filter_map(|(source, _)| source);
    request.locals = sources.map(SocketName::Address).collect();
    request.locals.extend(socket_name(fd.local_address().ok(), socket));
    let hops = items.iter().flat_map(|(level, kind, data)| hops(*level, *kind, data));
    let route = socket_facts::route(fd, socket.domain);
    request.remotes.extend(hops.chain(route).map(SocketName::Address));
    Ok(())
}

fn is_unspecified(address: &Address) -> bool {
    match address {
        Address::Inet { host, .. } => host.is_unspecified(),
        Address::Inet6 { host, .. } => host.to_canonical().is_unspecified(),
        _ => false,
    }
}
