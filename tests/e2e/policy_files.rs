//! The shipped policy and its manual page agree with the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sockbroker_policy::check::check;
use sockbroker_policy::file::{Directory, read};
use sockbroker_policy::netlink::MessageClass;
use sockbroker_policy::operand::Operand;
use sockbroker_policy::option::OptionClass;
use sockbroker_policy::verb::Verb;
use sockbroker_test_support::bounded;
use sockbrokerd::config::limits::Limits;

/// The account database of a system on which the package is installed.
struct Installed;

impl Directory for Installed {
    fn user(&self, _name: &str) -> Option<u32> {
        Some(1)
    }

    fn group(&self, name: &str) -> Option<u32> {
        name.starts_with("sockbroker").then(|| u32::try_from(name.len()).unwrap())
    }
}

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn page() -> String {
    fs::read_to_string(deploy().join("man/sockbroker-policy.5")).unwrap()
}

/// Returns the tags of the lists in a section: `.It Cm word` or `.It Fa field , field`.
fn tags(page: &str, section: &str, kind: &str) -> BTreeSet<String> {
    let start = page.find(&format!(".Sh {section}\n")).unwrap();
    let body = page[start + 4..].split("\n.Sh ").next().unwrap();
    let items = body.lines().filter_map(|line| line.strip_prefix(&format!(".It {kind} ")));
    items.flat_map(|item| item.split(" , ")).map(str::to_owned).collect()
}

fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// Returns the fields that are allowed at a position of the file, from the error about an unknown one.
fn fields(text: &str) -> BTreeSet<String> {
    let message = read("p", text, &Installed).unwrap_err().message;
    let listed = message.split("expected one of").nth(1).unwrap_or_else(|| panic!("{message}"));
    listed.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn policy_manual_page_lists_exactly_the_words_of_the_language() {
    bounded(20, || {
        let page = page();
        assert_eq!(tags(&page, "VERBS", "Cm"), words(Verb::ALL.iter().map(|verb| verb.word())));
        let granted = OptionClass::ALL.iter().filter(|class| class.verb() == Verb::Option);
        assert_eq!(tags(&page, "OPTIONS", "Cm"), words(granted.map(|class| class.word())));
        let messages = words(MessageClass::ALL.iter().map(|class| class.word()));
        assert_eq!(tags(&page, "NETLINK", "Cm"), messages);
        assert_eq!(tags(&page, "TOP LEVEL", "Fa"), fields("nothing = 1"));
        assert_eq!(tags(&page, "RULE", "Fa"), fields("version = 1\n[[rule]]\nnothing = 1"));
        let subject = fields("version = 1\n[[rule]]\nsubject = { nothing = 1 }");
        assert_eq!(tags(&page, "SUBJECT", "Fa"), subject);
    });
}

#[test]
fn policy_manual_page_has_the_meaning_of_every_word() {
    let page = page().replace('\n', " ");
    let classes = OptionClass::ALL.iter().filter(|class| class.verb() == Verb::Option);
    let meanings = Verb::ALL.iter().map(|verb| verb.meaning());
    let meanings = meanings.chain(classes.map(|class| class.meaning()));
    for meaning in meanings.chain(MessageClass::ALL.iter().map(|class| class.meaning())) {
        // What is between backticks is bold.
        let mut parts = meaning.split('`');
        let mut text = parts.next().unwrap().to_owned();
        while let (Some(code), Some(plain)) = (parts.next(), parts.next()) {
            text.extend(["\\fB", code, "\\fR", plain]);
        }
        assert!(page.contains(&text), "{text}");
    }
}

#[test]
fn policy_manual_page_shows_verbs_and_rules_of_each_operand() {
    let page = page();
    let section = page.split("\n.Sh OPERANDS\n").nth(1).unwrap().split("\n.Sh ").next().unwrap();
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with(".It Fa ")).collect();
    let expected = Operand::ALL.iter().map(|operand| {
        let rules = if operand.is_for_deny() { "allow, deny" } else { "allow" };
        let others = if operand.is_qualifier() { "unaffected" } else { "excluded" };
        let verbs: Vec<_> = operand.verbs().map(Verb::word).collect();
        format!(".It Fa {} Ta {rules} Ta {others} Ta {}", operand.word(), verbs.join(", "))
    });
    assert_eq!(rows, expected.collect::<Vec<_>>());
}

#[test]
fn session_filter_has_every_operand_of_a_rule() {
    let document: serde_json::Value =
        serde_json::from_str(include_str!("../../proto/openrpc.json")).unwrap();
    let filter = &document["components"]["schemas"]["Filter"]["properties"];
    let properties: BTreeSet<_> = filter.as_object().unwrap().keys().cloned().collect();
    let operands = Operand::ALL.iter().map(|operand| operand.word());
    assert_eq!(properties, words(operands.chain(["allow"])));
}

#[test]
fn policy_manual_page_lists_every_user_limit() {
    let page = page();
    let limits = Limits::default().describe();
    for name in limits.keys().filter(|name| name.ends_with("_per_user")) {
        assert!(page.contains(&format!(".Fa {name}")), "{name}");
    }
    for name in page.lines().filter_map(|line| line.strip_prefix(".Fa ")) {
        let name = name.split(' ').next().unwrap();
        let limit = name.contains("_per_user") || name.starts_with("restriction");
        assert!(!limit || limits.contains_key(name), "{name} is not a limit");
    }
}

#[test]
fn shipped_policy_files_have_no_warnings() {
    bounded(20, || {
        let config = deploy().join("config");
        let mut files = vec![config.join("policy.toml")];
        let drop_ins = fs::read_dir(config.join("policy.d")).unwrap();
        files.extend(drop_ins.map(|entry| entry.unwrap().path()));
        assert!(files.len() > 5, "{files:?}");
        let mut all = Vec::new();
        for path in files {
            let name = path.display().to_string();
            let text = fs::read_to_string(&path).unwrap();
            let content = read(&name, &text, &Installed).unwrap();
            assert_eq!(content.warnings, [], "{name}");
            let unrestricted = content.rules.iter().find(|(rule, _)| rule.subject.gids.is_none());
            assert!(
                unrestricted.is_none(),
                "{name}: a rule applies to all users: {unrestricted:?}"
            );
            all.extend(
                content.rules.into_iter().map(|(rule, line)| (rule, format!("{name}:{line}"))),
            );
        }
        assert_eq!(check(&all), []);
    });
}

#[test]
fn each_service_role_has_a_policy() {
    let roles = fs::read_dir(deploy().join("systemd/roles")).unwrap();
    for role in roles {
        let role = role.unwrap().path();
        let name = role.file_stem().unwrap().to_str().unwrap().to_owned();
        let policy = deploy().join(format!("config/policy.d/{name}.toml"));
        assert!(policy.exists(), "{}", policy.display());
    }
}
