//! Properties: every address round-trips through the kernel's layout, and decoding accepts any bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use sockbroker_proto::address::Address;

use super::RawAddress;

/// A name of these lengths without NUL.
fn name(lengths: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(1..=u8::MAX, lengths)
}

fn internet() -> impl Strategy<Value = (Address, i32)> {
    let v4 =
        any::<([u8; 4], u16)>().prop_map(|(host, port)| Address::Inet { host: host.into(), port });
    let v6 = any::<([u8; 16], u16, u32, u32)>().prop_map(|(host, port, flowinfo, scope_id)| {
        Address::Inet6 { host: host.into(), port, flowinfo, scope_id }
    });
    prop_oneof![v4, v6].prop_map(|address| (address, 0))
}

fn named() -> impl Strategy<Value = (Address, i32)> {
    let alg = (name(0..=13), name(0..=63), any::<(u32, u32)>())
        .prop_map(|(alg_type, name, (feat, mask))| Address::Alg { alg_type, name, feat, mask });
    let path = name(1..=108).prop_map(Address::UnixPath);
    let abstract_name = vec(any::<u8>(), 0..=107).prop_map(Address::UnixAbstract);
    let none = Just(Address::UnixUnnamed);
    let other = (100..=u16::MAX, vec(any::<u8>(), 0..=126))
        .prop_map(|(family, data)| Address::Opaque { family, data });
    let unspecified = Just(Address::Unspecified);
    prop_oneof![alg, path, abstract_name, none, other, unspecified].prop_map(|address| (address, 0))
}

fn machine() -> impl Strategy<Value = (Address, i32)> {
    let packet = (any::<(u32, u16, u8, u16)>(), vec(any::<u8>(), 0..=8)).prop_map(
        |((ifindex, protocol, pkttype, hatype), addr)| Address::Packet {
            ifindex,
            protocol,
            pkttype,
            hatype,
            addr,
        },
    );
    let pairs = any::<(u32, u32, u8)>().prop_map(|(a, b, which)| match which % 3 {
        0 => Address::Netlink { pid: a, groups: b },
        1 => Address::Vsock { cid: a, port: b },
        _ => Address::Qipcrtr { node: a, port: b },
    });
    let tipc =
        any::<(u32, u32, u32, i8, u8)>().prop_map(|(a, b, c, scope, which)| match which % 3 {
            0 => Address::TipcNameSeq { name_type: a, lower: b, upper: c, scope },
            1 => Address::TipcName { name_type: a, instance: b, domain: c, scope },
            _ => Address::TipcId { node: a, reference: b, scope },
        });
    prop_oneof![packet, pairs, tipc].prop_map(|address| (address, 0))
}

fn by_protocol() -> impl Strategy<Value = (Address, i32)> {
    let bluetooth =
        any::<([u8; 6], u16, u16, u8, u8)>().prop_map(|(bdaddr, a, b, c, which)| match which % 4 {
            0 => (Address::L2cap { bdaddr, psm: a, cid: b, bdaddr_type: c }, 0),
            1 => (Address::Hci { device: a, channel: b }, 1),
            2 => (Address::Sco { bdaddr }, 2),
            _ => (Address::Rfcomm { bdaddr, channel: c }, 3),
        });
    let can =
        any::<(u32, u32, u32, u64, u8, u8)>().prop_map(|(ifindex, a, b, name, addr, which)| {
            match which % 3 {
                0 => (Address::Can { ifindex }, 1),
                1 => (Address::CanIsotp { ifindex, rx_id: a, tx_id: b }, 6),
                _ => (Address::CanJ1939 { ifindex, name, pgn: a, addr }, 7),
            }
        });
    prop_oneof![bluetooth, can]
}

proptest! {
    #[test]
    fn every_address_round_trips(
        (address, proto) in prop_oneof![internet(), named(), machine(), by_protocol()]
    ) {
        let raw = RawAddress::encode(&address);
        prop_assert_eq!(raw.decode(proto), Some(address));
        prop_assert_eq!(RawAddress::from_bytes(raw.as_bytes()), Some(raw));
    }

    #[test]
    fn decoding_accepts_any_bytes(
        family in 0..50u8, rest in vec(any::<u8>(), 0..=126), proto in -1..9i32
    ) {
        let bytes = [&[family, 0], rest.as_slice()].concat();
        let raw = RawAddress::from_bytes(&bytes).unwrap();
        let address = raw.decode(proto).unwrap();
        // A decoded address means the same to the kernel when it is encoded again.
        prop_assert_eq!(RawAddress::encode(&address).decode(proto), Some(address));
        raw.names_descriptor();
    }

    #[test]
    fn at_most_128_bytes_are_an_address(bytes in vec(any::<u8>(), 0..200)) {
        let raw = RawAddress::from_bytes(&bytes);
        prop_assert_eq!(raw.is_some(), bytes.len() <= 128);
        if let Some(raw) = raw {
            prop_assert_eq!(raw.as_bytes(), &bytes);
        }
    }
}
