//! Encodes messages for the kernel: data, ancillary data, destination.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::control::OutgoingControl;
use sockbroker_sys::message::{self, OutgoingMessage};
use sockbroker_sys::unix_file;

use sockbroker_policy::action::{AncillaryItem, MessageContents};
use sockbroker_policy::target::{CarriedDescriptor, Target};

/// The destination of a call. The descriptor of a file of `AF_UNIX` stays open as long as this value.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    Address(RawAddress),
    File(Arc<dyn CarriedDescriptor>),
}

impl Destination {
    pub(super) fn of(target: &Target) -> Self {
        match target {
            Target::Address(address) => Self::Address(RawAddress::encode(address)),
            Target::File(file) => Self::File(file.descriptor.clone()),
        }
    }

    /// The address in the encoding of the kernel.
    pub(super) fn raw(&self) -> RawAddress {
        match self {
            Self::Address(raw) => *raw,
            Self::File(file) => unix_file::address_of(file.as_fd()),
        }
    }
}

/// A message and its destination. Without a destination it goes to the peer.
pub(super) type Addressed = (Option<Destination>, MessageContents);

/// `sendmsg(2)` with `MSG_DONTWAIT`.
pub(super) fn transmit(fd: BorrowedFd<'_>, (address, contents): &Addressed) -> io::Result<usize> {
    let slices = contents.buffers.iter().map(|buffer| IoSlice::new(buffer)).collect::<Vec<_>>();
    let borrowed = borrow(&contents.ancillary);
    let control = as_control(&contents.ancillary, &borrowed);
    let flags = contents.flags | libc::MSG_DONTWAIT;
    let address = address.as_ref().map(Destination::raw);
    message::send_message(fd, &slices, &control, flags, address.as_ref())
}

/// `sendmmsg(2)`. Returns the number of bytes that were sent of each message.
pub(super) fn submit(
    fd: BorrowedFd<'_>,
    messages: &[Addressed],
    flags: i32,
) -> io::Result<Vec<usize>> {
    let slices: Vec<Vec<IoSlice<'_>>> = messages
        .iter()
        .map(|(_, contents)| contents.buffers.iter().map(|buffer| IoSlice::new(buffer)).collect())
        .collect();
    let borrowed: Vec<_> =
        messages.iter().map(|(_, contents)| borrow(&contents.ancillary)).collect();
    let control: Vec<_> = messages
        .iter()
        .zip(&borrowed)
        .map(|((_, contents), borrowed)| as_control(&contents.ancillary, borrowed))
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

fn borrow(control: &[AncillaryItem]) -> Vec<Vec<BorrowedFd<'_>>> {
    control
        .iter()
        .map(|item| match item {
            AncillaryItem::Data { .. } => Vec::new(),
            AncillaryItem::Descriptors { descriptors, .. } => {
                descriptors.iter().map(AsFd::as_fd).collect()
            }
        })
        .collect()
}

fn as_control<'a>(
    control: &'a [AncillaryItem],
    borrowed: &'a [Vec<BorrowedFd<'a>>],
) -> Vec<OutgoingControl<'a>> {
    control
        .iter()
        .zip(borrowed)
        .map(|(item, borrowed)| match item {
            AncillaryItem::Data { level, kind, data } => {
                OutgoingControl::Data { level: *level, kind: *kind, data }
            }
            AncillaryItem::Descriptors { rest, .. } => {
                OutgoingControl::Descriptors { descriptors: borrowed, rest }
            }
        })
        .collect()
}
