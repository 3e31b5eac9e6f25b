//! Why a network namespace cannot be used.

use std::fmt;
use std::path::PathBuf;

use sockbroker_monitor::request::Unreachable;

/// Why a network namespace cannot be used for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It cannot be found or entered.
    Unreachable(Unreachable),
    /// Sockets of this family are not made in other namespaces.
    Family,
    /// The opener refuses it, with this error number of a denial.
    Refused(i32),
    /// It is unknown in which namespace the client is.
    UnknownClient,
    /// The client has closed its connection.
    HungUp,
    /// The descriptor that the client passed is another file.
    NotPassed,
    /// No files configure the resolution of names there.
    HostName,
    /// Its `resolv.conf`, which would be this file, names no server or does not exist.
    NoServers(PathBuf),
    /// This file of it cannot be read, with this error number.
    Files(PathBuf, i32),
}

impl Reason {
    /// The error number, as the kernel would give it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Unreachable(Unreachable::NoFile) => libc::ENOENT,
            Self::Unreachable(Unreachable::OtherFile | Unreachable::BrokersOwn)
            | Self::NotPassed => libc::EINVAL,
            Self::Unreachable(Unreachable::Failed(errno))
            | Self::Refused(errno)
            | Self::Files(_, errno) => *errno,
            Self::Unreachable(Unreachable::AnotherNetwork) => libc::ESTALE,
            Self::Unreachable(Unreachable::NotOwned | Unreachable::Incapable) => libc::EPERM,
            Self::Family => libc::EAFNOSUPPORT,
            Self::UnknownClient | Self::HostName | Self::NoServers(_) => libc::EOPNOTSUPP,
            Self::HungUp => libc::ECONNRESET,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Unreachable(Unreachable::NoFile) => {
                "there is no file with this name: see `ip netns list`, and folders of [namespaces] in sockbrokerd.toml"
            }
            Self::Unreachable(Unreachable::OtherFile) => {
                "the file with this name is not a network namespace: make one with `ip netns add`"
            }
            Self::Unreachable(Unreachable::BrokersOwn) => {
                "it is the network namespace of the broker: leave netns out"
            }
            Self::Unreachable(Unreachable::Failed(libc::EPERM)) => {
                "the kernel does not let the broker enter it: its user namespace is not below that of the broker"
            }
            Self::Unreachable(Unreachable::Failed(errno)) => {
                let error = std::io::Error::from_raw_os_error(*errno);
                return write!(f, "the broker cannot enter it: {error}");
            }
            Self::Unreachable(Unreachable::AnotherNetwork) => {
                "the new socket belongs to another one, and was closed: try again"
            }
            Self::Unreachable(Unreachable::NotOwned) => {
                "it does not belong to a user namespace that this user made: `unshare --user --net` makes such a pair; \
                 \"caller\" selects the namespace in which you connected"
            }
            Self::NotPassed => {
                "the descriptor is another file: pass one of /proc/PID/ns/net, or of a file on which a network namespace is mounted"
            }
            Self::Unreachable(Unreachable::Incapable) => {
                "the broker lacks CAP_SYS_ADMIN or CAP_NET_ADMIN: it keeps them if it starts with both and with a rule \
                 that has netns, as with the role netns of the package"
            }
            Self::Family => {
                "sockets of this family are only made in that of the broker: leave netns out"
            }
            Self::Refused(_) => {
                "the policy of the opener does not allow it: a rule that denies has this namespace, or the policy was just \
                 replaced"
            }
            Self::UnknownClient => {
                "that of the client is unknown: connect by a Unix socket, on Linux 5.14 or later"
            }
            Self::HungUp => "the client has closed its connection",
            Self::HostName => {
                "the broker does not know its name servers: resolve the host name in the client, and use an address"
            }
            Self::Files(path, errno) => {
                let error = std::io::Error::from_raw_os_error(*errno);
                return write!(f, "{} cannot be read: {error}", path.display());
            }
            Self::NoServers(path) => {
                let path = path.display();
                return write!(
                    f,
                    "there is no name server in {path}: write it (ip-netns(8)), or use an address"
                );
            }
        };
        f.write_str(text)
    }
}
