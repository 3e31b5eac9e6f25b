//! Socket addresses of every family, and their conversion from and to the types of `std`.

mod convert;
pub(crate) mod file;

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sockbroker_proto::address::{AddressItem, AddressValue, BytesValue, OpaqueValue, Parsed};
use sockbroker_proto::bytes::{decode_base64, encode_base64};
use sockbroker_proto::socket_spec::SocketSpec;

use crate::constant::{Domain, Protocol};
use crate::error::{Error, Result};

/// The address of a socket, of any family.
///
/// It is made from a [`SocketAddr`], from a host name and a port, from a path, or by a constructor of
/// another family. [`Address::to_inet`] and the related methods convert a returned address.
///
/// The broker resolves host names. A path of `AF_UNIX` names a file of this process: the client opens
/// the file, or its folder for `bind`, and passes the descriptor. A connection without descriptors
/// (HTTP, WebSocket) sends the path as text, which the broker accepts only from root and from its own
/// user.
///
/// ```
/// use std::net::SocketAddr;
/// use sockbroker_client::Address;
///
/// let loopback: SocketAddr = "127.0.0.1:80".parse()?;
/// assert_eq!(Address::from(loopback).to_inet(), Some(loopback));
/// assert_eq!(Address::from(("localhost", 80)).to_inet(), None);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Address(AddressValue);

/// The address of a packet socket, `packet(7)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketAddress {
    /// The name of the interface; empty if it no longer exists.
    pub interface: String,
    /// The Ethernet type in host byte order.
    pub protocol: u16,
    /// The direction of the packet: `PACKET_HOST` (0), `PACKET_BROADCAST` (1), `PACKET_MULTICAST` (2),
    /// `PACKET_OTHERHOST` (3), `PACKET_OUTGOING` (4).
    pub packet_type: u8,
    /// The type of the hardware, `ARPHRD_*`.
    pub hardware_type: u16,
    /// The hardware address of the sender; at most 8 bytes.
    pub hardware_address: Vec<u8>,
}

impl Address {
    /// No address. A connected stream returns it as the sender of its data.
    pub fn none() -> Self {
        Self(AddressValue::None(()))
    }

    /// A host, by name or numeric address, and a port. `""` is the wildcard address.
    pub fn host(host: &str, port: u16) -> Self {
        Self::tuple([text(host), number(port)])
    }

    /// A path of `AF_UNIX`: at most 107 bytes.
    pub fn unix_path(path: impl AsRef<Path>) -> Self {
        Self::unix_name(path.as_ref().as_os_str().as_bytes())
    }

    /// A name in the abstract namespace of `AF_UNIX`, without the leading NUL: at most 107 bytes.
    pub fn unix_abstract(name: impl AsRef<[u8]>) -> Self {
        Self::unix_name(&[b"\0", name.as_ref()].concat())
    }

    /// The unnamed address of `AF_UNIX`. Binding it lets the kernel choose an abstract name.
    pub fn unix_unnamed() -> Self {
        Self(AddressValue::Text(String::new()))
    }

    fn unix_name(name: &[u8]) -> Self {
        Self(match std::str::from_utf8(name) {
            Ok(text) => AddressValue::Text(text.to_owned()),
            Err(_) => AddressValue::Bytes(BytesValue { base64: encode_base64(name) }),
        })
    }

    /// An interface and an Ethernet type in host byte order, for binding a packet socket.
    pub fn packet(interface: &str, protocol: u16) -> Self {
        Self::tuple([text(interface), number(protocol)])
    }

    /// A complete address of a packet socket, for sending.
    pub fn packet_to(address: &PacketAddress) -> Self {
        let PacketAddress { interface, protocol, packet_type, hardware_type, hardware_address } =
            address;
        Self::tuple([
            text(interface),
            number(*protocol),
            number(*packet_type),
            number(*hardware_type),
            text(&encode_base64(hardware_address)),
        ])
    }

    /// A port id and a bit mask of multicast groups, `netlink(7)`.
    pub fn netlink(pid: u32, groups: u32) -> Self {
        Self::tuple([number(pid), number(groups)])
    }

    /// A context id and a port, `vsock(7)`.
    pub fn vsock(cid: u32, port: u32) -> Self {
        Self::tuple([number(cid), number(port)])
    }

    /// An interface of a CAN bus; `""` is all interfaces.
    pub fn can(interface: &str) -> Self {
        Self::tuple([text(interface)])
    }

    /// A type and a name of the kernel's cryptographic interface, such as `hash` and `sha256`.
    pub fn alg(ty: &str, name: &str) -> Self {
        Self::tuple([text(ty), text(name)])
    }

    /// An address of any family: the bytes of the kernel's structure after `sa_family`, at most 126.
    pub fn opaque(domain: Domain, bytes: &[u8]) -> Self {
        Self(AddressValue::Opaque(OpaqueValue {
            family: sockbroker_proto::constant::Constant(domain.number().into()),
            base64: encode_base64(bytes),
        }))
    }

    fn tuple<const N: usize>(items: [AddressItem; N]) -> Self {
        Self(AddressValue::Tuple(items.into()))
    }

    /// Whether this is [`Address::none`].
    pub fn is_none(&self) -> bool {
        matches!(self.0, AddressValue::None(()))
    }

    /// The IP address and port; `None` for another family and for a host name.
    pub fn to_inet(&self) -> Option<SocketAddr> {
        let AddressValue::Tuple(items) = &self.0 else { return None };
        let [AddressItem::Text(host), AddressItem::Number(port), rest @ ..] = items.as_slice()
        else {
            return None;
        };
        let port = u16::try_from(*port).ok()?;
        let word = |at: usize| match rest.get(at) {
            None => Some(0),
            Some(AddressItem::Number(number)) => u32::try_from(*number).ok(),
            Some(_) => None,
        };
        match host.parse().ok()? {
            IpAddr::V4(host) if rest.is_empty() => Some(SocketAddrV4::new(host, port).into()),
            IpAddr::V6(host) if rest.len() <= 2 => {
                Some(SocketAddrV6::new(host, port, word(0)?, word(1)?).into())
            }
            _ => None,
        }
    }

    /// The path of an `AF_UNIX` address; `None` for another family and for an unnamed or abstract name.
    pub fn to_unix_path(&self) -> Option<PathBuf> {
        let name = self.to_unix_name()?;
        let named = !name.is_empty() && !name.starts_with(b"\0");
        named.then(|| PathBuf::from(OsStr::from_bytes(&name)))
    }

    /// The name in the abstract namespace of `AF_UNIX`, without the leading NUL; `None` for any other
    /// address.
    pub fn to_unix_abstract(&self) -> Option<Vec<u8>> {
        self.to_unix_name()?.strip_prefix(b"\0").map(<[u8]>::to_vec)
    }

    /// The name of an `AF_UNIX` address, with the leading NUL of an abstract one; empty if unnamed.
    fn to_unix_name(&self) -> Option<Vec<u8>> {
        match &self.0 {
            AddressValue::Text(text) => Some(text.clone().into_bytes()),
            AddressValue::Bytes(bytes) => decode_base64(&bytes.base64).ok(),
            AddressValue::None(())
            | AddressValue::Number(_)
            | AddressValue::Tuple(_)
            | AddressValue::Opaque(_)
            | AddressValue::File(_) => None,
        }
    }

    /// The complete address of a packet socket; `None` for another family.
    pub fn to_packet(&self) -> Option<PacketAddress> {
        let AddressValue::Tuple(items) = &self.0 else { return None };
        let [
            AddressItem::Text(interface),
            AddressItem::Number(protocol),
            AddressItem::Number(packet_type),
            AddressItem::Number(hardware_type),
            AddressItem::Text(hardware_address),
        ] = items.as_slice()
        else {
            return None;
        };
        Some(PacketAddress {
            interface: interface.clone(),
            protocol: u16::try_from(*protocol).ok()?,
            packet_type: u8::try_from(*packet_type).ok()?,
            hardware_type: u16::try_from(*hardware_type).ok()?,
            hardware_address: decode_base64(hardware_address).ok()?,
        })
    }

    /// The address as the type of its family in [`crate::proto`].
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if it is not an address of that family.
    pub fn read(&self, domain: Domain, protocol: Protocol) -> Result<Parsed> {
        // The type of a socket does not decide how its addresses are read.
        let kind = SocketSpec { domain: domain.number(), ty: 0, protocol: protocol.number() };
        self.0.read(kind).map_err(|error| Error::Argument {
            exception: format!("{:?}", error.exception),
            call: "address".to_owned(),
            message: error.message,
        })
    }

    /// The JSON form.
    pub fn value(&self) -> &AddressValue {
        &self.0
    }
}

fn text(text: &str) -> AddressItem {
    AddressItem::Text(text.to_owned())
}

fn number(number: impl Into<i64>) -> AddressItem {
    AddressItem::Number(number.into())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.to_inet() {
            return address.fmt(f);
        }
        match &self.0 {
            AddressValue::None(()) => f.write_str("none"),
            AddressValue::Text(text) => write!(f, "{}", text.escape_debug()),
            other => f.write_str(&serde_json::to_string(other).map_err(|_error| fmt::Error)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inet_addresses_round_trip() {
        for text in ["127.0.0.1:80", "[::1]:65535", "[fe80::1%7]:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::from(address).to_inet(), Some(address), "{text}");
            assert_eq!(Address::from(address).to_string(), text);
        }
    }

    #[test]
    fn unix_names_round_trip() {
        let not_utf8 = Path::new(OsStr::from_bytes(b"/tmp/\xff"));
        for path in [Path::new("/run/s"), not_utf8] {
            assert_eq!(Address::from(path).to_unix_path().as_deref(), Some(path));
        }
        for name in [&b"name"[..], b"\xff\0", b""] {
            let address = Address::unix_abstract(name);
            assert_eq!(address.to_unix_abstract().as_deref(), Some(name));
            assert_eq!(address.to_unix_path(), None);
        }
        assert_eq!(Address::unix_unnamed().to_unix_path(), None);
        assert_eq!(Address::unix_unnamed().to_unix_abstract(), None);
    }

    #[test]
    fn packet_addresses_round_trip() {
        let address = PacketAddress {
            interface: "eth0".to_owned(),
            protocol: 0x0800,
            packet_type: 4,
            hardware_type: 1,
            hardware_address: vec![1, 2, 3, 4, 5, 6],
        };
        assert_eq!(Address::packet_to(&address).to_packet(), Some(address));
        assert_eq!(Address::packet("eth0", 3).to_packet(), None);
    }

    #[test]
    fn address_of_another_family_is_not_converted() {
        for address in [Address::netlink(1, 2), Address::none(), Address::host("name", 1)] {
            assert_eq!(address.to_inet(), None, "{address}");
        }
        let error = Address::netlink(1, 2).read(Domain::UNIX, Protocol::DEFAULT).unwrap_err();
        assert!(matches!(error, Error::Argument { .. }), "{error:?}");
    }
}
