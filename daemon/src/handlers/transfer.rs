//! `proto::api::transfer`: receiving and sending.

use jsonrpsee::Extensions;
use jsonrpsee::core::{RpcResult, async_trait};
use sockbroker_proto::address::AddressValue;
use sockbroker_proto::ancillary::AncillaryItem;
use sockbroker_proto::api::transfer::TransferServer;
use sockbroker_proto::api::values::{Received, ReceivedFrom, ReceivedMessage};
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::constant::Constant;
use sockbroker_proto::handle::Handle;
use sockbroker_sys::message;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::address::spell;
use crate::handlers::cipher::{Cipher, send_cipher};
use crate::handlers::contents::Contents;
use crate::handlers::messages::{self, Parts};
use crate::handlers::number::int_or;
use crate::ops::receive::{self, is_end};
use crate::ops::want::Want;
use crate::ops::{file, send};
use crate::rpc::call::Call;
use crate::table::entry::Entry;
use sockbroker_policy::verb::Verb;

#[async_trait]
impl TransferServer for Handlers {
    async fn recv(
        &self,
        ext: &Extensions,
        handle: Handle,
        bufsize: i64,
        flags: Option<Constant>,
    ) -> RpcResult<Received> {
        let received = receive_plain(Call::of(ext)?, handle, bufsize, flags, "recv").await?;
        Ok(Received { data: received.data, n: received.n, eof: received.eof })
    }

    async fn recv_into(
        &self,
        ext: &Extensions,
        handle: Handle,
        nbytes: i64,
        flags: Option<Constant>,
    ) -> RpcResult<Received> {
        let received = receive_plain(Call::of(ext)?, handle, nbytes, flags, "recv_into").await?;
        Ok(Received { data: received.data, n: received.n, eof: received.eof })
    }

    async fn recvfrom(
        &self,
        ext: &Extensions,
        handle: Handle,
        bufsize: i64,
        flags: Option<Constant>,
    ) -> RpcResult<ReceivedFrom> {
        Ok(receive_plain(Call::of(ext)?, handle, bufsize, flags, "recvfrom").await?)
    }

    async fn recvfrom_into(
        &self,
        ext: &Extensions,
        handle: Handle,
        nbytes: i64,
        flags: Option<Constant>,
    ) -> RpcResult<ReceivedFrom> {
        Ok(receive_plain(Call::of(ext)?, handle, nbytes, flags, "recvfrom_into").await?)
    }

    async fn recvmsg(
        &self,
        ext: &Extensions,
        handle: Handle,
        bufsize: i64,
        ancbufsize: Option<i64>,
        flags: Option<Constant>,
    ) -> RpcResult<ReceivedMessage> {
        Ok(messages::receive(Call::of(ext)?, handle, bufsize, ancbufsize, flags).await?)
    }

    async fn recvmsg_into(
        &self,
        ext: &Extensions,
        handle: Handle,
        buffers: Vec<i64>,
        ancbufsize: Option<i64>,
        flags: Option<Constant>,
    ) -> RpcResult<ReceivedMessage> {
        if buffers.len() > send::MAX_BUFFERS {
            return Err(OpError::Os { call: "recvmsg", errno: libc::EMSGSIZE }.into());
        }
        if buffers.iter().any(|length| *length < 0) {
            return Err(OpError::value("a buffer has a negative length").into());
        }
        let total = buffers.iter().fold(0_i64, |sum, length| sum.saturating_add(*length));
        Ok(messages::receive(Call::of(ext)?, handle, total, ancbufsize, flags).await?)
    }

    async fn send(
        &self,
        ext: &Extensions,
        handle: Handle,
        bytes: Bytes,
        flags: Option<Constant>,
    ) -> RpcResult<u64> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let (data, flags) = (call.bytes(bytes)?, int_or(flags, 0)?);
        call.settle(&entry, &ticket, Verb::Send).await;
        let permit = call.permit_send(&entry, None, &Contents::of(&data, flags))?;
        Ok(send::send(permit, call.sender(&entry), ticket, &data, flags).await? as u64)
    }

    async fn sendall(
        &self,
        ext: &Extensions,
        handle: Handle,
        bytes: Bytes,
        flags: Option<Constant>,
    ) -> RpcResult<()> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let (data, flags) = (call.bytes(bytes)?, int_or(flags, 0)?);
        call.settle(&entry, &ticket, Verb::Send).await;
        let permit = call.permit_send(&entry, None, &Contents::of(&data, flags))?;
        Ok(send::send_all(permit, call.sender(&entry), ticket, &data, flags).await?)
    }

    async fn sendto(
        &self,
        ext: &Extensions,
        handle: Handle,
        bytes: Bytes,
        flags: Option<Constant>,
        address: AddressValue,
    ) -> RpcResult<u64> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        let (data, flags) = (call.bytes(bytes)?, int_or(flags, 0)?);
        let destination = Some(call.target(&entry, &address, ("sendto", Verb::Send)).await?);
        call.settle(&entry, &ticket, Verb::Send).await;
        let permit = call.permit_send(&entry, destination, &Contents::of(&data, flags))?;
        Ok(send::send(permit, call.sender(&entry), ticket, &data, flags).await? as u64)
    }

    async fn sendmsg(
        &self,
        ext: &Extensions,
        handle: Handle,
        buffers: Vec<Bytes>,
        ancdata: Option<Vec<AncillaryItem>>,
        flags: Option<Constant>,
        address: Option<AddressValue>,
    ) -> RpcResult<u64> {
        let ancdata = ancdata.unwrap_or_default();
        let parts = Parts { buffers, ancdata, address };
        Ok(messages::send(Call::of(ext)?, handle, parts, int_or(flags, 0)?).await?)
    }

    async fn sendmsg_afalg(
        &self,
        ext: &Extensions,
        handle: Handle,
        msg: Option<Vec<Bytes>>,
        op: Constant,
        iv: Option<Bytes>,
        assoclen: Option<i64>,
        flags: Option<Constant>,
    ) -> RpcResult<u64> {
        let cipher = Cipher { op, iv, assoclen };
        let buffers = msg.unwrap_or_default();
        let flags = int_or(flags, 0)?;
        Ok(send_cipher(Call::of(ext)?, handle, buffers, cipher, flags).await?)
    }

    async fn sendfile(
        &self,
        ext: &Extensions,
        handle: Handle,
        file: u32,
        offset: Option<i64>,
        count: Option<i64>,
    ) -> RpcResult<u64> {
        let call = Call::of(ext)?;
        let entry = call.entry(handle)?;
        let ticket = entry.sending.join(call.connection().number());
        call.settle(&entry, &ticket, Verb::Send).await;
        // What the file holds is not seen: netlink messages in it are unknown.
        let permit = call.permit_send(&entry, None, &Contents::default())?;
        let source = call.take_descriptor(file)?;
        let range = file_range(offset, count)?;
        Ok(file::send_file(permit, call.sender(&entry), ticket, source, range).await?)
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
    let want = Want { length, control: 0, flags: int_or(flags, 0)? };
    // sock_recv_guts: asked for nothing, recv does nothing; recvfrom takes a datagram.
    if length == 0 && matches!(name, "recv" | "recv_into") {
        return Ok(nothing(call));
    }
    call.settle(&entry, &ticket, Verb::Receive).await;
    let permit = call.permit_receive(&entry, length)?;
    let senders = call.senders(&entry);
    let received = receive::receive(permit, &entry, ticket, want, senders.as_deref()).await?;
    Ok(spell_received(call, &entry, want, received))
}

fn nothing(call: &Call) -> ReceivedFrom {
    let data = call.give_bytes(Vec::new());
    ReceivedFrom { data, n: 0, eof: false, address: AddressValue::None(()) }
}

fn spell_received(
    call: &Call,
    entry: &Entry,
    want: Want,
    received: message::ReceivedMessage,
) -> ReceivedFrom {
    let sender = messages::sender(entry, &received);
    ReceivedFrom {
        eof: is_end(entry, want, received.n),
        n: received.n as u64,
        data: call.give_bytes(received.data),
        address: spell(sender.as_ref()),
    }
}

/// Offset and count of `sendfile`, with CPython's checks.
fn file_range(offset: Option<i64>, count: Option<i64>) -> OpResult<(u64, Option<u64>)> {
    let offset = u64::try_from(offset.unwrap_or(0))
        .map_err(|_error| OpError::value("offset must not be negative"))?;
    let positive = |count: i64| u64::try_from(count).ok().filter(|count| *count > 0);
    let count = match count {
        None => None,
        Some(count) => {
            let wrong =
                || OpError::value(format!("count must be a positive integer (got {count})"));
            Some(positive(count).ok_or_else(wrong)?)
        }
    };
    Ok((offset, count))
}
