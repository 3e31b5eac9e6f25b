//! Tests of the databases in `/etc`; a test is skipped if the machine lacks the entry.

use std::fs;
use std::net::Ipv4Addr;

use super::*;
use crate::testing::skip;

/// Whether a file has an entry; if not, reports that the test is skipped.
fn has(path: &str, word: &str) -> bool {
    let found = fs::read_to_string(path)
        .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().any(|w| w == word)));
    if !found {
        skip(&format!("no {word} in {path}"));
    }
    found
}

#[test]
fn numeric_address_is_a_host() {
    let entry = host_by_name(c"192.0.2.7").unwrap();
    let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, 7));
    assert_eq!(
        entry,
        HostEntry { name: "192.0.2.7".into(), aliases: vec![], addresses: vec![address] }
    );
}

#[test]
fn impossible_name_is_a_host_error() {
    let error = host_by_name(c"").unwrap_err();
    assert!(matches!(error, ResolverError::Host(_)), "{error:?}");
}

#[test]
fn services_are_found_in_host_order() {
    if !has("/etc/services", "80/tcp") {
        return;
    }
    assert_eq!(service_by_name(c"http", None), Some(80));
    assert_eq!(service_by_name(c"http", Some(c"tcp")), Some(80));
    assert_eq!(service_by_name(c"http", Some(c"nonexistent")), None);
    assert_eq!(service_by_port(80, Some(c"tcp")).as_deref(), Some("http"));
    assert_eq!(service_by_port(80, None).as_deref(), Some("http"));
    assert_eq!(service_by_port(80, Some(c"nonexistent")), None);
}

#[test]
fn unknown_services_and_protocols_are_none() {
    assert_eq!(service_by_name(c"nonexistent-service", None), None);
    assert_eq!(service_by_name(c"", None), None);
    assert_eq!(service_by_port(0, None), None);
    assert_eq!(protocol_by_name(c"nonexistent-protocol"), None);
}

#[test]
fn protocols_have_numbers() {
    if !has("/etc/protocols", "tcp") {
        return;
    }
    assert_eq!(protocol_by_name(c"tcp"), Some(libc::IPPROTO_TCP));
    assert_eq!(protocol_by_name(c"UDP"), Some(libc::IPPROTO_UDP));
}

#[test]
fn buffers_grow_until_the_entry_fits() {
    let mut sizes = Vec::new();
    let found = look_up(7, |entry, buffer, found| {
        sizes.push(buffer.len());
        if buffer.len() < 20_000 {
            return libc::ERANGE;
        }
        // SAFETY: `found` points to a pointer of `look_up`, alive for this call.
        unsafe { found.write(entry) };
        0
    });
    assert_eq!(found.map(|found| found.entry), Some(7));
    assert_eq!(sizes, [4096, 8192, 16384, 32768]);
    assert!(look_up(0, |_, _, _| libc::ERANGE).is_none(), "growth must have a limit");
}
