//! Messages on their way to the kernel: data, ancillary data, destination.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::control::OutgoingControl;
use sockbroker_sys::message::{self, OutgoingMessage};
use sockbroker_sys::unix_file;

use sockbroker_policy::target::Target;

/// An item of ancillary data to be sent.
#[derive(Debug)]
pub enum Control {
    /// Raw bytes of any level and type but `SCM_RIGHTS`.
    Data {
        /// `cmsg_level`.
        level: i32,
        /// `cmsg_type`.
        kind: i32,
        /// `cmsg_data`.
        data: Vec<u8>,
    },
    /// `SCM_RIGHTS`.
    Descriptors {
        /// What to pass on; the broker's copies close when the call ends.
        descriptors: Vec<OwnedFd>,
        /// Odd trailing bytes, as the client gave them.
        rest: Vec<u8>,
    },
}

/// One message with everything that goes with it.
#[derive(Debug)]
pub struct Outgoing {
    /// The data, gathered.
    pub buffers: Vec<bytes::Bytes>,
    /// Ancillary data.
    pub control: Vec<Control>,
    /// `MSG_*`.
    pub flags: i32,
}

/// Where a call leads, in the kernel's form. A file of `AF_UNIX` stays open for as long as this lives.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    Address(RawAddress),
    File(Arc<OwnedFd>),
}

impl Destination {
    /// That of a judged target.
    pub(super) fn of(target: &Target) -> Self {
        match target {
            Target::Address(address) => Self::Address(RawAddress::encode(address)),
            Target::File(file) => Self::File(file.descriptor.clone()),
        }
    }

    /// The kernel's bytes.
    pub(super) fn raw(&self) -> RawAddress {
        match self {
            Self::Address(raw) => *raw,
            Self::File(file) => unix_file::address_of(file.as_fd()),
        }
    }
}

/// A message and where it goes; nowhere is to the peer.
pub(super) type Addressed = (Option<Destination>, Outgoing);

/// `sendmsg(2)`, which does not wait.
pub(super) fn transmit(fd: BorrowedFd<'_>, (address, outgoing): &Addressed) -> io::Result<usize> {
    let slices = outgoing.buffers.iter().map(|buffer| IoSlice::new(buffer)).collect::<Vec<_>>();
    let borrowed = borrow(&outgoing.control);
    let control = as_control(&outgoing.control, &borrowed);
    let flags = outgoing.flags | libc::MSG_DONTWAIT;
    let address = address.as_ref().map(Destination::raw);
    message::send_message(fd, &slices, &control, flags, address.as_ref())
}

/// `sendmmsg(2)`: the bytes sent of each message.
pub(super) fn submit(
    fd: BorrowedFd<'_>,
    messages: &[Addressed],
    flags: i32,
) -> io::Result<Vec<usize>> {
    let slices: Vec<Vec<IoSlice<'_>>> = messages
        .iter()
        .map(|(_, outgoing)| outgoing.buffers.iter().map(|buffer| IoSlice::new(buffer)).collect())
        .collect();
    let borrowed: Vec<_> = messages.iter().map(|(_, outgoing)| borrow(&outgoing.control)).collect();
    let control: Vec<_> = messages
        .iter()
        .zip(&borrowed)
        .map(|((_, outgoing), borrowed)| as_control(&outgoing.control, borrowed))
        .collect();
    let addresses: Vec<_> =
        messages.iter().map(|(address, _)| address.as_ref().map(Destination::raw)).collect();
    let batch: Vec<_> = addresses
        .iter()
        .zip(slices.iter().zip(&control))
        .map(|(address, (buffers, control))| OutgoingMessage {
            buffers,
            control,
            address: address.as_ref(),
        })
        .collect();
    message::send_batch(fd, &batch, flags)
}

fn borrow(control: &[Control]) -> Vec<Vec<BorrowedFd<'_>>> {
    control
        .iter()
        .map(|item| match item {
            Control::Data { .. } => Vec::new(),
            Control::Descriptors { descriptors, .. } => {
                descriptors.iter().map(AsFd::as_fd).collect()
            }
        })
        .collect()
}

fn as_control<'a>(
    control: &'a [Control],
    borrowed: &'a [Vec<BorrowedFd<'a>>],
) -> Vec<OutgoingControl<'a>> {
    control
        .iter()
        .zip(borrowed)
        .map(|(item, borrowed)| match item {
            Control::Data { level, kind, data } => {
                OutgoingControl::Data { level: *level, kind: *kind, data }
            }
            Control::Descriptors { rest, .. } => {
                OutgoingControl::Descriptors { descriptors: borrowed, rest }
            }
        })
        .collect()
}
