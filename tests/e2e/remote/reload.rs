//! Reloads: live connections are judged again.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use sockbroker_test_support::message::Client as _;
use sockbroker_test_support::{bounded, until};

use super::fixture::{DAY, Files, Lab, expires};

const TOKEN: &str = "sbk_token";

/// A lab with a revocation list and a token.
fn lab() -> Lab {
    let files = Files::new();
    files.write("crl.pem", &files.authority.revoke(&[], DAY));
    files.tokens(&[("ci-7", TOKEN, "")]);
    let crl = format!("revocation = \"{}\"\n", files.path("crl.pem").display());
    Lab::start(files, &crl)
}

#[test]
fn a_reload_ends_the_connections_of_those_who_are_no_longer_admitted() {
    bounded(60, || {
        let lab = lab();
        let client = |name| lab.files.authority.client(&format!("spiffe://lab/{name}"));
        let (alice, bob) = (client("alice"), client("bob"));
        let mut line = lab.connect(Some(&alice));
        let mut lsp = lab.connect(Some(&alice));
        let mut other = lab.connect(Some(&bob));
        let mut bearer = lab.connect(None);
        let info = "session.info";
        line.call(info, Value::Null);
        lsp.call_lsp("", info, Value::Null);
        other.call(info, Value::Null);
        bearer.call_lsp(&format!("Authorization: Bearer {TOKEN}\r\n"), info, Value::Null);
        lab.files.write("crl.pem", &lab.files.authority.revoke(&[&alice], DAY));
        lab.files.tokens(&[]);
        let reloaded = lab.reload();
        assert!(!reloaded.is_fault(), "{reloaded:?}");
        let notices = [
            (line.line().expect("a last message"), "Revoked"),
            (lsp.frame().expect("a last message"), "Revoked"),
            (bearer.frame().expect("a last message"), "the token is unknown"),
        ];
        for (notice, part) in notices {
            assert_eq!(notice["id"], Value::Null, "{notice}");
            assert_eq!(notice["error"]["data"]["kind"], "denied", "{notice}");
            assert!(notice["error"]["message"].as_str().unwrap().contains(part), "{notice}");
        }
        assert_eq!((line.line(), lsp.frame(), bearer.frame()), (None, None, None));
        // Others go on.
        assert!(other.call(info, Value::Null).get("result").is_some());
        // The revoked certificate is refused from now on.
        let mut again = lab.connect(Some(&alice));
        assert!(std::io::Read::read(&mut again.stream, &mut [0]).is_err());
    });
}

#[test]
fn a_file_with_a_mistake_keeps_the_old_ones() {
    bounded(60, || {
        let lab = lab();
        let mut bearer = lab.connect(None);
        let field = format!("Authorization: Bearer {TOKEN}\r\n");
        bearer.call_lsp(&field, "session.info", Value::Null);
        lab.files.write("tokens.toml", "[[token]]\nname = \"ci-7\"\n");
        let fault = lab.reload().fault();
        assert!(fault.message.contains("sha256"), "{}", fault.message);
        assert!(bearer.call_lsp("", "session.info", Value::Null).get("result").is_some());
        let again = lab.connect(None).call_lsp(&field, "session.info", Value::Null);
        assert!(again.get("result").is_some(), "{again}");
    });
}

#[test]
fn a_connection_ends_when_its_certificate_expires() {
    bounded(60, || {
        let lab = lab();
        // On a machine that is slow, a certificate can expire before the first call: then one that lasts longer.
        let mut lives = (1..8).map(|power| Duration::from_secs(1 << power));
        let mut line = lives
            .find_map(|life| {
                let alice = lab.files.authority.client_until("spiffe://lab/alice", Some(life));
                let mut line = lab.connect(Some(&alice));
                let info = line.try_call("session.info", Value::Null).ok()??;
                info.get("result").is_some().then_some(line)
            })
            .expect("one lasts until the first call");
        let notice = line.line().expect("a last message");
        let message = notice["error"]["message"].as_str().unwrap();
        assert!(message.contains("the client certificate has expired"), "{message}");
        assert_eq!(line.line(), None);
    });
}

#[test]
fn a_reload_changes_when_a_connection_expires() {
    bounded(120, || {
        let files = Files::new();
        let (field, other) =
            ["sbk_one", "sbk_two"].map(|token| format!("Authorization: Bearer {token}\r\n")).into();
        let write = |files: &Files, first: &str, second: &str| {
            files.tokens(&[("ci-1", "sbk_one", first), ("ci-2", "sbk_two", second)]);
        };
        write(&files, &expires(SystemTime::now() + DAY), "");
        let lab = Lab::start(files, "");
        let info = "session.info";
        let mut bearer = lab.connect(None);
        bearer.call_lsp(&field, info, Value::Null);
        // Earlier.
        write(&lab.files, &expires(SystemTime::now() + Duration::from_secs(1)), "");
        lab.reload().result();
        let notice = bearer.frame().expect("a last message");
        let message = notice["error"]["message"].as_str().unwrap();
        assert!(message.contains("the token has expired"), "{message}");
        // Later. On a machine that is slow, tokens can expire before the reload: then ones that last longer.
        for power in 1..8 {
            let end = SystemTime::now() + Duration::from_secs(1 << power);
            write(&lab.files, &expires(end), &expires(end));
            lab.reload().result();
            let (mut kept, mut ended) = (lab.connect(None), lab.connect(None));
            let answers = [
                kept.call_lsp(&field, info, Value::Null),
                ended.call_lsp(&other, info, Value::Null),
            ];
            write(&lab.files, "", &expires(end));
            lab.reload().result();
            if SystemTime::now() + Duration::from_secs(1) > end
                || answers.iter().any(|answer| answer.get("result").is_none())
            {
                continue;
            }
            let notice = ended.frame().expect("a last message");
            assert!(
                notice["error"]["message"].as_str().unwrap().contains("has expired"),
                "{notice}"
            );
            // The notice came after the first time of the other one.
            let answer = kept.call_lsp("", info, Value::Null);
            assert!(answer.get("result").is_some(), "{answer}");
            return;
        }
        panic!("no token lasted until the reload");
    });
}

#[test]
fn a_reload_closes_the_sessions_of_those_who_are_no_longer_admitted() {
    bounded(60, || {
        let files = Files::new();
        files.tokens(&[("ci-7", TOKEN, ""), ("ci-8", "sbk_other", "")]);
        let lab = Lab::start(files, "");
        let open = |token: &str| {
            let field = format!("Authorization: Bearer {token}\r\n");
            let mut bearer = lab.connect(None);
            let opened =
                bearer.call_lsp(&field, "session.open", serde_json::json!({ "linger": 60 }));
            assert!(opened.get("result").is_some(), "{opened}");
        };
        open(TOKEN);
        open("sbk_other");
        let principals = || {
            let sessions = lab.broker.ndjson().call("admin.sessions", Value::Null);
            let all = sessions.result().as_array().unwrap().clone();
            let names = all.iter().filter_map(|one| one["principal"].as_str().map(str::to_owned));
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        until("the connections have ended", || {
            let sessions = lab.broker.ndjson().call("admin.sessions", Value::Null);
            let all = sessions.result().as_array().unwrap();
            let mut remote = all.iter().filter(|one| one["principal"].is_string());
            remote.all(|one| one["connections"] == 0)
        });
        assert_eq!(principals(), ["token ci-7", "token ci-8"]);
        lab.files.tokens(&[("ci-8", "sbk_other", "")]);
        lab.reload().result();
        until("the session is closed", || principals() == ["token ci-8"]);
    });
}
