//! scapy, dpkt and python-pcapng, which `.ci/capture-readers` installs.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sockbroker_test_support::skip::skip;

use super::program::{file, output};
use super::{read_packets, sample, sample_packets};

/// Returns the interpreter that has the packages. Without it, the test is skipped.
fn interpreter(test: &str) -> Option<PathBuf> {
    let python =
        Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("capture-readers/bin/python");
    if !python.exists() {
        skip("scapy, dpkt and python-pcapng are not installed: run .ci/capture-readers", test);
        return None;
    }
    Some(python)
}

fn script() -> String {
    format!("{}/tests/capture/readers.py", env!("CARGO_MANIFEST_DIR"))
}

/// Returns a line for each packet that a package reads.
fn read(python: &Path, package: &str, path: &Path) -> Vec<Value> {
    let text = output(python, &[&script(), "read", package], path);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[test]
fn packages_read_what_is_written() {
    let Some(python) = interpreter("packages_read_what_is_written") else { return };
    let (_folder, pcapng) = file(&sample::pcapng());
    let (_other, pcap) = file(&sample::pcap());
    let readers = [
        ("scapy", &pcapng),
        ("scapy-pcap", &pcap),
        ("dpkt", &pcapng),
        ("dpkt-pcap", &pcap),
        ("python-pcapng", &pcapng),
    ];
    for (package, path) in readers {
        let found = read(&python, package, path);
        assert_eq!(found.len(), 3, "{package}: {found:?}");
        for (index, (packet, (time, data, length))) in
            found.iter().zip(sample_packets()).enumerate()
        {
            // dpkt reads times of pcapng as floating-point numbers.
            let error = if package == "dpkt" { 500 } else { 0 };
            assert!(
                packet["time"].as_u64().unwrap().abs_diff(time) <= error,
                "{package}: {packet}"
            );
            assert_eq!((&packet["data"], &packet["link"]), (&hex(&data).into(), &1.into()));
            let known = |name: &str| packet.get(name).cloned();
            let check = |name: &str, expected: Value| {
                if let Some(found) = known(name) {
                    assert_eq!(found, expected, "{package}: {name}");
                }
            };
            check("length", length.into());
            check("name", if index == 2 { "eth1" } else { "eth0" }.into());
            check("direction", if index == 0 { 2 } else { 1 }.into());
            check("dropped", if index == 1 { 7 } else { 0 }.into());
            let comments: &[&str] = if index == 2 { &["cut off"] } else { &[] };
            check("comments", comments.into());
        }
    }
}

/// `PACKETS` of `readers.py`.
fn written() -> Vec<(u64, Vec<u8>, u32)> {
    let arp = [&[0xFF; 6][..], &[2, 0, 0, 0, 0, 1, 8, 6], &[0; 33]].concat();
    vec![(1_700_000_000_000_005_000, (0..60).collect(), 60), (1_700_000_001_999_999_000, arp, 47)]
}

#[test]
fn what_packages_write_is_read() {
    let Some(python) = interpreter("what_packages_write_is_read") else { return };
    let (folder, _) = file(b"");
    let target = folder.path().join("written");
    for package in ["scapy", "scapy-pcap", "dpkt", "python-pcapng"] {
        output(&python, &[&script(), "write", package], &target);
        let found = read_packets(&std::fs::read(&target).unwrap());
        assert_eq!(found, written(), "{package}");
    }
}
