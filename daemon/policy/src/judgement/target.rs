//! The ends of connections and messages: those that a call names, and those that the broker knows.

use std::fmt::Debug;
use std::os::fd::AsFd;
use std::sync::Arc;

use sockbroker_proto::address::Address;

/// A descriptor that a request carries to its operation. What is behind it decides how it is closed.
pub trait CarriedDescriptor: AsFd + Debug + Send + Sync {}

impl<T: AsFd + Debug + Send + Sync> CarriedDescriptor for T {}

/// The address that a call passes to the kernel.
#[derive(Debug, Clone)]
pub enum Target {
    /// An address that means the same to every process.
    Address(Address),
    /// A file of an `AF_UNIX` socket.
    File(FileTarget),
}

/// A file of an `AF_UNIX` socket, opened with `O_PATH`. The kernel acts on what is open here, so no
/// symbolic link, `..` or mount can lead it anywhere but to the file that was judged.
#[derive(Debug, Clone)]
pub struct FileTarget {
    /// The socket's file; for `bind` the folder.
    pub descriptor: Arc<dyn CarriedDescriptor>,
    /// For `bind`: the name in the folder.
    pub name: Option<Vec<u8>>,
    /// For `bind`: the path as the program wrote it, which `getsockname` shows.
    pub written: Option<Vec<u8>>,
    /// What rules judge.
    pub facts: Arc<FileFacts>,
}

/// What the broker found out about a file of an `AF_UNIX` socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Its absolute names: the canonical one first, then those by which rules name the same file.
    pub names: Vec<Vec<u8>>,
    /// Paths of rules that it could lie below, which the broker's view of the file system cannot exclude.
    pub possible: Vec<String>,
    /// Whether the broker finds this very file by the canonical name. Where it does not, the caller sees
    /// another file system, and no `allow` with `path` matches.
    pub visible: bool,
    /// Whether the call passed a path as text, which the broker resolved.
    pub as_text: bool,
    /// Whether it is a control socket of this broker.
    pub is_control: bool,
}

/// The name of one end of a socket, as far as the broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketName {
    /// An address, as the kernel or a message gives it.
    Address(Address),
    /// A file that a call of this broker bound or connected to.
    File(Arc<FileFacts>),
    /// There is one, and it is unknown: a `deny` that depends on it matches.
    Unknown,
}

impl SocketName {
    /// The address, if it is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Address(address) => Some(address),
            Self::File(_) | Self::Unknown => None,
        }
    }

    /// The same, by value.
    pub fn into_address(self) -> Option<Address> {
        match self {
            Self::Address(address) => Some(address),
            Self::File(_) | Self::Unknown => None,
        }
    }
}

impl Target {
    /// The same as the name of an end.
    pub fn name(&self) -> SocketName {
        match self {
            Self::Address(address) => SocketName::Address(address.clone()),
            Self::File(file) => SocketName::File(file.facts.clone()),
        }
    }

    /// The address, if it is one.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Address(address) => Some(address),
            Self::File(_) => None,
        }
    }
}
