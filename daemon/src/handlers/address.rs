//! Addresses between JSON and the kernel: read with the look-ups they need, and spelt.

use sockbroker_proto::address::{Address, AddressValue, FileAddress, Parsed};
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::resolver::AddressInfo;

use crate::error::{OpError, OpResult};
use crate::network::resolve::Question;
use crate::ops::unix_file::{self, Passed, Search};
use crate::rpc::call::Call;
use crate::table::entry::Entry;
use crate::table::socket_endpoints;
use crate::table::timeout::Timeout;
use sockbroker_policy::action::{Interfaces, Resolve};
use sockbroker_policy::target::{FileFacts, Target};
use sockbroker_policy::verb::Verb;

impl Call {
    /// Reads an address for a kind of socket, asking the resolver or the socket where it must; an address
    /// that names an interface needs a socket. Without a name there is no await, so a call keeps its
    /// place among its neighbours.
    pub(super) async fn address(
        &self,
        facts: SocketSpec,
        value: &AddressValue,
        socket: Option<&Entry>,
    ) -> OpResult<Address> {
        match value.read(facts)? {
            Parsed::File(_) => Err(OpError::type_error("a file is no address here")),
            Parsed::Address(Address::Opaque { family, data }) => known(facts, family, data),
            Parsed::Address(address) => Ok(address),
            Parsed::Interface(address) => {
                let permit = self.permit(Interfaces)?;
                let none = || OpError::type_error("an address of a socket is no address here");
                socket_endpoints::interface_address(permit, socket.ok_or_else(none)?, address)
            }
            Parsed::Host(host) => {
                let permit = self.permit(Resolve)?;
                let name = host.host.clone();
                let address = self.resolver().address(permit, host).await?;
                self.session().looked_up(&name, [address.clone()]);
                Ok(address)
            }
        }
    }

    /// Reads what a call names as an end of a socket: an address of the family that the kernel knows the
    /// socket by, or a file of `AF_UNIX`, which is found out about before the policy is asked.
    pub(super) async fn target(
        &self,
        entry: &Entry,
        value: &AddressValue,
        (call, verb): (&'static str, Verb),
    ) -> OpResult<Target> {
        let facts = entry.declared();
        if let AddressValue::File(_) = value
            && let Parsed::File(file) = value.read(facts)?
        {
            return self.passed_file(entry, file, (call, verb)).await;
        }
        let address = self.address(facts, value, Some(entry)).await?;
        check_family(entry, call, &address)?;
        match address {
            Address::UnixPath(path) => self.path(entry, path, (call, verb)).await,
            address => Ok(Target::Address(address)),
        }
    }

    /// A file that came with the frame.
    async fn passed_file(
        &self,
        entry: &Entry,
        file: FileAddress,
        (call, verb): (&'static str, Verb),
    ) -> OpResult<Target> {
        let makes = verb == Verb::Bind;
        if makes != file.name.is_some() {
            let text = if makes {
                "bind takes the descriptor of a folder, and a name"
            } else {
                "the descriptor is the socket's own file, and has no name beside it"
            };
            return Err(OpError::value(text));
        }
        let descriptor = self.take_descriptor(file.descriptor)?;
        let passed = Passed { descriptor, name: file.name, written: file.path };
        let search = self.search();
        let kind = entry.actual();
        let file = within(entry, unix_file::examine(self.caller(), call, kind, passed, search));
        let file = file.await?;
        Ok(Target::File(file))
    }

    /// A path as text: the broker looks it up where a rule lets the caller use the broker's view of the file
    /// system. Elsewhere it is refused by what it says.
    async fn path(
        &self,
        entry: &Entry,
        path: Vec<u8>,
        (call, verb): (&'static str, Verb),
    ) -> OpResult<Target> {
        let (rights, kind) = (self.rights(), entry.actual());
        let looks = rights.looks_at(verb).path;
        if self.caller().is_broker() && rights.is_owner() && !looks {
            // The same as without a broker, but for its own socket.
            let is_own = match self.broker().control.get().filter(|_| verb != Verb::Bind) {
                Some(control) => {
                    let (caller, path) = (self.caller(), path.clone());
                    let look = unix_file::leads_to_control(caller, call, kind, path, *control);
                    within(entry, look).await?
                }
                None => false,
            };
            if !is_own {
                return Ok(Target::Address(Address::UnixPath(path)));
            }
        }
        if rights.lets_look_up(verb, kind) {
            let search = self.search();
            let file = within(entry, unix_file::look_up(self.caller(), call, kind, path, search));
            let file = file.await?;
            return Ok(Target::File(file));
        }
        let names = vec![path];
        let facts = FileFacts { names, visible: true, as_text: true, ..FileFacts::default() };
        let denial = rights.refuse_text(verb, kind, &facts);
        self.denied(&denial);
        Err(denial.into())
    }

    fn search(&self) -> Search {
        Search { paths: self.rights().paths(), control: self.broker().control.get().copied() }
    }

    /// `getaddrinfo(3)`; the session remembers what a name led to.
    pub(super) async fn look_up(&self, question: Question) -> OpResult<Vec<AddressInfo>> {
        let host = question.host.clone().unwrap_or_default();
        let permit = self.permit(Resolve)?;
        let found = self.resolver().address_info(permit, question).await?;
        let addresses = found.iter().filter_map(|info| info.address.decode(info.proto));
        self.session().looked_up(&host, addresses);
        Ok(found)
    }
}

/// What a look at a file gives within the socket's timeout: a file system may never answer.
async fn within<T>(entry: &Entry, look: impl Future<Output = OpResult<T>>) -> OpResult<T> {
    match entry.timeout() {
        Timeout::After(longest) => {
            tokio::time::timeout(longest, look).await.unwrap_or(Err(OpError::Timeout))
        }
        Timeout::Blocking | Timeout::NonBlocking => look.await,
    }
}

/// The kernel reads an address by the socket's own family, whatever the caller of `fromfd` says of the socket:
/// `sockaddr_in6` on a packet socket would name an interface.
fn check_family(entry: &Entry, call: &'static str, address: &Address) -> OpResult<()> {
    let own = match &entry.rcvall {
        Some(_) => entry.declared().domain,
        None => entry.actual().domain,
    };
    let fits = match address {
        // It dissolves an association; elsewhere the kernel takes it for an address, or for none.
        Address::Unspecified => call == "connect",
        Address::Inet { .. } => [libc::AF_INET, libc::AF_INET6, libc::AF_RDS].contains(&own),
        other => i32::from(other.family()) == own,
    };
    if fits { Ok(()) } else { Err(OpError::Os { call, errno: libc::EAFNOSUPPORT }) }
}

/// An opaque address in the form that the policy can judge, if the broker knows its family. It must be
/// of the socket's own family: some protocols ignore what the address says of itself.
fn known(facts: SocketSpec, family: u16, data: Vec<u8>) -> OpResult<Address> {
    if i32::from(family) != facts.domain {
        let text = format!("an address of family {family} on a socket of family {}", facts.domain);
        return Err(OpError::value(text));
    }
    let raw = RawAddress::encode(&Address::Opaque { family, data });
    raw.decode(facts.protocol).ok_or_else(|| OpError::value("an empty address"))
}

/// An address of a socket for a result; `None` where the kernel gave none.
pub(super) fn spell(entry: &Entry, address: Option<&Address>) -> AddressValue {
    let name = |index| socket_endpoints::name_in_address(entry, index);
    address.map_or(AddressValue::None(()), |address| address.to_value(&name))
}
