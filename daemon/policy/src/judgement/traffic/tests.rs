//! Every end and interface of a request is judged.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::fixture::{OWNER, TCP, UDP, UNIX, rules};
use crate::judgement::action::Handover;
use crate::judgement::namespace::Namespace;
use crate::judgement::policy::Policy;
use crate::judgement::rights::Rights;
use crate::judgement::rule_name::{CONTROL_SOCKET, NO_RULE};
use crate::judgement::subject::Subject;
use crate::judgement::target::{FileFacts, FileTarget};

/// Rights of uid 1000; the rules are about everyone.
fn rights_of(rules: &str) -> Rights {
    let rules = rules.replace("[[rule]]", "[[rule]]\nsubject = { uids = [1000] }");
    Policy::new(OWNER, self::rules(&rules), false).select(&Subject::new(1000, 1000), Vec::new())
}

/// Who decided: the rule that allowed, or the rule that refused.
fn decided<R: Request>(rights: &Rights, request: R) -> Result<String, String> {
    let verdict = rights.authorize(request).map(|permit| permit.rule().to_string());
    verdict.map_err(|denial| denial.rule.to_string())
}

const RULES: &str = r#"
    [[rule]]
    name = "all"
    allow = ["bind", "connect", "send", "receive", "handover", "listen"]
    [[rule]]
    name = "not there"
    deny = ["connect", "send", "receive"]
    remote = ["10.0.0.66"]
    [[rule]]
    name = "not as this"
    deny = ["send"]
    local = ["10.0.0.77"]
    [[rule]]
    name = "not on this"
    deny = ["send", "connect"]
    interface = ["eth1"]
"#;

fn name(host: [u8; 4]) -> SocketName {
    SocketName::Address(Address::Inet { host: Ipv4Addr::from(host), port: 9 })
}

#[test]
fn every_end_and_interface_of_a_message_is_judged() {
    let rights = rights_of(RULES);
    let (fine, vault) = (name([10, 0, 0, 1]), name([10, 0, 0, 66]));
    let (own, foreign) = (name([10, 0, 0, 2]), name([10, 0, 0, 77]));
    let send = |remotes: &[&SocketName], locals: &[&SocketName], interfaces: &[&str]| {
        let own = |names: &[&SocketName]| names.iter().copied().cloned().collect();
        let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
        let request = Send::new(UDP, None);
        Send { remotes: own(remotes), locals: own(locals), interfaces, ..request }
    };
    for (request, by) in [
        (send(&[], &[], &[]), Ok("all")),
        (send(&[&fine], &[&own], &["eth0"]), Ok("all")),
        (send(&[&fine, &vault], &[&own], &["eth0"]), Err("not there")),
        (send(&[&fine], &[&own, &foreign], &["eth0"]), Err("not as this")),
        (send(&[&fine], &[&own], &["eth0", "eth1"]), Err("not on this")),
        (send(&[&fine, &fine], &[&own, &own], &["eth0", "eth2"]), Ok("all")),
    ] {
        let by = by.map(str::to_owned).map_err(str::to_owned);
        let shown = format!("{request:?}");
        assert_eq!(decided(&rights, request), by, "{shown}");
    }
}

#[test]
fn an_unknown_end_escapes_no_deny_and_matches_no_allow() {
    let rights = rights_of(RULES);
    let receive = |socket, peers| Receive {
        socket,
        peers,
        interface: None,
        length: 1,
        ancillary: 0,
        flags: 0,
    };
    let unknown = vec![SocketName::Unknown];
    assert_eq!(decided(&rights, receive(TCP, unknown.clone())), Err("not there".to_owned()));
    // Rules about internet addresses are not about other families.
    assert_eq!(decided(&rights, receive(UNIX, unknown.clone())), Ok("all".to_owned()));
    let near = "[[rule]]\nname = \"near\"\nallow = [\"receive\"]\nremote = [\"10.0.0.0/8\"]";
    let near = rights_of(near);
    assert_eq!(decided(&near, receive(TCP, unknown)), Err(NO_RULE.to_owned()));
    assert!(decided(&near, receive(TCP, vec![name([10, 0, 0, 1])])).is_ok());
}

fn connect(facts: FileFacts) -> Connect {
    let descriptor = Arc::new(std::fs::File::open("/dev/null").unwrap());
    let facts = Arc::new(facts);
    let target = Target::File(FileTarget { descriptor, name: None, written: None, facts });
    Connect { socket: UNIX, target, local: None, interfaces: Vec::new(), looked_up: None }
}

fn file(names: &[&str]) -> FileFacts {
    let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
    FileFacts { names, visible: true, ..FileFacts::default() }
}

#[test]
fn a_file_is_judged_by_each_of_its_names() {
    let deny = rights_of(
        "[[rule]]\nname = \"all\"\nallow = [\"connect\"]\n\
         [[rule]]\nname = \"no\"\ndeny = [\"connect\"]\npath = [\"/run/engine\"]",
    );
    let (all, no) = (Ok("all".to_owned()), Err("no".to_owned()));
    assert_eq!(decided(&deny, connect(file(&["/run/app/s"]))), all);
    assert_eq!(decided(&deny, connect(file(&["/tmp/link", "/run/engine/s"]))), no);
    let possible = vec!["/run/engine".to_owned()];
    let hidden = FileFacts { visible: false, possible, ..file(&["/srv/s"]) };
    assert_eq!(decided(&deny, connect(hidden)), no);
    let hidden = FileFacts { visible: false, ..file(&["/srv/s"]) };
    assert_eq!(decided(&deny, connect(hidden)), all);

    let allow = rights_of("[[rule]]\nname = \"app\"\nallow = [\"connect\"]\npath = [\"/run/app\"]");
    assert!(decided(&allow, connect(file(&["/run/app/s"]))).is_ok());
    let hidden = FileFacts { visible: false, ..file(&["/run/app/s"]) };
    assert_eq!(decided(&allow, connect(hidden)), Err(NO_RULE.to_owned()));
}

#[test]
fn a_path_as_text_is_looked_up_only_where_a_rule_allows_it() {
    let plain = rights_of("[[rule]]\nname = \"unix\"\nallow = [\"connect\"]");
    let text = || FileFacts { as_text: true, ..file(&["/run/app/s"]) };
    let denial = plain.authorize(connect(text())).unwrap_err();
    assert!(denial.grant.ends_with("paths = \"broker\""), "{}", denial.grant);
    assert!(denial.to_string().contains("O_PATH"), "{denial}");
    assert!(!plain.lets_look_up(Verb::Connect, UNIX));
    let broker = rights_of("[[rule]]\nname = \"u\"\nallow = [\"connect\"]\npaths = \"broker\"");
    assert!(broker.lets_look_up(Verb::Connect, UNIX) && !broker.lets_look_up(Verb::Bind, UNIX));
    assert!(decided(&broker, connect(text())).is_ok());
}

#[test]
fn the_control_socket_is_not_a_destination_even_for_root() {
    let root = Policy::built_in(0).select(&Subject::new(0, 0), Vec::new());
    let control = FileFacts { is_control: true, ..file(&["/run/broker/socket"]) };
    assert_eq!(decided(&root, connect(control)), Err(CONTROL_SOCKET.to_owned()));
}

#[test]
fn a_descriptor_that_escapes_a_deny_is_passed_by_name_only() {
    let escaped = |rules: &str, socket| {
        let rights = rights_of(rules);
        let escapes = rights.escaped_by(socket, &Namespace::Broker).map(Arc::from);
        decided(&rights, Handover { socket, escapes })
    };
    assert_eq!(escaped(RULES, TCP), Err("not there".to_owned()));
    assert_eq!(escaped(RULES, UNIX), Ok("all".to_owned()));
    let unchecked = RULES.replace("\"listen\"]", "\"listen\"]\nunchecked = true");
    assert_eq!(escaped(&unchecked, TCP), Ok("all".to_owned()));
    let other = format!("{RULES}\n[[rule]]\nname = \"no\"\ndeny = [\"bind\"]\npath = [\"/run\"]");
    assert_eq!(escaped(&other, UNIX), Err("no".to_owned()));
}
