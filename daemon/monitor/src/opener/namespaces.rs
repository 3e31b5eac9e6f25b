//! The network namespaces that a process can reach, and sockets in them.
//!
//! The process keeps none but its own: it looks the others up for each request, and forgets them with the answer.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::namespace::{self, NetworkNamespace};
use sockbroker_sys::{interface, socket};

use super::rcvall;
use crate::request::{
    INTERFACES_MAX, InterfaceList, InterfaceQuery, SelectedNamespace, Unreachable,
};

/// The network namespaces that this process can reach.
#[derive(Debug)]
pub struct Namespaces {
    /// Its own; `None` before Linux 5.14, where all sockets are taken for sockets of it.
    home: Option<(NetworkNamespace, u64)>,
    /// The folders of those that have names.
    folders: Vec<PathBuf>,
}

/// A network namespace that was looked up, with its cookie.
#[derive(Debug)]
pub struct Found<N> {
    pub namespace: N,
    pub cookie: u64,
    /// The user who owns it, if it was passed ([`NetworkNamespace::owner`]).
    pub owner: Option<u32>,
}

impl Namespaces {
    /// Those of this process, and those in folders. To be called before any thread leaves the namespace of the process.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        let home = NetworkNamespace::own();
        let home = home.and_then(|own| Ok((own, namespace::own_cookie()?)));
        let home = home.inspect_err(
            |error| tracing::debug!(%error, "no other network namespace can be reached"),
        );
        Self { home: home.ok(), folders }
    }

    /// The cookie of the broker's own.
    pub fn home_cookie(&self) -> Option<u64> {
        self.home.as_ref().map(|(_, cookie)| *cookie)
    }

    /// That of the client of a connection.
    pub fn of_connection(
        &self,
        connection: BorrowedFd<'_>,
    ) -> Result<Found<NetworkNamespace>, Unreachable> {
        let cookie = namespace::cookie(connection).map_err(|error| failed(&error))?;
        let namespace = NetworkNamespace::of_socket(connection).map_err(|error| failed(&error))?;
        Ok(Found { namespace, cookie, owner: None })
    }

    /// The one with this name, in the first folder that has it.
    pub fn named(&self, name: &str) -> Result<Found<NetworkNamespace>, Unreachable> {
        for folder in &self.folders {
            let found = NetworkNamespace::of_file(&folder.join(name));
            match found.map_err(|error| error.raw_os_error()) {
                Ok(namespace) => {
                    let cookie = self.within(&namespace, namespace::own_cookie)?;
                    return Ok(Found { namespace, cookie, owner: None });
                }
                Err(Some(libc::ENOENT)) => {}
                Err(Some(libc::EINVAL | libc::ELOOP | libc::EACCES | libc::ENXIO)) => {
                    return Err(Unreachable::OtherFile);
                }
                Err(errno) => return Err(Unreachable::Failed(errno.unwrap_or(libc::EINVAL))),
            }
        }
        Err(Unreachable::NoFile)
    }

    /// The one with this descriptor.
    pub fn passed(&self, fd: BorrowedFd<'_>) -> Result<Found<NetworkNamespace>, Unreachable> {
        let namespace = NetworkNamespace::of_descriptor(fd).map_err(|error| failed(&error))?;
        let owner = namespace.owner().map_err(|error| failed(&error))?;
        let cookie = self.within(&namespace, namespace::own_cookie)?;
        Ok(Found { namespace, cookie, owner })
    }

    /// The interfaces of a namespace.
    pub fn interfaces(
        &self,
        found: &Found<NetworkNamespace>,
        query: &InterfaceQuery,
    ) -> Result<io::Result<InterfaceList>, Unreachable> {
        self.within(&found.namespace, || Ok(interfaces_here(query)))
    }

    /// A socket in a namespace.
    pub fn create(
        &self,
        found: &Found<NetworkNamespace>,
        spec: SocketSpec,
    ) -> Result<io::Result<OwnedFd>, Unreachable> {
        let made = self.within(&found.namespace, || Ok(create_here(spec)))?;
        let Ok(made) = made else { return Ok(made) };
        // The proof that the socket belongs to the namespace that was judged.
        match namespace::cookie(made.as_fd()) {
            Ok(cookie) if cookie == found.cookie => Ok(Ok(made)),
            Ok(_) | Err(_) => Err(Unreachable::AnotherNetwork),
        }
    }

    fn within<T>(
        &self,
        namespace: &NetworkNamespace,
        call: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, Unreachable> {
        let (home, _) = self.home.as_ref().ok_or(Unreachable::Failed(libc::ENOPROTOOPT))?;
        let called = namespace.within(home, call);
        called.and_then(|result| result).map_err(|error| failed(&error))
    }
}

/// A network namespace that a broker of one process looks up: how the client selects it, and what it needs for that.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    pub network: &'a SelectedNamespace,
    pub connection: Option<BorrowedFd<'a>>,
    pub passed: Option<BorrowedFd<'a>>,
}

impl Selected<'_> {
    fn find(self, namespaces: &Namespaces) -> Result<Found<NetworkNamespace>, Unreachable> {
        let found = match (self.network, self.connection, self.passed) {
            (SelectedNamespace::Named(name), ..) => namespaces.named(name)?,
            (SelectedNamespace::Caller, Some(connection), _) => {
                namespaces.of_connection(connection)?
            }
            (SelectedNamespace::Passed, _, Some(passed)) => namespaces.passed(passed)?,
            (SelectedNamespace::Broker, ..) => return Err(Unreachable::BrokersOwn),
            (SelectedNamespace::Caller, None, _) | (SelectedNamespace::Passed, _, None) => {
                return Err(Unreachable::Failed(libc::ENOTSOCK));
            }
        };
        if namespaces.home_cookie() == Some(found.cookie) {
            return Err(Unreachable::BrokersOwn);
        }
        Ok(found)
    }
}

/// A socket in another network namespace than the broker's own, for a broker of one process. To be called in a thread that
/// ends afterwards, or makes nothing else meanwhile.
pub fn open_in(
    namespaces: &Namespaces,
    selected: Selected<'_>,
    spec: SocketSpec,
) -> Result<io::Result<OwnedFd>, Unreachable> {
    namespaces.create(&selected.find(namespaces)?, spec)
}

/// Interfaces of another network namespace, for a broker of one process.
pub fn interfaces_in(
    namespaces: &Namespaces,
    selected: Selected<'_>,
    query: &InterfaceQuery,
) -> Result<io::Result<InterfaceList>, Unreachable> {
    namespaces.interfaces(&selected.find(namespaces)?, query)
}

fn failed(error: &io::Error) -> Unreachable {
    match error.raw_os_error() {
        Some(libc::EPERM) if !can_enter_networks() => Unreachable::Incapable,
        errno => Unreachable::Failed(errno.unwrap_or(libc::EINVAL)),
    }
}

/// The capabilities that it takes to find and enter other network namespaces: `setns(2)`, and `sock_ioctl()` for
/// `SIOCGSKNS`.
pub const TO_ENTER_NETWORKS: [Capability; 2] = [Capability::SysAdmin, Capability::NetAdmin];

/// Whether this process has the capabilities to enter other network namespaces, if the kernel permits it there.
pub fn can_enter_networks() -> bool {
    TO_ENTER_NETWORKS.into_iter().all(|one| capability::has(one).unwrap_or(false))
}

/// `socket(2)` in the network namespace of the calling thread.
pub(super) fn create_here(spec: SocketSpec) -> io::Result<OwnedFd> {
    if rcvall::serves(spec) {
        return rcvall::open();
    }
    socket::create(spec.domain, spec.ty, spec.protocol)
}

/// Interfaces of the network namespace of the calling thread. They are not listed by netlink, for whose requests the kernel
/// could wait for its lock on the network configuration.
fn interfaces_here(query: &InterfaceQuery) -> io::Result<InterfaceList> {
    match query {
        InterfaceQuery::All => at_most(INTERFACES_MAX, interface::of_thread()?),
        InterfaceQuery::Name(name) => Ok(vec![(interface::index_of(name)?, name.clone())]),
        InterfaceQuery::Index(index) => Ok(vec![(*index, interface::name_of(*index)?)]),
    }
}

fn at_most<T>(most: usize, list: Vec<T>) -> io::Result<Vec<T>> {
    if list.len() <= most { Ok(list) } else { Err(io::Error::from_raw_os_error(libc::E2BIG)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_interfaces_has_an_end() {
        assert_eq!(at_most(2, vec![1, 2]).unwrap(), [1, 2]);
        assert_eq!(at_most(2, vec![1, 2, 3]).unwrap_err().raw_os_error(), Some(libc::E2BIG));
    }

    #[test]
    fn the_longest_list_of_interfaces_fits_into_a_record() {
        let longest = vec![(u32::MAX, "x".repeat(15)); INTERFACES_MAX];
        let answer = crate::request::Answer::Interfaces(longest);
        let bytes = postcard::to_stdvec(&answer).unwrap();
        assert!(bytes.len() <= sockbroker_sys::record::LENGTH_MAX, "{}", bytes.len());
    }

    #[test]
    fn interfaces_are_found_by_name_and_index() {
        let all = interfaces_here(&InterfaceQuery::All).unwrap();
        assert_eq!(all, interface::list().unwrap());
        let lo = interfaces_here(&InterfaceQuery::Name("lo".to_owned())).unwrap();
        assert_eq!(interfaces_here(&InterfaceQuery::Index(lo[0].0)).unwrap(), lo);
        assert!(interfaces_here(&InterfaceQuery::Index(u32::MAX)).is_err());
    }
}
