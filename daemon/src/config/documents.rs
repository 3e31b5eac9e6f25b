//! The shipped configuration file and its manual page have the keys and defaults of the code. Their text about
//! limits is generated: `UPDATE_CONFIG=1 cargo test -p sockbrokerd --lib documents`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use sockbroker_proto::api::session::LimitInfo;

use super::{Config, Mode};
use crate::config::limits::Limits;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/sockbrokerd.toml");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/man/sockbrokerd.toml.5");
const UPDATE: &str = "UPDATE_CONFIG=1 cargo test -p sockbrokerd --lib documents";

/// The keys that a section knows, out of the refusal of one that it does not.
fn known(section: &str) -> BTreeSet<String> {
    let text = format!("{section}\nno_such_key = 1\n");
    let refused = toml::from_str::<Config>(&text).unwrap_err().to_string();
    // "expected `one`" or "expected one of `one`, `two`".
    let (_, names) = refused.split_once("expected ").expect(&refused);
    names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every key, a section's with its name in front.
fn keys() -> BTreeSet<String> {
    let (sections, plain): (Vec<_>, Vec<_>) = known("")
        .into_iter()
        .partition(|key| toml::from_str::<Config>(&format!("[{key}]")).is_ok());
    let inner = |section: &String| {
        let keys = known(&format!("[{section}]")).into_iter();
        keys.map(|key| format!("{section}.{key}")).collect::<Vec<_>>()
    };
    plain.into_iter().chain(sections.iter().flat_map(inner)).collect()
}

/// Every `#key = value` of the file, uncommented.
fn uncommented(text: &str) -> String {
    let is_key = |line: &str| {
        let word = line.split(' ').next().unwrap_or_default();
        !word.is_empty() && word.chars().all(|c| c == '_' || c.is_ascii_lowercase())
    };
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_key(rest) && rest.contains(" = ") => rest.to_owned(),
        Some(_) => String::new(),
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A limit in a sentence that begins with its unit.
fn sentence(limit: &LimitInfo) -> String {
    let unit = match limit.unit.as_str() {
        "count" => "Number",
        "bytes" => "Bytes",
        "seconds" => "Seconds",
        other => panic!("say how {other} begins a sentence"),
    };
    format!("{unit}: {}.", limit.meaning)
}

fn limits_of_file() -> String {
    let mut text = String::new();
    for (name, limit) in Limits::default().describe() {
        for line in wrapped(&sentence(&limit), 100) {
            writeln!(text, "# {line}").unwrap();
        }
        writeln!(text, "#{name} = {}\n", limit.value).unwrap();
    }
    text
}

fn limits_of_page() -> String {
    let mut text = String::new();
    for (name, limit) in Limits::default().describe() {
        let lines = wrapped(&sentence(&limit).replace('`', ""), 78).join("\n");
        write!(text, ".It Ic {name}\n{lines}\nDefault: {}.\n", limit.value).unwrap();
    }
    text
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().unwrap();
        if !last.is_empty() && last.len() + word.len() >= width {
            lines.push(word.to_owned());
        } else {
            *last = if last.is_empty() { word.to_owned() } else { format!("{last} {word}") };
        }
    }
    lines
}

/// `text` with what stands between two marks replaced.
fn with_between(text: &str, begin: &str, end: Option<&str>, new: &str) -> String {
    let (head, rest) = text.split_once(begin).expect(begin);
    let tail = end.map_or("", |end| &rest[rest.find(end).expect(end)..]);
    format!("{head}{begin}{new}{tail}")
}

fn hold(path: &str, expected: &str) {
    if std::env::var_os("UPDATE_CONFIG").is_some() {
        fs::write(path, expected).unwrap();
    }
    assert!(fs::read_to_string(path).unwrap() == expected, "{path} is out of date: {UPDATE}");
}

#[test]
fn the_limits_of_the_file_and_of_the_page_are_those_of_the_code() {
    let file = fs::read_to_string(FILE).unwrap();
    let limits = format!("\n{}\n", limits_of_file().trim_end());
    hold(FILE, &with_between(&file, "\n[limits]\n", None, &limits));
    let page = fs::read_to_string(PAGE).unwrap();
    let end = Some(".\\\" end limits");
    hold(PAGE, &with_between(&page, ".\\\" begin limits\n", end, &limits_of_page()));
}

#[test]
fn the_file_has_every_key_with_its_default() {
    let file = uncommented(&fs::read_to_string(FILE).unwrap());
    let mut config: Config = toml::from_str(&file).unwrap();
    // Their defaults depend on the user.
    (config.socket, config.socket_group) = (None, None);
    assert_eq!(config.socket_mode.take(), Some(Mode::default()));
    assert_eq!(config, Config::default());
    let table: toml::Table = toml::from_str(&file).unwrap();
    let mut written = BTreeSet::new();
    for (key, value) in &table {
        match value.as_table() {
            Some(section) => written.extend(section.keys().map(|inner| format!("{key}.{inner}"))),
            None => drop(written.insert(key.clone())),
        }
    }
    assert_eq!(written, keys());
}

#[test]
fn the_page_has_every_key() {
    let page = fs::read_to_string(PAGE).unwrap();
    let (mut section, mut documented) = (String::new(), BTreeSet::new());
    for line in page.lines() {
        if let Some(name) = line.strip_prefix(".Ss Section [") {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some(key) = line.strip_prefix(".It Ic ") {
            documented.insert(format!("{section}{key}"));
        }
    }
    assert_eq!(documented, keys());
}
