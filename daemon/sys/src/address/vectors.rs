//! Test vectors: the bytes of an address of each family, written from the kernel's headers.
#![cfg(target_endian = "little")]

use std::net::{Ipv4Addr, Ipv6Addr};

use sockbroker_proto::address::Address;

use super::RawAddress;

const BDADDR: [u8; 6] = [0x00, 0x11, 0x22, 0x33, 0x44, 0x55];

/// Asserts that `bytes` are the kernel's layout of `address`, in both directions.
#[track_caller]
pub(super) fn check(address: &Address, proto: i32, bytes: &[u8]) {
    let raw = RawAddress::encode(address);
    assert_eq!(raw.as_bytes(), bytes);
    assert_eq!(RawAddress::from_bytes(bytes), Some(raw));
    assert_eq!(raw.decode(proto).as_ref(), Some(address));
}

/// `bytes` followed by zeros.
pub(super) fn padded(bytes: &[u8], length: usize) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(length, 0);
    padded
}

#[test]
fn internet_addresses_have_port_and_flow_in_network_order() {
    let v4 = Address::Inet { host: Ipv4Addr::new(192, 0, 2, 1), port: 0x1234 };
    check(&v4, 0, &padded(&[2, 0, 0x12, 0x34, 192, 0, 2, 1], 16));

    let host = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let v6 = Address::Inet6 { host, port: 443, flowinfo: 0x0a_0b0c, scope_id: 2 };
    let mut bytes = vec![10, 0, 0x01, 0xbb, 0x00, 0x0a, 0x0b, 0x0c, 0xfe, 0x80];
    bytes.extend([0; 13]);
    bytes.extend([1, 2, 0, 0, 0]);
    assert_eq!(bytes.len(), 28);
    check(&v6, 0, &bytes);
}

#[test]
fn unix_addresses_differ_in_length_and_first_byte() {
    check(&Address::UnixUnnamed, 0, &[1, 0]);
    check(&Address::UnixPath(b"/s".to_vec()), 0, b"\x01\0/s\0");
    check(&Address::UnixAbstract(b"a\0b".to_vec()), 0, b"\x01\0\0a\0b");
    check(&Address::UnixAbstract(Vec::new()), 0, b"\x01\0\0");
    let longest = [b"\x01\0".as_slice(), &[b'p'; 107], b"\0"].concat();
    check(&Address::UnixPath(vec![b'p'; 107]), 0, &longest);
    // A name that fills sun_path has no room for the NUL; a server can have bound such a name.
    let full = [b"\x01\0".as_slice(), &[b'p'; 108]].concat();
    check(&Address::UnixPath(vec![b'p'; 108]), 0, &full);
}

#[test]
fn netlink_addresses_have_padding_after_the_family() {
    let address = Address::Netlink { pid: 0x0102_0304, groups: 0x8000_0001 };
    check(&address, 0, &[16, 0, 0, 0, 4, 3, 2, 1, 1, 0, 0, 0x80]);
}

#[test]
fn packet_addresses_have_the_protocol_in_network_order() {
    let address = Address::Packet {
        ifindex: 2,
        protocol: 0x0800,
        pkttype: 4,
        hatype: 1,
        addr: vec![2, 0, 0, 0, 0, 9],
    };
    let bytes = [17, 0, 0x08, 0x00, 2, 0, 0, 0, 1, 0, 4, 6, 2, 0, 0, 0, 0, 9, 0, 0];
    check(&address, 0, &bytes);
}

#[test]
fn vsock_addresses_have_the_port_before_the_context() {
    let address = Address::Vsock { cid: 3, port: 1024 };
    check(&address, 0, &padded(&[40, 0, 0, 0, 0, 4, 0, 0, 3, 0, 0, 0], 16));
}

#[test]
fn three_forms_of_tipc_addresses_share_a_union() {
    let range = Address::TipcNameSeq { name_type: 1, lower: 2, upper: 3, scope: -1 };
    check(&range, 0, &[30, 0, 1, 0xff, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    let name = Address::TipcName { name_type: 1, instance: 2, domain: 3, scope: 2 };
    check(&name, 0, &[30, 0, 2, 2, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
    let id = Address::TipcId { node: 0x0100_1001, reference: 7, scope: 0 };
    check(&id, 0, &[30, 0, 3, 0, 7, 0, 0, 0, 0x01, 0x10, 0x00, 0x01, 0, 0, 0, 0]);
}

#[test]
fn bluetooth_device_addresses_are_reversed() {
    let l2cap = Address::L2cap { bdaddr: BDADDR, psm: 0x1001, cid: 4, bdaddr_type: 2 };
    let bytes = [31, 0, 0x01, 0x10, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00, 4, 0, 2, 0];
    check(&l2cap, 0, &bytes);
    let hci = Address::Hci { device: 1, channel: 2 };
    check(&hci, 1, &[31, 0, 1, 0, 2, 0]);
    let sco = Address::Sco { bdaddr: BDADDR };
    check(&sco, 2, &[31, 0, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00]);
    let rfcomm = Address::Rfcomm { bdaddr: BDADDR, channel: 5 };
    check(&rfcomm, 3, &[31, 0, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00, 5, 0]);
}

#[test]
fn can_addresses_are_read_by_protocol() {
    check(&Address::Can { ifindex: 5 }, 1, &padded(&[29, 0, 0, 0, 5], 24));
    let isotp = Address::CanIsotp { ifindex: 5, rx_id: 0x123, tx_id: 0x8000_0456 };
    let bytes = [29, 0, 0, 0, 5, 0, 0, 0, 0x23, 1, 0, 0, 0x56, 4, 0, 0x80];
    check(&isotp, 6, &padded(&bytes, 24));
    let j1939 =
        Address::CanJ1939 { ifindex: 5, name: 0x1122_3344_5566_7788, pgn: 0x1_2300, addr: 0xfe };
    let bytes = [
        29, 0, 0, 0, 5, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0x23, 1, 0,
        0xfe,
    ];
    check(&j1939, 7, &padded(&bytes, 24));
    // CAN_RAW reports only the part that it uses.
    let short = RawAddress::from_bytes(&[29, 0, 0, 0, 5, 0, 0, 0]).unwrap();
    assert_eq!(short.decode(1), Some(Address::Can { ifindex: 5 }));
    assert!(matches!(short.decode(7), Some(Address::Opaque { family: 29, .. })));
}

#[test]
fn alg_addresses_have_texts_of_fixed_size() {
    let address =
        Address::Alg { alg_type: b"hash".to_vec(), name: b"sha256".to_vec(), feat: 1, mask: 2 };
    let head = padded(b"\x26\0hash", 16);
    let bytes = [head.as_slice(), &[1, 0, 0, 0, 2, 0, 0, 0], b"sha256"].concat();
    check(&address, 0, &padded(&bytes, 88));
}

#[test]
fn qipcrtr_addresses_have_padding_after_the_family() {
    check(&Address::Qipcrtr { node: 1, port: 2 }, 0, &[42, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
}
