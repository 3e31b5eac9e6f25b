//! Programs of Debian, unmodified.

use std::path::PathBuf;
use std::process::Command;

use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::skip::program_or_skip;

use crate::stage::{ALL, Outcome, PYTHON, Stage, terminate};

/// The file of a program.
fn find(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name));
    let found =
        found.chain(["/usr/sbin", "/usr/bin"].map(|folder| PathBuf::from(folder).join(name)));
    found.into_iter().find(|file| file.is_file()).unwrap().canonicalize().unwrap()
}

/// Runs a copy of a program, which has no file capabilities: natively it fails, by `exec` it works. Its output then has
/// `expected`.
fn works(
    test: &'static str,
    name: &'static str,
    arguments: &'static [&'static str],
    expected: &'static str,
) {
    if !program_or_skip(name, test) {
        return;
    }
    inside_with_users(test, move || {
        let stage = Stage::new(ALL);
        let copy = stage.copy(&find(name), name);
        let words = [&[copy.to_str().unwrap()], arguments].concat();
        // The kernel permits ICMP datagram sockets to groups in this range.
        std::fs::write("/proc/sys/net/ipv4/ping_group_range", "1 0").unwrap();
        let native = stage.natively(&words).output().unwrap();
        assert!(!native.status.success(), "{name} works without a broker: {native:?}");
        let outcome = stage.run(&[], &words);
        assert!(outcome.code == 0 && outcome.out.contains(expected), "{outcome:?}");
        assert!(!outcome.err.contains("sockbroker:"), "{outcome:?}");
    });
}

#[test]
fn ping() {
    let arguments = &["-c1", "127.0.0.1"];
    works("programs::ping", "ping", arguments, "1 received");
}

#[test]
fn fping() {
    works("programs::fping", "fping", &["127.0.0.1"], "127.0.0.1 is alive");
}

#[test]
fn nmap() {
    const TEST: &str = "programs::nmap";
    if !program_or_skip("nmap", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let words = ["nmap", "-sS", "-n", "-Pn", "--send-ip", "-p9", "127.0.0.1"];
        // nmap tests for root before it makes a socket.
        let native: Outcome = stage.natively(&words).output().unwrap().into();
        assert_ne!(native.code, 0, "{native:?}");
        let privileged = stage.exec(&[], &words).env("NMAP_PRIVILEGED", "1").output().unwrap();
        let text = Outcome::from(privileged).success();
        assert!(text.contains("9/tcp closed discard"), "{text}");
        let as_root = stage.run(&["--root"], &words).success();
        assert!(as_root.contains("9/tcp closed discard"), "{as_root}");
    });
}

#[test]
fn mtr() {
    const TEST: &str = "programs::mtr";
    if !program_or_skip("mtr", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let packet = stage.copy(&find("mtr-packet"), "mtr-packet");
        let words = ["mtr", "-r", "-n", "-c1", "127.0.0.1"];
        let native = stage.natively(&words).env("MTR_PACKET", &packet).output().unwrap();
        assert!(!native.status.success(), "{native:?}");
        let ours = stage.exec(&[], &words).env("MTR_PACKET", &packet).output().unwrap();
        let text = Outcome::from(ours).success();
        assert!(text.contains("127.0.0.1") && text.contains("0.0%"), "{text}");
    });
}

#[test]
fn tcpdump_captures_a_packet() {
    const TEST: &str = "programs::tcpdump_captures_a_packet";
    if !program_or_skip("tcpdump", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let copy = stage.copy(&find("tcpdump"), "tcpdump");
        let words = [copy.to_str().unwrap(), "-i", "lo", "-c1", "-n", "-l", "udp port 9999"];
        let native = stage.natively(&words).output().unwrap();
        assert!(!native.status.success(), "{native:?}");
        let capture = stage.exec(&[], &words).spawn().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let sending = std::thread::spawn(move || capture.wait_with_output().unwrap());
        while !sending.is_finished() {
            // Nobody receives it, so that the kernel reports an error at every other attempt.
            sender.send_to(b"x", "127.0.0.1:9999").ok();
            std::thread::yield_now();
        }
        let text = Outcome::from(sending.join().unwrap()).success();
        assert!(text.contains("127.0.0.1.9999: UDP, length 1"), "{text}");
    });
}

#[test]
fn node_serves_low_ports() {
    const TEST: &str = "programs::node_serves_low_ports";
    if !program_or_skip("node", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let node = stage.copy(&find("node"), "node");
        let text = "
            const udp = require('dgram').createSocket('udp4');
            udp.bind(92, '127.0.0.1', () => {
                const server = require('http').createServer((_, answer) => answer.end('served'));
                server.listen(93, '127.0.0.1', () => {
                    require('http').get('http://127.0.0.1:93/', (answer) => {
                        answer.on('data', (data) => { console.log(udp.address().port, `${data}`); process.exit(0); });
                    });
                });
            });";
        let outcome = stage.run(&[], &[node.to_str().unwrap(), "-e", text]);
        assert_eq!(outcome.success(), "92 served\n");
    });
}

#[test]
fn go_program_serves_a_low_port() {
    const TEST: &str = "programs::go_program_serves_a_low_port";
    if !program_or_skip("caddy", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let words = ["caddy", "respond", "--listen", "127.0.0.1:85", "served"];
        let native = stage.natively(&words).output().unwrap();
        assert!(!native.status.success(), "{native:?}");
        let server = stage.exec(&[], &words).spawn().unwrap();
        let connect = || std::net::TcpStream::connect("127.0.0.1:85");
        sockbroker_test_support::until("caddy serves", || connect().is_ok());
        let fetched = Command::new(PYTHON)
            .args([
                "-c",
                "import urllib.request as u; print(u.urlopen('http://127.0.0.1:85').read())",
            ])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&fetched.stdout), "b'served'\n");
        terminate(server);
    });
}

#[test]
fn http_server_of_python_serves_a_low_port() {
    inside_with_users("programs::http_server_of_python_serves_a_low_port", || {
        let stage = Stage::new(crate::stage::PORTS);
        let words = [PYTHON, "-m", "http.server", "84", "--bind", "127.0.0.1"];
        let server = stage.exec(&[], &words).spawn().unwrap();
        let connect = || std::net::TcpStream::connect("127.0.0.1:84");
        sockbroker_test_support::until("it serves", || connect().is_ok());
        terminate(server);
        // The launcher has passed the signal on.
        sockbroker_test_support::until("it ends", || connect().is_err());
    });
}
