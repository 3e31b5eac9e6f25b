//! How `sockbroker sniff` ends: with its statistics, whatever ends it, and at once.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStderr, Command};

use sockbroker_test_support::{Folder, namespace};

use crate::program::{command, start};
use crate::sniff::{ip, listening, pair, ping};

/// Sends a signal by its name to a program, through timeout(1).
fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    assert!(kill.args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// What it said until its end, which is its own: timeout(1) would report another one.
fn ended(mut child: Child, mut said: BufReader<ChildStderr>, code: i32) -> String {
    // A pipe of its output that nobody reads stays open until here.
    let (_input, _output) = (child.stdin.take(), child.stdout.take());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{rest}");
    rest
}

/// Captured, seen and lost packets of the last line.
fn counts(said: &str) -> [u64; 3] {
    let words: Vec<_> = said.lines().last().unwrap().split_whitespace().collect();
    assert_eq!([words[2], words[4], words[6]], ["captured,", "seen,", "lost"], "{said}");
    [0, 3, 5].map(|at| words[at].parse().unwrap())
}

/// The kinds of the blocks of a pcapng file; fails where one is cut off.
fn kinds(file: &Path) -> Vec<u32> {
    let bytes = std::fs::read(file).unwrap();
    let number = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut kinds) = (0, Vec::new());
    while at < bytes.len() {
        let length = number(at + 4) as usize;
        assert_eq!(number(at + length - 4) as usize, length);
        kinds.push(number(at));
        at += length;
    }
    kinds
}

/// The blocks of a file of this many packets.
fn whole(packets: usize) -> Vec<u32> {
    [&[0x0A0D_0D0A, 1][..], &vec![6; packets], &[5]].concat()
}

#[test]
fn every_signal_that_ends_it_leaves_a_whole_file() {
    namespace::inside("sniff_end::every_signal_that_ends_it_leaves_a_whole_file", || {
        let folder = Folder::new();
        for name in ["INT", "TERM", "HUP"] {
            let file = folder.join(name);
            let (child, said) = listening(&["lo", "--write", file.to_str().unwrap()]);
            ping("127.0.0.1", "56");
            signal(&child, name);
            assert_eq!(counts(&ended(child, said, 0)), [4, 4, 0], "{name}");
            assert_eq!(kinds(&file), whole(4), "{name}");
        }
    });
}

#[test]
fn a_hangup_that_is_ignored_ends_nothing() {
    namespace::inside("sniff_end::a_hangup_that_is_ignored_ends_nothing", || {
        let mut nohup = Command::new("nohup");
        nohup.arg(crate::program::PROGRAM).args(["--private", "sniff", "lo", "--count", "4"]);
        let mut child = nohup.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("listening") {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it does not listen");
        }
        signal(&child, "HUP");
        ping("127.0.0.1", "56");
        assert_eq!(counts(&ended(child, said, 0))[0], 4);
    });
}

#[test]
fn a_pipe_that_nobody_reads_does_not_keep_it() {
    namespace::inside("sniff_end::a_pipe_that_nobody_reads_does_not_keep_it", || {
        for name in ["INT", "TERM"] {
            let (child, said) = listening(&["lo", "--write", "-"]);
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            let datagram = vec![7; 65_000];
            for _ in 0..400 {
                // More than the pipe and the kernel's buffer hold.
                sender.send_to(&datagram, "127.0.0.1:9").ok();
            }
            signal(&child, name);
            let [captured, seen, lost] = counts(&ended(child, said, 0));
            assert!(lost > 0 && seen >= 400, "{captured} {seen} {lost}");
            assert_eq!(captured + lost, seen);
        }
    });
}

#[test]
fn a_fifo_without_a_reader_does_not_keep_it() {
    namespace::inside("sniff_end::a_fifo_without_a_reader_does_not_keep_it", || {
        let folder = Folder::new();
        let fifo = folder.join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let arguments = ["--private", "sniff", "lo", "--write", fifo.to_str().unwrap()];
        // It says nothing before it has a reader.
        let mut child = start(&arguments);
        catches_signals(&child);
        signal(&child, "TERM");
        let said = BufReader::new(child.stderr.take().unwrap());
        assert_eq!(counts(&ended(child, said, 0))[0], 0);
        // With a reader it writes.
        let (child, said, bytes) = with_a_reader(&arguments, &fifo);
        signal(&child, "TERM");
        assert_eq!(counts(&ended(child, said, 0))[0], 0);
        let mut read = Vec::new();
        { bytes }.read_to_end(&mut read).unwrap();
        assert_eq!(read[..4], 0x0A0D_0D0A_u32.to_ne_bytes());
    });
}

/// Waits until the program, which timeout(1) runs, catches SIGTERM.
fn catches_signals(child: &Child) {
    let parent = child.id();
    let caught = |program: &str| {
        let status = std::fs::read_to_string(format!("/proc/{program}/status")).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        // Before it is the program, it is a copy of timeout(1), which catches it too.
        let started = status.starts_with("Name:\tsockbroker\n");
        Some(started && u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (15 - 1) != 0)
    };
    loop {
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(children).unwrap();
        if children.split_whitespace().next().and_then(caught) == Some(true) {
            return;
        }
        std::thread::yield_now();
    }
}

fn with_a_reader(arguments: &[&str], fifo: &Path) -> (Child, BufReader<ChildStderr>, File) {
    let mut child = command(arguments).spawn().unwrap();
    let reader = File::open(fifo).unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    (child, said, reader)
}

#[test]
fn an_interface_that_goes_down_is_reported_and_captured_again() {
    const TEST: &str = "sniff_end::an_interface_that_goes_down_is_reported_and_captured_again";
    namespace::inside(TEST, || {
        let folder = Folder::new();
        let file = folder.join("lo");
        let (child, mut said) =
            listening(&["lo", "--count", "8", "--write", file.to_str().unwrap()]);
        ping("127.0.0.1", "56");
        ip(&["link", "set", "lo", "down"]);
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "lo went down; capturing when it is up again\n");
        ip(&["link", "set", "lo", "up"]);
        ping("127.0.0.1", "56");
        assert_eq!(ended(child, said, 0), "8 packets captured, 8 seen, 0 lost\n");
        assert_eq!(kinds(&file), whole(8));
    });
}

#[test]
fn an_interface_that_is_removed_ends_it_with_a_whole_file() {
    const TEST: &str = "sniff_end::an_interface_that_is_removed_ends_it_with_a_whole_file";
    namespace::inside(TEST, || {
        pair("v0", "v1");
        let folder = Folder::new();
        let file = folder.join("v0");
        let (child, said) = listening(&["v0", "--write", file.to_str().unwrap()]);
        ip(&["link", "del", "v0"]);
        let said = ended(child, said, 1);
        assert!(said.ends_with("0 seen, 0 lost\nsockbroker: v0 is gone\n"), "{said}");
        assert_eq!(kinds(&file), whole(0));
    });
}

#[test]
fn a_reader_that_leaves_is_no_error_to_talk_of() {
    namespace::inside("sniff_end::a_reader_that_leaves_is_no_error_to_talk_of", || {
        let (mut child, said) = listening(&["lo", "--write", "-"]);
        drop(child.stdout.take());
        ping("127.0.0.1", "56");
        let said = ended(child, said, 74);
        let [captured, seen, lost] = counts(&said);
        assert_eq!((captured, seen), (0, lost), "{said}");
    });
}
