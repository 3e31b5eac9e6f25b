//! Tokens: in the first head, and nowhere else.

use serde_json::{Value, json};
use sockbroker_test_support::{WebSocketClient, bounded};

use super::fixture::{Files, Lab, POLICY};

const CI: &str = "sbk_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

fn lab(tokens: &[(&str, &str, &str)]) -> Lab {
    let files = Files::new();
    files.tokens(tokens);
    Lab::start(files, "")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn the_bearer_of_a_token_is_served_with_lsp_framing_http_and_websocket() {
    bounded(60, || {
        let lab = lab(&[("ci-7", CI, "")]);
        let expected = json!("token ci-7");
        let mut lsp = lab.connect(None);
        let who = lsp.call_lsp(&bearer(CI), "policy.whoami", Value::Null);
        assert_eq!(who["result"]["principal"], expected, "{who}");
        // Later messages of the connection need no token.
        let again = lsp.call_lsp("", "session.info", Value::Null);
        assert_eq!(again["result"]["principal"], expected, "{again}");
        let mut http = lab.connect(None);
        let (status, who) = http.post(&bearer(CI), "policy.whoami", Value::Null);
        assert_eq!((status, &who["result"]["principal"]), (200, &expected), "{who}");
        let mut web = lab.connect(None);
        let (status, _) = web.request_head(&WebSocketClient::handshake(&bearer(CI)));
        assert_eq!(status, 101);
        let who = web.call_websocket("policy.whoami", Value::Null);
        assert_eq!(who["result"]["principal"], expected, "{who}");
        assert!(!lab.broker.log().contains(CI), "the log has the token");
    });
}

#[test]
fn without_a_valid_token_a_client_reads_why_in_its_framing() {
    bounded(60, || {
        let lab = lab(&[
            ("ci-7", CI, ""),
            ("ci-old", "sbk_old", "expires = 2020-01-01"),
            ("ci-far", "sbk_far", "networks = [\"192.0.2.0/24\"]"),
        ]);
        for (fields, part) in [
            (String::new(), "neither a client certificate nor a token came"),
            (bearer("sbk_unknown"), "the token is unknown"),
            (bearer(&CI[..CI.len() - 1]), "the token is unknown"),
            (bearer("sbk_old"), "the token has expired"),
            (bearer("sbk_far"), "cannot be used from this address"),
            (bearer("secret"), "begins with sbk_"),
            ("Authorization: Basic abc\r\n".to_owned(), "Bearer TOKEN"),
        ] {
            let mut lsp = lab.connect(None);
            let answer = lsp.call_lsp(&fields, "session.info", Value::Null);
            assert!(answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
            assert_eq!(answer["error"]["data"]["kind"], "denied", "{answer}");
            assert_eq!(answer["id"], Value::Null);
            assert_eq!(lsp.frame(), None);
            let (status, answer) = lab.connect(None).post(&fields, "session.info", Value::Null);
            assert_eq!(status, 401, "{answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
        }
        let mut line = lab.connect(None);
        let answer = line.call("session.info", Value::Null);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("needs a certificate"), "{message}");
        assert_eq!(line.line(), None);
    });
}

#[test]
fn a_token_with_rules_keeps_these_alone() {
    bounded(60, || {
        let files = Files::new();
        files.tokens(&[("ci-all", CI, ""), ("ci-few", "sbk_few", "rules = [\"names\"]")]);
        let policy = format!(
            "{POLICY}[[rule]]\nname = \"names\"\nsubject = {{ tokens = [\"ci-*\"] }}\nallow = [\"interfaces\"]\n"
        );
        let lab = Lab::start_with(files, "", |start| start.policy(&policy));
        for (token, hostname, interfaces) in [(CI, true, true), ("sbk_few", false, true)] {
            let mut client = lab.connect(None);
            let host = client.call_lsp(&bearer(token), "socket.gethostname", Value::Null);
            let list = client.call_lsp("", "socket.if_nameindex", Value::Null);
            let allowed = [&host, &list].map(|answer| answer.get("result").is_some());
            assert_eq!(allowed, [hostname, interfaces], "{host} {list}");
        }
    });
}

#[test]
fn a_key_or_a_token_file_that_everyone_can_read_stops_the_start() {
    use std::os::unix::fs::PermissionsExt as _;
    bounded(60, || {
        let files = Files::new();
        files.tokens(&[("ci-7", CI, "")]);
        let mode = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(files.path("tokens.toml"), mode).unwrap();
        let start = crate::broker::prepare().section(&files.section("")).policy(POLICY);
        let (mut command, folder) = start.command();
        let status = command.arg("--socket").arg(folder.join("socket")).status().unwrap();
        let log = std::fs::read_to_string(folder.join("log")).unwrap();
        assert!(!status.success() && log.contains("every user can access it"), "{log}");
    });
}

#[test]
fn certificate_and_token_together_are_refused() {
    bounded(60, || {
        let lab = lab(&[("ci-7", CI, "")]);
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let part = "both a client certificate and a token";
        let mut lsp = lab.connect(Some(&alice));
        let body = "{}";
        // The field can be the first one.
        lsp.send(format!("{}Content-Length: 2\r\n\r\n{body}", bearer(CI)).as_bytes());
        let answer = lsp.frame().unwrap();
        assert!(answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
        assert_eq!(lsp.frame(), None);
        let mut http = lab.connect(Some(&alice));
        let (status, answer) = http.post(&bearer(CI), "session.info", Value::Null);
        assert_eq!(status, 401, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(part), "{answer}");
        // Either alone is served.
        let mut lsp = lab.connect(Some(&alice));
        let info = lsp.call_lsp("", "session.info", Value::Null);
        assert_eq!(info["result"]["principal"], "certificate uri:spiffe://lab/alice", "{info}");
    });
}

#[test]
fn another_token_in_a_later_head_is_refused() {
    bounded(60, || {
        let lab = lab(&[("ci-7", CI, ""), ("ci-8", "sbk_other", "")]);
        let info = "session.info";
        let mut lsp = lab.connect(None);
        lsp.call_lsp(&bearer(CI), info, Value::Null);
        let answer = lsp.call_lsp(&bearer("sbk_other"), info, Value::Null);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains("Authorization belongs into the first message"), "{message}");
        assert_eq!(lsp.frame(), None);
        // Clients of HTTP send the same token again.
        let mut http = lab.connect(None);
        for _ in 0..2 {
            let (status, answer) = http.post(&bearer(CI), info, Value::Null);
            assert_eq!((status, &answer["result"]["principal"]), (200, &json!("token ci-7")));
        }
        let (status, _) = http.request_head(&format!(
            "POST / HTTP/1.1\r\nHost: x\r\n{}Content-Length: 0\r\n\r\n",
            bearer("sbk_other")
        ));
        assert_eq!(status, 401);
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let mut http = lab.connect(Some(&alice));
        assert_eq!(http.post("", info, Value::Null).0, 200);
        let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer(CI));
        assert_eq!(http.request_head(&request).0, 401);
    });
}

#[test]
fn required_certificates_need_an_authority() {
    bounded(60, || {
        let files = Files::new();
        files.tokens(&[("ci-7", CI, "")]);
        let section = files.section("client_certificates = \"required\"\n");
        let section: String =
            section.split_inclusive('\n').filter(|line| !line.starts_with("client_ca")).collect();
        for arguments in [&["--check"][..], &[]] {
            let start = crate::broker::prepare().section(&section).policy(POLICY);
            let (mut command, folder) = start.command();
            let status = command.args(arguments).arg("--socket").arg(folder.join("socket"));
            assert!(!status.status().unwrap().success(), "{arguments:?}");
            let log = std::fs::read_to_string(folder.join("log")).unwrap();
            assert!(log.contains("remote.client_certificates"), "{log}");
        }
    });
}
