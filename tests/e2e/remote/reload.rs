//! Reloads: live connections are judged again.

use std::time::Duration;

use serde_json::Value;
use sockbroker_test_support::bounded;

use super::fixture::{DAY, Files, Lab};

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
