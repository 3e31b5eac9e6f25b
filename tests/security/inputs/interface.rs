//! Inputs that choose an interface.

use serde_json::{Value, json};
use sockbroker_test_support::base64;

use super::{Answers, EVERYTHING, index, ip, load};
use crate::arena::Arena;

const RULES: &str = r#"
[[rule]]
name = "not on the lan"
subject = { uids = [4200001] }
deny = ["bind", "connect", "send", "option", "capture", "inject"]
interface = ["lan0", "averylongname15"]
"#;

rows! { RULES;
    name_of_a_device: "`SO_BINDTODEVICE`: the name", "not on the lan", |arena| {
        set_each(arena, "SOL_SOCKET", &json!("SO_BINDTODEVICE"), &[json!(base64("lan0")), json!(base64("lan0\0rest"))])
    };
    name_that_the_kernel_cuts: "`SO_BINDTODEVICE`: a longer name is cut at 15 characters (`sock_setbindtodevice`)", "not on the lan", |arena| {
        let long = json!(base64("averylongname15andmore"));
        set_each(arena, "SOL_SOCKET", &json!("SO_BINDTODEVICE"), &[long])
    };
    other_name_of_a_device: "`SO_BINDTODEVICE`: an alternative name (altname)", "not on the lan", |arena| {
        set_each(arena, "SOL_SOCKET", &json!("SO_BINDTODEVICE"), &[json!(base64("thesamelan"))])
    };
    number_of_a_device: "`SO_BINDTOIFINDEX`: the index", "not on the lan", |arena| {
        set_each(arena, "SOL_SOCKET", &json!(62), &[json!(index("lan0"))])
    };
    item_of_a_message: "`IP_PKTINFO`, `IPV6_PKTINFO`: the interface, of any of several items", "not on the lan", |arena| {
        let (udp, six) = (arena.udp(), arena.udp6());
        let info = |index: u32| base64([&index.to_ne_bytes()[..], &[0; 8]].concat());
        let four = |index| json!(["IPPROTO_IP", "IP_PKTINFO", info(index)]);
        let info6 = base64([&[0; 16][..], &index("lan0").to_ne_bytes()].concat());
        let item6 = json!(["IPPROTO_IPV6", "IPV6_PKTINFO", info6]);
        let to = json!(["10.99.0.9", 9]);
        let mut answers = arena.sends(udp, &to, &json!([four(index("lan0"))]));
        answers.extend(arena.sends(udp, &to, &json!([four(1), four(index("lan0"))])));
        answers.extend(arena.sends(six, &json!(["fd99::9", 9]), &json!([item6])));
        answers
    };
    sticky_item: "`IPV6_PKTINFO` as an option: the interface of all later messages", "not on the lan", |arena| {
        let info = [&[0; 16][..], &index("lan0").to_ne_bytes()].concat();
        set_each6(arena, "IPV6_PKTINFO", &[json!(base64(info))])
    };
    interface_of_multicast: "`IP_MULTICAST_IF`: by index and by address", "not on the lan", |arena| {
        let by_index = [&[0; 8][..], &index("lan0").to_ne_bytes()].concat();
        let values = [json!(base64(by_index)), json!(base64([10, 99, 0, 5]))];
        set_each(arena, "IPPROTO_IP", &json!("IP_MULTICAST_IF"), &values)
    };
    address_that_routes_alone_know: "`IP_MULTICAST_IF`, memberships: an address that no interface carries (`__ip_dev_find`)", "not on the lan", |arena| {
        ip("route add local 10.98.0.0/24 dev lan0");
        let udp = arena.udp();
        let join = json!(base64([239, 1, 1, 1, 10, 98, 0, 1]));
        vec![
            arena.tries("setsockopt", json!([udp, "IPPROTO_IP", "IP_MULTICAST_IF", base64([10, 98, 0, 1])])),
            arena.tries("setsockopt", json!([udp, "IPPROTO_IP", "IP_ADD_MEMBERSHIP", join])),
        ]
    };
    interface_of_multicast6: "`IPV6_MULTICAST_IF`: the index", "not on the lan", |arena| {
        set_each6(arena, "IPV6_MULTICAST_IF", &[json!(index("lan0"))])
    };
    interface_of_unicast: "`IP_UNICAST_IF`, `IPV6_UNICAST_IF`: the index in network order", "not on the lan", |arena| {
        let number = json!(base64(index("lan0").to_be_bytes()));
        let mut answers = set_each(arena, "IPPROTO_IP", &json!(50), std::slice::from_ref(&number));
        let six = arena.udp6();
        answers.push(arena.tries("setsockopt", json!([six, "IPPROTO_IPV6", 76, number])));
        answers
    };
    scope_of_an_address: "the scope of an IPv6 address", "not on the lan", |arena| {
        let six = arena.udp6();
        let address = json!(["fe80::9", 9, 0, index("lan0")]);
        let mut answers = arena.sends(six, &address, &json!([]));
        answers.push(arena.tries("connect", json!([six, address])));
        answers.push(arena.tries("bind", json!([six, ["fe80::9", 0, 0, index("lan0")]])));
        answers
    };
    membership: "multicast memberships: the interface", "not on the lan", |arena| {
        let mreqn = [&[239, 1, 1, 1, 0, 0, 0, 0][..], &index("lan0").to_ne_bytes()].concat();
        let by_address = [239, 1, 1, 1, 10, 99, 0, 5];
        let values = [json!(base64(mreqn)), json!(base64(by_address))];
        let mut answers = set_each(arena, "IPPROTO_IP", &json!("IP_ADD_MEMBERSHIP"), &values);
        let group = [&[0xff, 2][..], &[0; 13], &[9], &index("lan0").to_ne_bytes()].concat();
        answers.extend(set_each6(arena, "IPV6_JOIN_GROUP", &[json!(base64(group))]));
        answers
    };
    address_of_a_packet_socket: "packet sockets: the index of the address", "not on the lan", |arena| {
        let packet = arena.socket(json!(["AF_PACKET", "SOCK_RAW", 0]));
        let frame = base64([0; 60]);
        vec![
            arena.tries("bind", json!([packet, ["lan0", 3]])),
            arena.tries("sendto", json!([packet, frame, 0, ["lan0", 3]])),
        ]
    };
    membership_of_a_packet_socket: "`PACKET_ADD_MEMBERSHIP`: the index", "not on the lan", |arena| {
        let packet = arena.socket(json!(["AF_PACKET", "SOCK_RAW", 0]));
        let promiscuous = [&index("lan0").to_ne_bytes()[..], &1_u16.to_ne_bytes(), &[0; 10]].concat();
        let set = json!([packet, 263, 1, base64(promiscuous)]);
        vec![arena.tries("setsockopt", set)]
    };
    choices_made_before: "devices and options that were allowed before a reload: what follows is judged by them", "not on the lan", chosen_before;
}

fn set_each(arena: &mut Arena, level: &str, name: &Value, values: &[Value]) -> Answers {
    let set = |value: &Value| {
        let udp = arena.udp();
        arena.tries("setsockopt", json!([udp, level, name, value]))
    };
    values.iter().map(set).collect()
}

fn set_each6(arena: &mut Arena, name: &str, values: &[Value]) -> Answers {
    let set = |value: &Value| {
        let six = arena.udp6();
        arena.tries("setsockopt", json!([six, "IPPROTO_IPV6", name, value]))
    };
    values.iter().map(set).collect()
}

/// Chooses the interface while it is allowed, then sends while it is not.
fn chosen_before(arena: &mut Arena) -> Answers {
    let policy = arena.broker.folder().join("policy.toml");
    let strict = std::fs::read_to_string(&policy).unwrap();
    load(arena, EVERYTHING);
    let lan = index("lan0");
    let sticky = base64([&[0; 16][..], &lan.to_ne_bytes()].concat());
    let by_index = base64([&[0; 8][..], &lan.to_ne_bytes()].concat());
    let unicast = base64(lan.to_be_bytes());
    let (bound, bound_tcp, multicast, by_address) =
        (arena.udp(), arena.tcp(), arena.udp(), arena.udp());
    let (unicast4, sticky6, multicast6) = (arena.udp(), arena.udp6(), arena.udp6());
    for (socket, level, name, value) in [
        (bound, "SOL_SOCKET", json!("SO_BINDTODEVICE"), json!(base64("lan0"))),
        (bound_tcp, "SOL_SOCKET", json!(62), json!(lan)),
        (multicast, "IPPROTO_IP", json!("IP_MULTICAST_IF"), json!(by_index)),
        (by_address, "IPPROTO_IP", json!("IP_MULTICAST_IF"), json!(base64([10, 99, 0, 5]))),
        (unicast4, "IPPROTO_IP", json!(50), json!(unicast)),
        (sticky6, "IPPROTO_IPV6", json!("IPV6_PKTINFO"), json!(sticky)),
        (multicast6, "IPPROTO_IPV6", json!("IPV6_MULTICAST_IF"), json!(lan)),
    ] {
        arena.does("setsockopt", json!([socket, level, name, value]));
    }
    load(arena, &strict);
    let (group, group6) = (json!(["239.1.1.1", 9]), json!(["ff02::9", 9]));
    let mut answers = arena.sends(bound, &json!(["10.99.0.9", 9]), &json!([]));
    answers.push(arena.tries("connect", json!([bound_tcp, ["10.99.0.9", 9]])));
    answers.extend(arena.sends(multicast, &group, &json!([])));
    answers.extend(arena.sends(by_address, &group, &json!([])));
    answers.extend(arena.sends(unicast4, &json!(["10.99.0.9", 9]), &json!([])));
    answers.extend(arena.sends(sticky6, &json!(["fd99::9", 9]), &json!([])));
    answers.extend(arena.sends(multicast6, &group6, &json!([])));
    // Another handle of the same socket has the same state.
    let again = arena.does("dup", json!([sticky6]))["handle"].as_u64().unwrap();
    answers.extend(arena.sends(again, &json!(["fd99::9", 9]), &json!([])));
    answers
}
