//! `proto::api::transfer`: receive and send data.

use sockbroker_proto::address::AddressValue;
use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem};
use sockbroker_proto::api::transfer::{
    RecvIntoParams, RecvParams, RecvfromIntoParams, RecvfromParams, RecvmsgIntoParams,
    RecvmsgParams, SendParams, SendallParams, SendfileParams, SendmsgAfalgParams, SendmsgParams,
    SendtoParams, TransferServer,
};
use sockbroker_proto::api::values::{Received, ReceivedFrom, ReceivedMessage};
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::constant::Constant;
use sockbroker_proto::handle::Handle;
use sockbroker_sys::message;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::address::encode_address;
use crate::handlers::contents::{Payload, Sizes};
use crate::handlers::messages::{self, Parts};
use crate::handlers::parameters::{c_int, file_range, int, int_or};
use crate::ops::receive::{self, is_end};
use crate::ops::{file, send};
use crate::rpc::call::Call;
use crate::table::permitted::Permitted;
use sockbroker_policy::action::Receive;
use sockbroker_policy::verb::Verb;

impl TransferServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn recv(call: Call, params: RecvParams) -> OpResult<Received> {
        let RecvParams { handle, bufsize, flags } = params;
        let received = receive_plain(&call, handle, bufsize, flags, "recv").await?;
        Ok(Received { data: received.data, n: received.n, eof: received.eof })
    }

    async fn recv_into(call: Call, params: RecvIntoParams) -> OpResult<Received> {
        let RecvIntoParams { handle, nbytes, flags } = params;
        let received = receive_plain(&call, handle, nbytes, flags, "recv_into").await?;
        Ok(Received { data: received.data, n: received.n, eof: received.eof })
    }

    async fn recvfrom(call: Call, params: RecvfromParams) -> OpResult<ReceivedFrom> {
        let RecvfromParams { handle, bufsize, flags } = params;
        receive_plain(&call, handle, bufsize, flags, "recvfrom").await
    }

    async fn recvfrom_into(call: Call, params: RecvfromIntoParams) -> OpResult<ReceivedFrom> {
        let RecvfromIntoParams { handle, nbytes, flags } = params;
        receive_plain(&call, handle, nbytes, flags, "recvfrom_into").await
    }

    async fn recvmsg(call: Call, params: RecvmsgParams) -> OpResult<ReceivedMessage> {
        let RecvmsgParams { handle, bufsize, ancbufsize, flags } = params;
        messages::receive(&call, handle, bufsize, ancbufsize, flags).await
    }

    async fn recvmsg_into(call: Call, params: RecvmsgIntoParams) -> OpResult<ReceivedMessage> {
        let RecvmsgIntoParams { handle, buffers, ancbufsize, flags } = params;
        if buffers.len() > send::MAX_BUFFERS {
            return Err(OpError::Os { call: "recvmsg", errno: libc::EMSGSIZE });
        }
        if buffers.iter().any(|length| *length < 0) {
            return Err(OpError::value("a buffer has a negative length"));
        }
        let total = buffers.iter().fold(0_i64, |sum, length| sum.saturating_add(*length));
        messages::receive(&call, handle, total, ancbufsize, flags).await
    }

    async fn send(call: Call, params: SendParams) -> OpResult<u64> {
        let SendParams { handle, bytes, flags } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let (data, flags) = (call.bytes(bytes)?, int_or(flags, 0)?);
        call.settle(&entry, &ticket, Verb::Send).await;
        let permitted = call.permit_send(&entry, None, Payload::of(data, flags))?;
        Ok(send::send(&permitted, call.sender(), ticket).await? as u64)
    }

    async fn sendall(call: Call, params: SendallParams) -> OpResult<()> {
        let SendallParams { handle, bytes, flags } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let (data, flags) = (call.bytes(bytes)?, int_or(flags, 0)?);
        call.settle(&entry, &ticket, Verb::Send).await;
        let permitted = call.permit_send(&entry, None, Payload::of(data, flags))?;
        send::send_all(&permitted, call.sender(), ticket).await
    }

    async fn sendto(call: Call, params: SendtoParams) -> OpResult<u64> {
        let SendtoParams { handle, bytes, flags, address } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let (data, flags) = (call.bytes(bytes)?, int_or(flags, 0)?);
        let destination = Some(call.target(&entry, &address, ("sendto", Verb::Send)).await?);
        call.settle(&entry, &ticket, Verb::Send).await;
        let permitted = call.permit_send(&entry, destination, Payload::of(data, flags))?;
        Ok(send::send(&permitted, call.sender(), ticket).await? as u64)
    }

    async fn sendmsg(call: Call, params: SendmsgParams) -> OpResult<u64> {
        let SendmsgParams { handle, buffers, ancdata, flags, address } = params;
        let ancdata = ancdata.unwrap_or_default();
        let parts = Parts { buffers, ancdata, address };
        messages::send(&call, handle, parts, int_or(flags, 0)?).await
    }

    async fn sendmsg_afalg(call: Call, params: SendmsgAfalgParams) -> OpResult<u64> {
        let SendmsgAfalgParams { handle, msg, op, iv, assoclen, flags } = params;
        let cipher = CipherOperation { op, iv, assoclen };
        let buffers = msg.unwrap_or_default();
        let flags = int_or(flags, 0)?;
        send_cipher(&call, handle, buffers, cipher, flags).await
    }

    async fn sendfile(call: Call, params: SendfileParams) -> OpResult<u64> {
        let SendfileParams { handle, file, offset, count } = params;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        call.settle(&entry, &ticket, Verb::Send).await;
        let permitted = call.permit_send(&entry, None, Payload::File)?;
        let source = call.take_descriptor(file)?;
        let range = file_range(offset, count)?;
        file::send_file(&permitted, call.sender(), ticket, source, range).await
    }
}

async fn receive_plain(
    call: &Call,
    handle: Handle,
    bufsize: i64,
    flags: Option<Constant>,
    name: &str,
) -> OpResult<ReceivedFrom> {
    let entry = call.entry(handle)?;
    let ticket = entry.receiving.join(call.connection().number());
    let negative = format!("negative buffersize in {name}");
    let length = receive::length(bufsize, &negative, call.broker().limits.receive_bytes)?;
    let sizes = Sizes { length, ancillary: 0, flags: int_or(flags, 0)? };
    // As in sock_recv_guts: recv of 0 bytes makes no system call, and recvfrom takes a datagram.
    if length == 0 && matches!(name, "recv" | "recv_into") {
        return Ok(nothing(call));
    }
    call.settle(&entry, &ticket, Verb::Receive).await;
    let permitted = call.permit_receive(&entry, sizes)?;
    let sender_check = call.sender_check(&entry);
    call.session().note_urgent(handle, &entry, sizes.flags)?;
    let sender_check = sender_check.as_deref();
    let receiving = receive::receive(&permitted, ticket, sender_check, call.exactly_once());
    let (received, receipt) = receiving.await?;
    call.attach_receipt(receipt);
    Ok(encode_received(call, &permitted, received))
}

fn nothing(call: &Call) -> ReceivedFrom {
    let data = call.encode_bytes(Vec::new());
    ReceivedFrom { data, n: 0, eof: false, address: AddressValue::None(()) }
}

fn encode_received(
    call: &Call,
    permitted: &Permitted<Receive>,
    received: message::ReceivedMessage,
) -> ReceivedFrom {
    let sender = messages::sender(permitted.socket(), &received);
    ReceivedFrom {
        eof: is_end(permitted, received.n),
        n: received.n as u64,
        data: call.encode_bytes(received.data),
        address: encode_address(permitted.socket(), sender.as_ref()),
    }
}

/// The operation that `sendmsg_afalg` sends with its data.
#[derive(Debug)]
struct CipherOperation {
    op: Constant,
    iv: Option<Bytes>,
    assoclen: Option<i64>,
}

/// `sendmsg_afalg`: data for `AF_ALG`, with control messages that define the operation (`linux/if_alg.h`).
async fn send_cipher(
    call: &Call,
    handle: Handle,
    buffers: Vec<Bytes>,
    cipher: CipherOperation,
    flags: i32,
) -> OpResult<u64> {
    let entry = call.entry(handle)?;
    if entry.declared().domain != libc::AF_ALG {
        return Err(OpError::Plain("algset is only supported for AF_ALG".to_owned()));
    }
    let op = int(cipher.op)?;
    if op < 0 {
        return Err(OpError::type_error("Invalid or missing argument 'op'"));
    }
    let mut items = vec![alg_item(libc::ALG_SET_OP, op.to_ne_bytes().to_vec())];
    if let Some(iv) = cipher.iv {
        let iv = call.bytes(iv)?;
        let length =
            u32::try_from(iv.len()).map_err(|_error| OpError::value("the iv is too long"))?;
        items.push(alg_item(libc::ALG_SET_IV, [&length.to_ne_bytes()[..], &iv].concat()));
    }
    if let Some(length) = cipher.assoclen {
        if length < 0 {
            return Err(OpError::type_error("assoclen must be positive"));
        }
        let length = c_int(length)?;
        items.push(alg_item(libc::ALG_SET_AEAD_ASSOCLEN, length.to_ne_bytes().to_vec()));
    }
    messages::send(call, handle, Parts { buffers, ancdata: items, address: None }, flags).await
}

fn alg_item(kind: i32, data: Vec<u8>) -> AncillaryItem {
    let data = AncillaryData::Bytes(Bytes::Inline(data));
    AncillaryItem(Constant(libc::SOL_ALG.into()), Constant(kind.into()), data)
}
