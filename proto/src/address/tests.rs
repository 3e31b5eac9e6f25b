//! Families that few machines have: the results of CPython 3.11 for each of these values.

use serde_json::{Value, json};

use super::family::{AF_BLUETOOTH, AF_CAN, AF_INET, AF_RDS, AF_TIPC};
use super::{Address, AddressError, AddressValue, Exception, Parsed};
use crate::socket_spec::SocketSpec;

const RAW: i32 = 1;
const J1939: i32 = 7;
const HCI: i32 = 1;
const RFCOMM: i32 = 3;

fn parsed(value: &Value) -> AddressValue {
    serde_json::from_value(value.clone()).unwrap()
}

fn read(family: u16, proto: i32, value: &Value) -> Result<Parsed, AddressError> {
    parsed(value).read(SocketSpec { domain: family.into(), ty: 0, protocol: proto })
}

/// The address, with index 3 for the interface if it names one.
fn address(family: u16, proto: i32, value: &Value) -> Address {
    match read(family, proto, value).unwrap() {
        Parsed::Address(address) => address,
        Parsed::Interface(address) => address.with_index(3),
        Parsed::Host(host) => panic!("{host:?} must be resolved"),
        Parsed::File(file) => panic!("{file:?} must be opened"),
    }
}

fn written(address: &Address) -> Value {
    serde_json::to_value(address.to_value(&|_| "vcan0".to_owned())).unwrap()
}

fn refused(family: u16, proto: i32, value: &Value) -> Exception {
    read(family, proto, value).unwrap_err().exception
}

#[test]
fn a_file_of_af_unix_is_a_descriptor_with_a_name_for_bind() {
    let file = |value: Value| match read(1, 0, &value).unwrap() {
        Parsed::File(file) => file,
        other => panic!("{other:?} is not a file"),
    };
    let plain = file(json!({ "descriptor": 2 }));
    assert_eq!((plain.descriptor, plain.name, plain.path), (2, None, None));
    let bound = file(json!({ "descriptor": 0, "name": "s", "path": { "base64": "L3L/L3M=" } }));
    assert_eq!((bound.name, bound.path), (Some(b"s".to_vec()), Some(b"/r\xff/s".to_vec())));
    for name in ["", ".", "..", "a/b", "a\0"] {
        let value = json!({ "descriptor": 0, "name": name });
        assert_eq!(refused(1, 0, &value), Exception::ValueError, "{name:?}");
    }
    for path in ["", "a\0b"] {
        let value = json!({ "descriptor": 0, "name": "s", "path": path });
        assert_eq!(refused(1, 0, &value), Exception::ValueError, "{path:?}");
    }
    let long = json!({ "descriptor": 0, "name": "s", "path": "p".repeat(108) });
    assert_eq!(refused(1, 0, &long), Exception::OSError);
    assert_eq!(refused(2, 0, &json!({ "descriptor": 0 })), Exception::TypeError);
}

#[test]
fn a_name_of_j1939_keeps_its_64_bits_and_other_numbers_their_low_ones() {
    let wide = json!(["vcan0", "17375808098319191535", 262_144, 255]);
    let name = 0xf123_4567_89ab_cdef;
    let found = address(AF_CAN, J1939, &wide);
    assert_eq!(found, Address::CanJ1939 { ifindex: 3, name, pgn: 0x4_0000, addr: 255 });
    assert_eq!(written(&found), wide);
    let low = Address::CanJ1939 { ifindex: 3, name: u64::MAX, pgn: 0, addr: 0 };
    assert_eq!(address(AF_CAN, J1939, &json!(["vcan0", -1, 1_i64 << 32, 256])), low);
    assert_eq!(refused(AF_CAN, J1939, &json!(["vcan0", "name", 0, 0])), Exception::OverflowError);
}

#[test]
fn the_name_of_a_bus_is_checked_before_it_is_looked_up() {
    assert_eq!(refused(AF_CAN, RAW, &json!(["v".repeat(16)])), Exception::OSError);
    assert_eq!(refused(AF_CAN, RAW, &json!(["a\0b"])), Exception::ValueError);
    assert_eq!(address(AF_CAN, RAW, &json!([""])), Address::Can { ifindex: 0 });
    assert_eq!(address(AF_CAN, RAW, &json!(["v".repeat(15)])), Address::Can { ifindex: 3 });
}

#[test]
fn a_scope_of_tipc_has_eight_bits_with_a_sign() {
    let scope = |value: i64| match address(AF_TIPC, 0, &json!([2, 1, 2, 3, value])) {
        Address::TipcName { scope, .. } => scope,
        other => panic!("{other:?}"),
    };
    assert_eq!([scope(-3), scope(500), scope(-500), scope(128)], [-3, -12, 12, -128]);
}

#[test]
fn a_controller_is_a_number_or_a_tuple_and_written_as_a_number() {
    let first = Address::Hci { device: 1, channel: 0 };
    for value in [json!(1), json!([1]), json!([1, 0])] {
        assert_eq!(address(AF_BLUETOOTH, HCI, &value), first);
    }
    assert_eq!(written(&first), json!(1));
    assert_eq!(written(&Address::Hci { device: 1, channel: 2 }), json!([1, 2]));
}

#[test]
fn every_fault_of_a_bluetooth_address_is_an_os_error() {
    let device = "00:11:22:33:44:55";
    for value in [
        json!([]),
        json!([device]),
        json!([device, "1"]),
        json!([5, 1]),
        json!([device, 256]),
        json!(5),
    ] {
        assert_eq!(refused(AF_BLUETOOTH, RFCOMM, &value), Exception::OSError, "{value}");
    }
    for value in [json!("0"), json!(["0"]), json!(70_000), json!(-1)] {
        assert_eq!(refused(AF_BLUETOOTH, HCI, &value), Exception::OSError, "{value}");
    }
}

#[test]
fn rds_has_the_addresses_of_ipv4() {
    let value = json!(["127.0.0.1", 80]);
    assert_eq!(read(AF_RDS, 0, &value), read(AF_INET, 0, &value));
    assert_eq!(refused(AF_RDS, 0, &json!(["127.0.0.1", 65_536])), Exception::OverflowError);
}

#[test]
fn zeros_are_written_as_python_has_them() {
    let zeros = json!({"family": 0, "base64": "AAAAAAAAAAAAAAAAAAA="});
    assert_eq!(written(&Address::Unspecified), zeros);
}

#[test]
fn channel_that_the_kernel_chose_for_a_service_is_not_written() {
    let bdaddr = [0, 0x11, 0x22, 0x33, 0x44, 0x55];
    let l2cap = |psm, cid, bdaddr_type| written(&Address::L2cap { bdaddr, psm, cid, bdaddr_type });
    let device = "00:11:22:33:44:55";
    assert_eq!(l2cap(1, 64, 0), json!([device, 1]));
    assert_eq!(l2cap(0, 4, 0), json!([device, 0, 4, 0]));
    assert_eq!(l2cap(128, 64, 1), json!([device, 128, 64, 1]));
}
