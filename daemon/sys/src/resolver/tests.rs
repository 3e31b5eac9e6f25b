//! Tests of the resolver with numbers and `localhost`, which need no server.

use std::net::{Ipv4Addr, Ipv6Addr};

use sockbroker_proto::address::Address;

use super::*;

fn gai<T: std::fmt::Debug>(result: Result<T, ResolverError>) -> i32 {
    match result {
        Err(ResolverError::Gai(code)) => code,
        other => panic!("not an EAI_ code: {other:?}"),
    }
}

#[test]
fn numeric_hosts_need_no_server() {
    let found = address_info(
        Some(c"127.0.0.1"),
        Some(c"80"),
        0,
        libc::SOCK_STREAM,
        0,
        libc::AI_NUMERICHOST | libc::AI_NUMERICSERV,
    )
    .unwrap();
    let [only] = found.as_slice() else { panic!("found {found:?}") };
    assert_eq!((only.family, only.kind, only.proto), (libc::AF_INET, libc::SOCK_STREAM, 6));
    let address = Address::Inet { host: Ipv4Addr::LOCALHOST, port: 80 };
    assert_eq!(only.address.decode(0), Some(address));
    assert_eq!(only.canonical_name, "");
}

#[test]
fn absent_host_is_the_loopback_or_with_passive_the_wildcard() {
    let hosts = |flags| {
        let found =
            address_info(None, Some(c"0"), libc::AF_INET6, libc::SOCK_DGRAM, 0, flags).unwrap();
        let decoded = found.iter().map(|info| info.address.decode(0));
        decoded.collect::<Vec<_>>()
    };
    let is = |host| Some(Address::Inet6 { host, port: 0, flowinfo: 0, scope_id: 0 });
    assert_eq!(hosts(0), [is(Ipv6Addr::LOCALHOST)]);
    assert_eq!(hosts(libc::AI_PASSIVE), [is(Ipv6Addr::UNSPECIFIED)]);
}

#[test]
fn canonical_name_is_returned_on_request() {
    let flags = libc::AI_CANONNAME | libc::AI_NUMERICHOST;
    let found = address_info(Some(c"192.0.2.1"), None, 0, libc::SOCK_RAW, 0, flags).unwrap();
    assert_eq!(found.first().unwrap().canonical_name, "192.0.2.1");
}

#[test]
fn invalid_queries_have_the_code_of_the_resolver() {
    let numeric = libc::AI_NUMERICHOST;
    assert_eq!(gai(address_info(None, None, 0, 0, 0, 0)), libc::EAI_NONAME);
    let name = address_info(Some(c"not a number"), None, 0, 0, 0, numeric);
    assert_eq!(gai(name), libc::EAI_NONAME);
    let family = address_info(Some(c"127.0.0.1"), None, 9999, 0, 0, numeric);
    assert_eq!(gai(family), libc::EAI_FAMILY);
    let flags = address_info(Some(c"127.0.0.1"), None, 0, 0, 0, 0x4000_0000);
    assert_eq!(gai(flags), libc::EAI_BADFLAGS);
}

#[test]
fn addresses_are_formatted_as_numbers() {
    let v4 = RawAddress::encode(&Address::Inet { host: Ipv4Addr::LOCALHOST, port: 8080 });
    let flags = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    let expected = ("127.0.0.1".to_owned(), "8080".to_owned());
    assert_eq!(name_info(&v4, flags).unwrap(), expected);
    let host = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let v6 = RawAddress::encode(&Address::Inet6 { host, port: 1, flowinfo: 0, scope_id: 0 });
    assert_eq!(name_info(&v6, flags).unwrap().0, "2001:db8::1");
}

#[test]
fn addresses_without_a_name_have_the_code_of_the_resolver() {
    assert_eq!(gai(name_info(&RawAddress::default(), 0)), libc::EAI_FAMILY);
    let short = RawAddress::from_bytes(&[2, 0, 0, 80]).unwrap();
    assert_eq!(gai(name_info(&short, libc::NI_NUMERICHOST)), libc::EAI_FAMILY);
    let other = RawAddress::from_bytes(&[16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    assert_eq!(gai(name_info(&other, 0)), libc::EAI_FAMILY);
}

#[test]
fn codes_have_texts() {
    assert_eq!(gai_message(libc::EAI_NONAME), "Name or service not known");
    assert_eq!(gai_message(12345), "Unknown error");
    assert_eq!(ResolverError::Gai(libc::EAI_FAMILY).to_string(), "ai_family not supported");
    assert_eq!(host_message(1), "Unknown host");
    assert_eq!(ResolverError::Host(2).to_string(), "Host name lookup failure");
}

#[test]
fn texts_of_host_errors_are_those_of_the_library() {
    for code in [-2, -1, 0, 1, 2, 3, 4, 5, 99] {
        // SAFETY: no pointer arguments; the library returns a static text for any code.
        let text = unsafe { libc::hstrerror(code) };
        // SAFETY: the text is NUL-terminated and static.
        assert_eq!(host_message(code), unsafe { owned_text(text) });
    }
}

#[test]
fn null_text_is_empty() {
    // SAFETY: null is allowed.
    assert_eq!(unsafe { owned_text(ptr::null()) }, "");
}
