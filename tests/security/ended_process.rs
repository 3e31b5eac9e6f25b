//! A connection that outlives its process: the kernel cannot report the control group of that process.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;
use sockbroker_sys::{peer, socket};
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::{Daemon, LspClient, Start};

use crate::arena::{PROGRAM, assert_denied, attacker};

const POLICY: &str = r#"
version = 1

[[rule]]
name = "the name of the host"
subject = { uids = [4200001] }
allow = ["hostname"]

[[rule]]
name = "not for the crawler"
subject = { uids = [4200001], units = ["crawler.service"] }
deny = ["hostname"]
"#;

/// Connects from a process of the attacker that ends before the broker accepts the connection.
fn connection_of_an_ended_process(broker: &mut Daemon) -> LspClient {
    const CONNECT: &str = "import socket, sys; socket.socket(fileno=0).connect(sys.argv[1])";
    let socket = socket::create(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
    // The system's Python: other users cannot always enter the folder of another one.
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-I", "-c", CONNECT]).arg(broker.socket()).current_dir("/");
    command.uid(attacker().uid()).gid(attacker().uid()).stdin(socket.try_clone().unwrap());
    let status = broker.process().stopped_during(|| command.status());
    assert!(status.unwrap().success());
    LspClient::over(UnixStream::from(socket))
}

#[test]
fn connection_of_an_ended_process_is_subject_to_unit_rules() {
    let test = "ended_process::connection_of_an_ended_process_is_subject_to_unit_rules";
    inside_with_users(test, || {
        let mut broker = Start::new(PROGRAM).policy(POLICY).start().open_to_all();
        let mut ended = connection_of_an_ended_process(&mut broker);
        let answer = ended.call("socket.gethostname", Value::Null);
        assert_denied(&answer, "not for the crawler", "hostname", "connection of an ended process");
        // The grant exists: a process outside of the unit has it.
        let connection = attacker().connect(&broker);
        let known = peer::process(connection.as_fd()).is_ok();
        let answer = LspClient::over(connection).call("socket.gethostname", Value::Null);
        assert_eq!(
            answer.is_fault(),
            !known,
            "Linux reports the connecting process since 6.5: {known}"
        );
    });
}
