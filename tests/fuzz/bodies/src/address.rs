//! Addresses: JSON to the kernel's bytes and back, and any bytes of the kernel's to JSON and back.

use sockbroker_proto::address::{Address, AddressItem, AddressValue, Parsed, family};
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::{CAPACITY, RawAddress};

/// Every family with a spelling of its own and one without; protocols tell Bluetooth and CAN apart.
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

/// Reads the bytes as the JSON of an address, and as an address of the kernel.
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

/// Reads a value, completing what needs a look-up.
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
            assert!(!error.message.is_empty(), "a refusal without words");
            None
        }
    }
}

/// A JSON spelling is the same after being written and read. What is kept only so that it can be
/// refused need not be: a float may come back with another last digit.
fn check_json(value: &AddressValue) {
    let is_kept = |item: &AddressItem| matches!(item, AddressItem::Other(_));
    let text = serde_json::to_string(value).unwrap_or_default();
    let again = serde_json::from_str::<AddressValue>(&text).ok();
    match value {
        AddressValue::Tuple(items) if items.iter().any(is_kept) => assert!(again.is_some()),
        _ => assert_eq!(again.as_ref(), Some(value), "{text}"),
    }
}

/// The kernel's bytes have one meaning: decoded and encoded once they are settled, and what the
/// broker tells of them is, said back, the same address.
fn check_raw(raw: RawAddress, kind: SocketSpec) {
    let Some(address) = raw.decode(kind.protocol) else {
        assert!(raw.is_empty());
        return;
    };
    if raw.as_bytes().len() < size_of::<u16>() {
        return; // Not even a family, which encoding always writes.
    }
    let settled = RawAddress::encode(&address);
    assert!(settled.as_bytes().len() <= CAPACITY);
    let again = settled.decode(kind.protocol);
    assert_eq!(again.as_ref(), Some(&address), "{raw:?} settled as {settled:?}");
    assert_eq!(
        raw.names_descriptor(),
        settled.names_descriptor(),
        "{raw:?}: a descriptor number came or went"
    );
    let value = address.to_value(&|index| format!("if{index}"));
    check_json(&value);
    // Not every address that the kernel may report is one that Python lets in (`flowinfo`).
    if let Some(said_back) = said_back(&value, &address, kind) {
        assert_eq!(said_back, spoken(address), "{value:?}");
    }
}

/// What a program that gives the broker's own spelling back means by it.
fn said_back(value: &AddressValue, told: &Address, kind: SocketSpec) -> Option<Address> {
    let of_its_family = SocketSpec { domain: i32::from(told.family()), ..kind };
    match value.read(of_its_family).ok()? {
        // The raw form means what its bytes mean: the broker decodes it before it judges.
        Parsed::Address(address @ Address::Opaque { .. }) => {
            RawAddress::encode(&address).decode(kind.protocol)
        }
        Parsed::Address(address) => Some(address),
        Parsed::Interface(interface) => {
            let index = interface.name.strip_prefix("if").and_then(|index| index.parse().ok());
            Some(interface.with_index(index.unwrap_or_default()))
        }
        Parsed::Host(host) => unreachable!("{told:?} was told with a name: {host:?}"),
        Parsed::File(file) => unreachable!("{told:?} was told as a file: {file:?}"),
    }
}

/// The part of an address that has a JSON spelling, which is CPython's: it leaves out some fields.
fn spoken(mut address: Address) -> Address {
    if let Address::Alg { feat, mask, .. } = &mut address {
        (*feat, *mask) = (0, 0);
    }
    // A service, without the channel that the kernel chose for it.
    if let Address::L2cap { psm: 1.., cid, bdaddr_type: 0, .. } = &mut address {
        *cid = 0;
    }
    address
}
