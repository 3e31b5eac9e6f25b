//! Builds requests and authorizes them. An operand is looked up only if a rule needs it, because each look-up
//! is a system call.

use sockbroker_policy::socket_spec::JudgedSocket as _;
use std::sync::Arc;
use std::time::Duration;

use sockbroker_proto::address::Address;

use crate::error::{OpError, OpResult};
use crate::handlers::audit;
use crate::handlers::contents::{Named, Payload, Sizes};
use crate::ops::receive::SenderCheck;
use crate::rpc::call::Call;
use crate::table::call_queue::Ticket;
use crate::table::claims::{Claim, Claimed};
use crate::table::entry::Entry;
use crate::table::permitted::Permitted;
use crate::table::socket_endpoints;
use sockbroker_policy::action::{
    Accept, AncillaryItem, Bind, Capture, Connect, Handover, Inspect, Listen, OpenCapture,
    OptionValue, Receive, Request, ScopedCapture, Send, SetOption,
};
use sockbroker_policy::ancillary::class_of_ancillary;
use sockbroker_policy::membership::{device as device_of, hops, membership, source};
use sockbroker_policy::namespace::Namespace;
use sockbroker_policy::operands::Operands;
use sockbroker_policy::question::Question;
use sockbroker_policy::target::{SocketName, Target};
use sockbroker_policy::verb::Verb;
use sockbroker_policy::{Denial, Permit};
use sockbroker_proto::socket_spec::SocketSpec;

impl Call {
    /// Authorizes a request that concerns no socket of the session.
    pub(super) fn permit<R: Request>(&self, request: R) -> OpResult<Permit<R>> {
        let permit = self.rights().authorize(request).map_err(|denial| self.refused(denial))?;
        self.allowed(&permit);
        Ok(permit)
    }

    /// Authorizes a request in a network namespace that concerns no socket of the session.
    pub(super) fn permit_within<R: Request>(
        &self,
        namespace: &Namespace,
        request: R,
    ) -> OpResult<Permit<R>> {
        let permit = self.rights().within(namespace).authorize(request);
        let permit = permit.map_err(|denial| self.refused(denial))?;
        self.allowed(&permit);
        Ok(permit)
    }

    /// Authorizes a capture in a network namespace.
    pub(super) fn permit_open_capture(
        &self,
        namespace: &Namespace,
        capture: OpenCapture,
    ) -> OpResult<Permit<ScopedCapture>> {
        let permit = self.rights().within(namespace).authorize_capture(capture);
        let permit = permit.map_err(|denial| self.refused(denial))?;
        self.allowed(&permit);
        Ok(permit)
    }

    /// Authorizes a request on a socket of the session.
    pub(super) fn authorize<R: Request>(
        &self,
        entry: &Arc<Entry>,
        request: impl FnOnce(SocketSpec) -> R,
    ) -> OpResult<Permitted<R>> {
        let permitted = Permitted::authorize(entry, &self.rights(), request);
        let permitted = permitted.map_err(|denial| self.refused(denial))?;
        self.allowed(permitted.permit());
        Ok(permitted)
    }

    /// Claims what the kernel would share among principals. `EADDRINUSE` if another principal has it.
    pub(super) async fn claim(&self, claim: Claim, operation: &'static str) -> OpResult<Claimed> {
        let principal = self.session().principal().key();
        let claimed = self.broker().claim(claim, &principal).await?;
        claimed.ok_or(OpError::Os { call: operation, errno: libc::EADDRINUSE })
    }

    /// Counts and reports a permission.
    fn allowed<R: Request>(&self, permit: &Permit<R>) {
        self.broker().metrics.decided(permit.rule(), true);
        audit::allowed(self, &permit.question(), permit.rule());
    }

    fn refused(&self, denial: Box<Denial>) -> OpError {
        self.denied(&denial);
        denial.into()
    }

    /// Authorizes a call that inspects a socket of the session, and changes nothing that others see.
    pub(super) fn inspect(&self, entry: &Arc<Entry>) -> OpResult<Permitted<Inspect>> {
        self.authorize(entry, |socket| Inspect { socket })
    }

    /// Counts and reports a refusal.
    pub(super) fn denied(&self, denial: &Denial) {
        self.broker().metrics.decided(&denial.rule, false);
        audit::denied(self, denial);
    }

    /// Waits for earlier calls of the same connection on a socket, if a rule depends on the state of the socket:
    /// otherwise the policy would judge a `send` by the peer before an earlier `connect`.
    pub(super) async fn settle(&self, entry: &Entry, ticket: &Ticket<'_>, verb: Verb) {
        let actual = entry.actual();
        let own = actual.ty == libc::SOCK_RAW
            || [libc::AF_PACKET, libc::AF_NETLINK].contains(&actual.domain);
        // A send is also judged as what MSG_FASTOPEN and ancillary data make of it.
        let verbs: &[Verb] = match verb {
            Verb::Send => &[Verb::Send, Verb::Connect, Verb::Option],
            _ => std::slice::from_ref(&verb),
        };
        let rights = self.rights();
        let depends = verbs.iter().any(|verb| {
            let judged = rights.depends_on(*verb);
            judged.local || judged.remote || judged.interface
        });
        if own || depends {
            ticket.acquire().await;
        }
    }

    pub(super) fn permit_bind(
        &self,
        entry: &Arc<Entry>,
        target: Target,
    ) -> OpResult<Permitted<Bind>> {
        let rights = self.rights();
        let judged = rights.depends_on(Verb::Bind).interface
            || entry.actual().domain == libc::AF_PACKET
                && rights.depends_on(Verb::Capture).interface;
        let interface = match target.address() {
            Some(address) if judged => match address {
                // A socket for SIO_RCVALL captures on the interface that has its address.
                Address::Inet { host, .. } if entry.rcvall.is_some() => {
                    socket_endpoints::interface_of(entry, *host)
                }
                address => socket_endpoints::interface(entry, address)?,
            },
            _ => None,
        };
        // A bind without a protocol keeps the protocol of an earlier bind.
        let captures =
            entry.actual().domain == libc::AF_PACKET && socket_endpoints::captures(entry);
        self.authorize(entry, |socket| Bind { socket, target, interface, captures })
    }

    pub(super) fn permit_listen(
        &self,
        entry: &Arc<Entry>,
        backlog: i32,
    ) -> OpResult<Permitted<Listen>> {
        let local = self.local(entry, Verb::Listen);
        self.authorize(entry, |socket| Listen { socket, backlog, local })
    }

    pub(super) fn permit_accept(&self, entry: &Arc<Entry>) -> OpResult<Permitted<Accept>> {
        let local = self.local(entry, Verb::Accept);
        self.authorize(entry, |socket| Accept { socket, local })
    }

    pub(super) fn permit_connect(
        &self,
        entry: &Arc<Entry>,
        target: Target,
    ) -> OpResult<Permitted<Connect>> {
        let judged = self.rights().depends_on(Verb::Connect);
        let target = specified(entry, target, &[])?;
        let address = target.address();
        let looked_up = self.lookup_age(entry, address.filter(|_| judged.lookup));
        let interfaces = if judged.interface {
            socket_endpoints::interfaces(entry, address, &[])?
        } else {
            Vec::new()
        };
        let local = self.local(entry, Verb::Connect);
        self.authorize(entry, |socket| Connect { socket, target, local, interfaces, looked_up })
    }

    /// The time since a look-up in the network namespace of a socket gave this address.
    fn lookup_age(&self, entry: &Entry, address: Option<&Address>) -> Option<Duration> {
        self.session().lookups.age(entry.namespace(), address?)
    }

    fn local(&self, entry: &Entry, verb: Verb) -> Option<SocketName> {
        let judged = self.rights().depends_on(verb).local;
        judged.then(|| socket_endpoints::local(entry)).flatten()
    }

    pub(super) fn permit_send(
        &self,
        entry: &Arc<Entry>,
        destination: Option<Target>,
        payload: Payload,
    ) -> OpResult<Permitted<Send>> {
        let socket = entry.actual();
        let rights = self.rights();
        let own_headers = socket_endpoints::own_headers(entry);
        // Rules judge the contents of netlink messages and of headers that the caller wrote.
        let reads_contents =
            own_headers || socket.domain == libc::AF_NETLINK || socket.sends_extensions();
        let data = payload.data().filter(|_| reads_contents);
        let contents = payload.into_contents();
        let items = || contents.ancillary.iter().map(AncillaryItem::judged);
        let named: Vec<_> =
            items().filter_map(|(level, kind, data)| Named::of(level, kind, data)).collect();
        let destination = destination.map(|target| specified(entry, target, &named)).transpose()?;
        let mut request = Send::new(socket, destination);
        request.own_headers = own_headers;
        request.connects =
            contents.flags & libc::MSG_FASTOPEN != 0 && request.destination.is_some();
        if socket.domain == libc::AF_NETLINK {
            let named = request.destination.as_ref().and_then(Target::address);
            request.add_netlink_messages(netlink_end(entry, named), data.as_deref());
        }
        let classes = items().map(|(level, kind, data)| class_of_ancillary(level, kind, data));
        request.ancillary = classes.collect();
        let judged = [Verb::Send, Verb::Spoof, Verb::Inject, Verb::Connect, Verb::Option]
            .map(|verb| rights.depends_on(verb));
        let address = request.destination.as_ref().and_then(Target::address);
        if judged.iter().any(|judged| judged.interface) {
            let peer =
                || socket_endpoints::peers(entry).into_iter().find_map(SocketName::into_address);
            let towards = address.cloned().or_else(peer);
            let indexes: Vec<_> = named.iter().map(|info| info.interface).collect();
            request.interfaces = socket_endpoints::interfaces(entry, towards.as_ref(), &indexes)?;
        }
        if judged.iter().any(|judged| judged.lookup) {
            request.looked_up = self.lookup_age(entry, address);
        }
        if judged.iter().any(|judged| judged.local) {
            request.locals = socket_endpoints::chosen_sources(entry, address);
            let sources = named.iter().filter_map(|info| info.source.clone());
            request.locals.extend(sources.map(SocketName::Address));
            // The kernel ignores sources of another family, and all sources on a connection.
            let own = socket_endpoints::local(entry);
            let port = own.as_ref().and_then(SocketName::address).map_or(0, port_of);
            request.locals.iter_mut().for_each(|source| set_port(source, port));
            request.locals.extend(own);
        }
        if judged.iter().any(|judged| judged.remote) {
            // On a connection the data goes to the peer, and the kernel ignores the destination.
            if request.destination.is_none() || socket.has_connections() {
                request.remotes = socket_endpoints::peers(entry);
            }
            let hops = items().flat_map(|(level, kind, data)| hops(level, kind, data));
            request.remotes.extend(hops.map(SocketName::Address));
            let route = socket_endpoints::route(entry).into_iter();
            request.remotes.extend(route.map(SocketName::Address));
            request.add_route(data.as_deref());
        }
        if request.own_headers && judged.iter().any(|judged| judged.local || judged.remote) {
            request.add_header(data.as_deref());
        }
        request.contents = contents;
        let limit = self.broker().limits.message_routes;
        OpError::within("message_routes", request.combinations() as u64, limit)?;
        self.authorize(entry, |_same| request)
    }

    /// Authorizes a receiving call. A channel that receives would otherwise lose data to it.
    pub(super) fn permit_receive(
        &self,
        entry: &Arc<Entry>,
        sizes: Sizes,
    ) -> OpResult<Permitted<Receive>> {
        if entry.channels.receives() {
            return Err(OpError::Os { call: "recv", errno: libc::EBUSY });
        }
        self.permit_receive_of_channel(entry, sizes)
    }

    pub(super) fn permit_receive_of_channel(
        &self,
        entry: &Arc<Entry>,
        sizes: Sizes,
    ) -> OpResult<Permitted<Receive>> {
        let rights = self.rights();
        let judged = rights.depends_on(Verb::Receive).remote;
        let peers = if judged { socket_endpoints::peers(entry) } else { Vec::new() };
        let judged =
            entry.actual().domain == libc::AF_PACKET && rights.depends_on(Verb::Capture).interface;
        let interface = judged.then(|| socket_endpoints::captured(entry)).flatten();
        let Sizes { length, ancillary, flags } = sizes;
        self.authorize(entry, |socket| Receive {
            socket,
            peers,
            interface,
            length,
            ancillary,
            flags,
        })
    }

    /// The check of a datagram's sender; `None` if no rule depends on senders. [`Call::permit_receive`] judges the
    /// peer of a connection, but the queue of a datagram socket may hold datagrams that arrived from others
    /// before it was connected.
    pub(super) fn sender_check(&self, entry: &Entry) -> Option<Box<SenderCheck>> {
        let (rights, socket, namespace) =
            (self.rights(), entry.actual(), entry.namespace().clone());
        let internet = [libc::AF_INET, libc::AF_INET6].contains(&socket.domain);
        let judged = rights.depends_on(Verb::Receive).remote;
        if !judged || !internet || socket.has_connections() {
            return None;
        }
        Some(Box::new(move |sender| {
            let sender = sender.decode(socket.protocol).map(SocketName::Address);
            let question = Question::about(Verb::Receive, socket).to(sender.as_ref());
            sender.is_none() || rights.within(&namespace).grants(&question)
        }))
    }

    pub(super) fn permit_capture(
        &self,
        entry: &Arc<Entry>,
        on: bool,
    ) -> OpResult<Permitted<Capture>> {
        let judged = self.rights().depends_on(Verb::Capture).interface;
        let interface = judged.then(|| socket_endpoints::captured(entry)).flatten();
        self.authorize(entry, |socket| Capture { socket, interface, on })
    }

    pub(super) fn permit_handover(&self, entry: &Arc<Entry>) -> OpResult<Permitted<Handover>> {
        let escapes = self.rights().escaped_by(entry.actual(), entry.namespace()).map(Arc::from);
        self.authorize(entry, |socket| Handover { socket, escapes })
    }

    pub(super) fn permit_set_option(
        &self,
        entry: &Arc<Entry>,
        level: i32,
        name: i32,
        value: OptionValue,
    ) -> OpResult<Permitted<SetOption>> {
        let bytes = value.bytes(entry.declared().domain);
        let mut request = SetOption::new(entry.actual(), level, name, value);
        let rights = self.rights();
        let judged = [request.class().verb(), Verb::Send].map(|verb| rights.depends_on(verb));
        let judged = |of: fn(&Operands) -> bool| judged.iter().any(of);
        let (at_ends, at_interface) = (judged(|o| o.local || o.remote), judged(|o| o.interface));
        if at_ends || at_interface {
            let group = membership(level, name, &bytes);
            let device = group.as_ref().map(|(_, device)| device.clone());
            let device = device.or_else(|| device_of(level, name, &bytes));
            if let Some(device) = device.filter(|_| at_interface) {
                request.interfaces = socket_endpoints::devices(entry, &device)?;
            }
            request.group = group.map(|(group, _)| SocketName::Address(group));
            request.source = source(level, name, &bytes).map(SocketName::Address);
            request.hops = hops(level, name, &bytes).into_iter().map(SocketName::Address).collect();
        }
        self.authorize(entry, |_same| request)
    }
}

/// Replaces an unspecified address by the address that the kernel would use.
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
