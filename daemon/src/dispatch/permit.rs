//! Requests to the policy with the operands that its rules look at, and no others: finding one out is a
//! system call.

use sockbroker_proto::address::Address;

use super::audit;
use super::call::Call;
use crate::ops::error::OpResult;
use crate::ops::whereabouts;
use crate::policy::Permit;
use crate::policy::action::{
    Accept, Bind, Capture, Connect, Listen, OptionAccess, Receive, Request, Send, SocketOption,
};
use crate::policy::membership::{device, membership, packet_info};
use crate::policy::netlink::{MessageClass, classes_of};
use crate::policy::option::OptionClass;
use crate::policy::verb::Verb;
use crate::table::entry::Entry;
use crate::table::lane::Place;

/// What a message is made of, as far as rules look at it.
#[derive(Debug, Default)]
pub(super) struct Contents<'a> {
    /// `MSG_*`.
    pub(super) flags: i32,
    /// Level, type and bytes of its ancillary data.
    pub(super) ancillary: Vec<(i32, i32, &'a [u8])>,
    /// The data; `None` where it cannot be seen.
    pub(super) data: Option<&'a [u8]>,
}

impl<'a> Contents<'a> {
    /// Data alone.
    pub(super) fn of(data: &'a [u8], flags: i32) -> Self {
        Self { flags, ancillary: Vec::new(), data: Some(data) }
    }
}

impl Call {
    /// Asks the policy.
    pub(super) fn permit<R: Request>(&self, request: R) -> OpResult<Permit<R>> {
        let metrics = &self.broker().metrics;
        match self.rights().ask(request) {
            Ok(permit) => {
                metrics.decided(permit.rule(), true);
                audit::allowed(self, &permit.request().question(), permit.rule());
                Ok(permit)
            }
            Err(denial) => {
                metrics.decided(&denial.rule, false);
                audit::denied(self, &denial);
                Err(denial.into())
            }
        }
    }

    /// Waits for what the same connection did to a socket before, where the policy is about to look at
    /// it: else a `send` would be judged by the peer that an earlier `connect` has yet to set.
    pub(super) async fn settle(&self, entry: &Entry, place: &Place<'_>, verb: Verb) {
        let kind = entry.kind();
        let looks = self.rights().looks_at(verb);
        let own = kind.kind == libc::SOCK_RAW
            || [libc::AF_PACKET, libc::AF_NETLINK].contains(&kind.family);
        if own || looks.local || looks.remote {
            place.turn().await;
        }
    }

    pub(super) fn permit_bind(&self, entry: &Entry, address: Address) -> OpResult<Permit<Bind>> {
        let rights = self.rights();
        let looks = rights.looks_at(Verb::Bind).interface
            || entry.kind().family == libc::AF_PACKET && rights.looks_at(Verb::Capture).interface;
        let interface = looks.then(|| match &address {
            // The sniffer of the documentation listens where its address is.
            Address::Inet { host, .. } if entry.sniffer.is_some() => {
                whereabouts::interface_of(*host)
            }
            address => whereabouts::interface(entry, Some(address)),
        });
        self.permit(Bind { socket: entry.kind(), address, interface: interface.flatten() })
    }

    pub(super) fn permit_listen(&self, entry: &Entry, backlog: i32) -> OpResult<Permit<Listen>> {
        let local = self.local(entry, Verb::Listen);
        self.permit(Listen { socket: entry.kind(), backlog, local })
    }

    pub(super) fn permit_accept(&self, entry: &Entry) -> OpResult<Permit<Accept>> {
        let local = self.local(entry, Verb::Accept);
        self.permit(Accept { socket: entry.kind(), local })
    }

    pub(super) fn permit_connect(
        &self,
        entry: &Entry,
        address: Address,
    ) -> OpResult<Permit<Connect>> {
        let looks = self.rights().looks_at(Verb::Connect);
        let reached = looks.remote.then(|| whereabouts::reached(entry, &address)).flatten();
        let looked_up =
            looks.lookup.then(|| self.session().lookup_age(reached.as_ref().unwrap_or(&address)));
        let local = self.local(entry, Verb::Connect);
        let looked_up = looked_up.flatten();
        self.permit(Connect { socket: entry.kind(), address, reached, local, looked_up })
    }

    fn local(&self, entry: &Entry, verb: Verb) -> Option<Address> {
        let looks = self.rights().looks_at(verb).local;
        looks.then(|| whereabouts::local(entry)).flatten()
    }

    pub(super) fn permit_send(
        &self,
        entry: &Entry,
        destination: Option<Address>,
        contents: &Contents<'_>,
    ) -> OpResult<Permit<Send>> {
        let socket = entry.kind();
        let rights = self.rights();
        let mut request = Send::new(socket, destination);
        request.own_headers = whereabouts::own_headers(entry);
        request.connects =
            contents.flags & libc::MSG_FASTOPEN != 0 && request.destination.is_some();
        if socket.family == libc::AF_NETLINK {
            // The kernel has port 0; to anybody else a message means what they make of it.
            request.messages = classes_of(socket.proto, contents.data.unwrap_or_default());
            if leads_to_others(entry, request.destination.as_ref()) {
                request.messages = vec![MessageClass::Peer];
            }
        }
        request.ancillary =
            contents.ancillary.iter().map(|(level, kind, _)| (*level, *kind)).collect();
        let looks = [Verb::Send, Verb::Spoof, Verb::Inject, Verb::Connect]
            .map(|verb| rights.looks_at(verb));
        if looks.iter().any(|looks| looks.remote) {
            request.reached = match &request.destination {
                Some(destination) => whereabouts::reached(entry, destination),
                None => whereabouts::peer(entry),
            };
        }
        if looks.iter().any(|looks| looks.lookup) {
            let target = request.reached.as_ref().or(request.destination.as_ref());
            request.looked_up = target.and_then(|target| self.session().lookup_age(target));
        }
        let named = contents
            .ancillary
            .iter()
            .find_map(|(level, kind, data)| packet_info(*level, *kind, data));
        if looks.iter().any(|looks| looks.local) {
            let source = named.as_ref().and_then(|(source, _)| source.clone());
            request.source = source.or_else(|| whereabouts::local(entry));
        }
        if looks.iter().any(|looks| looks.interface) {
            let named = named.and_then(|(_, index)| whereabouts::interface_name(index));
            let of_address = || whereabouts::interface(entry, request.destination.as_ref());
            request.interface = named.or_else(of_address);
        }
        self.permit(request)
    }

    pub(super) fn permit_receive(&self, entry: &Entry, length: usize) -> OpResult<Permit<Receive>> {
        let rights = self.rights();
        let looks = rights.looks_at(Verb::Receive).remote;
        let peer = looks.then(|| whereabouts::peer(entry)).flatten();
        let looks =
            entry.kind().family == libc::AF_PACKET && rights.looks_at(Verb::Capture).interface;
        let interface = looks.then(|| whereabouts::interface(entry, None)).flatten();
        self.permit(Receive { socket: entry.kind(), peer, interface, length: length as u64 })
    }

    pub(super) fn permit_capture(&self, entry: &Entry) -> OpResult<Permit<Capture>> {
        let looks = self.rights().looks_at(Verb::Capture).interface;
        let interface = looks.then(|| whereabouts::interface(entry, None)).flatten();
        self.permit(Capture { socket: entry.kind(), interface })
    }

    /// An option is set to these bytes.
    pub(super) fn permit_option(
        &self,
        entry: &Entry,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> OpResult<Permit<SocketOption>> {
        let mut request = SocketOption::new(entry.kind(), OptionAccess::Write, level, name);
        let looks = self.rights().looks_at(request.class().verb());
        if request.class() == OptionClass::Multicast && (looks.remote || looks.interface) {
            if let Some((group, device)) = membership(level, name, value) {
                request.group = Some(group);
                request.interface = whereabouts::device_name(&device);
            }
        } else if looks.interface {
            let device = device(level, name, value);
            request.interface = device.as_ref().and_then(whereabouts::device_name);
        }
        self.permit(request)
    }
}

/// Whether a netlink message goes to another process or a group.
fn leads_to_others(entry: &Entry, destination: Option<&Address>) -> bool {
    let peer = || whereabouts::peer(entry);
    let destination = destination.cloned().or_else(peer);
    matches!(destination, Some(Address::Netlink { pid, groups }) if pid != 0 || groups != 0)
}
