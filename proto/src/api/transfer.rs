//! Transfer of data: each method is one system call or one loop of them.

use super::values::{Received, ReceivedFrom, ReceivedMessage};
use crate::address::AddressValue;
use crate::ancillary::AncillaryItem;
use crate::bytes::Bytes;
use crate::constant::Constant;
use crate::handle::Handle;

/// Transfer of data.
///
/// Receiving calls of one connection on one handle run in order, and so do sending calls; the two
/// orders are independent. A cancelled receive loses no data. `recv_into`, `recvfrom_into` and
/// `recvmsg_into` return the bytes: the client scatters them into its buffers.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Transfer {
    /// `sock.recv(bufsize[, flags])`.
    #[method(name = "recv")]
    async fn recv(
        &self,
        handle: Handle,
        /// At most this many bytes.
        bufsize: i64,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<Received>;

    /// `sock.recv_into(buffer[, nbytes[, flags]])`: same as `recv`, under Python's other name.
    #[method(name = "recv_into")]
    async fn recv_into(
        &self,
        handle: Handle,
        /// At most this many bytes: `nbytes`, or the size of the client's buffer.
        nbytes: i64,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<Received>;

    /// `sock.recvfrom(bufsize[, flags])`.
    #[method(name = "recvfrom")]
    async fn recvfrom(
        &self,
        handle: Handle,
        /// At most this many bytes.
        bufsize: i64,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<ReceivedFrom>;

    /// `sock.recvfrom_into(buffer[, nbytes[, flags]])`: same as `recvfrom`, under Python's other name.
    #[method(name = "recvfrom_into")]
    async fn recvfrom_into(
        &self,
        handle: Handle,
        /// At most this many bytes: `nbytes`, or the size of the client's buffer.
        nbytes: i64,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<ReceivedFrom>;

    /// `sock.recvmsg(bufsize[, ancbufsize[, flags]])`.
    ///
    /// Received descriptors are attached to the response, in the order of their items. If the transport
    /// carries no descriptors, the broker closes them and sets `MSG_CTRUNC`, as the kernel does without room for them.
    #[method(name = "recvmsg")]
    async fn recvmsg(
        &self,
        handle: Handle,
        /// At most this many bytes.
        bufsize: i64,
        /// Room for ancillary data in bytes, as `CMSG_SPACE` and `CMSG_LEN` compute it.
        ancbufsize: Option<i64>,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<ReceivedMessage>;

    /// `sock.recvmsg_into(buffers[, ancbufsize[, flags]])`: like `recvmsg`; the client scatters the bytes.
    #[method(name = "recvmsg_into")]
    async fn recvmsg_into(
        &self,
        handle: Handle,
        /// The sizes of the client's buffers; at most 1024.
        buffers: Vec<i64>,
        /// Room for ancillary data in bytes.
        ancbufsize: Option<i64>,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<ReceivedMessage>;

    /// `sock.send(bytes[, flags])`: the number of bytes sent.
    #[method(name = "send")]
    async fn send(
        &self,
        handle: Handle,
        /// The data.
        bytes: Bytes,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<u64>;

    /// `sock.sendall(bytes[, flags])`: sends all bytes, with one deadline for the whole call.
    ///
    /// `sent` of an error is the number of bytes already sent.
    #[method(name = "sendall")]
    async fn sendall(
        &self,
        handle: Handle,
        /// The data.
        bytes: Bytes,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<()>;

    /// `sock.sendto(bytes[, flags], address)`: the number of bytes sent.
    #[method(name = "sendto")]
    async fn sendto(
        &self,
        handle: Handle,
        /// The data.
        bytes: Bytes,
        /// `MSG_*`; 0 if `null`.
        flags: Option<Constant>,
        /// The destination; required.
        address: AddressValue,
    ) -> RpcResult<u64>;

    /// `sock.sendmsg(buffers[, ancdata[, flags[, address]]])`: the number of bytes sent.
    ///
    /// Descriptors of `SCM_RIGHTS` items are taken in order from those attached to the frame.
    #[method(name = "sendmsg")]
    async fn sendmsg(
        &self,
        handle: Handle,
        /// The data, gathered from these buffers; at most 1024.
        buffers: Vec<Bytes>,
        /// Ancillary data.
        ancdata: Option<Vec<AncillaryItem>>,
        /// `MSG_*`.
        flags: Option<Constant>,
        /// The destination.
        address: Option<AddressValue>,
    ) -> RpcResult<u64>;

    /// `sock.sendmsg_afalg([msg], *, op[, iv[, assoclen[, flags]]])`, for `AF_ALG`.
    #[method(name = "sendmsg_afalg")]
    async fn sendmsg_afalg(
        &self,
        handle: Handle,
        /// The data, gathered from these buffers.
        msg: Option<Vec<Bytes>>,
        /// `ALG_OP_*`.
        op: Constant,
        /// The initialisation vector.
        iv: Option<Bytes>,
        /// The length of associated data.
        assoclen: Option<i64>,
        /// `MSG_*`.
        flags: Option<Constant>,
    ) -> RpcResult<u64>;

    /// `sock.sendfile(file, offset=0, count=None)`: sends from an adopted descriptor with
    /// `sendfile(2)`; the number of bytes sent.
    ///
    /// The socket must be a stream with a timeout other than 0, the file a regular file. The file's own
    /// position does not change, because the descriptor can be shared: the client moves it by the result.
    #[method(name = "sendfile")]
    async fn sendfile(
        &self,
        handle: Handle,
        /// The index of the file among the descriptors attached to the frame, counted from 0.
        file: u32,
        /// The offset of the first byte in the file.
        offset: Option<i64>,
        /// The number of bytes; up to the end of the file if absent.
        count: Option<i64>,
    ) -> RpcResult<u64>;
}
