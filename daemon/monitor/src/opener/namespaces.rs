//! The network namespaces that a process can reach, and sockets in them.
//!
//! The process keeps none but its own: it looks the others up for each request, and forgets them with the answer.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::namespace::{self, NetworkNamespace};
use sockbroker_sys::socket;

use super::rcvall;
use crate::request::{Network, Unreachable};

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
        Ok(Found { namespace, cookie })
    }

    /// The one with this name, in the first folder that has it.
    pub fn named(&self, name: &str) -> Result<Found<NetworkNamespace>, Unreachable> {
        for folder in &self.folders {
            let found = NetworkNamespace::of_file(&folder.join(name));
            match found.map_err(|error| error.raw_os_error()) {
                Ok(namespace) => {
                    let cookie = self.within(&namespace, namespace::own_cookie)?;
                    return Ok(Found { namespace, cookie });
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
            Ok(_) | Err(_) => Err(Unreachable::Elsewhere),
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

/// A socket in another network namespace than the broker's own, for a broker of one process. To be called in a thread that
/// ends afterwards, or makes nothing else meanwhile.
pub fn open_elsewhere(
    namespaces: &Namespaces,
    network: &Network,
    connection: Option<BorrowedFd<'_>>,
    spec: SocketSpec,
) -> Result<io::Result<OwnedFd>, Unreachable> {
    let found = match (network, connection) {
        (Network::Named(name), _) => namespaces.named(name)?,
        (Network::Caller, Some(connection)) => namespaces.of_connection(connection)?,
        (Network::Broker, _) => return Err(Unreachable::BrokersOwn),
        (Network::Caller, None) => return Err(Unreachable::Failed(libc::ENOTSOCK)),
    };
    if namespaces.home_cookie() == Some(found.cookie) {
        return Err(Unreachable::BrokersOwn);
    }
    namespaces.create(&found, spec)
}

fn failed(error: &io::Error) -> Unreachable {
    Unreachable::Failed(error.raw_os_error().unwrap_or(libc::EINVAL))
}

/// `socket(2)` in the network namespace of the calling thread.
pub(super) fn create_here(spec: SocketSpec) -> io::Result<OwnedFd> {
    if rcvall::serves(spec) {
        return rcvall::open();
    }
    socket::create(spec.domain, spec.ty, spec.protocol)
}
