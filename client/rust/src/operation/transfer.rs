//! Sending and receiving.

use std::os::fd::BorrowedFd;

use serde::Serialize;
use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem};
use sockbroker_proto::api::values::{Received, ReceivedFrom, ReceivedMessage};
#[cfg(feature = "tokio")]
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::handle::Handle;

use super::nothing;
use crate::address::Address;
use crate::address::file::Purpose;
use crate::constant::{Flags, Type};
use crate::error::{Error, Result};
use crate::message::{Ancillary, Message, OutgoingAncillary, SCM_RIGHTS, SOL_SOCKET};
use crate::request::{Attachments, Call, Payload, PayloadEncoding};
use crate::wire::response::Response;

/// What one call may ask for, or send. The broker's own limits are larger, unless they were lowered.
pub(crate) const MAX_TRANSFER: usize = 1 << 20;

/// The most attachments of a request: the limit `attachments`.
const ATTACHMENTS_MAX: usize = 64;

/// What of some data one call sends: a stream takes as much as it likes, a datagram is sent whole or
/// not at all.
pub(crate) fn piece(kind: Type, data: &[u8]) -> &[u8] {
    match data.get(..MAX_TRANSFER) {
        Some(piece) if kind == Type::STREAM => piece,
        _ => data,
    }
}

/// Sends bytes to the peer.
pub(crate) fn send(
    payload_encoding: PayloadEncoding,
    handle: Handle,
    data: &[u8],
    flags: Flags,
) -> Call<'_, impl Serialize + '_, impl FnMut(&mut Response<'_>) -> Result<usize> + '_> {
    let (payload, parts) = payload_encoding.one(data);
    Call::new("socket.send", (handle, payload, flags), |response| response.value())
        .with_attachments(parts)
}

/// Sends all bytes to the peer.
pub(crate) fn send_all(
    payload_encoding: PayloadEncoding,
    handle: Handle,
    data: &[u8],
) -> Call<'_, impl Serialize + '_, impl FnMut(&mut Response<'_>) -> Result<()> + '_> {
    let (payload, parts) = payload_encoding.one(data);
    Call::new("socket.sendall", (handle, payload), nothing).with_attachments(parts)
}

/// Sends bytes to an address, whose file this process perhaps opens.
pub(crate) fn send_to(
    (payload_encoding, opens): (PayloadEncoding, bool),
    handle: Handle,
    data: &[u8],
    flags: Flags,
    address: Address,
) -> Call<'_, impl Serialize + '_, impl FnMut(&mut Response<'_>) -> Result<usize> + '_> {
    let (payload, parts) = payload_encoding.one(data);
    let (address, file) =
        if opens { address.opened("sendto", Purpose::Reach, 0) } else { (address, None) };
    let params = (handle, payload, flags, address);
    Call::new("socket.sendto", params, |response| response.value())
        .with_attachments(parts)
        .with_file(file)
}

/// Receives into a buffer.
pub(crate) fn recv(
    handle: Handle,
    buffer: &mut [u8],
    flags: Flags,
) -> Call<'_, impl Serialize + '_, impl FnMut(&mut Response<'_>) -> Result<usize> + '_> {
    let params = (handle, buffer.len().min(MAX_TRANSFER), flags);
    Call::new("socket.recv", params, |response| {
        let received: Received = response.value()?;
        response.copy(&received.data, buffer)?;
        length(received.n)
    })
}

/// Receives into a buffer, with the address of the sender.
pub(crate) fn recv_from(
    handle: Handle,
    buffer: &mut [u8],
    flags: Flags,
) -> Call<'_, impl Serialize + '_, impl FnMut(&mut Response<'_>) -> Result<(usize, Address)> + '_> {
    let params = (handle, buffer.len().min(MAX_TRANSFER), flags);
    Call::new("socket.recvfrom", params, |response| {
        let received: ReceivedFrom = response.value()?;
        response.copy(&received.data, buffer)?;
        Ok((length(received.n)?, received.address.into()))
    })
}

/// Gives the data of any kind of receive to a function.
#[cfg(feature = "tokio")]
pub(crate) fn data<T>(response: &mut Response<'_>, take: &mut dyn FnMut(&[u8]) -> T) -> Result<T> {
    match response.value::<Received>()?.data {
        Bytes::Inline(data) => Ok(take(&data)),
        Bytes::Attachment(index) => Ok(take(response.part(index)?)),
    }
}

/// The sender of received data; none if the receive did not ask for it.
#[cfg(feature = "tokio")]
pub(crate) fn sender(response: &mut Response<'_>) -> Result<Address> {
    #[derive(serde::Deserialize)]
    struct From {
        #[serde(default = "Address::none")]
        address: Address,
    }
    Ok(response.value::<From>()?.address)
}

fn length(n: u64) -> Result<usize> {
    usize::try_from(n).map_err(|_error| Error::protocol("a length that no memory has"))
}

/// Receives a message with its ancillary data.
pub(crate) fn recv_msg(
    handle: Handle,
    size: usize,
    ancillary: usize,
    flags: Flags,
) -> Call<'static, impl Serialize, impl FnMut(&mut Response<'_>) -> Result<Message>> {
    Call::new("socket.recvmsg", (handle, size.min(MAX_TRANSFER), ancillary, flags), message)
}

fn message(response: &mut Response<'_>) -> Result<Message> {
    let received: ReceivedMessage = response.value()?;
    let own = std::mem::take(&mut response.descriptors);
    let (mut descriptors, lost) = (own.descriptors.into_iter(), own.lost);
    let mut ancillary = Vec::with_capacity(received.ancdata.len());
    for AncillaryItem(level, kind, data) in received.ancdata {
        ancillary.push(match data {
            AncillaryData::Descriptors(own) => {
                let count = usize::try_from(own.descriptors).unwrap_or(usize::MAX);
                let own: Vec<_> = descriptors.by_ref().take(count).collect();
                if own.len() < count && !lost {
                    return Err(Error::protocol("descriptors of a message are missing"));
                }
                Ancillary::Descriptors(own)
            }
            AncillaryData::Bytes(bytes) => Ancillary::Data {
                level: i32::try_from(level.0).unwrap_or_default(),
                kind: i32::try_from(kind.0).unwrap_or_default(),
                data: response.bytes(bytes)?,
            },
        });
    }
    Ok(Message {
        data: response.bytes(received.data)?,
        length: length(received.n)?,
        end: received.eof,
        ancillary,
        // As natively where this process has no room for what came.
        flags: Flags::from(received.flags) | if lost { Flags::CTRUNC } else { Flags::default() },
        address: received.address.into(),
    })
}

/// The descriptors of ancillary data, in order, as they ride beside the request.
pub(crate) fn descriptors<'a>(ancillary: &[OutgoingAncillary<'a>]) -> Vec<BorrowedFd<'a>> {
    let own = |item: &OutgoingAncillary<'a>| match item {
        OutgoingAncillary::Descriptors(own) => *own,
        OutgoingAncillary::Data { .. } => &[],
    };
    ancillary.iter().flat_map(|item| own(item).iter().copied()).collect()
}

/// Sends gathered bytes with ancillary data; `beside` is what [`descriptors`] gave.
pub(crate) fn send_msg<'a>(
    payload_encoding: PayloadEncoding,
    handle: Handle,
    data: &'a [&'a [u8]],
    ancillary: &'a [OutgoingAncillary<'a>],
    beside: &'a [BorrowedFd<'a>],
    flags: Flags,
    (address, opens): (Option<Address>, bool),
) -> Call<'a, impl Serialize + 'a, impl FnMut(&mut Response<'_>) -> Result<usize> + 'a> {
    // More attachments than a frame may have go as base64.
    let many = data.len() + ancillary.len() > ATTACHMENTS_MAX;
    let payload_encoding = if many { PayloadEncoding::Base64 } else { payload_encoding };
    let mut parts = Vec::new();
    let mut payload = |bytes: &'a [u8]| match payload_encoding {
        PayloadEncoding::Base64 => Payload::Base64(bytes),
        PayloadEncoding::Attachments => {
            parts.push(bytes);
            Payload::Attachment(parts.len() - 1)
        }
    };
    let buffers: Vec<_> = data.iter().map(|part| payload(part)).collect();
    let items: Vec<_> = ancillary.iter().map(|item| item_of(item, &mut payload)).collect();
    let (address, file) = match address {
        Some(address) if opens => {
            let (address, file) = address.opened("sendmsg", Purpose::Reach, beside.len());
            (Some(address), file)
        }
        other => (other, None),
    };
    let params = (handle, buffers, items, flags, address);
    let parts = match payload_encoding {
        PayloadEncoding::Attachments => Attachments::Many(parts),
        PayloadEncoding::Base64 => Attachments::Refused,
    };
    Call::new("socket.sendmsg", params, |response| response.value())
        .with_attachments(parts)
        .with_descriptors(beside)
        .with_file(file)
}

/// An item of ancillary data as it stands in the JSON: `[level, type, data]`.
type Item<'a> = (i64, i64, ItemData<'a>);

#[derive(Serialize)]
#[serde(untagged)]
enum ItemData<'a> {
    Descriptors { descriptors: usize },
    Data(Payload<'a>),
}

fn item_of<'a>(
    item: &OutgoingAncillary<'a>,
    payload: &mut impl FnMut(&'a [u8]) -> Payload<'a>,
) -> Item<'a> {
    match *item {
        OutgoingAncillary::Descriptors(own) => {
            (SOL_SOCKET, SCM_RIGHTS, ItemData::Descriptors { descriptors: own.len() })
        }
        OutgoingAncillary::Data { level, kind, data } => {
            (level.into(), kind.into(), ItemData::Data(payload(data)))
        }
    }
}

/// Filters what is received by a classic BPF program.
pub(crate) fn attach_filter(
    payload_encoding: PayloadEncoding,
    handle: Handle,
    program: &[u8],
) -> Call<'_, impl Serialize + '_, impl FnMut(&mut Response<'_>) -> Result<()> + '_> {
    let (payload, parts) = payload_encoding.one(program);
    Call::new("socket.attach_filter", (handle, payload), nothing).with_attachments(parts)
}
