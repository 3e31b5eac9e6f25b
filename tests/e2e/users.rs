//! Another user is refused calls without a grant, and learns nothing about other users.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sockbroker_test_support::bounded;

use crate::broker::broker;
use crate::other_user::{OtherUser, UNKNOWN, available_or_skip};

#[test]
fn other_user_is_refused_with_rule_and_missing_grant() {
    if !available_or_skip("users::other_user_is_refused_with_rule_and_missing_grant") {
        return;
    }
    bounded(20, || {
        let broker = broker();
        let mut other_user = OtherUser::unknown(&broker);
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
            ("admin.reload", Value::Null, "admin"),
            ("admin.handles", json!([1]), "admin"),
        ] {
            let fault = other_user.call(method, params).fault();
            assert_eq!(fault.kind(), (3000, "denied"), "{method}: {fault:?}");
            let lacks = fault.data.grant.unwrap();
            assert!(lacks.starts_with(&format!("allow = [\"{grant}\"]")), "{method}: {lacks}");
            // The errno that the kernel returns to a process without the privilege.
            let errno = if lacks.contains("SOCK_RAW") || grant == "sethostname" {
                "EPERM"
            } else {
                "EACCES"
            };
            assert_eq!(fault.data.name.as_deref(), Some(errno), "{method}");
            assert_eq!(fault.data.rule.as_deref(), Some("no rule"), "{method}");
            assert_eq!(fault.data.call.as_deref(), method.rsplit('.').next());
        }
    });
}

#[test]
fn other_user_can_call_harmless_methods() {
    if !available_or_skip("users::other_user_can_call_harmless_methods") {
        return;
    }
    bounded(20, || {
        let broker = broker();
        let mut other_user = OtherUser::unknown(&broker);
        for (method, params) in [
            ("session.info", Value::Null),
            ("session.limits", Value::Null),
            ("session.handles", Value::Null),
            ("policy.check", json!(["create"])),
            ("policy.whoami", Value::Null),
            ("policy.wait", json!([0])),
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
            other_user.call(method, params).result();
        }
        let info = other_user.call("session.info", Value::Null);
        assert_eq!(
            (&info.result()["uid"], &info.result()["gid"]),
            (&json!(UNKNOWN), &json!(UNKNOWN))
        );
        assert_eq!(other_user.call("socket.gettimeout", json!([1 << 20])).fault().code, 4000);
    });
}

#[test]
fn token_of_another_user_returns_the_error_of_a_wrong_token() {
    if !available_or_skip("users::token_of_another_user_returns_the_error_of_a_wrong_token") {
        return;
    }
    bounded(20, || {
        let broker = broker();
        let mut owner = broker.lsp();
        let mut other_user = OtherUser::unknown(&broker);
        let owned = owner.call("session.open", Value::Null).result()["token"].clone();
        let wrong = owned.as_str().unwrap().replace(['1', '2', '3'], "4");
        let refusals = [
            other_user.call("session.attach", json!([owned])).fault(),
            other_user.call("session.attach", json!([wrong])).fault(),
        ];
        for refusal in &refusals {
            assert_eq!(refusal.kind(), (4001, "session"));
            assert_eq!(refusal, &refusals[0]);
        }
    });
}

#[test]
fn socket_mode_excludes_other_users() {
    if !available_or_skip("users::socket_mode_excludes_other_users") {
        return;
    }
    bounded(20, || {
        let broker = broker();
        fs::set_permissions(broker.folder().path(), fs::Permissions::from_mode(0o711)).unwrap();
        let mut command = Command::new("socat");
        command.arg("-").arg(format!("UNIX-CONNECT:{}", broker.socket().display()));
        command.uid(UNKNOWN).gid(UNKNOWN).stdin(Stdio::null()).stdout(Stdio::null());
        let output = command.current_dir("/").stderr(Stdio::piped()).output().unwrap();
        let output_text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && output_text.contains("Permission denied"),
            "{output_text}"
        );
    });
}
