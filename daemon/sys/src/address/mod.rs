//! Socket addresses in the kernel's layout: converts [`Address`] to bytes and back.
//!
//! Each family has its own file. The module makes no system calls and follows no pointers: encoding truncates
//! what exceeds the limits of an [`Address`], decoding accepts any bytes.

use std::fmt;
use std::io;
use std::ptr;

use sockbroker_proto::address::{Address, family};

mod bytes;
mod inet;
mod unix;
mod netlink;
mod packet;
mod vsock;
mod tipc;
mod bluetooth;
mod can;
mod alg;
mod qipcrtr;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod properties;

use crate::call::socklen;
use bytes::{Builder, Fields};

pub use bytes::CAPACITY;

const AF_PPPOX: u16 = 24;
const AF_XDP: u16 = 44;
const XDP_SHARED_UMEM: u16 = 1;

/// A `sockaddr` of any family: up to [`CAPACITY`] bytes, `sa_family` first. Length 0 means no address.
#[derive(Clone, Copy)]
#[repr(C, align(8))] // the alignment of sockaddr_storage: the C library reads through its members
pub struct RawAddress {
    bytes: [u8; CAPACITY],
    length: u8,
}

impl RawAddress {
    /// Encodes `address`, in the length that CPython's `getsockaddrarg` passes.
    ///
    /// Never fails. Truncates what exceeds a limit that [`Address`] documents: hardware addresses at 8
    /// bytes, `AF_ALG` names at their array, opaque data at 126 bytes, a path at its first NUL. Does not
    /// truncate a path that is too long; the kernel answers `EINVAL`.
    pub fn encode(address: &Address) -> Self {
        let start = Builder::new(address.family());
        let built = match address {
            // A complete struct sockaddr, as CPython passes for connect(AF_UNSPEC).
            Address::Unspecified => start.pad_to(16),
            Address::UnixUnnamed | Address::UnixPath(_) | Address::UnixAbstract(_) => {
                unix::encode(start, address)
            }
            Address::Inet { host, port } => inet::encode_v4(start, *host, *port),
            Address::Inet6 { host, port, flowinfo, scope_id } => {
                inet::encode_v6(start, *host, *port, *flowinfo, *scope_id)
            }
            Address::Netlink { pid, groups } => netlink::encode(start, *pid, *groups),
            Address::Packet { ifindex, protocol, pkttype, hatype, addr } => {
                packet::encode(start, *ifindex, *protocol, *pkttype, *hatype, addr)
            }
            Address::Vsock { cid, port } => vsock::encode(start, *cid, *port),
            Address::TipcNameSeq { .. } | Address::TipcName { .. } | Address::TipcId { .. } => {
                tipc::encode(start, address)
            }
            Address::L2cap { .. }
            | Address::Rfcomm { .. }
            | Address::Hci { .. }
            | Address::Sco { .. } => bluetooth::encode(start, address),
            Address::Can { .. } | Address::CanIsotp { .. } | Address::CanJ1939 { .. } => {
                can::encode(start, address)
            }
            Address::Alg { alg_type, name, feat, mask } => {
                alg::encode(start, alg_type, name, *feat, *mask)
            }
            Address::Qipcrtr { node, port } => qipcrtr::encode(start, *node, *port),
            Address::Opaque { data, .. } => start.put(data),
        };
        Self::from_bytes(built.as_bytes()).unwrap_or_default()
    }

    /// Decodes the bytes for a socket of protocol `proto`, as CPython's `makesockaddr`
    /// does; the protocol matters to `AF_BLUETOOTH` and `AF_CAN` only.
    ///
    /// `None` for length 0. Bytes that are too short for their family, or of a family without a
    /// JSON form of its own, are [`Address::Opaque`]. Zeros of family 0 are [`Address::Unspecified`].
    pub fn decode(&self, proto: i32) -> Option<Address> {
        if self.is_empty() {
            return None;
        }
        let mut fields = Fields::new(self.as_bytes());
        let Some(family) = fields.u16() else {
            return Some(Address::Opaque { family: 0, data: self.as_bytes().to_vec() });
        };
        let data = fields.rest();
        let known = match family {
            family::AF_UNSPEC => data.iter().all(|byte| *byte == 0).then_some(Address::Unspecified),
            family::AF_UNIX => unix::decode(fields),
            family::AF_INET => inet::decode_v4(fields),
            family::AF_INET6 => inet::decode_v6(fields),
            family::AF_NETLINK => netlink::decode(fields),
            family::AF_PACKET => packet::decode(fields),
            family::AF_CAN => can::decode(fields, proto),
            family::AF_TIPC => tipc::decode(fields),
            family::AF_BLUETOOTH => bluetooth::decode(fields, proto),
            family::AF_ALG => alg::decode(fields),
            family::AF_VSOCK => vsock::decode(fields),
            family::AF_QIPCRTR => qipcrtr::decode(fields),
            _ => None,
        };
        Some(known.unwrap_or_else(|| Address::Opaque { family, data: data.to_vec() }))
    }

    /// An address with these bytes, `sa_family` in host order first; `None` if over [`CAPACITY`].
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let length = u8::try_from(bytes.len()).ok()?;
        let mut address = Self::default();
        address.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        address.length = length;
        Some(address)
    }

    /// The bytes in use.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Whether the length is 0: the kernel reports no sender for a message of a connected stream.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the kernel would look up a descriptor of the calling process by a number in the address:
    /// `AF_XDP` with a shared area (`sxdp_shared_umem_fd`, `linux/if_xdp.h`) and `AF_PPPOX`
    /// (`pppol2tp_addr.fd`, `linux/if_pppol2tp.h`).
    ///
    /// Every call of this crate that takes an address refuses such addresses. This function reads the
    /// address's own family, which `PPPoL2TP` does not: the broker must not create sockets of `AF_PPPOX`
    /// for users.
    pub fn names_descriptor(&self) -> bool {
        let mut fields = Fields::new(self.as_bytes());
        match fields.u16() {
            Some(AF_XDP) => fields.u16().is_some_and(|flags| flags & XDP_SHARED_UMEM != 0),
            Some(AF_PPPOX) => true,
            _ => false,
        }
    }

    /// Runs a call that writes an address. The call gets the storage and the length, which is the
    /// capacity before the call and the address's length after it. Returns the result of the call first.
    pub(crate) fn filled_by<T>(
        call: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> io::Result<T>,
    ) -> io::Result<(T, Self)> {
        let mut address = Self::default();
        let mut length = socklen(CAPACITY);
        let value = call(ptr::from_mut(&mut address).cast(), &raw mut length)?;
        address.set_length(length);
        Ok((value, address))
    }

    /// The address arguments of `bind(2)` and similar calls: pointer and length, null for no
    /// address. Valid while `self` lives.
    pub(crate) fn argument(&self) -> (*const libc::sockaddr, libc::socklen_t) {
        if self.is_empty() {
            return (ptr::null(), 0);
        }
        (ptr::from_ref(self).cast(), socklen(self.as_bytes().len()))
    }

    /// The storage that the kernel writes an address to: [`CAPACITY`] bytes.
    pub(crate) fn storage(&mut self) -> *mut libc::c_void {
        ptr::from_mut(self).cast()
    }

    /// Sets the length that the kernel reported for what it wrote to [`Self::storage`].
    pub(crate) fn set_length(&mut self, length: libc::socklen_t) {
        let capacity = u8::try_from(CAPACITY).unwrap_or(u8::MAX);
        self.length = u8::try_from(length).unwrap_or(u8::MAX).min(capacity);
    }
}

impl Default for RawAddress {
    /// No address.
    fn default() -> Self {
        Self { bytes: [0; CAPACITY], length: 0 }
    }
}

impl PartialEq for RawAddress {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for RawAddress {}

impl fmt::Debug for RawAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawAddress({:02x?})", self.as_bytes())
    }
}
