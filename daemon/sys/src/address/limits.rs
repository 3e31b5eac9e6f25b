//! Tests of addresses that are truncated, malformed or disguised.
#![cfg(target_endian = "little")]

use std::net::Ipv6Addr;

use sockbroker_proto::address::Address;

use super::RawAddress;
use super::vectors::{check, padded};

#[test]
fn ipv6_address_without_scope_is_decoded() {
    let mut bytes = vec![10, 0, 0, 80, 0, 0, 0, 0];
    bytes.extend([0; 15]);
    bytes.push(1);
    let loopback = Address::Inet6 { host: Ipv6Addr::LOCALHOST, port: 80, flowinfo: 0, scope_id: 0 };
    assert_eq!(RawAddress::from_bytes(&bytes).unwrap().decode(0), Some(loopback));
}

#[test]
fn unix_path_ends_at_its_first_nul() {
    let raw = RawAddress::from_bytes(b"\x01\0/s\0junk").unwrap();
    assert_eq!(raw.decode(0), Some(Address::UnixPath(b"/s".to_vec())));
    let cut = RawAddress::encode(&Address::UnixPath(b"/s\0junk".to_vec()));
    assert_eq!(cut.as_bytes(), b"\x01\0/s\0");
    // A path that the kernel would read as an abstract name is encoded as unnamed.
    let abstract_in_disguise = RawAddress::encode(&Address::UnixPath(b"\0name".to_vec()));
    assert_eq!(abstract_in_disguise.decode(0), Some(Address::UnixUnnamed));
}

#[test]
fn long_hardware_addresses_are_truncated_to_eight_bytes() {
    // InfiniBand: sll_halen is 20, and the address extends beyond the structure.
    let mut bytes = vec![17, 0, 8, 0, 3, 0, 0, 0, 32, 0, 0, 20];
    bytes.extend(1..=20);
    let Some(Address::Packet { addr, .. }) = RawAddress::from_bytes(&bytes).unwrap().decode(0)
    else {
        panic!("not a packet address");
    };
    assert_eq!(addr, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn too_long_alg_texts_end_with_a_nul() {
    let (alg_type, name) = (vec![b't'; 20], vec![b'n'; 90]);
    let raw = RawAddress::encode(&Address::Alg { alg_type, name, feat: 0, mask: 0 });
    assert_eq!(raw.as_bytes().len(), 88);
    let cut = Address::Alg { alg_type: vec![b't'; 13], name: vec![b'n'; 63], feat: 0, mask: 0 };
    assert_eq!(raw.decode(0), Some(cut));
}

#[test]
fn unspecified_is_a_complete_sockaddr_of_zeros() {
    check(&Address::Unspecified, 0, &[0; 16]);
    assert_eq!(RawAddress::from_bytes(&[0, 0]).unwrap().decode(0), Some(Address::Unspecified));
    // UDP reads this as an IPv4 address (udp_sendmsg), so it must not be decoded as Unspecified.
    let disguised = RawAddress::from_bytes(&padded(&[0, 0, 0, 53, 127, 0, 0, 1], 16)).unwrap();
    assert!(matches!(disguised.decode(0), Some(Address::Opaque { family: 0, .. })));
}

#[test]
fn other_families_and_short_addresses_are_opaque() {
    check(&Address::Opaque { family: 44, data: vec![0, 0, 1, 2] }, 0, &[44, 0, 0, 0, 1, 2]);
    let short = RawAddress::from_bytes(&[2, 0, 0, 80]).unwrap();
    assert_eq!(short.decode(0), Some(Address::Opaque { family: 2, data: vec![0, 80] }));
    let odd = RawAddress::from_bytes(&[7]).unwrap();
    assert_eq!(odd.decode(0), Some(Address::Opaque { family: 0, data: vec![7] }));
    let unknown = RawAddress::from_bytes(&[31, 0, 1, 0]).unwrap();
    assert_eq!(unknown.decode(9), Some(Address::Opaque { family: 31, data: vec![1, 0] }));
}

#[test]
fn zero_bytes_are_no_address() {
    let none = RawAddress::default();
    assert!(none.is_empty());
    assert_eq!(none.decode(0), None);
    assert_eq!(RawAddress::from_bytes(&[]), Some(none));
}

#[test]
fn addresses_have_at_most_128_bytes() {
    assert!(RawAddress::from_bytes(&[0; 128]).is_some());
    assert_eq!(RawAddress::from_bytes(&[0; 129]), None);
    assert_eq!(RawAddress::from_bytes(&[0; 300]), None);
    let raw = RawAddress::encode(&Address::Opaque { family: 99, data: vec![1; 500] });
    assert_eq!(raw.as_bytes().len(), 128);
    let raw = RawAddress::encode(&Address::UnixPath(vec![b'p'; 500]));
    assert_eq!(raw.as_bytes().len(), 128);
}

#[test]
fn addresses_that_name_descriptors_are_recognised() {
    let names = |bytes: &[u8]| RawAddress::from_bytes(bytes).unwrap().names_descriptor();
    assert!(names(&padded(&[44, 0, 1, 0], 16)), "AF_XDP with XDP_SHARED_UMEM");
    assert!(!names(&padded(&[44, 0, 0, 0], 16)), "AF_XDP with its own area");
    assert!(names(&[24, 0, 1, 0, 0, 0]), "AF_PPPOX");
    assert!(!names(&padded(&[2, 0, 1, 0], 16)));
    assert!(!names(&[]));
}
