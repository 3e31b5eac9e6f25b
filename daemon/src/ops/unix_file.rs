//! Files of `AF_UNIX` sockets: identifies them, and finds the names that rules use for them, as the caller.
//!
//! A client opens the file and passes the descriptor. The file that the client means, the file that the policy
//! judges and the file that the kernel uses CANNOT differ. The broker looks up a path in its own view of the file
//! system only for callers that a rule allows to do so.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use sockbroker_monitor::caller::message::{Examined, UnixAnswer, UnixCall};
use sockbroker_proto::address::Address;
use sockbroker_sys::socket;
use sockbroker_sys::unix_file::{self, BoundFile, FileId};

use crate::descriptor::Descriptor;
use crate::error::{OpError, OpResult};
use crate::network::caller_identity::CallerIdentity;
use sockbroker_policy::target::{CarriedDescriptor, FileFacts, FileTarget};
use sockbroker_proto::socket_spec::SocketSpec;

/// The file of the broker's control socket: the file that the socket is bound to, and the file at its path. On some
/// file systems, such as overlayfs, these have different devices.
#[derive(Debug, Clone, Copy)]
pub struct ControlFile {
    bound: Option<BoundFile>,
    seen: Option<FileId>,
}

impl ControlFile {
    /// The file of a listening socket; `None` if it has none. Fails if the file cannot be identified.
    pub fn of(listener: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let bound = unix_file::bound_file(listener);
        let Some(Address::UnixPath(path)) = socket::local_address(listener)?.decode(0) else {
            return Ok(None);
        };
        let seen = fs::metadata(OsStr::from_bytes(&path)).map(|found| id(&found));
        match (bound, seen) {
            (Err(_), Err(error)) => Err(error),
            (bound, seen) => Ok(Some(Self { bound: bound.ok().flatten(), seen: seen.ok() })),
        }
    }

    fn is(self, file: FileId) -> bool {
        self.bound == Some(BoundFile::of(file)) || self.seen == Some(file)
    }
}

/// What a file is compared with.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// The paths of rules.
    pub paths: Vec<String>,
    pub control: Option<ControlFile>,
}

/// A file that a client passed: the file of a socket, or a directory with a name in it.
#[derive(Debug)]
pub struct Passed {
    pub descriptor: Descriptor,
    /// For `bind`: the name in the directory.
    pub name: Option<Vec<u8>>,
    /// For `bind`: the path as the client wrote it.
    pub written: Option<Vec<u8>>,
}

/// Examines a file that a client passed.
pub async fn examine(
    caller: &CallerIdentity,
    call: &'static str,
    socket: SocketSpec,
    passed: Passed,
    search: Search,
) -> OpResult<FileTarget> {
    let Passed { descriptor, name, written } = passed;
    let descriptor: Arc<dyn CarriedDescriptor> = Arc::new(descriptor);
    let examine = UnixCall::Examine { name: name.clone(), paths: search.paths };
    let examined = caller.call_on_files(call, socket, examine, vec![descriptor.clone()]).await?;
    let (UnixAnswer::Examined(examined), _) = examined else { return Err(unexpected(call)) };
    let facts = facts(examined, false, search.control);
    Ok(FileTarget { descriptor, name, written, facts })
}

/// Looks a path up in the broker's view of the file system, with the identity of the caller.
pub async fn look_up(
    caller: &CallerIdentity,
    call: &'static str,
    socket: SocketSpec,
    path: Vec<u8>,
    search: Search,
) -> OpResult<FileTarget> {
    if !path.starts_with(b"/") {
        // The working directory of the broker has no meaning for clients.
        return Err(OpError::Os { call, errno: libc::ENOENT });
    }
    let creates = call == "bind";
    let look_up = UnixCall::LookUp { path: path.clone(), creates, paths: search.paths };
    let found = caller.call_on_files(call, socket, look_up, Vec::new()).await?;
    let (UnixAnswer::LookedUp(examined), mut opened) = found else { return Err(unexpected(call)) };
    let descriptor = Arc::new(opened.pop().ok_or_else(|| unexpected(call))?);
    let facts = facts(examined, true, search.control);
    let name = Path::new(OsStr::from_bytes(&path)).file_name().filter(|_| creates);
    let name = name.map(|name| name.as_bytes().to_vec());
    Ok(FileTarget { descriptor, name, written: creates.then_some(path), facts })
}

/// Whether a path leads to the control socket of this broker.
pub async fn leads_to_control(
    caller: &CallerIdentity,
    call: &'static str,
    socket: SocketSpec,
    path: Vec<u8>,
    control: ControlFile,
) -> OpResult<bool> {
    let identify = UnixCall::Identify { path };
    let found = caller.call_on_files(call, socket, identify, Vec::new()).await?;
    let (UnixAnswer::Identified(found), _) = found else { return Err(unexpected(call)) };
    Ok(found.is_some_and(|found| control.is(found)))
}

fn facts(examined: Examined, as_text: bool, control: Option<ControlFile>) -> Arc<FileFacts> {
    let Examined { file, names, possible, visible } = examined;
    let is_control = control.is_some_and(|control| control.is(file));
    Arc::new(FileFacts { names, possible, visible, as_text, is_control })
}

fn unexpected(call: &str) -> OpError {
    OpError::Plain(format!("{call}: the answer is of another call"))
}

fn id(found: &Metadata) -> FileId {
    (found.dev(), found.ino())
}
