//! A policy file allows and refuses the calls of another user.

use std::fs;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::{inside, inside_with_users};
use sockbroker_test_support::{Daemon, LspClient, bounded, until};

use crate::broker::prepare;
use crate::other_user::{OtherUser, available_or_skip};

/// A policy for TCP and UDP on the loopback network, with connections to port 8000 and above.
const ORDINARY: &str = r#"
version = 1

[[rule]]
name = "tcp and udp"
subject = { users = ["nobody"] }
allow = ["create", "listen", "accept", "receive", "option"]
family = ["AF_INET", "AF_INET6"]
type = ["SOCK_STREAM", "SOCK_DGRAM"]
protocol = ["IPPROTO_TCP", "IPPROTO_UDP"]
option = ["ordinary"]

[[rule]]
name = "here"
subject = { users = ["nobody"] }
allow = ["bind"]
local = ["127.0.0.0/8", "::1"]

[[rule]]
name = "there"
subject = { users = ["nobody"] }
allow = ["connect", "send"]
remote = ["127.0.0.0/8", "::1"]
remote_ports = ["1024-65535"]

[[rule]]
name = "not there"
subject = { everyone = true }
deny = ["connect"]
remote = ["127.0.0.66"]
"#;

fn start(policy: &str) -> Daemon {
    prepare().policy(policy).start()
}

#[test]
fn other_user_can_use_what_the_policy_allows() {
    if !available_or_skip("policy::other_user_can_use_what_the_policy_allows") {
        return;
    }
    bounded(20, || {
        let broker = start(ORDINARY);
        let mut user = OtherUser::nobody(&broker);
        let server = user.call("socket.create_server", json!([["127.0.0.1", 0]]));
        let server = server.result()["handle"].clone();
        let address = user.call("socket.getsockname", json!([server])).result().clone();
        let client = user.call("socket.socket", Value::Null).result()["handle"].clone();
        user.call("socket.connect", json!([client, address])).result();
        let accepted = user.call("socket.accept", json!([server])).result()["handle"].clone();
        user.call("socket.sendall", json!([client, "aGVsbG8="])).result();
        let got = user.call("socket.recv", json!([accepted, 10]));
        assert_eq!(got.data(), b"hello");
        // The peer of the accepted socket has a port that the policy allows for sending.
        user.call("socket.send", json!([accepted, "aGVsbG8="])).result();
        user.call("session.open", Value::Null).result();
    });
}

type Case = (&'static str, Value, &'static str, &'static str);

/// Calls with the rule that refuses them and a part of the missing grant.
#[rustfmt::skip]
fn refused(tcp: &Value, udp: &Value, six: &Value) -> Vec<Case> {
    vec![
        ("socket.socket", json!(["AF_PACKET", "SOCK_RAW"]), "no rule", "allow = [\"create\"] family = [\"AF_PACKET\"] type = [\"SOCK_RAW\"]"),
        ("socket.connect", json!([tcp, ["127.0.0.66", 8000]]), "not there", "remote = [\"127.0.0.66\"]"),
        ("socket.connect", json!([tcp, ["127.0.0.1", 80]]), "no rule", "remote_ports = [\"80\"]"),
        ("socket.connect", json!([tcp, ["0.0.0.0", 80]]), "no rule", "remote = [\"127.0.0.1\"]"),
        ("socket.connect", json!([tcp, ["192.0.2.1", 8000]]), "no rule", "remote = [\"192.0.2.1\"]"),
        ("socket.bind", json!([tcp, ["0.0.0.0", 8000]]), "no rule", "local = [\"0.0.0.0\"]"),
        ("socket.sendto", json!([udp, "", 0, ["192.0.2.1", 8000]]), "no rule", "allow = [\"send\"]"),
        ("socket.sendto", json!([six, "", 0, ["::ffff:192.0.2.1", 8000]]), "no rule", "remote = [\"192.0.2.1\"]"),
        ("socket.send", json!([udp, ""]), "no rule", "allow = [\"send\"]"),
        ("socket.sendto", json!([tcp, "", "MSG_FASTOPEN", ["127.0.0.66", 8000]]), "not there", "allow = [\"connect\"]"),
        ("socket.setsockopt", json!([tcp, "SOL_SOCKET", "SO_MARK", 1]), "no rule", "option = [\"mark\"]"),
        ("socket.setsockopt", json!([tcp, "IPPROTO_IP", "IP_TRANSPARENT", 1]), "no rule", "allow = [\"transparent\"]"),
        ("socket.sethostname", json!(["x"]), "no rule", "allow = [\"sethostname\"]"),
        ("socket.if_nameindex", Value::Null, "no rule", "allow = [\"interfaces\"]"),
    ]
}

#[test]
fn refusals_name_the_rule_and_the_grant() {
    if !available_or_skip("policy::refusals_name_the_rule_and_the_grant") {
        return;
    }
    bounded(20, || {
        let broker = start(ORDINARY);
        let mut user = OtherUser::nobody(&broker);
        let tcp = user.call("socket.socket", Value::Null).result()["handle"].clone();
        let udp = user.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"]));
        let udp = udp.result()["handle"].clone();
        let six = user.call("socket.socket", json!(["AF_INET6", "SOCK_DGRAM"]));
        let six = six.result()["handle"].clone();
        for (method, params, rule, lacks) in refused(&tcp, &udp, &six) {
            let fault = user.call(method, params.clone()).fault();
            assert_eq!(fault.kind(), (3000, "denied"), "{method} {params}: {fault:?}");
            let (named, grant) = (fault.data.rule.unwrap(), fault.data.grant.unwrap());
            assert!(named == rule && grant.contains(lacks), "{method} {params}: {named}: {grant}");
        }
        // Granted calls still work.
        user.call("socket.setsockopt", json!([tcp, "SOL_SOCKET", "SO_REUSEADDR", 1])).result();
    });
}

#[test]
fn send_on_connected_socket_is_checked_against_its_peer() {
    if !available_or_skip("policy::send_on_connected_socket_is_checked_against_its_peer") {
        return;
    }
    bounded(20, || {
        let broker = start(&ORDINARY.replace(
            "allow = [\"connect\", \"send\"]\nremote = [\"127.0.0.0/8\", \"::1\"]",
            "allow = [\"connect\"]\n\n[[rule]]\nname = \"to one\"\nsubject = { users = [\"nobody\"] }\nallow = [\"send\"]\nremote = [\"127.0.0.7\"]",
        ));
        let mut user = OtherUser::nobody(&broker);
        let udp = user.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"]));
        let udp = udp.result()["handle"].clone();
        for (host, allowed) in [("127.0.0.7", true), ("127.0.0.8", false), ("127.0.0.7", true)] {
            user.call("socket.connect", json!([udp, [host, 9000]])).result();
            let sent = user.call("socket.sendmsg", json!([udp, [""]]));
            // No process listens there. The kernel can report this with the next call.
            let denied = sent.is_fault() && sent.fault().kind() == (3000, "denied");
            assert_eq!(denied, !allowed, "{host}: {sent:?}");
        }
    });
}

#[test]
fn reload_is_atomic() {
    if !available_or_skip("policy::reload_is_atomic") {
        return;
    }
    bounded(20, || {
        let mut broker = start(ORDINARY);
        let file = broker.folder().join("policy.toml");
        let mut user = OtherUser::nobody(&broker);
        let kept = user.call("socket.socket", Value::Null).result()["handle"].clone();
        fs::write(&file, ORDINARY.replace("deny =", "dny =")).unwrap();
        broker.process().hang_up();
        until("the log reports the error", || {
            broker.log().contains("column 1: unknown field `dny`")
        });
        user.call("socket.socket", Value::Null).result();
        fs::write(&file, "version = 1").unwrap();
        broker.process().hang_up();
        until("the policy is another", || user.call("socket.socket", Value::Null).is_fault());
        // Open sockets stay open.
        user.call("socket.gettimeout", json!([kept])).result();
        assert_eq!(user.call("socket.listen", json!([kept])).fault().kind(), (3000, "denied"));
        fs::write(&file, "version = 1\nrevoke_on_reload = true").unwrap();
        broker.process().hang_up();
        until("handles are gone", || user.call("socket.gettimeout", json!([kept])).is_fault());
    });
}

#[test]
fn drop_in_files_add_their_rules_in_order() {
    if !available_or_skip("policy::drop_in_files_add_their_rules_in_order") {
        return;
    }
    bounded(20, || {
        let start = prepare();
        let folder = start.folder().join("policy.d");
        fs::create_dir(&folder).unwrap();
        let rule = |name: &str| {
            format!(
                "version = 1\n[[rule]]\nname = \"{name}\"\nsubject = {{ everyone = true }}\ndeny = [\"hostname\"]\n"
            )
        };
        fs::write(folder.join("20-b.toml"), rule("second")).unwrap();
        fs::write(folder.join("10-a.toml"), rule("first")).unwrap();
        fs::write(folder.join("note.txt"), "no policy").unwrap();
        let broker = start.policy("version = 1").start();
        let fault = broker.lsp().call("socket.gethostname", Value::Null).fault();
        assert_eq!(fault.data.rule.as_deref(), Some("first"));
    });
}

/// A role that allows echo requests through ICMP datagram sockets.
const PING: &str = r#"
version = 1

[[rule]]
name = "ping"
subject = { everyone = true }
allow = ["create", "bind", "connect", "send", "receive", "option"]
family = ["AF_INET", "AF_INET6"]
type = ["SOCK_DGRAM"]
protocol = ["IPPROTO_ICMP", "IPPROTO_ICMPV6"]
option = ["ordinary"]

[[rule]]
name = "not root either"
subject = { everyone = true }
deny = ["create"]
type = ["SOCK_RAW"]
"#;

#[test]
fn ping_role_allows_only_ping() {
    inside("policy::ping_role_allows_only_ping", || {
        fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
        let broker = start(PING);
        let mut client = broker.lsp();
        let socket = client.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM", "IPPROTO_ICMP"]));
        let socket = socket.result()["handle"].clone();
        // Type 8, code 0, a checksum and an identifier that the kernel sets, sequence number 1.
        let echo = "CAAAAAAAAAE=";
        client.call("socket.sendto", json!([socket, echo, 0, ["127.0.0.1", 0]])).result();
        let reply = client.call("socket.recv", json!([socket, 64])).result().clone();
        assert_eq!(reply["n"], 8);
        let raw = client.call("socket.socket", json!(["AF_INET", "SOCK_RAW", "IPPROTO_ICMP"]));
        let fault = raw.fault();
        assert_eq!(fault.data.name.as_deref(), Some("EPERM"));
        assert!(fault.message.contains("use SOCK_DGRAM"), "{fault:?}");
    });
}

#[test]
fn policy_check_answers_without_effect() {
    bounded(20, || {
        let broker = start(
            "version = 1\n[[rule]]\nname = \"no raw\"\nsubject = { everyone = true }\ndeny = [\"create\"]\ntype = [\"SOCK_RAW\"]",
        );
        let mut client = broker.lsp();
        let check = |client: &mut LspClient, action: &str| {
            client.call("policy.check", json!([action])).result().clone()
        };
        let allowed = check(&mut client, "create AF_INET SOCK_DGRAM");
        assert_eq!(allowed["allowed"], true);
        assert_eq!(allowed["considered"][0]["mismatch"], "type");
        let denied = check(&mut client, "create AF_PACKET SOCK_RAW");
        assert_eq!((&denied["allowed"], &denied["rule"]), (&json!(false), &json!("no raw")));
        assert_eq!(denied["considered"], json!([{ "rule": "no raw", "effect": "deny" }]));
        let wrong = client.call("policy.check", json!(["create SOCK_NOTHING"])).fault();
        assert_eq!(wrong.data.exception.as_deref(), Some("ValueError"));
        let own = client.call("policy.whoami", Value::Null).result().clone();
        assert_eq!((&own["owner"], &own["generation"]), (&json!(true), &json!(1)));
        let text = "deny = [\"create\"] type = [\"SOCK_RAW\"]";
        assert_eq!(own["rules"], json!([{ "name": "no raw", "says": text }]));
        assert_eq!(client.call("session.handles", Value::Null).result(), &json!([]));
    });
}

#[test]
fn reload_reports_errors_and_wakes_policy_wait() {
    bounded(20, || {
        let broker = start("version = 1");
        let file = broker.folder().join("policy.toml");
        let mut client = broker.lsp();
        let mut waiting = broker.lsp();
        let waits = waiting.send("policy.wait", json!({ "generation": 1 }));
        fs::write(&file, "version = 1\nrule = 3").unwrap();
        let fault = client.call("admin.reload", Value::Null).fault();
        assert_eq!(fault.kind(), (3001, "policy"));
        assert!(fault.message.contains("policy.toml: line 2, column 8"), "{fault:?}");
        fs::write(&file, "version = 1").unwrap();
        let reloaded = client.call("admin.reload", Value::Null).result().clone();
        assert_eq!(reloaded, json!({ "generation": 2 }));
        assert_eq!(waiting.answer(waits).result(), &json!({ "generation": 2 }));
    });
}

#[test]
fn restricted_rights_cannot_be_regained() {
    bounded(20, || {
        let broker = start("version = 1");
        let mut client = broker.lsp();
        let token = client.call("session.open", Value::Null).result()["token"].clone();
        let udp = client.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
        let filters = json!([
            { "allow": ["connect", "send"], "remote": ["127.0.0.0/8"] },
            { "allow": ["session"] },
        ]);
        client.call("session.restrict", json!({ "filters": filters })).result();
        let refused = client.call("socket.socket", Value::Null).fault();
        assert_eq!(refused.data.rule.as_deref(), Some("session.restrict"));
        client.call("socket.connect", json!([udp, ["127.0.0.1", 9]])).result();
        let far = client.call("socket.connect", json!([udp, ["192.0.2.1", 9]])).fault();
        assert_eq!(far.kind(), (3000, "denied"));
        // The restriction applies to other connections of the session, to a clone, and to a further session.
        let mut other = broker.lsp();
        other.call("session.attach", json!([token])).result();
        assert_eq!(other.call("socket.socket", Value::Null).fault().kind().0, 3000);
        for (method, params) in
            [("session.clone", Value::Null), ("session.open", json!({ "rules": [] }))]
        {
            let token = client.call(method, params).result()["token"].clone();
            let mut child = broker.lsp();
            child.call("session.attach", json!([token])).result();
            assert_eq!(child.call("socket.socket", Value::Null).fault().kind().0, 3000, "{method}");
            let fresh = broker.lsp().call("session.open", Value::Null).result()["token"].clone();
            assert_eq!(child.call("session.attach", json!([fresh])).fault().kind().0, 4001);
        }
    });
}

#[test]
fn child_session_is_restricted_by_rule_names_within_restriction_items() {
    bounded(20, || {
        let policy = "version = 1\n[[rule]]\nname = \"names\"\nsubject = { everyone = true }\nallow = [\"resolve\"]";
        let broker = prepare().policy(policy).limit("restriction_items", 2).start();
        let mut client = broker.lsp();
        let kept = json!({ "rules": ["names"] });
        let token = client.call("session.open", kept).result()["token"].clone();
        let mut child = broker.lsp();
        child.call("session.attach", json!([token])).result();
        child.call("socket.getservbyname", json!(["http"])).result();
        assert_eq!(child.call("socket.gethostname", Value::Null).fault().kind().0, 3000);
        // The parent is not restricted.
        client.call("socket.gethostname", Value::Null).result();
        let many = json!({ "rules": ["a", "b", "c"] });
        assert_eq!(child.call("session.restrict", many).fault().limit(), "restriction_items");
        let misspelt = json!({ "filters": [{ "allow": ["connect"], "remot": [] }] });
        assert_eq!(child.call("session.restrict", misspelt).fault().kind().0, -32602);
        let emptied = json!({ "filters": [{ "allow": ["resolve"], "remote": [] }] });
        let refused = child.call("session.restrict", emptied).fault();
        assert!(refused.message.contains("`remote` is an empty list"), "{refused:?}");
    });
}

#[test]
fn rule_with_required_lookup_refuses_other_destinations() {
    let test = "policy::rule_with_required_lookup_refuses_other_destinations";
    if !available_or_skip(test) {
        return;
    }
    inside_with_users(test, || {
        let broker = start(
            "version = 1\n[[rule]]\nname = \"by name\"\nsubject = { everyone = true }\nallow = [\"create\", \"connect\", \"resolve\"]\n\
             lookup = \"required\"\n",
        );
        let mut user = OtherUser::unknown(&broker);
        let udp = user.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
        let numeric = json!([udp, ["127.0.0.1", 9]]);
        assert_eq!(user.call("socket.connect", numeric.clone()).fault().kind().0, 3000);
        user.call("socket.getaddrinfo", json!(["127.0.0.1", 9])).result();
        assert_eq!(user.call("socket.connect", numeric.clone()).fault().kind().0, 3000);
        user.call("socket.gethostbyname", json!(["localhost"])).result();
        user.call("socket.connect", numeric).result();
    });
}

#[test]
fn many_warnings_and_long_errors_of_a_policy_are_reported_in_part() {
    bounded(30, || {
        let rule = |number| format!("[[rule]]\nname = \"r{number}\"\ndeny = [\"hostname\"]\n");
        let rules: String = (0..300).map(rule).collect();
        let broker = prepare().policy(&format!("version = 1\n{rules}")).start();
        let mut client = broker.lsp();
        client.expect_service();
        let log = broker.log();
        assert!(log.contains("more warnings: see them with sockbrokerd --check"), "{log}");
        assert_eq!(log.matches("applies to everyone").count(), 64, "{log}");
        let long = format!("version = 1\nodd = \"{}\"\n", "x".repeat(200_000));
        broker.folder().write("policy.toml", &long);
        let fault = client.call("admin.reload", Value::Null).fault();
        assert_eq!(fault.kind(), (3001, "policy"));
        assert!(fault.message.contains("policy.toml") && fault.message.len() < 40_000);
        client.expect_service();
    });
}
