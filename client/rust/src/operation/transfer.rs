//! Sending and receiving.

use std::os::fd::BorrowedFd;

use serde::Serialize;
use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem};
use sockbroker_proto::api::values::{Received, ReceivedFrom, ReceivedMessage};
#[cfg(feature = "tokio")]
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::handle::Handle;

use super::call::{Call, Operation, json};
use crate::address::Address;
use crate::address::file::PathUse;
use crate::constant::{Flags, Type};
use crate::error::{Error, Result};
use crate::request::{Attachments, Payload, PayloadEncoding, Request};
use crate::values::{Ancillary, Message, OutgoingAncillary, SCM_RIGHTS, SOL_SOCKET};
use crate::wire::response::Response;

/// The most bytes that one call receives, or sends to a stream. The broker's default limits are larger.
pub(crate) const TRANSFER_BYTES_MAX: usize = 1 << 20;

/// The most attachments of a request: the default of the broker's limit `attachments`.
const ATTACHMENTS_MAX: usize = 64;

/// The part of `data` that one call sends: at most [`TRANSFER_BYTES_MAX`] of a stream, all of a datagram.
pub(crate) fn part_to_send(ty: Type, data: &[u8]) -> &[u8] {
    match data.get(..TRANSFER_BYTES_MAX) {
        Some(part) if ty == Type::STREAM => part,
        _ => data,
    }
}

pub(crate) fn send(
    encoding: PayloadEncoding,
    handle: Handle,
    data: &[u8],
    flags: Flags,
) -> impl Operation<Output = usize> {
    let (payload, attachments) = encoding.encode(data);
    let request = Request::new("socket.send", (handle, payload, flags));
    Call::of(request.with_attachments(attachments), json)
}

pub(crate) fn send_all(
    encoding: PayloadEncoding,
    handle: Handle,
    data: &[u8],
) -> impl Operation<Output = ()> {
    let (payload, attachments) = encoding.encode(data);
    let request = Request::new("socket.sendall", (handle, payload));
    Call::of(request.with_attachments(attachments), json)
}

/// Sends to an address. With `opens_files` this process opens the file of a path.
pub(crate) fn send_to(
    encoding: PayloadEncoding,
    handle: Handle,
    data: &[u8],
    flags: Flags,
    address: Address,
    opens_files: bool,
) -> impl Operation<Output = usize> {
    let (payload, attachments) = encoding.encode(data);
    let path_use = opens_files.then_some(PathUse::Connect);
    let (address, file) = address.with_opened_file("sendto", path_use, 0);
    let request = Request::new("socket.sendto", (handle, payload, flags, address));
    Call::of(request.with_attachments(attachments).with_file(file), json)
}

/// The file descriptors of ancillary data, in order.
pub(crate) fn descriptors<'a>(ancillary: &[OutgoingAncillary<'a>]) -> Vec<BorrowedFd<'a>> {
    let of_item = |item: &OutgoingAncillary<'a>| match item {
        OutgoingAncillary::Descriptors(descriptors) => *descriptors,
        OutgoingAncillary::Data { .. } => &[],
    };
    ancillary.iter().flat_map(|item| of_item(item).iter().copied()).collect()
}

/// Sends gathered buffers with ancillary data. `descriptors` are those of [`descriptors`].
pub(crate) fn send_msg<'a>(
    encoding: PayloadEncoding,
    handle: Handle,
    data: &'a [&'a [u8]],
    ancillary: &'a [OutgoingAncillary<'a>],
    descriptors: &'a [BorrowedFd<'a>],
    flags: Flags,
    address: Option<Address>,
    opens_files: bool,
) -> impl Operation<Output = usize> + 'a {
    // What does not fit into the attachments of one frame travels as base64.
    let too_many = data.len() + ancillary.len() > ATTACHMENTS_MAX;
    let encoding = if too_many { PayloadEncoding::Base64 } else { encoding };
    let mut attached = Vec::new();
    let mut payload = |bytes: &'a [u8]| match encoding {
        PayloadEncoding::Base64 => Payload::Base64(bytes),
        PayloadEncoding::Attachments => {
            attached.push(bytes);
            Payload::Attachment(attached.len() - 1)
        }
    };
    let buffers: Vec<_> = data.iter().map(|buffer| payload(buffer)).collect();
    let items: Vec<_> = ancillary.iter().map(|item| item_value(item, &mut payload)).collect();
    let path_use = opens_files.then_some(PathUse::Connect);
    let (address, file) = match address {
        Some(address) => {
            let (address, file) = address.with_opened_file("sendmsg", path_use, descriptors.len());
            (Some(address), file)
        }
        None => (None, None),
    };
    let attachments = match encoding {
        PayloadEncoding::Attachments => Attachments::Many(attached),
        PayloadEncoding::Base64 => Attachments::Refused,
    };
    let request = Request::new("socket.sendmsg", (handle, buffers, items, flags, address))
        .with_attachments(attachments)
        .with_descriptors(descriptors)
        .with_file(file);
    Call::of(request, json)
}

/// An item of ancillary data in the JSON: `[level, type, data]`.
type ItemValue<'a> = (i64, i64, ItemData<'a>);

#[derive(Serialize)]
#[serde(untagged)]
enum ItemData<'a> {
    Descriptors { descriptors: usize },
    Data(Payload<'a>),
}

fn item_value<'a>(
    item: &OutgoingAncillary<'a>,
    payload: &mut impl FnMut(&'a [u8]) -> Payload<'a>,
) -> ItemValue<'a> {
    match *item {
        OutgoingAncillary::Descriptors(descriptors) => {
            (SOL_SOCKET, SCM_RIGHTS, ItemData::Descriptors { descriptors: descriptors.len() })
        }
        OutgoingAncillary::Data { level, ty, data } => {
            (level.into(), ty.into(), ItemData::Data(payload(data)))
        }
    }
}

type ReceiveParams = (Handle, usize, Flags);

/// Receives into `buffer`; how many bytes.
pub(crate) fn recv(
    handle: Handle,
    buffer: &mut [u8],
    flags: Flags,
) -> impl Operation<Output = usize> {
    let params = (handle, buffer.len().min(TRANSFER_BYTES_MAX), flags);
    Receive { request: Request::new("socket.recv", params), buffer }
}

struct Receive<'a> {
    request: Request<'static, ReceiveParams>,
    buffer: &'a mut [u8],
}

impl Operation for Receive<'_> {
    type Params = ReceiveParams;
    type Output = usize;

    fn request(&self) -> &Request<'_, ReceiveParams> {
        &self.request
    }

    fn read(&mut self, response: &mut Response<'_>) -> Result<usize> {
        let received: Received = response.value()?;
        response.copy_bytes(&received.data, self.buffer)?;
        length(received.n)
    }
}

/// Receives into `buffer`; how many bytes, and the address of the sender.
pub(crate) fn recv_from(
    handle: Handle,
    buffer: &mut [u8],
    flags: Flags,
) -> impl Operation<Output = (usize, Address)> {
    let params = (handle, buffer.len().min(TRANSFER_BYTES_MAX), flags);
    ReceiveFrom { request: Request::new("socket.recvfrom", params), buffer }
}

struct ReceiveFrom<'a> {
    request: Request<'static, ReceiveParams>,
    buffer: &'a mut [u8],
}

impl Operation for ReceiveFrom<'_> {
    type Params = ReceiveParams;
    type Output = (usize, Address);

    fn request(&self) -> &Request<'_, ReceiveParams> {
        &self.request
    }

    fn read(&mut self, response: &mut Response<'_>) -> Result<(usize, Address)> {
        let received: ReceivedFrom = response.value()?;
        response.copy_bytes(&received.data, self.buffer)?;
        Ok((length(received.n)?, received.address.into()))
    }
}

/// Receives at most `size` bytes.
#[cfg(feature = "tokio")]
pub(crate) fn recv_vec(handle: Handle, size: usize) -> impl Operation<Output = Vec<u8>> {
    fn read(response: &mut Response<'_>) -> Result<Vec<u8>> {
        let received: Received = response.value()?;
        response.bytes(received.data)
    }
    Call::new("socket.recv", (handle, size.min(TRANSFER_BYTES_MAX), Flags::NONE), read)
}

/// Passes the data of a `recv` or `recvfrom` to a function.
#[cfg(feature = "tokio")]
pub(crate) fn received_data<T>(
    response: &mut Response<'_>,
    take: &mut dyn FnMut(&[u8]) -> T,
) -> Result<T> {
    match response.value::<Received>()?.data {
        Bytes::Inline(data) => Ok(take(&data)),
        Bytes::Attachment(index) => Ok(take(response.attachment(index)?)),
    }
}

/// The sender in the result of a `recvfrom`; no address in that of a `recv`.
#[cfg(feature = "tokio")]
pub(crate) fn received_sender(response: &mut Response<'_>) -> Result<Address> {
    #[derive(serde::Deserialize)]
    struct Sender {
        #[serde(default = "Address::none")]
        address: Address,
    }
    Ok(response.value::<Sender>()?.address)
}

fn length(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_error| Error::protocol("a length beyond the address space"))
}

pub(crate) fn recv_msg(
    handle: Handle,
    size: usize,
    ancillary_size: usize,
    flags: Flags,
) -> impl Operation<Output = Message> {
    let params = (handle, size.min(TRANSFER_BYTES_MAX), ancillary_size, flags);
    Call::new("socket.recvmsg", params, message)
}

fn message(response: &mut Response<'_>) -> Result<Message> {
    let received: ReceivedMessage = response.value()?;
    let own = std::mem::take(&mut response.descriptors);
    let (mut descriptors, lost) = (own.descriptors.into_iter(), own.lost);
    let mut ancillary = Vec::with_capacity(received.ancdata.len());
    for AncillaryItem(level, ty, data) in received.ancdata {
        ancillary.push(match data {
            AncillaryData::Descriptors(announced) => {
                let count = usize::try_from(announced.descriptors).unwrap_or(usize::MAX);
                let item: Vec<_> = descriptors.by_ref().take(count).collect();
                if item.len() < count && !lost {
                    return Err(Error::protocol("descriptors of a message are missing"));
                }
                Ancillary::Descriptors(item)
            }
            AncillaryData::Bytes(bytes) => Ancillary::Data {
                level: i32::try_from(level.0).unwrap_or_default(),
                ty: i32::try_from(ty.0).unwrap_or_default(),
                data: response.bytes(bytes)?,
            },
        });
    }
    Ok(Message {
        data: response.bytes(received.data)?,
        length: length(received.n)?,
        end: received.eof,
        ancillary,
        // As `recvmsg(2)` reports descriptors that this process cannot open.
        flags: Flags::from(received.flags) | if lost { Flags::CTRUNC } else { Flags::default() },
        address: received.address.into(),
    })
}
