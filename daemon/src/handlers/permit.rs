//! Requests to the policy with the operands that its rules look at, and no others: finding one out is a
//! system call.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::sync::Arc;

use sockbroker_proto::address::Address;

use crate::error::OpResult;
use crate::handlers::audit;
use crate::handlers::contents::{Contents, Named, add_header, add_route};
use crate::ops::receive::SenderCheck;
use crate::ops::socket_endpoints;
use crate::rpc::call::Call;
use crate::table::call_queue::Ticket;
use crate::table::entry::Entry;
use sockbroker_policy::action::{
    Accept, Bind, Capture, Connect, Handover, Listen, OptionAccess, Receive, Request, Send,
    SocketOption,
};
use sockbroker_policy::ancillary::class_of_ancillary;
use sockbroker_policy::membership::{device as device_of, hops, membership, source};
use sockbroker_policy::netlink::{MessageClass, classes_of};
use sockbroker_policy::operands::Operands;
use sockbroker_policy::question::Question;
use sockbroker_policy::target::{SocketName, Target};
use sockbroker_policy::verb::Verb;
use sockbroker_policy::{Denial, Permit};
use sockbroker_proto::socket_spec::SocketSpec;

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
                self.denied(&denial);
                Err(denial.into())
            }
        }
    }

    /// Counts and reports a refusal.
    pub(super) fn denied(&self, denial: &Denial) {
        self.broker().metrics.decided(&denial.rule, false);
        audit::denied(self, denial);
    }

    /// Waits for what the same connection did to a socket before, where the policy is about to look at
    /// it: else a `send` would be judged by the peer that an earlier `connect` has yet to set.
    pub(super) async fn settle(&self, entry: &Entry, ticket: &Ticket<'_>, verb: Verb) {
        let kind = entry.actual();
        let looks = self.rights().looks_at(verb);
        let own =
            kind.ty == libc::SOCK_RAW || [libc::AF_PACKET, libc::AF_NETLINK].contains(&kind.domain);
        if own || looks.local || looks.remote || looks.interface {
            ticket.acquire().await;
        }
    }

    pub(super) fn permit_bind(&self, entry: &Entry, target: Target) -> OpResult<Permit<Bind>> {
        let rights = self.rights();
        let looks = rights.looks_at(Verb::Bind).interface
            || entry.actual().domain == libc::AF_PACKET && rights.looks_at(Verb::Capture).interface;
        let interface = match target.address() {
            Some(address) if looks => match address {
                // The rcvall of the documentation listens where its address is.
                Address::Inet { host, .. } if entry.rcvall.is_some() => {
                    socket_endpoints::interface_of(entry, *host)
                }
                address => socket_endpoints::interface(entry, address)?,
            },
            _ => None,
        };
        // A bind without a protocol keeps the one of an earlier bind, which the socket tells.
        let captures =
            entry.actual().domain == libc::AF_PACKET && socket_endpoints::captures(entry);
        self.permit(Bind { socket: entry.actual(), target, interface, captures })
    }

    pub(super) fn permit_listen(&self, entry: &Entry, backlog: i32) -> OpResult<Permit<Listen>> {
        let local = self.local(entry, Verb::Listen);
        self.permit(Listen { socket: entry.actual(), backlog, local })
    }

    pub(super) fn permit_accept(&self, entry: &Entry) -> OpResult<Permit<Accept>> {
        let local = self.local(entry, Verb::Accept);
        self.permit(Accept { socket: entry.actual(), local })
    }

    pub(super) fn permit_connect(
        &self,
        entry: &Entry,
        target: Target,
    ) -> OpResult<Permit<Connect>> {
        let looks = self.rights().looks_at(Verb::Connect);
        let target = specified(entry, target, &[])?;
        let address = target.address();
        let looked_up = address.filter(|_| looks.lookup);
        let looked_up = looked_up.and_then(|address| self.session().lookup_age(address));
        let interfaces = if looks.interface {
            socket_endpoints::interfaces(entry, address, &[])?
        } else {
            Vec::new()
        };
        let local = self.local(entry, Verb::Connect);
        let socket = entry.actual();
        self.permit(Connect { socket, target, local, interfaces, looked_up })
    }

    fn local(&self, entry: &Entry, verb: Verb) -> Option<SocketName> {
        let looks = self.rights().looks_at(verb).local;
        looks.then(|| socket_endpoints::local(entry)).flatten()
    }

    pub(super) fn permit_send(
        &self,
        entry: &Entry,
        destination: Option<Target>,
        contents: &Contents<'_>,
    ) -> OpResult<Permit<Send>> {
        let socket = entry.actual();
        let rights = self.rights();
        let items = || contents.ancillary.iter();
        let named: Vec<_> =
            items().filter_map(|(level, kind, data)| Named::of(*level, *kind, data)).collect();
        let destination = destination.map(|target| specified(entry, target, &named)).transpose()?;
        let mut request = Send::new(socket, destination);
        request.own_headers = socket_endpoints::own_headers(entry);
        request.connects =
            contents.flags & libc::MSG_FASTOPEN != 0 && request.destination.is_some();
        if socket.domain == libc::AF_NETLINK {
            // The kernel has port 0; to anybody else a message means what they make of it.
            request.messages = classes_of(socket.protocol, contents.data.unwrap_or_default());
            let (pid, groups) =
                netlink_end(entry, request.destination.as_ref().and_then(Target::address));
            if pid != 0 {
                request.messages.clear();
            }
            // What goes to groups goes to the kernel as well (`netlink_sendmsg`).
            if pid != 0 || groups != 0 {
                request.messages.push(MessageClass::Peer);
            }
        }
        let classes = items().map(|(level, kind, data)| class_of_ancillary(*level, *kind, data));
        request.ancillary = classes.collect();
        let looks = [Verb::Send, Verb::Spoof, Verb::Inject, Verb::Connect, Verb::Option]
            .map(|verb| rights.looks_at(verb));
        let address = request.destination.as_ref().and_then(Target::address);
        if looks.iter().any(|looks| looks.interface) {
            let peer =
                || socket_endpoints::peers(entry).into_iter().find_map(SocketName::into_address);
            let towards = address.cloned().or_else(peer);
            let indexes: Vec<_> = named.iter().map(|info| info.interface).collect();
            request.interfaces = socket_endpoints::interfaces(entry, towards.as_ref(), &indexes)?;
        }
        if looks.iter().any(|looks| looks.lookup) {
            request.looked_up = address.and_then(|target| self.session().lookup_age(target));
        }
        if looks.iter().any(|looks| looks.local) {
            request.locals = socket_endpoints::chosen_sources(entry, address);
            let sources = named.iter().filter_map(|info| info.source.clone());
            request.locals.extend(sources.map(SocketName::Address));
            // The kernel passes over sources of another family, and over all on a connection.
            let own = socket_endpoints::local(entry);
            let port = own.as_ref().and_then(SocketName::address).map_or(0, port_of);
            request.locals.iter_mut().for_each(|source| set_port(source, port));
            request.locals.extend(own);
        }
        if looks.iter().any(|looks| looks.remote) {
            // A connection takes the data to its peer, whatever address stands beside it.
            if request.destination.is_none() || socket.has_connections() {
                request.remotes = socket_endpoints::peers(entry);
            }
            let hops = items().flat_map(|(level, kind, data)| hops(*level, *kind, data));
            request.remotes.extend(hops.map(SocketName::Address));
            let route = socket_endpoints::route(entry).into_iter();
            request.remotes.extend(route.map(SocketName::Address));
            add_route(&mut request, contents.data);
        }
        if request.own_headers && looks.iter().any(|looks| looks.local || looks.remote) {
            add_header(&mut request, contents.data);
        }
        self.permit(request)
    }

    pub(super) fn permit_receive(&self, entry: &Entry, length: usize) -> OpResult<Permit<Receive>> {
        let rights = self.rights();
        let looks = rights.looks_at(Verb::Receive).remote;
        let peers = if looks { socket_endpoints::peers(entry) } else { Vec::new() };
        let looks =
            entry.actual().domain == libc::AF_PACKET && rights.looks_at(Verb::Capture).interface;
        let interface = looks.then(|| socket_endpoints::captured(entry)).flatten();
        self.permit(Receive { socket: entry.actual(), peers, interface, length: length as u64 })
    }

    /// Whether a datagram may be received, by its sender; `None` where no rule looks at senders. The peer of
    /// a connection was judged by [`Call::permit_receive`], but the queue of a datagram socket may hold
    /// what came from others before.
    pub(super) fn senders(&self, entry: &Entry) -> Option<Box<SenderCheck>> {
        let (rights, socket) = (self.rights(), entry.actual());
        let internet = [libc::AF_INET, libc::AF_INET6].contains(&socket.domain);
        let looks = rights.looks_at(Verb::Receive).remote;
        if !looks || !internet || socket.has_connections() {
            return None;
        }
        Some(Box::new(move |sender| {
            let sender = sender.decode(socket.protocol).map(SocketName::Address);
            let question = Question::about(Verb::Receive, socket).to(sender.as_ref());
            sender.is_none() || rights.decide(&question).is_ok()
        }))
    }

    pub(super) fn permit_capture(&self, entry: &Entry) -> OpResult<Permit<Capture>> {
        let looks = self.rights().looks_at(Verb::Capture).interface;
        let interface = looks.then(|| socket_endpoints::captured(entry)).flatten();
        self.permit(Capture { socket: entry.actual(), interface })
    }

    pub(super) fn permit_handover(&self, socket: SocketSpec) -> OpResult<Permit<Handover>> {
        let escapes = self.rights().escaped_by(socket).map(Arc::from);
        self.permit(Handover { socket, escapes })
    }

    /// An option is set to these bytes.
    pub(super) fn permit_option(
        &self,
        entry: &Entry,
        level: i32,
        name: i32,
        value: &[u8],
    ) -> OpResult<Permit<SocketOption>> {
        let mut request = SocketOption::new(entry.actual(), OptionAccess::Write, level, name);
        let rights = self.rights();
        let looks = [request.class().verb(), Verb::Send].map(|verb| rights.looks_at(verb));
        let looks = |of: fn(&Operands) -> bool| looks.iter().any(of);
        let (at_ends, at_interface) = (looks(|o| o.local || o.remote), looks(|o| o.interface));
        if !(at_ends || at_interface) {
            return self.permit(request);
        }
        let group = membership(level, name, value);
        let device = group.as_ref().map(|(_, device)| device.clone());
        if let Some(device) =
            device.or_else(|| device_of(level, name, value)).filter(|_| at_interface)
        {
            request.interfaces = socket_endpoints::devices(entry, &device)?;
        }
        request.group = group.map(|(group, _)| SocketName::Address(group));
        request.source = source(level, name, value).map(SocketName::Address);
        request.hops = hops(level, name, value).into_iter().map(SocketName::Address).collect();
        self.permit(request)
    }
}

/// The target with the address that the kernel would put in the place of an unspecified one.
fn specified(entry: &Entry, target: Target, named: &[Named]) -> OpResult<Target> {
    let Target::Address(address) = target else { return Ok(target) };
    let source = named.iter().rev().find_map(|info| match info.source {
        Some(Address::Inet { host, .. }) => Some(host),
        Some(Address::Inet6 { host, .. }) => host.to_ipv4_mapped(),
        _ => None,
    });
    let interface = named.iter().rev().map(|info| info.interface).find(|index| *index != 0);
    let address = socket_endpoints::specified(entry, address, source, interface)?;
    Ok(Target::Address(address))
}

/// The port and the groups that a netlink message goes to.
fn netlink_end(entry: &Entry, destination: Option<&Address>) -> (u32, u32) {
    let peers = socket_endpoints::peers(entry);
    let end = destination.or_else(|| peers.first().and_then(SocketName::address));
    match end {
        Some(Address::Netlink { pid, groups }) => (*pid, *groups),
        _ => (0, 0),
    }
}

fn port_of(address: &Address) -> u16 {
    match address {
        Address::Inet { port, .. } | Address::Inet6 { port, .. } => *port,
        _ => 0,
    }
}

fn set_port(source: &mut SocketName, number: u16) {
    if let SocketName::Address(Address::Inet { port, .. } | Address::Inet6 { port, .. }) = source {
        *port = number;
    }
}
