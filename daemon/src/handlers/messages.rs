//! `proto::api::batch`, and the code that `recvmsg` and `sendmsg` share with it.

use std::sync::Arc;

use sockbroker_proto::address::{Address, AddressValue};
use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem, Descriptors};
use sockbroker_proto::api::batch::{
    BatchServer, OutgoingMessage, RecvmmsgParams, SendmmsgParams, SentMessage,
};
use sockbroker_proto::api::values::ReceivedMessage;
use sockbroker_proto::bytes::{Bytes, decode_base64, encode_base64};
use sockbroker_proto::constant::Constant;
use sockbroker_proto::handle::Handle;
use sockbroker_sys::control::{ControlMessage, carries_pointer_or_descriptor};
use sockbroker_sys::message;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::address::encode_address;
use crate::handlers::contents::{Payload, Sizes};
use crate::handlers::parameters::{int, int_or};
use crate::ops::rcvall;
use crate::ops::receive::{self, is_end};
use crate::ops::send::{self, MAX_BUFFERS};
use crate::rpc::call::Call;
use crate::rpc::error;
use crate::table::call_queue::Ticket;
use crate::table::entry::Entry;
use crate::table::permitted::Permitted;
use sockbroker_policy::action::{AncillaryItem as SentItem, MessageContents, Receive, Send};
use sockbroker_policy::target::CarriedDescriptor;
use sockbroker_policy::verb::Verb;

impl BatchServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn recvmmsg(call: Call, params: RecvmmsgParams) -> OpResult<Vec<ReceivedMessage>> {
        let RecvmmsgParams { handle, vlen, bufsize, ancbufsize, flags } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.receiving.join(call.connection().number());
        let sizes = sizes(&call, bufsize, ancbufsize, flags)?;
        let count = batch_size(&call, vlen)?;
        let total = sizes.length.saturating_mul(count) as u64;
        let control = sizes.ancillary.saturating_mul(count) as u64;
        let limits = &call.broker().limits;
        OpError::within("receive_bytes", total, limits.receive_bytes)?;
        OpError::within("ancillary_bytes", control, limits.ancillary_bytes)?;
        call.settle(&entry, &ticket, Verb::Receive).await;
        let permitted = call.permit_receive(&entry, sizes)?;
        let sender_check = call.sender_check(&entry);
        let batch =
            receive::receive_batch(&permitted, ticket, count, sender_check.as_deref()).await?;
        let encoded = batch.into_iter().map(|message| encode_message(&call, &permitted, message));
        Ok(encoded.collect())
    }

    async fn sendmmsg(call: Call, params: SendmmsgParams) -> OpResult<Vec<SentMessage>> {
        let SendmmsgParams { handle, messages, flags } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let flags = int_or(flags, 0)?;
        batch_size(&call, i64::try_from(messages.len()).unwrap_or(i64::MAX))?;
        let mut prepared = Vec::with_capacity(messages.len());
        for OutgoingMessage { buffers, ancdata, address } in messages {
            let parts = Parts { buffers, ancdata, address };
            prepared.push(prepare(&call, &entry, &ticket, parts, flags).await?);
        }
        let sending = send::send_batch(prepared, call.sender(), ticket);
        let (sent, failure) = sending.await?;
        let mut results: Vec<_> =
            sent.into_iter().map(|n| SentMessage::Sent { n: n as u64 }).collect();
        results.extend(
            failure.map(|failure| SentMessage::Failed { error: Box::new(error::data(failure)) }),
        );
        Ok(results)
    }
}

fn batch_size(call: &Call, count: i64) -> OpResult<usize> {
    let limit = call.broker().limits.batch_messages;
    match usize::try_from(count) {
        Ok(0) | Err(_) => Err(OpError::value("a batch has at least one message")),
        Ok(count) if count as u64 > limit => {
            Err(OpError::Limit { name: "batch_messages", value: limit })
        }
        Ok(count) => Ok(count),
    }
}

/// `recvmsg` and `recvmsg_into`.
pub(super) async fn receive(
    call: &Call,
    handle: Handle,
    bufsize: i64,
    ancbufsize: Option<i64>,
    flags: Option<Constant>,
) -> OpResult<ReceivedMessage> {
    let entry = call.entry(handle)?;
    let ticket = entry.receiving.join(call.connection().number());
    let sizes = sizes(call, bufsize, ancbufsize, flags)?;
    call.settle(&entry, &ticket, Verb::Receive).await;
    let permitted = call.permit_receive(&entry, sizes)?;
    let sender_check = call.sender_check(&entry);
    call.session().note_urgent(handle, &entry, sizes.flags)?;
    let sender_check = sender_check.as_deref();
    let receiving = receive::receive_message(&permitted, ticket, sender_check, call.exactly_once());
    let (message, receipt) = receiving.await?;
    call.attach_receipt(receipt);
    Ok(encode_message(call, &permitted, message))
}

fn sizes(
    call: &Call,
    bufsize: i64,
    ancbufsize: Option<i64>,
    flags: Option<Constant>,
) -> OpResult<Sizes> {
    let limits = &call.broker().limits;
    let length =
        receive::length(bufsize, "negative buffer size in recvmsg()", limits.receive_bytes)?;
    // SOCKLEN_MAX of CPython is INT_MAX.
    let control = i32::try_from(ancbufsize.unwrap_or(0)).ok().and_then(|room| room.try_into().ok());
    let control: usize =
        control.ok_or_else(|| OpError::value("invalid ancillary data buffer length"))?;
    OpError::within("ancillary_bytes", control as u64, limits.ancillary_bytes)?;
    Ok(Sizes { length, ancillary: control, flags: int_or(flags, 0)? })
}

/// The sender of a message. A captured packet has it in its header.
pub(super) fn sender(entry: &Entry, message: &message::ReceivedMessage) -> Option<Address> {
    match entry.rcvall {
        Some(_) => rcvall::sender(&message.data),
        None => message.address.decode(entry.declared().protocol),
    }
}

fn encode_message(
    call: &Call,
    permitted: &Permitted<Receive>,
    message: message::ReceivedMessage,
) -> ReceivedMessage {
    let sender = sender(permitted.socket(), &message);
    let mut flags = message.flags;
    let mut ancdata = Vec::with_capacity(message.control.len());
    for item in message.control {
        ancdata.extend(encode_ancillary(call, item, &mut flags));
    }
    let eof = is_end(permitted, message.n) && ancdata.is_empty();
    ReceivedMessage {
        n: message.n as u64,
        eof,
        data: call.encode_bytes(message.data),
        ancdata,
        flags,
        address: encode_address(permitted.socket(), sender.as_ref()),
    }
}

/// Encodes an item of ancillary data. Descriptors that the answer cannot carry are closed, and `MSG_CTRUNC` is
/// set, as the kernel does if the control buffer is too small.
fn encode_ancillary(call: &Call, item: ControlMessage, flags: &mut i32) -> Option<AncillaryItem> {
    match item {
        ControlMessage::Data { level, kind, data } => Some(AncillaryItem(
            Constant(level.into()),
            Constant(kind.into()),
            AncillaryData::Bytes(call.encode_bytes(data)),
        )),
        ControlMessage::Descriptors { descriptors, rest } => {
            let count = u32::try_from(descriptors.len()).unwrap_or(u32::MAX);
            if !call.attach_descriptors(descriptors) {
                *flags |= libc::MSG_CTRUNC;
                return None;
            }
            let data = Descriptors { descriptors: count, rest: encode_base64(&rest) };
            Some(AncillaryItem(
                Constant(libc::SOL_SOCKET.into()),
                Constant(libc::SCM_RIGHTS.into()),
                AncillaryData::Descriptors(data),
            ))
        }
    }
}

/// A message as the caller passed it.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) buffers: Vec<Bytes>,
    pub(super) ancdata: Vec<AncillaryItem>,
    pub(super) address: Option<AddressValue>,
}

/// `sendmsg`.
pub(super) async fn send(call: &Call, handle: Handle, parts: Parts, flags: i32) -> OpResult<u64> {
    let entry = call.entry(handle)?;
    let ticket = entry.sending.join(call.connection().number());
    let permitted = prepare(call, &entry, &ticket, parts, flags).await?;
    Ok(send::send_message(permitted, call.sender(), ticket).await? as u64)
}

/// Decodes a message, resolves its address, and authorizes it.
async fn prepare(
    call: &Call,
    entry: &Arc<Entry>,
    ticket: &Ticket<'_>,
    parts: Parts,
    flags: i32,
) -> OpResult<Permitted<Send>> {
    let Parts { buffers, ancdata, address } = parts;
    if buffers.len() > MAX_BUFFERS {
        return Err(OpError::Os { call: "sendmsg", errno: libc::EMSGSIZE });
    }
    let buffers: Vec<_> =
        buffers.into_iter().map(|part| call.bytes(part)).collect::<OpResult<_>>()?;
    let domain = entry.actual().domain;
    let decode = |item| decode_ancillary(call, domain, item);
    let ancillary: Vec<_> = ancdata.into_iter().map(decode).collect::<OpResult<_>>()?;
    let destination = match address {
        None | Some(AddressValue::None(())) => None,
        Some(address) => Some(call.target(entry, &address, ("sendmsg", Verb::Send)).await?),
    };
    call.settle(entry, ticket, Verb::Send).await;
    let contents = MessageContents { buffers, ancillary, flags };
    call.permit_send(entry, destination, Payload::Message(contents))
}

fn decode_ancillary(call: &Call, domain: i32, item: AncillaryItem) -> OpResult<SentItem> {
    let AncillaryItem(level, kind, data) = item;
    let (level, kind) = (int(level)?, int(kind)?);
    let rights = (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    match data {
        AncillaryData::Descriptors(Descriptors { descriptors, rest }) if rights => {
            let carried = |one| -> Arc<dyn CarriedDescriptor> { Arc::new(one) };
            let descriptors = call.take_descriptors(descriptors)?;
            Ok(SentItem::Descriptors {
                descriptors: descriptors.into_iter().map(carried).collect(),
                rest: decode_base64(&rest).map_err(OpError::value)?,
            })
        }
        AncillaryData::Descriptors(_) => {
            Err(OpError::value("descriptors are valid only in an item of SOL_SOCKET, SCM_RIGHTS"))
        }
        AncillaryData::Bytes(_) if carries_pointer_or_descriptor(level, kind) => {
            Err(OpError::value(
                "raw bytes here would name the broker's descriptors or memory: \
                 SCM_RIGHTS takes {\"descriptors\": n}",
            ))
        }
        AncillaryData::Bytes(data) => {
            let data = call.bytes(data)?.to_vec();
            let is_credentials = (level, kind) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);
            if is_credentials && call.caller().signs(domain) {
                check_credentials(call, &data)?;
            }
            Ok(SentItem::Data { level, kind, data })
        }
    }
}

/// Checks that credentials (`struct ucred`: pid, uid, gid) are the caller's. The message gets those of the process that
/// sends it in their place; the kernel does not see them.
fn check_credentials(call: &Call, data: &[u8]) -> OpResult<()> {
    let subject = call.connection().subject();
    let words: Vec<_> = data.chunks_exact(4).filter_map(|word| word.first_chunk()).collect();
    let own = match words.as_slice() {
        [pid, uid, gid] if data.len() == 12 => {
            subject.pid == Some(i32::from_ne_bytes(**pid))
                && subject.uid == u32::from_ne_bytes(**uid)
                && subject.gid == u32::from_ne_bytes(**gid)
        }
        // The kernel's error for another length (`__scm_send`).
        _ => return Err(OpError::Os { call: "sendmsg", errno: libc::EINVAL }),
    };
    if own { Ok(()) } else { Err(OpError::Os { call: "sendmsg", errno: libc::EPERM }) }
}
