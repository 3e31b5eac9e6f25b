//! The end of `sockbroker sniff`: on every cause it ends without delay and prints the statistics.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStderr, Command};

use sockbroker_test_support::{Folder, namespace};

use crate::program::{command, start};
use crate::sniff::{complete, ip, listening, pair, ping};

/// Sends a signal to a program, through timeout(1).
pub(crate) fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    assert!(kill.args([&format!("-{name}"), &child.id().to_string()]).status().unwrap().success());
}

/// Sends SIGUSR1 to the program under timeout(1), which does not forward it.
fn user_signal(child: &Child) {
    let parent = child.id();
    let children = format!("/proc/{parent}/task/{parent}/children");
    let children = std::fs::read_to_string(children).unwrap();
    let program = children.split_whitespace().next().unwrap();
    assert!(Command::new("kill").args(["-USR1", program]).status().unwrap().success());
}

/// Returns the rest of standard error after the program has ended with this exit code.
fn stderr_until_exit(mut child: Child, mut stderr: BufReader<ChildStderr>, code: i32) -> String {
    // Its output pipe stays open, unread, until the end of this function.
    let (_input, _output) = (child.stdin.take(), child.stdout.take());
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(code), "{rest}");
    rest
}

/// Reads the numbers of packets that were captured, received and dropped, in the last three lines.
fn counts(stderr: &str) -> [u64; 3] {
    let lines: Vec<_> = stderr.lines().collect();
    let last = lines.last_chunk::<3>().expect(stderr);
    let ends = [" captured", " received by filter", " dropped by kernel"];
    std::array::from_fn(|at| {
        let number = last[at].strip_suffix(ends[at]).expect(stderr);
        number.split(' ').next().unwrap().parse().unwrap()
    })
}

/// Returns the types of the blocks of a pcapng file. Fails if a block is truncated.
fn block_types(file: &Path) -> Vec<u32> {
    let bytes = std::fs::read(file).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let (mut at, mut block_types) = (0, Vec::new());
    while at < bytes.len() {
        let length = number(at + 4) as usize;
        assert_eq!(number(at + length - 4) as usize, length);
        block_types.push(number(at));
        at += length;
    }
    block_types
}

/// Fails if the file is not complete, or has another number of packets.
pub(crate) fn is_complete(file: &Path, packets: usize) {
    let types = block_types(file);
    assert_eq!((types[0], types.last()), (0x0A0D_0D0A, Some(&5)), "{types:?}");
    // There are also statistics during the capture, at most once a second.
    let rest: Vec<_> = types[1..].iter().filter(|kind| **kind != 5).copied().collect();
    assert_eq!(rest, [&[1][..], &vec![6; packets]].concat(), "{types:?}");
}

#[test]
fn every_signal_leaves_a_complete_file() {
    namespace::inside("sniff_end::every_signal_leaves_a_complete_file", || {
        let folder = Folder::new();
        for name in ["INT", "TERM", "HUP"] {
            let file = folder.join(name);
            let (child, stderr) = listening(&["lo", "--write", file.to_str().unwrap()]);
            ping("127.0.0.1", "56");
            signal(&child, name);
            assert_eq!(counts(&stderr_until_exit(child, stderr, 0)), [4, 4, 0], "{name}");
            is_complete(&file, 4);
        }
    });
}

#[test]
fn user_signal_prints_the_numbers_so_far() {
    namespace::inside("sniff_end::user_signal_prints_the_numbers_so_far", || {
        let (child, mut stderr) = listening(&["lo"]);
        for expected in [4, 8] {
            ping("127.0.0.1", "56");
            // The last packet can still be on its way to the program: ask until it has arrived.
            let mut line = String::new();
            while !line.starts_with(&format!("{expected} packets captured, ")) {
                user_signal(&child);
                line.clear();
                stderr.read_line(&mut line).unwrap();
            }
            let rest =
                format!("{expected} packets received by filter, 0 packets dropped by kernel\n");
            assert!(line.ends_with(&rest), "{line}");
        }
        signal(&child, "INT");
        assert_eq!(counts(&stderr_until_exit(child, stderr, 0)), [8, 8, 0]);
    });
}

#[test]
fn ignored_hangup_does_not_end_the_capture() {
    namespace::inside("sniff_end::ignored_hangup_does_not_end_the_capture", || {
        let mut nohup = Command::new("nohup");
        nohup.arg(crate::program::PROGRAM).args(["--private", "sniff", "lo", "--count", "4"]);
        let mut child = nohup.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("listening") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it does not listen");
        }
        signal(&child, "HUP");
        ping("127.0.0.1", "56");
        assert_eq!(counts(&stderr_until_exit(child, stderr, 0))[0], 4);
    });
}

#[test]
fn blocked_pipe_does_not_delay_the_end() {
    namespace::inside("sniff_end::blocked_pipe_does_not_delay_the_end", || {
        for name in ["INT", "TERM"] {
            // On a busy machine the broker can answer after the program has ended.
            let reported = (0..100).find_map(|_| end_of_blocked_capture(name));
            let [captured, received, dropped] = reported.unwrap();
            assert!(captured + dropped < received && received >= 400, "{captured} {received}");
        }
    });
}

/// Ends a capture that nobody reads. Returns the numbers that it reports, if the broker answers it in time.
fn end_of_blocked_capture(signal_name: &str) -> Option<[u64; 3]> {
    let (child, stderr) = listening(&["lo", "--write", "-"]);
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let datagram = vec![7; 65_000];
    for _ in 0..400 {
        // More than the pipe and the stream can hold.
        sender.send_to(&datagram, "127.0.0.1:9").ok();
    }
    signal(&child, signal_name);
    let rest = stderr_until_exit(child, stderr, 0);
    (!rest.contains("the broker did not report")).then(|| counts(&rest))
}

#[test]
fn fifo_without_a_reader_does_not_delay_the_end() {
    namespace::inside("sniff_end::fifo_without_a_reader_does_not_delay_the_end", || {
        let folder = Folder::new();
        let fifo = folder.join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let arguments = ["--private", "sniff", "lo", "--write", fifo.to_str().unwrap()];
        // It waits for a reader of the FIFO before it listens.
        let mut child = start(&arguments);
        wait_until_signals_are_caught(&child);
        signal(&child, "TERM");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        assert_eq!(counts(&stderr_until_exit(child, stderr, 0))[0], 0);
        // With a reader it writes the file.
        let (child, stderr, bytes) = start_with_fifo_reader(&arguments, &fifo);
        signal(&child, "TERM");
        assert_eq!(counts(&stderr_until_exit(child, stderr, 0))[0], 0);
        let mut read = Vec::new();
        { bytes }.read_to_end(&mut read).unwrap();
        assert_eq!(read[..4], 0x0A0D_0D0A_u32.to_ne_bytes());
    });
}

/// Waits until the program catches SIGTERM. It can be under timeout(1).
pub(crate) fn wait_until_signals_are_caught(child: &Child) {
    const SIGHUP: u32 = 1;
    const SIGTERM: u32 = 15;
    let parent = child.id().to_string();
    let caught = |program: &str| {
        let path = format!("/proc/{program}/status");
        let Ok(status) = std::fs::read_to_string(path) else { return false };
        let has = |field: &str, signal: u32| {
            let mask = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & 1 << (signal - 1) != 0
        };
        // The handler of SIGTERM does nothing until that of SIGHUP, the last one, is set.
        let last = if has("SigIgn:", SIGHUP) { SIGTERM } else { SIGHUP };
        // Before exec(3) the child is a copy of timeout(1), which catches SIGTERM too.
        let started = status.starts_with("Name:\tsockbroker");
        started && has("SigCgt:", last)
    };
    loop {
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(children).unwrap();
        if children.split_whitespace().chain([&*parent]).any(caught) {
            return;
        }
        std::thread::yield_now();
    }
}

fn start_with_fifo_reader(
    arguments: &[&str],
    fifo: &Path,
) -> (Child, BufReader<ChildStderr>, File) {
    let mut child = command(arguments).spawn().unwrap();
    let reader = File::open(fifo).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    (child, stderr, reader)
}

#[test]
fn interface_that_goes_down_is_captured_again() {
    namespace::inside("sniff_end::interface_that_goes_down_is_captured_again", || {
        let folder = Folder::new();
        let file = folder.join("lo");
        let (child, stderr) = listening(&["lo", "--count", "8", "--write", file.to_str().unwrap()]);
        ping("127.0.0.1", "56");
        ip(&["link", "set", "lo", "down"]);
        ip(&["link", "set", "lo", "up"]);
        ping("127.0.0.1", "56");
        assert_eq!(stderr_until_exit(child, stderr, 0), complete(8));
        is_complete(&file, 8);
    });
}

#[test]
fn removed_interface_ends_the_capture_with_a_complete_file() {
    const TEST: &str = "sniff_end::removed_interface_ends_the_capture_with_a_complete_file";
    namespace::inside(TEST, || {
        pair("v0", "v1");
        let folder = Folder::new();
        let file = folder.join("v0");
        let (child, stderr) = listening(&["v0", "--write", file.to_str().unwrap()]);
        ip(&["link", "del", "v0"]);
        let stderr = stderr_until_exit(child, stderr, 1);
        assert!(
            stderr.ends_with(
                "0 packets dropped by kernel\nsockbroker: cannot capture on v0: the interface was removed\n"
            ),
            "{stderr}"
        );
        is_complete(&file, 0);
    });
}

#[test]
fn closed_pipe_is_not_reported() {
    namespace::inside("sniff_end::closed_pipe_is_not_reported", || {
        let (mut child, stderr) = listening(&["lo", "--write", "-"]);
        drop(child.stdout.take());
        ping("127.0.0.1", "56");
        let stderr = stderr_until_exit(child, stderr, 74);
        // The capture can end before the first packet: the file begins with its interface.
        assert_eq!(counts(&stderr)[0], 0, "{stderr}");
    });
}
