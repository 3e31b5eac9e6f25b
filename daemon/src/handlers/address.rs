//! Addresses in parameters and results. Reading one may need a look-up.

use std::os::fd::OwnedFd;

use sockbroker_proto::address::{Address, AddressValue, FileAddress, Parsed};
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::resolver::AddressInfo;

use crate::error::{OpError, OpResult};
use crate::network::names::Names;
use crate::network::other_namespace::{self, Selection};
use crate::network::resolve::AddressQuery;
use crate::network::stub::Open;
use crate::ops::unix_file::{self, Passed, Search};
use crate::rpc::call::Call;
use crate::table::entry::Entry;
use crate::table::socket_endpoints;
use crate::table::timeout::Timeout;
use sockbroker_policy::action::{Create, Interfaces, Resolve};
use sockbroker_policy::namespace::Namespace;
use sockbroker_policy::target::{FileFacts, Target};
use sockbroker_policy::verb::Verb;

impl Call {
    /// Reads an address for a socket of this spec. A host name needs the resolver, and the name of an interface
    /// needs a socket. `names` is the network namespace of names if there is no socket. Without a host name the function
    /// does not wait, so the order of calls is kept.
    pub(super) async fn address(
        &self,
        spec: SocketSpec,
        value: &AddressValue,
        socket: Option<&Entry>,
        names: Option<&Namespace>,
    ) -> OpResult<Address> {
        match value.read(spec)? {
            Parsed::File(_) => Err(OpError::type_error("a file is not an address here")),
            Parsed::Address(Address::Opaque { family, data }) => judgeable(spec, family, data),
            Parsed::Address(address) => Ok(address),
            Parsed::Interface(address) => {
                let namespace = socket.map_or(&Namespace::Broker, Entry::namespace);
                let permit = self.permit_within(namespace, Interfaces)?;
                let none = || OpError::type_error("an interface name is not an address here");
                socket_endpoints::interface_address(permit, socket.ok_or_else(none)?, address)
            }
            Parsed::Host(host) => {
                let (name, here) = (host.host.clone(), Namespace::Broker);
                let namespace = socket.map_or(names.unwrap_or(&here), Entry::namespace);
                let permit = self.permit_within(namespace, Resolve)?;
                let address = match namespace {
                    Namespace::Broker => self.resolver().address(permit, host).await?,
                    Namespace::Other(_) => {
                        let open = |spec| self.for_names(namespace, spec);
                        self.names(namespace, &open).address(permit, host).await?
                    }
                };
                self.session().lookups.record(namespace, &name, [address.clone()]);
                Ok(address)
            }
        }
    }

    /// Reads the destination of a call or the name of a socket: an address of the socket's actual family, or a
    /// file of `AF_UNIX`, which is examined before the policy judges it.
    pub(super) async fn target(
        &self,
        entry: &Entry,
        value: &AddressValue,
        (call, verb): (&'static str, Verb),
    ) -> OpResult<Target> {
        let declared = entry.declared();
        if let AddressValue::File(_) = value
            && let Parsed::File(file) = value.read(declared)?
        {
            return self.passed_file(entry, file, (call, verb)).await;
        }
        let address = self.address(declared, value, Some(entry), None).await?;
        check_family(entry, call, &address)?;
        match address {
            Address::UnixPath(path) => self.path(entry, path, (call, verb)).await,
            address => Ok(Target::Address(address)),
        }
    }

    /// Examines a file whose descriptor is attached to the request.
    async fn passed_file(
        &self,
        entry: &Entry,
        file: FileAddress,
        (call, verb): (&'static str, Verb),
    ) -> OpResult<Target> {
        let makes = verb == Verb::Bind;
        if makes != file.name.is_some() {
            let text = if makes {
                "bind takes the descriptor of a directory and a name in it"
            } else {
                "the descriptor of a socket's file takes no name"
            };
            return Err(OpError::value(text));
        }
        let descriptor = self.take_descriptor(file.descriptor)?;
        if !self.rights().can_grant(verb, entry.actual()) {
            // Nothing is done as the caller for a call that no rule can grant.
            let name = file.path.or(file.name).unwrap_or_default();
            let facts = FileFacts { names: vec![name], ..FileFacts::default() };
            return Err(self.refuse_file(verb, entry.actual(), &facts));
        }
        let passed = Passed { descriptor, name: file.name, written: file.path };
        let search = self.search();
        let actual = entry.actual();
        let file = within(entry, unix_file::examine(self.caller(), call, actual, passed, search));
        let file = file.await?;
        Ok(Target::File(file))
    }

    /// Reads a path. The broker looks it up if a rule lets the caller use the broker's view of the file system.
    /// Otherwise the policy judges the text of the path.
    async fn path(
        &self,
        entry: &Entry,
        path: Vec<u8>,
        (call, verb): (&'static str, Verb),
    ) -> OpResult<Target> {
        let (rights, actual) = (self.rights(), entry.actual());
        let judged = rights.depends_on(verb).path;
        if self.caller().is_broker() && rights.is_owner() && !judged {
            // The broker passes the path to the kernel, unless it leads to its own control socket.
            let is_own = match self.broker().control.get().filter(|_| verb != Verb::Bind) {
                Some(control) => {
                    let (caller, path) = (self.caller(), path.clone());
                    let look = unix_file::leads_to_control(caller, call, actual, path, *control);
                    within(entry, look).await?
                }
                None => false,
            };
            if !is_own {
                return Ok(Target::Address(Address::UnixPath(path)));
            }
        }
        if rights.lets_look_up(verb, actual) {
            let search = self.search();
            let file = within(entry, unix_file::look_up(self.caller(), call, actual, path, search));
            let file = file.await?;
            return Ok(Target::File(file));
        }
        let names = vec![path];
        let facts = FileFacts { names, visible: true, as_text: true, ..FileFacts::default() };
        Err(self.refuse_file(verb, actual, &facts))
    }

    fn refuse_file(&self, verb: Verb, socket: SocketSpec, facts: &FileFacts) -> OpError {
        let denial = self.rights().refuse_text(verb, socket, facts);
        self.denied(&denial);
        denial.into()
    }

    fn search(&self) -> Search {
        Search { paths: self.rights().paths(), control: self.broker().control.get().copied() }
    }

    /// `getaddrinfo(3)` in a network namespace. The session remembers the addresses of a name.
    pub(super) async fn look_up(
        &self,
        namespace: &Namespace,
        query: AddressQuery,
    ) -> OpResult<Vec<AddressInfo>> {
        let host = query.host.clone().unwrap_or_default();
        let permit = self.permit_within(namespace, Resolve)?;
        let found = match namespace {
            Namespace::Broker => self.resolver().address_info(permit, query).await?,
            Namespace::Other(_) => {
                let open = |spec| self.for_names(namespace, spec);
                self.names(namespace, &open).address_info(permit, query).await?
            }
        };
        let addresses = found.iter().filter_map(|info| info.address.decode(info.proto));
        self.session().lookups.record(namespace, &host, addresses);
        Ok(found)
    }

    /// Names in another network namespace than the broker's own. `open` is [`Call::for_names`].
    pub(super) fn names<'a>(&'a self, namespace: &'a Namespace, open: &'a Open<'a>) -> Names<'a> {
        Names { resolver: self.resolver(), namespace, folder: &self.broker().name_files, open }
    }

    /// A socket on which a name server is asked. The policy must grant the client such a socket, because an attacker
    /// who controls this process has it.
    pub(super) fn for_names(&self, namespace: &Namespace, spec: SocketSpec) -> OpResult<OwnedFd> {
        let permit = self.permit_within(namespace, Create { socket: spec })?;
        let made =
            other_namespace::create(permit, &Selection::default(), self.caller().privileged())?;
        Ok(made.0)
    }
}

/// Examines a file within the timeout of the socket: a file system may never respond.
async fn within<T>(entry: &Entry, look: impl Future<Output = OpResult<T>>) -> OpResult<T> {
    match entry.timeout() {
        Timeout::After(longest) => {
            tokio::time::timeout(longest, look).await.unwrap_or(Err(OpError::Timeout))
        }
        Timeout::Blocking | Timeout::NonBlocking => look.await,
    }
}

/// Checks that an address has the actual family of the socket, because the kernel reads it in that form even if
/// `fromfd` declared another: `sockaddr_in6` on a packet socket would name an interface.
fn check_family(entry: &Entry, call: &'static str, address: &Address) -> OpResult<()> {
    let own = match &entry.rcvall {
        Some(_) => entry.declared().domain,
        None => entry.actual().domain,
    };
    let fits = match address {
        // In connect it ends the association. Other calls may read it as an address.
        Address::Unspecified => call == "connect",
        Address::Inet { .. } => [libc::AF_INET, libc::AF_INET6, libc::AF_RDS].contains(&own),
        other => i32::from(other.family()) == own,
    };
    if fits { Ok(()) } else { Err(OpError::Os { call, errno: libc::EAFNOSUPPORT }) }
}

/// Decodes an opaque address so that the policy can judge it, if the broker knows its family. The address must
/// have the family of the socket, because some protocols ignore the family field.
fn judgeable(spec: SocketSpec, family: u16, data: Vec<u8>) -> OpResult<Address> {
    if i32::from(family) != spec.domain {
        let text = format!("an address of family {family} on a socket of family {}", spec.domain);
        return Err(OpError::value(text));
    }
    let raw = RawAddress::encode(&Address::Opaque { family, data });
    raw.decode(spec.protocol).ok_or_else(|| OpError::value("the address is empty"))
}

/// Encodes an address of a socket for a result; null if there is none.
pub(super) fn encode_address(entry: &Entry, address: Option<&Address>) -> AddressValue {
    let name = |index| socket_endpoints::name_in_address(entry, index);
    address.map_or(AddressValue::None(()), |address| address.to_value(&name))
}
