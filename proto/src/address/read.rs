//! Reads an address for a family, with the checks and messages of CPython's `getsockaddrarg`
//! (`Modules/socketmodule.c`).

use crate::socket_spec::SocketSpec;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::family::{
    AF_ALG, AF_BLUETOOTH, AF_CAN, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_QIPCRTR, AF_RDS,
    AF_TIPC, AF_UNIX, AF_UNSPEC, AF_VSOCK,
};
use super::resolved::{Address, BluetoothAddress};
use super::value::{AddressItem, AddressValue, BytesValue, FileValue, OpaqueValue, PathValue};
use crate::bytes::decode_base64;

/// The longest path or abstract name: `sun_path` less one byte.
const UNIX_NAME_MAX: usize = 107;
/// The longest opaque address: `sockaddr_storage` less `sa_family`.
const OPAQUE_MAX: usize = 126;

/// `IFNAMSIZ`: the longest name of an interface and its NUL.
const INTERFACE_SIZE: usize = 16;

const BTPROTO_L2CAP: i32 = 0;
const BTPROTO_HCI: i32 = 1;
const BTPROTO_SCO: i32 = 2;
const BTPROTO_RFCOMM: i32 = 3;
const CAN_ISOTP: i32 = 6;
const CAN_J1939: i32 = 7;

/// The Python exception that an invalid value raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exception {
    /// `TypeError`: the wrong type or number of items.
    TypeError,
    /// `ValueError`: the right type, an impossible value.
    ValueError,
    /// `OverflowError`: a number outside its range.
    OverflowError,
    /// `OSError` without errno, as CPython raises for over-long paths and names.
    OSError,
}

/// Why an address was refused before any system call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AddressError {
    /// The exception that Python raises.
    pub exception: Exception,
    /// The error, with the valid form or range.
    pub message: String,
}

/// A parsed address: complete, or with one look-up left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// A complete address.
    Address(Address),
    /// A host name to resolve.
    Host(HostAddress),
    /// An address with an interface name to look up.
    Interface(InterfaceAddress),
    /// A file of `AF_UNIX`, whose descriptor is attached to the frame.
    File(FileAddress),
}

/// A file of `AF_UNIX` whose descriptor is attached to the frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAddress {
    /// The index of its descriptor in the frame.
    pub descriptor: u32,
    /// For `bind`: the name to create in the directory.
    pub name: Option<Vec<u8>>,
    /// For `bind`: the path from the program.
    pub path: Option<Vec<u8>>,
}

/// An internet address whose host is a name, or an IPv6 literal with a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddress {
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// The name to resolve; never empty.
    pub host: String,
    /// The port, host order.
    pub port: u16,
    /// IPv6 flow information, 0 for IPv4.
    pub flowinfo: u32,
    /// IPv6 scope id, 0 for IPv4.
    pub scope_id: u32,
}

/// An address that names its interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface name.
    pub name: String,
    /// The address with interface index 0.
    address: Address,
}

impl InterfaceAddress {
    /// Completes the address with the index of its interface.
    pub fn with_index(self, index: u32) -> Address {
        let mut address = self.address;
        if let Address::Packet { ifindex, .. }
        | Address::Can { ifindex }
        | Address::CanIsotp { ifindex, .. }
        | Address::CanJ1939 { ifindex, .. } = &mut address
        {
            *ifindex = index;
        }
        address
    }
}

type Read<T> = Result<T, AddressError>;

impl AddressValue {
    /// Reads the value as an address of a socket with this specification. Checks text, ranges and tuple lengths;
    /// the caller looks up names.
    pub fn read(&self, kind: SocketSpec) -> Read<Parsed> {
        if let Self::Opaque(value) = self {
            return read_opaque(value).map(Parsed::Address);
        }
        let family = u16::try_from(kind.domain).unwrap_or(u16::MAX);
        if let Self::File(value) = self {
            return read_file(family, value).map(Parsed::File);
        }
        match family {
            AF_UNIX => self.read_unix().map(Parsed::Address),
            // RDS sockets use sockaddr_in (getsockaddrarg).
            AF_INET | AF_RDS => self.read_inet(),
            AF_INET6 => self.read_inet6(),
            AF_NETLINK => self.read_netlink().map(Parsed::Address),
            AF_PACKET => self.read_packet().map(Parsed::Interface),
            AF_CAN => self.read_can(kind.protocol),
            AF_TIPC => self.read_tipc().map(Parsed::Address),
            // CPython reports every fault as a wrong format (getsockaddrarg).
            AF_BLUETOOTH => match self.read_bluetooth(kind.protocol) {
                Ok(address) => Ok(Parsed::Address(address)),
                Err(error) => Err(os_error(error.message)),
            },
            AF_ALG => self.read_alg().map(Parsed::Address),
            AF_VSOCK => self.read_vsock().map(Parsed::Address),
            AF_QIPCRTR => self.read_qipcrtr().map(Parsed::Address),
            _ => Err(os_error(format!(
                "address family {} has no JSON form of its own: use {{\"family\": n, \"base64\": ...}}",
                kind.domain
            ))),
        }
    }

    /// The items of a tuple whose length is within `sizes`.
    fn items(&self, family: &str, sizes: std::ops::RangeInclusive<usize>) -> Read<&[AddressItem]> {
        match self {
            Self::Tuple(items) if sizes.contains(&items.len()) => Ok(items),
            Self::Tuple(items) => Err(type_error(format!(
                "{family} address must have {} to {} items, not {}",
                sizes.start(),
                sizes.end(),
                items.len()
            ))),
            Self::None(())
            | Self::Text(_)
            | Self::Number(_)
            | Self::Bytes(_)
            | Self::Opaque(_)
            | Self::File(_) => {
                Err(type_error(format!("{family} address must be a tuple (a JSON array)")))
            }
        }
    }

    fn read_unix(&self) -> Read<Address> {
        let name = match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Bytes(bytes) => decode(bytes)?,
            Self::None(()) | Self::Number(_) | Self::Tuple(_) | Self::Opaque(_) | Self::File(_) => {
                return Err(type_error("AF_UNIX address must be a string or {\"base64\": ...}"));
            }
        };
        match name.split_first() {
            None => Ok(Address::UnixUnnamed),
            Some((0, rest)) if rest.len() <= UNIX_NAME_MAX => {
                Ok(Address::UnixAbstract(rest.to_vec()))
            }
            Some(_) if name.len() > UNIX_NAME_MAX => Err(os_error("AF_UNIX path too long")),
            // The kernel reads a path to its first NUL (unix_mkname), and so does the policy.
            Some(_) => {
                let path = name.split(|byte| *byte == 0).next().unwrap_or_default();
                Ok(Address::UnixPath(path.to_vec()))
            }
        }
    }

    fn read_inet(&self) -> Read<Parsed> {
        let items = self.items("AF_INET", 2..=2)?;
        let host = host(items)?;
        let port = port(items)?;
        let literal = match host.as_str() {
            "" => Some(Ipv4Addr::UNSPECIFIED),
            "<broadcast>" | "255.255.255.255" => Some(Ipv4Addr::BROADCAST),
            other => other.parse().ok(),
        };
        Ok(match literal {
            Some(host) => Parsed::Address(Address::Inet { host, port }),
            None => {
                Parsed::Host(HostAddress { family: AF_INET, host, port, flowinfo: 0, scope_id: 0 })
            }
        })
    }

    fn read_inet6(&self) -> Read<Parsed> {
        let items = self.items("AF_INET6", 2..=4)?;
        let host = host(items)?;
        let port = port(items)?;
        let flowinfo = optional(items, 2, "flowinfo", 0, 0..=0xf_ffff)?;
        let scope_id = optional_word(items, 3, "scope_id")?;
        let literal = match host.as_str() {
            "" => Some(Ipv6Addr::UNSPECIFIED),
            "<broadcast>" => {
                return Err(os_error("address family mismatched: <broadcast> is IPv4"));
            }
            other => other.parse().ok(),
        };
        Ok(match literal {
            Some(host) => Parsed::Address(Address::Inet6 { host, port, flowinfo, scope_id }),
            None => Parsed::Host(HostAddress { family: AF_INET6, host, port, flowinfo, scope_id }),
        })
    }

    fn read_netlink(&self) -> Read<Address> {
        let items = self.items("AF_NETLINK", 2..=2)?;
        Ok(Address::Netlink { pid: word(items, 0, "pid")?, groups: word(items, 1, "groups")? })
    }

    fn read_packet(&self) -> Read<InterfaceAddress> {
        let items = self.items("AF_PACKET", 2..=5)?;
        let addr = match items.get(4) {
            None => Vec::new(),
            Some(AddressItem::Text(text)) => decode_base64(text).map_err(value_error)?,
            Some(AddressItem::Bytes(bytes)) => decode(bytes)?,
            Some(_) => return Err(type_error("the hardware address must be base64 text")),
        };
        if addr.len() > 8 {
            return Err(value_error("the hardware address must be 8 bytes or less"));
        }
        Ok(InterfaceAddress {
            name: interface(items)?,
            address: Address::Packet {
                ifindex: 0,
                protocol: number(items, 1, "proto", 0..=0xffff)?,
                pkttype: wrapping(items, 2, "pkttype", Some(0), 0xff)?,
                hatype: wrapping(items, 3, "hatype", Some(0), 0xffff)?,
                addr,
            },
        })
    }

    /// `(interface,)`, ISO-TP `(interface, rx_addr, tx_addr)`, J1939 `(interface, name, pgn, addr)`. The range of
    /// numbers is not checked, as in CPython's formats `K`, `I` and `B`.
    fn read_can(&self, proto: i32) -> Read<Parsed> {
        let (items, address) = match proto {
            CAN_ISOTP => {
                let items = self.items("CAN_ISOTP", 3..=3)?;
                let (rx_id, tx_id) = (word(items, 1, "rx_addr")?, word(items, 2, "tx_addr")?);
                (items, Address::CanIsotp { ifindex: 0, rx_id, tx_id })
            }
            CAN_J1939 => {
                let items = self.items("CAN_J1939", 4..=4)?;
                let name = wide(items, 1, "j1939_name")?;
                let pgn = word(items, 2, "j1939_pgn")?;
                let addr = wrapping(items, 3, "j1939_addr", None, 0xff)?;
                (items, Address::CanJ1939 { ifindex: 0, name, pgn, addr })
            }
            _ => (self.items("AF_CAN", 1..=1)?, Address::Can { ifindex: 0 }),
        };
        let name = interface(items)?;
        // An empty interface name means every interface: index 0 (getsockaddrarg, AF_CAN).
        if name.is_empty() {
            return Ok(Parsed::Address(address));
        }
        if name.contains('\0') {
            return Err(value_error("the interface must not contain a null character"));
        }
        if name.len() >= INTERFACE_SIZE {
            return Err(os_error("interface name too long"));
        }
        Ok(Parsed::Interface(InterfaceAddress { name, address }))
    }

    fn read_tipc(&self) -> Read<Address> {
        let items = self.items("AF_TIPC", 4..=5)?;
        let scope: u8 = wrapping(items, 4, "scope", Some(2), 0xff)?; // TIPC_CLUSTER_SCOPE
        let scope = scope.cast_signed();
        let (a, b, c) = (word(items, 1, "v1")?, word(items, 2, "v2")?, word(items, 3, "v3")?);
        match number::<u32>(items, 0, "addr_type", 0..=i64::from(u32::MAX))? {
            1 => Ok(Address::TipcNameSeq { name_type: a, lower: b, upper: c, scope }),
            2 => Ok(Address::TipcName { name_type: a, instance: b, domain: c, scope }),
            3 => Ok(Address::TipcId { node: a, reference: b, scope }),
            _ => Err(type_error(
                "invalid AF_TIPC addr_type: TIPC_ADDR_NAMESEQ, TIPC_ADDR_NAME or TIPC_ADDR_ID",
            )),
        }
    }

    fn read_bluetooth(&self, proto: i32) -> Read<Address> {
        match proto {
            BTPROTO_L2CAP => {
                let items = self.items("BTPROTO_L2CAP", 2..=4)?;
                Ok(Address::L2cap {
                    bdaddr: device(items)?,
                    psm: number(items, 1, "psm", 0..=0xffff)?,
                    cid: optional(items, 2, "cid", 0, 0..=0xffff)?,
                    bdaddr_type: optional(items, 3, "bdaddr_type", 0, 0..=255)?,
                })
            }
            BTPROTO_RFCOMM => {
                let items = self.items("BTPROTO_RFCOMM", 2..=2)?;
                let channel = number(items, 1, "channel", 0..=255)?;
                Ok(Address::Rfcomm { bdaddr: device(items)?, channel })
            }
            BTPROTO_HCI => {
                if let Self::Number(device) = *self {
                    let device = u16::try_from(device)
                        .map_err(|_error| overflow("device_id must be 0-65535."))?;
                    return Ok(Address::Hci { device, channel: 0 });
                }
                let items = self.items("BTPROTO_HCI", 1..=2)?;
                Ok(Address::Hci {
                    device: number(items, 0, "device_id", 0..=0xffff)?,
                    channel: optional(items, 1, "channel", 0, 0..=0xffff)?,
                })
            }
            BTPROTO_SCO => match self {
                Self::Text(text) => Ok(Address::Sco { bdaddr: bluetooth(text)? }),
                Self::Bytes(bytes) => {
                    let text = decode(bytes)?;
                    Ok(Address::Sco { bdaddr: bluetooth(&String::from_utf8_lossy(&text))? })
                }
                Self::None(())
                | Self::Number(_)
                | Self::Tuple(_)
                | Self::Opaque(_)
                | Self::File(_) => {
                    Err(type_error("BTPROTO_SCO address must be a device address string"))
                }
            },
            _ => Err(os_error("unknown Bluetooth protocol: use the opaque form")),
        }
    }

    fn read_alg(&self) -> Read<Address> {
        let items = self.items("AF_ALG", 2..=4)?;
        let (alg_type, name) = (octets(items, 0, "type")?, octets(items, 1, "name")?);
        if alg_type.len() >= 14 {
            return Err(value_error("AF_ALG type too long: at most 13 bytes"));
        }
        if name.len() >= 64 {
            return Err(value_error("AF_ALG name too long: at most 63 bytes"));
        }
        let feat = optional_word(items, 2, "feat")?;
        let mask = optional_word(items, 3, "mask")?;
        Ok(Address::Alg { alg_type, name, feat, mask })
    }

    fn read_vsock(&self) -> Read<Address> {
        let items = self.items("AF_VSOCK", 2..=2)?;
        Ok(Address::Vsock { cid: word(items, 0, "cid")?, port: word(items, 1, "port")? })
    }

    fn read_qipcrtr(&self) -> Read<Address> {
        let items = self.items("AF_QIPCRTR", 2..=2)?;
        Ok(Address::Qipcrtr { node: word(items, 0, "node")?, port: word(items, 1, "port")? })
    }
}

/// A file of `AF_UNIX`: its name is one component of a path, and its path fits into `sun_path`.
fn read_file(family: u16, value: &FileValue) -> Read<FileAddress> {
    if family != AF_UNIX {
        return Err(type_error("{\"descriptor\": n} is an address of AF_UNIX alone"));
    }
    let read = |value: &PathValue| match value {
        PathValue::Text(text) => Ok(text.clone().into_bytes()),
        PathValue::Bytes(bytes) => decode(bytes),
    };
    let name = value.name.as_ref().map(read).transpose()?;
    let path = value.path.as_ref().map(read).transpose()?;
    let whole = |name: &Vec<u8>| {
        !matches!(name.as_slice(), b"" | b"." | b"..")
            && !name.iter().any(|byte| b"/\0".contains(byte))
    };
    if !name.as_ref().is_none_or(whole) {
        return Err(value_error("the name in a folder is one component of a path"));
    }
    for part in [&name, &path].into_iter().flatten() {
        if part.len() > UNIX_NAME_MAX {
            return Err(os_error("AF_UNIX path too long"));
        }
    }
    if path.as_ref().is_some_and(|path| path.is_empty() || path.contains(&0)) {
        return Err(value_error("the path of a file has at least one byte, and no NUL"));
    }
    Ok(FileAddress { descriptor: value.descriptor, name, path })
}

fn read_opaque(value: &OpaqueValue) -> Read<Address> {
    let family = u16::try_from(value.family.0)
        .map_err(|_error| overflow("the address family must be 0-65535"))?;
    let data = decode_base64(&value.base64).map_err(value_error)?;
    if data.len() > OPAQUE_MAX {
        return Err(os_error(format!(
            "a raw address has at most {OPAQUE_MAX} bytes after sa_family"
        )));
    }
    // An AF_UNSPEC address is always Unspecified, so that connect(2) dissolves associations.
    if family == AF_UNSPEC && data.is_empty() {
        return Ok(Address::Unspecified);
    }
    Ok(Address::Opaque { family, data })
}

/// The first item as a host in ASCII text; the client encodes IDNA names.
fn host(items: &[AddressItem]) -> Read<String> {
    match items.first() {
        Some(AddressItem::Text(text)) if text.contains('\0') => {
            Err(type_error("host name must not contain a null character"))
        }
        Some(AddressItem::Text(text)) => Ok(text.clone()),
        _ => Err(type_error("the host must be a string")),
    }
}

fn interface(items: &[AddressItem]) -> Read<String> {
    match items.first() {
        Some(AddressItem::Text(text)) => Ok(text.clone()),
        _ => Err(type_error("the interface must be a string")),
    }
}

fn port(items: &[AddressItem]) -> Read<u16> {
    match items.get(1).and_then(AddressItem::integer) {
        Some(value) => u16::try_from(value).map_err(|_error| overflow("port must be 0-65535.")),
        None => Err(type_error("the port must be an integer")),
    }
}

fn device(items: &[AddressItem]) -> Read<BluetoothAddress> {
    match items.first() {
        Some(AddressItem::Text(text)) => bluetooth(text),
        _ => Err(type_error("the Bluetooth device must be a string")),
    }
}

fn bluetooth(text: &str) -> Read<BluetoothAddress> {
    let mut address = BluetoothAddress::default();
    let mut parts = text.split(':');
    for byte in &mut address {
        let part = parts.next().filter(|part| (1..=2).contains(&part.len()));
        let value = part.and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = value.ok_or_else(|| os_error("bad bluetooth address"))?;
    }
    match parts.next() {
        None => Ok(address),
        Some(_) => Err(os_error("bad bluetooth address")),
    }
}

fn octets(items: &[AddressItem], index: usize, what: &str) -> Read<Vec<u8>> {
    match items.get(index) {
        Some(AddressItem::Text(text)) => Ok(text.clone().into_bytes()),
        Some(AddressItem::Bytes(bytes)) => decode(bytes),
        _ => Err(type_error(format!("the {what} must be a string or bytes"))),
    }
}

fn decode(bytes: &BytesValue) -> Read<Vec<u8>> {
    decode_base64(&bytes.base64).map_err(value_error)
}

/// An `unsigned int`; CPython's format `I` takes the low 32 bits of any number.
fn word(items: &[AddressItem], index: usize, what: &str) -> Read<u32> {
    wrapping(items, index, what, None, i64::from(u32::MAX))
}

fn optional_word(items: &[AddressItem], index: usize, what: &str) -> Read<u32> {
    wrapping(items, index, what, Some(0), i64::from(u32::MAX))
}

/// The low bits of a number, as C's conversion keeps them.
fn wrapping<T: TryFrom<i64>>(
    items: &[AddressItem],
    index: usize,
    what: &str,
    default: Option<i64>,
    mask: i64,
) -> Read<T> {
    let value = match (items.get(index), default) {
        (None, Some(default)) => Some(default),
        (item, _) => item.and_then(AddressItem::integer).map(|value| low_bits(value, mask)),
    };
    let Some(value) = value else {
        return Err(type_error(format!("{what} must be an integer")));
    };
    T::try_from(value).map_err(|_error| overflow(format!("{what} is out of range")))
}

fn low_bits(value: i128, mask: i64) -> i64 {
    // A value within a mask of 63 bits fits.
    i64::try_from(value & i128::from(mask)).unwrap_or_default()
}

/// A 64-bit integer: a number or, above 2^53, decimal text; a negative number keeps its bits.
fn wide(items: &[AddressItem], index: usize, what: &str) -> Read<u64> {
    match items.get(index) {
        Some(AddressItem::Number(value)) => Ok(value.cast_unsigned()),
        Some(item @ AddressItem::Other(_)) => match item.integer() {
            // CPython's format `K` takes the low 64 bits.
            Some(value) => Ok(u64::try_from(value & i128::from(u64::MAX)).unwrap_or_default()),
            None => Err(type_error(format!("{what} must be an integer"))),
        },
        Some(AddressItem::Text(text)) => {
            text.parse().map_err(|_error| overflow(format!("{what} must be an integer of 64 bits")))
        }
        _ => Err(type_error(format!("{what} must be an integer"))),
    }
}

fn optional<T: TryFrom<i64>>(
    items: &[AddressItem],
    index: usize,
    what: &str,
    default: T,
    range: std::ops::RangeInclusive<i64>,
) -> Read<T> {
    if items.len() <= index {
        return Ok(default);
    }
    number(items, index, what, range)
}

fn number<T: TryFrom<i64>>(
    items: &[AddressItem],
    index: usize,
    what: &str,
    range: std::ops::RangeInclusive<i64>,
) -> Read<T> {
    let Some(value) = items.get(index).and_then(AddressItem::integer) else {
        return Err(type_error(format!("{what} must be an integer")));
    };
    let out_of_range = || overflow(format!("{what} must be {}-{}.", range.start(), range.end()));
    let value = i64::try_from(value).ok().filter(|value| range.contains(value));
    value.and_then(|value| T::try_from(value).ok()).ok_or_else(out_of_range)
}

fn type_error(message: impl Into<String>) -> AddressError {
    AddressError { exception: Exception::TypeError, message: message.into() }
}

fn value_error(message: impl Into<String>) -> AddressError {
    AddressError { exception: Exception::ValueError, message: message.into() }
}

fn overflow(message: impl Into<String>) -> AddressError {
    AddressError { exception: Exception::OverflowError, message: message.into() }
}

fn os_error(message: impl Into<String>) -> AddressError {
    AddressError { exception: Exception::OSError, message: message.into() }
}
