//! Another user is denied what needs a grant, and learns nothing of others.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use sockbroker_test_support::message::request;
use sockbroker_test_support::skip::{program_or_skip, root_or_skip};
use sockbroker_test_support::{Answer, Daemon, bounded};

use crate::broker::broker;

const NOBODY: u32 = 65534;

/// A client of another user: lines through socat.
struct Stranger {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Stranger {
    /// Connects one; the test opens folder and socket to everybody for it.
    fn connect(broker: &Daemon) -> Self {
        let mode = |bits| fs::Permissions::from_mode(bits);
        fs::set_permissions(broker.folder().path(), mode(0o711)).unwrap();
        fs::set_permissions(broker.socket(), mode(0o666)).unwrap();
        let mut command = Command::new("socat");
        command.arg("-").arg(format!("UNIX-CONNECT:{}", broker.socket().display()));
        command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.current_dir("/").spawn().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        Self { process, answers }
    }

    fn call(&mut self, method: &str, params: Value) -> Answer {
        let line = format!("{}\n", request(1, method, params));
        self.process.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str::<Value>(&answer).expect("an answer").into()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn possible(test: &str) -> bool {
    root_or_skip(test) && program_or_skip("socat", test)
}

#[test]
fn another_user_is_denied_with_the_rule_and_the_grant_it_lacks() {
    if !possible("users::another_user_is_denied_with_the_rule_and_the_grant_it_lacks") {
        return;
    }
    bounded(20, || {
        let broker = broker();
        let mut stranger = Stranger::connect(&broker);
        let address = json!(["127.0.0.1", 80]);
        for (method, params, grant) in [
            ("socket.socket", Value::Null, "create"),
            ("socket.socket", json!(["AF_INET", "SOCK_RAW", 0]), "create"),
            ("socket.socketpair", Value::Null, "create"),
            ("socket.create_server", json!([address]), "create"),
            ("socket.has_dualstack_ipv6", Value::Null, "create"),
            ("socket.create_connection", json!([address]), "resolve"),
            ("socket.getaddrinfo", json!(["127.0.0.1", 80]), "resolve"),
            ("socket.gethostbyname", json!(["localhost"]), "resolve"),
            ("socket.gethostbyname_ex", json!(["localhost"]), "resolve"),
            ("socket.gethostbyaddr", json!(["127.0.0.1"]), "resolve"),
            ("socket.getnameinfo", json!([address, 0]), "resolve"),
            ("socket.getfqdn", json!(["localhost"]), "resolve"),
            ("socket.getservbyname", json!(["http"]), "resolve"),
            ("socket.getservbyport", json!([80]), "resolve"),
            ("socket.getprotobyname", json!(["icmp"]), "resolve"),
            ("socket.if_nameindex", Value::Null, "interfaces"),
            ("socket.if_nametoindex", json!(["lo"]), "interfaces"),
            ("socket.if_indextoname", json!([1]), "interfaces"),
            ("socket.gethostname", Value::Null, "hostname"),
            ("socket.sethostname", json!(["x"]), "sethostname"),
            ("session.open", Value::Null, "session"),
            ("session.clone", Value::Null, "session"),
            ("admin.sessions", Value::Null, "admin"),
            ("admin.handles", json!([1]), "admin"),
        ] {
            let fault = stranger.call(method, params).fault();
            assert_eq!(fault.kind(), (3000, "denied"), "{method}: {fault:?}");
            assert_eq!(
                (fault.data.name.as_deref(), fault.data.grant.as_deref()),
                (Some("EACCES"), Some(grant)),
                "{method}"
            );
            let rule = fault.data.rule.unwrap();
            assert!(rule.contains("built-in"), "{method}: {rule}");
            assert_eq!(fault.data.call.as_deref(), method.rsplit('.').next());
        }
    });
}

#[test]
fn another_user_may_do_what_reaches_nothing() {
    if !possible("users::another_user_may_do_what_reaches_nothing") {
        return;
    }
    bounded(20, || {
        let broker = broker();
        let mut stranger = Stranger::connect(&broker);
        for (method, params) in [
            ("session.info", Value::Null),
            ("session.limits", Value::Null),
            ("session.handles", Value::Null),
            ("socket.constants", Value::Null),
            ("rpc.discover", Value::Null),
            ("socket.htons", json!([1])),
            ("socket.ntohl", json!([1])),
            ("socket.inet_aton", json!(["1.2.3.4"])),
            ("socket.inet_ntop", json!(["AF_INET", "AQIDBA=="])),
            ("socket.CMSG_SPACE", json!([4])),
            ("socket.getdefaulttimeout", Value::Null),
            ("socket.setdefaulttimeout", json!([3])),
        ] {
            stranger.call(method, params).result();
        }
        let info = stranger.call("session.info", Value::Null);
        assert_eq!(
            (&info.result()["uid"], &info.result()["gid"]),
            (&json!(NOBODY), &json!(NOBODY))
        );
        assert_eq!(stranger.call("socket.gettimeout", json!([1 << 20])).fault().code, 4000);
    });
}

#[test]
fn a_token_of_another_user_is_answered_like_a_wrong_one() {
    if !possible("users::a_token_of_another_user_is_answered_like_a_wrong_one") {
        return;
    }
    bounded(20, || {
        let broker = broker();
        let mut owner = broker.lsp();
        let mut stranger = Stranger::connect(&broker);
        let owned = owner.call("session.open", Value::Null).result()["token"].clone();
        let wrong = owned.as_str().unwrap().replace(['1', '2', '3'], "4");
        let refusals = [
            stranger.call("session.attach", json!([owned])).fault(),
            stranger.call("session.attach", json!([wrong])).fault(),
        ];
        for refusal in &refusals {
            assert_eq!(refusal.kind(), (4001, "session"));
            assert_eq!(refusal, &refusals[0]);
        }
    });
}

#[test]
fn the_socket_keeps_others_out_by_its_mode() {
    if !possible("users::the_socket_keeps_others_out_by_its_mode") {
        return;
    }
    bounded(20, || {
        let broker = broker();
        fs::set_permissions(broker.folder().path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut command = Command::new("socat");
        command.arg("-").arg(format!("UNIX-CONNECT:{}", broker.socket().display()));
        command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.current_dir("/").stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("Permission denied"), "{said}");
    });
}
