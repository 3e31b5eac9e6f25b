//! Several files of `sockbroker sniff`, one after the other: `-C`, `-G` and `-W`.

use std::fs;
use std::io::Read as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use sockbroker_test_support::{Folder, namespace};

use crate::program::run;
use crate::sniff::{complete, listening, printed, send};

/// The files of a folder, by their names.
fn files(folder: &Folder) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The lengths of the datagrams in a file.
fn lengths(file: &Path) -> Vec<usize> {
    let output = run(&["sniff", "-r", file.to_str().unwrap()]).success();
    let length = |line: &str| line.rsplit(' ').next().unwrap().parse().unwrap();
    output.lines().map(length).collect()
}

/// How many datagrams are sent: more than two files of a megabyte have room for.
const DATAGRAMS: usize = 2000;

/// The lengths of the datagrams that are sent. A lost or repeated one shows.
fn sent() -> Vec<usize> {
    (0..DATAGRAMS).map(|number| 1000 + number % 401).collect()
}

fn send_all() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = receiver.local_addr().unwrap();
    for length in sent() {
        socket.send_to(&vec![7; length], address).unwrap();
    }
}

#[test]
fn files_of_limited_size_have_all_packets() {
    namespace::inside("sniff_files::files_of_limited_size_have_all_packets", || {
        let folder = Folder::new();
        let name = folder.join("capture");
        let name = name.to_str().unwrap();
        let (child, _said) = listening(&["lo", "-c", "2000", "-w", name, "-C", "1"]);
        send_all();
        printed(child);
        let found = files(&folder);
        let names: Vec<_> = found.iter().map(|file| file.to_str().unwrap().to_owned()).collect();
        assert_eq!(names, [name.to_owned(), format!("{name}1"), format!("{name}2")]);
        let all: Vec<_> = found.iter().flat_map(|file| lengths(file)).collect();
        assert_eq!(all, sent());
        for file in &found[..2] {
            let length = fs::metadata(file).unwrap().len();
            assert!((1_000_000..1_002_000).contains(&length), "{length}");
        }
    });
}

#[test]
fn first_of_several_files_is_overwritten() {
    namespace::inside("sniff_files::first_of_several_files_is_overwritten", || {
        let folder = Folder::new();
        let name = folder.join("capture");
        let name = name.to_str().unwrap();
        let (child, _said) = listening(&["lo", "-c", "2000", "-w", name, "-C", "1", "-W", "2"]);
        send_all();
        printed(child);
        let found = files(&folder);
        let names: Vec<_> = found.iter().map(|file| file.to_str().unwrap().to_owned()).collect();
        assert_eq!(names, [format!("{name}0"), format!("{name}1")]);
        let (last, middle) = (lengths(&found[0]), lengths(&found[1]));
        // The last ones without a gap; those of the first file are gone.
        let kept = [middle, last].concat();
        assert!(kept.len() < DATAGRAMS - 700, "{}", kept.len());
        assert_eq!(kept, sent()[DATAGRAMS - kept.len()..]);
    });
}

#[test]
fn capture_ends_after_a_number_of_periods() {
    namespace::inside("sniff_files::capture_ends_after_a_number_of_periods", || {
        let folder = Folder::new();
        let name = folder.join("capture-%s");
        let (mut child, _said) =
            listening(&["lo", "-w", name.to_str().unwrap(), "-G", "1", "-W", "2"]);
        // The first file has packets, and the second one.
        while child.try_wait().unwrap().is_none() {
            send("127.0.0.1", 9);
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
        let found = files(&folder);
        assert_eq!(found.len(), 2, "{found:?}");
        for file in found {
            let output = run(&["sniff", "-r", file.to_str().unwrap(), "-c", "1"]).success();
            assert_eq!(output.lines().count(), 1, "{output}");
        }
    });
}

#[test]
fn capture_without_packets_ends_after_its_periods() {
    const TEST: &str = "sniff_files::capture_without_packets_ends_after_its_periods";
    namespace::inside(TEST, || {
        let folder = Folder::new();
        let name = folder.join("capture-%s.pcapng");
        let (child, mut stderr) =
            listening(&["lo", "-w", name.to_str().unwrap(), "-G", "1", "-W", "2"]);
        printed(child);
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, complete(0));
        let found = files(&folder);
        assert_eq!(found.len(), 2, "{found:?}");
        for file in found {
            assert_eq!(lengths(&file), [0; 0]);
        }
        // A file that cannot be created ends the capture too.
        let inner = folder.join("inner");
        fs::create_dir(&inner).unwrap();
        let name = inner.join("capture-%s");
        let (child, _said) = listening(&["lo", "-w", name.to_str().unwrap(), "-G", "1"]);
        fs::remove_dir_all(&inner).unwrap();
        let outcome = child.wait_with_output().unwrap();
        assert_eq!(outcome.status.code(), Some(74));
    });
}

#[test]
fn files_that_cannot_follow_are_refused() {
    for (arguments, part) in [
        (&["lo", "-w", "x", "-W", "2"][..], "-W requires -C or -G"),
        (&["lo", "-w", "-", "-C", "1"], "standard output is one file"),
    ] {
        let line = run(&[&["--private", "sniff"], arguments].concat()).failure(2);
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(run(&["sniff", "lo", "-C", "1"]).code, 2);
}
