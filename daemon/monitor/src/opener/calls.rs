//! The system calls. Each takes its operands from the permit.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};

use sockbroker_policy::Permit;
use sockbroker_policy::action::{
    AncillaryItem, Bind, Connect, Create, OptionValue, Send, SetHostname, SetOption,
};
use sockbroker_policy::target::Target;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::control::OutgoingControl;
use sockbroker_sys::{host, message, option, socket};

use super::rcvall;

pub(super) fn create(permit: Permit<Create>) -> io::Result<OwnedFd> {
    let Create { socket: spec } = permit.into_request();
    if rcvall::serves(spec) {
        return rcvall::open();
    }
    socket::create(spec.domain, spec.ty, spec.protocol)
}

/// The address, encoded again: bytes that it does not contain do not reach the kernel.
fn encoded(target: &Target) -> io::Result<RawAddress> {
    let address = target.address().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(RawAddress::encode(address))
}

pub(super) fn bind(permit: Permit<Bind>, fd: BorrowedFd<'_>) -> io::Result<()> {
    socket::bind(fd, &encoded(&permit.into_request().target)?)
}

pub(super) fn connect(permit: Permit<Connect>, fd: BorrowedFd<'_>) -> io::Result<()> {
    socket::connect(fd, &encoded(&permit.into_request().target)?)
}

pub(super) fn set_option(permit: Permit<SetOption>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let SetOption { level, name, value, .. } = permit.into_request();
    match value {
        OptionValue::Int(_) => Err(io::ErrorKind::InvalidInput.into()),
        OptionValue::Bytes(bytes) => option::set_bytes(fd, level, name, &bytes),
        OptionValue::Null(length) => option::set_null(fd, level, name, length),
    }
}

pub(super) fn send(permit: Permit<Send>, fd: BorrowedFd<'_>) -> io::Result<usize> {
    let Send { destination, contents, .. } = permit.into_request();
    let destination = destination.as_ref().map(encoded).transpose()?;
    let buffers: Vec<_> = contents.buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
    let item = |item| match item {
        &AncillaryItem::Data { level, kind, ref data } => {
            Some(OutgoingControl::Data { level, kind, data })
        }
        AncillaryItem::Descriptors { .. } => None,
    };
    let control: Vec<_> = contents.ancillary.iter().filter_map(item).collect();
    let flags = contents.flags | libc::MSG_DONTWAIT;
    message::send_message(fd, &buffers, &control, flags, destination.as_ref())
}

pub(super) fn set_hostname(permit: Permit<SetHostname>) -> io::Result<()> {
    host::set_hostname(permit.into_request().name.as_bytes())
}
