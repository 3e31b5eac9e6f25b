//! `--persist` through crashes of a worker and restarts of the service, under a stand-in for systemd
//! (`tests/restart/serve.py`).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use sockbroker_test_support::{HANG, bounded};

use crate::program::{PROGRAM, run, start};

/// A broker whose service manager keeps its sockets. Dropping it ends it.
struct Service {
    child: Child,
    answers: BufReader<ChildStdout>,
    endpoint: String,
}

impl Service {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/restart/serve.py");
        let mut child = Command::new("python3")
            .arg(script)
            .args([PROGRAM, "broker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut path = String::new();
        answers.read_line(&mut path).unwrap();
        Self { child, answers, endpoint: format!("unix:{}", path.trim_end()) }
    }

    fn command(&mut self, name: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{name}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), name);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

#[test]
fn nc_copies_through_restarts_of_the_broker() {
    bounded(120, || {
        let mut service = Service::start();
        for end in ["crash", "restart"] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port().to_string();
            let endpoint = service.endpoint.clone();
            let mut child = start(&["--persist", "--broker", &endpoint, "nc", "127.0.0.1", &port]);
            let mut peer = listener.accept().unwrap().0;
            peer.set_read_timeout(Some(HANG)).unwrap();
            let data = pattern(6_000_000);
            let mut input = child.stdin.take().unwrap();
            std::thread::scope(|scope| {
                let data = &data;
                scope.spawn(move || input.write_all(data).unwrap());
                let mut received = vec![0; data.len() / 3];
                peer.read_exact(&mut received).unwrap();
                service.command(end);
                peer.read_to_end(&mut received).unwrap();
                assert!(received == *data, "{end}: {} bytes", received.len());
            });
            // The program waits for data now.
            service.command(end);
            peer.write_all(b"still connected").unwrap();
            drop(peer);
            let outcome = child.wait_with_output().unwrap();
            assert_eq!(String::from_utf8_lossy(&outcome.stdout), "still connected", "{outcome:?}");
            assert!(outcome.status.success(), "{outcome:?}");
        }
    });
}

#[test]
fn nc_listens_through_a_crash_and_reports_a_broker_that_stays_away() {
    bounded(60, || {
        let mut service = Service::start();
        let endpoint = service.endpoint.clone();
        let mut child = start(&["--persist", "--broker", &endpoint, "nc", "-l", "127.0.0.1", "0"]);
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        service.command("crash");
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(b"accepted").unwrap();
        drop(peer);
        let outcome = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&outcome.stdout), "accepted", "{outcome:?}");
        assert!(outcome.status.success(), "{outcome:?}");

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let options = ["--persist", "--reconnect-seconds", "1", "--broker", &endpoint];
        let child = start(&[&options[..], &["nc", "127.0.0.1", &port]].concat());
        let _peer = listener.accept().unwrap();
        service.command("down");
        let outcome = child.wait_with_output().unwrap();
        let reported = String::from_utf8_lossy(&outcome.stderr);
        assert!(reported.contains("not reachable for 1 seconds (reconnect_seconds)"), "{reported}");
        assert_eq!(outcome.status.code(), Some(69));
    });
}

#[test]
fn persist_excludes_what_it_cannot_apply_to() {
    bounded(30, || {
        for wrong in [
            &["--persist", "--private", "nc", "127.0.0.1", "1"][..],
            &["--persist", "--session", "token", "list"],
            &["--reconnect-seconds", "3", "nc", "127.0.0.1", "1"],
            &["--persist", "--broker", "stdio:sockbrokerd --stdio", "nc", "127.0.0.1", "1"],
        ] {
            let outcome = run(wrong);
            assert_eq!(outcome.code, 2, "{outcome:?}");
        }
    });
}
