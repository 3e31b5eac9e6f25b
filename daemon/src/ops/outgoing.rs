//! Encodes messages for the kernel: data, ancillary data, destination.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use sockbroker_sys::address::RawAddress;
use sockbroker_sys::control::OutgoingControl;
use sockbroker_sys::message::{self, OutgoingMessage};
use sockbroker_sys::unix_file;

use crate::network::opener::{Done, Privileged};
use crate::table::permitted::Socket;
use sockbroker_monitor::request::{Control, Request};
use sockbroker_policy::action::{AncillaryItem, MessageContents, Send};
use sockbroker_policy::ancillary::class_of_ancillary;
use sockbroker_policy::netlink::MessageClass;
use sockbroker_policy::option::OptionClass;
use sockbroker_policy::target::{CarriedDescriptor, Target};
use sockbroker_proto::socket_spec::SocketSpec;

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

/// Whether the kernel accepts a message only from a process with a capability: netlink messages that change
/// something, which the kernel refuses by an answer.
pub(super) fn needs_opener(request: &Send) -> bool {
    request.messages.iter().any(|class| *class != MessageClass::Get)
}

/// Whether the kernel can refuse a message for lack of a capability.
pub(super) fn can_be_refused(actual: SocketSpec, contents: &MessageContents) -> bool {
    let classes = contents.ancillary.iter().map(|item| {
        let (level, kind, data) = item.judged();
        class_of_ancillary(level, kind, data)
    });
    let privileged = [OptionClass::Mark, OptionClass::Scheduling, OptionClass::Routing];
    match actual.domain {
        libc::AF_BLUETOOTH => actual.ty == libc::SOCK_RAW,
        // Messages of AF_UNIX are sent with the identity of the caller.
        libc::AF_UNIX => false,
        _ => classes.into_iter().any(|class| privileged.contains(&class)),
    }
}

/// [`transmit`], by the opener if the message needs a capability.
pub(super) fn transmit_privileged(
    socket: &Socket,
    message: &Addressed,
    privileged: &Privileged,
    needs_opener: bool,
) -> io::Result<usize> {
    let refused = if needs_opener && !privileged.is_direct() {
        None
    } else {
        match transmit(socket.fd(), message) {
            Err(error) if is_refusal(&error) && !privileged.is_direct() => Some(error),
            result => return result,
        }
    };
    sent_by_opener(privileged.ask(as_request(message)?, Some(socket)), refused)
}

/// Sends a message by the opener, for which it can take long.
pub(super) async fn by_opener(
    socket: &Socket,
    message: &Addressed,
    privileged: &Privileged,
) -> io::Result<usize> {
    let request = as_request(message)?;
    sent_by_opener(privileged.ask_slow(request, socket.clone()).await, None)
}

/// The result of a send by the opener. `refused` is how the kernel refused it to this process.
fn sent_by_opener(
    asked: Option<io::Result<Done>>,
    refused: Option<io::Error>,
) -> io::Result<usize> {
    match asked {
        Some(Ok(Done::Sent(sent))) => Ok(sent),
        Some(Ok(Done::Nothing | Done::Socket(_))) => Err(io::ErrorKind::InvalidData.into()),
        Some(Err(error)) => Err(error),
        None => Err(refused.unwrap_or_else(|| io::Error::from_raw_os_error(libc::EPERM))),
    }
}

/// Unknown options of IP are refused with `EINVAL` (`__ip_options_compile`).
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL))
}

fn as_request((address, contents): &Addressed) -> io::Result<Request> {
    let too_long = || io::Error::from_raw_os_error(libc::EMSGSIZE);
    let item = |item: &AncillaryItem| match item {
        AncillaryItem::Data { level, kind, data } => {
            Ok(Control { level: *level, kind: *kind, data: data.clone() })
        }
        // Only messages of AF_UNIX carry descriptors.
        AncillaryItem::Descriptors { .. } => Err(io::Error::from_raw_os_error(libc::EPERM)),
    };
    let control: Vec<_> = contents.ancillary.iter().map(item).collect::<io::Result<_>>()?;
    let destination = address.as_ref().map(|address| address.raw().as_bytes().to_vec());
    let (flags, data) = (contents.flags, contents.buffers.concat());
    let request = Request::Send { destination, flags, control, data };
    if request.is_within_limits() { Ok(request) } else { Err(too_long()) }
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
