//! Makes one call with the ids of the calling thread.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::control::OutgoingControl;
use sockbroker_sys::{message, process, socket, unix_file};

use super::files;
use super::message::{Bytes, ControlItem, Data, Destination, Outgoing, UnixAnswer, UnixCall};

/// What a call returned, and the descriptors of the answer.
type Returned = (UnixAnswer, Vec<OwnedFd>);

/// Makes a call with the effective ids of this thread. It can change the working directory of the thread, and wait for a
/// file system. `InvalidInput` if the descriptors are not those of the call, or if the call has its data in shared memory.
pub fn perform(call: &UnixCall, descriptors: &[BorrowedFd<'_>]) -> io::Result<Returned> {
    let fd = |index: usize| descriptors.get(index).copied().ok_or(io::ErrorKind::InvalidInput);
    let done = |()| (UnixAnswer::Done, Vec::new());
    match call {
        &UnixCall::Pair { domain, ty, protocol } => {
            let (first, second) = socket::pair(domain, ty, protocol)?;
            Ok((UnixAnswer::Pair, vec![first, second]))
        }
        UnixCall::Bind { address } => socket::bind(fd(0)?, &raw(address)?).map(done),
        UnixCall::BindFile { name, written } => {
            let stored = unix_file::bind(fd(0)?, fd(1)?, name, written.as_deref())?;
            Ok((UnixAnswer::Bound(stored), Vec::new()))
        }
        UnixCall::Connect { address } => socket::connect(fd(0)?, &raw(address)?).map(done),
        UnixCall::ConnectFile => socket::connect(fd(0)?, &unix_file::address_of(fd(1)?)).map(done),
        UnixCall::Listen { backlog } => socket::listen(fd(0)?, *backlog).map(done),
        UnixCall::Send(outgoing, Data::Inside(Bytes(data))) => {
            Ok((send(outgoing, data, descriptors)?, Vec::new()))
        }
        UnixCall::Send(_, Data::Shared { .. }) => Err(io::ErrorKind::InvalidInput.into()),
        UnixCall::Examine { name, paths } => {
            let examined = files::examine(fd(0)?, name.as_deref(), paths)?;
            Ok((UnixAnswer::Examined(examined), Vec::new()))
        }
        UnixCall::LookUp { path, creates, paths } => look_up(path, *creates, paths),
        UnixCall::Identify { path } => {
            let found = fs::metadata(OsStr::from_bytes(path)).ok();
            Ok((UnixAnswer::Identified(found.map(|found| files::id(&found))), Vec::new()))
        }
    }
}

fn raw(address: &[u8]) -> io::Result<RawAddress> {
    RawAddress::from_bytes(address).ok_or(io::ErrorKind::InvalidInput.into())
}

/// Sends a message with the ids of this thread (`SCM_CREDENTIALS`): the receiver sees them also if it asks for them only
/// after the message was sent. They replace credentials from the client, which were checked to be its own. The process
/// id is that of this process: the client's id may belong to another process when the message is read.
pub(super) fn send(
    outgoing: &Outgoing,
    data: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<UnixAnswer> {
    let (&fd, mut others) = descriptors.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let address = match &outgoing.destination {
        Destination::Peer => None,
        Destination::Address(address) => Some(raw(address)?),
        Destination::File => {
            let (file, rest) = others.split_first().ok_or(io::ErrorKind::InvalidInput)?;
            others = rest;
            Some(unix_file::address_of(*file))
        }
    };
    let ids = [std::process::id(), process::effective_uid(), process::effective_gid()];
    let ids = ids.map(u32::to_ne_bytes).concat();
    let (level, kind) = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
    let mut control = vec![OutgoingControl::Data { level, kind, data: &ids }];
    for item in &outgoing.control {
        match item {
            ControlItem::Data { level: libc::SOL_SOCKET, kind: libc::SCM_CREDENTIALS, .. } => {}
            &ControlItem::Data { level, kind, ref data } => {
                control.push(OutgoingControl::Data { level, kind, data });
            }
            ControlItem::Descriptors { count, rest } => {
                let (descriptors, left) = others
                    .split_at_checked(usize::from(*count))
                    .ok_or(io::ErrorKind::InvalidInput)?;
                others = left;
                control.push(OutgoingControl::Descriptors { descriptors, rest });
            }
        }
    }
    let flags = outgoing.flags | libc::MSG_DONTWAIT;
    let sent = message::send_message(fd, &[IoSlice::new(data)], &control, flags, address.as_ref())?;
    Ok(UnixAnswer::Sent(sent as u64))
}

fn look_up(path: &[u8], creates: bool, paths: &[String]) -> io::Result<Returned> {
    let (descriptor, name) = if creates {
        let whole = Path::new(OsStr::from_bytes(path));
        let (Some(folder), Some(name)) = (whole.parent(), whole.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        };
        let folder = unix_file::open_directory(folder.as_os_str().as_bytes())?;
        (folder, Some(name.as_bytes()))
    } else {
        (unix_file::open(path)?, None)
    };
    let examined = files::examine(descriptor.as_fd(), name, paths)?;
    Ok((UnixAnswer::LookedUp(examined), vec![descriptor]))
}
