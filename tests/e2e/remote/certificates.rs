//! Client certificates: who is admitted, and what the others read.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::{WebSocketClient, bounded};

use super::fixture::{Authority, DAY, Files, Lab, POLICY, connect};
use crate::broker::prepare;

const ALICE: &str = "spiffe://lab/alice";

#[test]
fn a_client_with_a_certificate_is_served_in_every_framing() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "");
        let alice = lab.files.authority.client(ALICE);
        let expected = json!("certificate uri:spiffe://lab/alice");
        let mut line = lab.connect(Some(&alice));
        let who = line.call("policy.whoami", Value::Null);
        assert_eq!(who["result"]["principal"], expected, "{who}");
        assert_eq!(who["result"]["rules"][0]["name"], "lab", "{who}");
        let mut lsp = lab.connect(Some(&alice));
        let info = lsp.call_lsp("", "session.info", Value::Null);
        assert_eq!(info["result"]["principal"], expected, "{info}");
        assert_eq!(info["result"]["framing"], "lsp");
        assert_eq!(info["result"]["descriptors"], false);
        let mut http = lab.connect(Some(&alice));
        let (status, answer) = http.post("", "session.info", Value::Null);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["result"]["principal"], expected, "{answer}");
        let mut web = lab.connect(Some(&alice));
        let (status, _) = web.request_head(&WebSocketClient::handshake(""));
        assert_eq!(status, 101);
        let info = web.call_websocket("session.info", Value::Null);
        assert_eq!(info["result"]["principal"], expected, "{info}");
        assert_eq!(info["result"]["framing"], "websocket");
    });
}

#[test]
fn sockets_of_a_remote_principal_carry_data() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "");
        let mut client = lab.connect(Some(&lab.files.authority.client(ALICE)));
        let params = json!({ "family": "AF_INET", "type": "SOCK_DGRAM" });
        let handle = client.call("socket.socket", params)["result"].clone();
        let handle = if handle.is_object() { handle["handle"].clone() } else { handle };
        let bound =
            client.call("socket.bind", json!({ "handle": handle, "address": ["127.0.0.1", 0] }));
        assert!(bound.get("error").is_none(), "{bound}");
        let name = client.call("socket.getsockname", json!({ "handle": handle }))["result"].clone();
        let data = json!({ "handle": handle, "bytes": "aGVsbG8=", "address": name });
        let sent = client.call("socket.sendto", data);
        assert_eq!(sent["result"], 5, "{sent}");
        let got = client.call("socket.recv", json!({ "handle": handle, "bufsize": 16 }));
        assert!(got.to_string().contains("aGVsbG8="), "{got}");
    });
}

#[test]
fn a_client_learns_why_its_certificate_is_refused() {
    bounded(60, || {
        let files = Files::new();
        let revoked = files.authority.client("spiffe://lab/revoked");
        files.write("crl.pem", &files.authority.revoke(&[&revoked], DAY));
        let crl = format!(
            "revocation = \"{}\"\nclient_certificates = \"required\"\n",
            files.path("crl.pem").display()
        );
        let lab = Lab::start(files, &crl);
        let other = Authority::new("other").client(ALICE);
        let expired = lab.files.authority.client_until(ALICE, Some(Duration::ZERO));
        for (leaf, part) in [
            (None, "CertificateRequired"),
            (Some(&other), "UnknownCA"),
            (Some(&expired), "CertificateExpired"),
            (Some(&revoked), "CertificateRevoked"),
        ] {
            // The handshake of the client ends before the server judges the certificate.
            let mut remote = lab.connect(leaf);
            let mut byte = [0];
            let error = std::io::Read::read(&mut remote.stream, &mut byte).unwrap_err();
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        lab.wait_for_log("the handshake failed");
        let good = lab.files.authority.client(ALICE);
        assert!(lab.connect(Some(&good)).call("session.info", Value::Null).get("result").is_some());
    });
}

#[test]
fn an_expired_revocation_list_refuses_everyone_unless_the_configuration_says_otherwise() {
    bounded(60, || {
        for (word, served) in [("refuse", false), ("warn", true)] {
            let files = Files::new();
            files.write("crl.pem", &files.authority.revoke(&[], Duration::ZERO));
            let crl = format!(
                "revocation = \"{}\"\nrevocation_expired = \"{word}\"\n",
                files.path("crl.pem").display()
            );
            let lab = Lab::start(files, &crl);
            let mut remote = lab.connect(Some(&lab.files.authority.client(ALICE)));
            let answered = std::io::Write::write_all(
                &mut remote.stream,
                b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"session.info\"}\n",
            );
            let mut byte = [0];
            let read = answered.and_then(|()| std::io::Read::read(&mut remote.stream, &mut byte));
            assert_eq!(read.is_ok(), served, "{word}: {read:?}");
            assert!(lab.broker.log().contains("expires within a week"), "{}", lab.broker.log());
        }
    });
}

#[test]
fn a_client_whose_certificate_has_no_name_reads_why() {
    bounded(60, || {
        let lab = Lab::start(Files::new(), "subject_from = [\"dns\"]\n");
        let mut remote = lab.connect(Some(&lab.files.authority.client(ALICE)));
        let answer = remote.call("session.info", Value::Null);
        assert_eq!(answer["error"]["data"]["kind"], "denied", "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("no name that the broker uses"), "{message}");
        assert_eq!(remote.line(), None);
    });
}

#[test]
fn a_socket_that_the_service_manager_passes_is_served() {
    bounded(60, || {
        let (files, listener) = (Files::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let section = files.section("").replace("listen = [\"127.0.0.1:0\"]\n", "");
        let names = "export LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=remote";
        let pass = format!("exec 3<&0 </dev/null && {names}");
        let (mut command, folder) =
            prepare().section(&section).policy(POLICY).shell(&pass).command();
        command.arg("--socket").arg(folder.join("socket")).stdout(Stdio::null());
        command.stdin(OwnedFd::from(listener.try_clone().unwrap()));
        let _process = Process::spawn(command);
        let alice = files.authority.client(ALICE);
        let mut remote =
            connect(&files.authority, listener.local_addr().unwrap(), Some(&alice)).unwrap();
        let answer = remote.call("session.info", Value::Null);
        assert!(answer.get("result").is_some(), "{answer}");
    });
}
