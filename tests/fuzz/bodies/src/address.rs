//! Addresses: JSON to kernel bytes and back, and arbitrary kernel bytes to JSON and back.

use sockbroker_proto::address::{Address, AddressItem, AddressValue, Parsed, family};
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::{CAPACITY, RawAddress};

/// Every family with its own JSON form, and one without. Bluetooth and CAN have a form for each protocol.
const KINDS: [(u16, &[i32]); 13] = [
    (family::AF_UNSPEC, &[0]),
    (family::AF_UNIX, &[0]),
    (family::AF_INET, &[0]),
    (family::AF_INET6, &[0]),
    (family::AF_NETLINK, &[0]),
    (family::AF_PACKET, &[0]),
    (family::AF_CAN, &[1, 2, 6, 7]),
    (family::AF_TIPC, &[0]),
    (family::AF_BLUETOOTH, &[0, 1, 2, 3, 4]),
    (family::AF_ALG, &[0]),
    (family::AF_VSOCK, &[0]),
    (family::AF_QIPCRTR, &[0]),
    (44, &[0]), // AF_XDP
];

/// Decodes the bytes as the JSON of an address, and as an address of the kernel.
pub fn body(data: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<AddressValue>(data) {
        check_json(&value);
        for (kind, address) in each_kind().filter_map(|kind| Some((kind, read(&value, kind)?))) {
            assert!(
                u16::try_from(kind.domain) == Ok(address.family())
                    || matches!(value, AddressValue::Opaque(_)),
                "{value:?} became {address:?}"
            );
            check_raw(RawAddress::encode(&address), kind);
        }
    }
    for length in [data.len(), CAPACITY] {
        let Some(raw) = data.get(..length).and_then(RawAddress::from_bytes) else { continue };
        assert_eq!(raw.as_bytes(), &data[..length]);
        for kind in each_kind() {
            check_raw(raw, kind);
        }
    }
}

fn each_kind() -> impl Iterator<Item = SocketSpec> {
    KINDS.iter().flat_map(|(family, protocols)| {
        protocols.iter().map(|proto| SocketSpec {
            domain: i32::from(*family),
            ty: 0,
            protocol: *proto,
        })
    })
}

/// Decodes a value, and completes lookups.
fn read(value: &AddressValue, kind: SocketSpec) -> Option<Address> {
    match value.read(kind) {
        Ok(Parsed::Address(address)) => Some(address),
        Ok(Parsed::Interface(interface)) => Some(interface.with_index(7)),
        Ok(Parsed::Host(host)) => {
            assert!(!host.host.is_empty() && !host.host.contains('\0'), "{host:?}");
            None
        }
        Ok(Parsed::File(file)) => {
            let name = file.name.unwrap_or_else(|| b"s".to_vec());
            assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0), "{name:?}");
            None
        }
        Err(error) => {
            assert!(!error.message.is_empty(), "an error without a message");
            None
        }
    }
}

/// Checks that a JSON form is unchanged after encoding and decoding. Values that are only kept to be refused are
/// exempt: a float can change in its last digit.
fn check_json(value: &AddressValue) {
    let is_kept = |item: &AddressItem| matches!(item, AddressItem::Other(_));
    let text = serde_json::to_string(value).unwrap_or_default();
    let again = serde_json::from_str::<AddressValue>(&text).ok();
    match value {
        AddressValue::Tuple(items) if items.iter().any(is_kept) => assert!(again.is_some()),
        _ => assert_eq!(again.as_ref(), Some(value), "{text}"),
    }
}

/// Checks that kernel bytes have one meaning: they are stable after decoding and encoding once, and the JSON form
/// that the broker reports decodes to the same address.
fn check_raw(raw: RawAddress, kind: SocketSpec) {
    let Some(address) = raw.decode(kind.protocol) else {
        assert!(raw.is_empty());
        return;
    };
    if raw.as_bytes().len() < size_of::<u16>() {
        return; // There is no family, which encoding always writes.
    }
    let settled = RawAddress::encode(&address);
    assert!(settled.as_bytes().len() <= CAPACITY);
    let again = settled.decode(kind.protocol);
    assert_eq!(again.as_ref(), Some(&address), "{raw:?} settled as {settled:?}");
    assert_eq!(
        raw.names_descriptor(),
        settled.names_descriptor(),
        "{raw:?}: a descriptor number appears or disappears"
    );
    let value = address.to_value(&|index| format!("if{index}"));
    check_json(&value);
    // Python does not accept every address that the kernel can report (`flowinfo`).
    if let Some(parse_reported) = parse_reported(&value, &address, kind) {
        assert_eq!(parse_reported, visible_part(address), "{value:?}");
    }
}

/// Decodes the JSON form that the broker reported, as a request would have it.
fn parse_reported(value: &AddressValue, reported: &Address, kind: SocketSpec) -> Option<Address> {
    let of_its_family = SocketSpec { domain: i32::from(reported.family()), ..kind };
    match value.read(of_its_family).ok()? {
        // The raw form has the meaning of its bytes: the broker decodes it before the policy check.
        Parsed::Address(address @ Address::Opaque { .. }) => {
            RawAddress::encode(&address).decode(kind.protocol)
        }
        Parsed::Address(address) => Some(address),
        Parsed::Interface(interface) => {
            let index = interface.name.strip_prefix("if").and_then(|index| index.parse().ok());
            Some(interface.with_index(index.unwrap_or_default()))
        }
        Parsed::Host(host) => unreachable!("{reported:?} was reported with a name: {host:?}"),
        Parsed::File(file) => unreachable!("{reported:?} was reported as a file: {file:?}"),
    }
}

/// Removes the fields of an address that its JSON form, which is that of CPython, does not have.
fn visible_part(mut address: Address) -> Address {
    if let Address::Alg { feat, mask, .. } = &mut address {
        (*feat, *mask) = (0, 0);
    }
    // A service without the channel that the kernel chose for it.
    if let Address::L2cap { psm: 1.., cid, bdaddr_type: 0, .. } = &mut address {
        *cid = 0;
    }
    address
}
