//! What tests share: a host with one user and one group, rules from text, and kinds of sockets.

use sockbroker_proto::socket_spec::SocketSpec;

use crate::language::file::{Content, Directory, FileError, read};
use crate::language::rule::Rule;

/// The uid of the broker's own user.
pub(crate) const OWNER: u32 = 970;

/// Knows the user alice and the group net.
pub(crate) struct Host;

impl Directory for Host {
    fn user(&self, name: &str) -> Option<u32> {
        (name == "alice").then_some(1000)
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "net").then_some(50)
    }
}

/// The content of a file `p` with these lines after the first one, which is the version.
pub(crate) fn file(lines: &str) -> Result<Content, FileError> {
    read("p", &format!("version = 1\n{lines}"), &Host)
}

/// The content of a file `p` with one rule `a`, whose fields begin in line 4.
pub(crate) fn file_of_rule(fields: &str) -> Result<Content, FileError> {
    file(&format!("[[rule]]\nname = \"a\"\n{fields}\n"))
}

/// The rules of a file with these lines.
pub(crate) fn rules(lines: &str) -> Vec<Rule> {
    file(lines).unwrap().rules.into_iter().map(|(rule, _)| rule).collect()
}

pub(crate) const TCP: SocketSpec = inet(libc::SOCK_STREAM);
pub(crate) const UDP: SocketSpec = inet(libc::SOCK_DGRAM);
pub(crate) const UNIX: SocketSpec = SocketSpec { domain: libc::AF_UNIX, ..TCP };

const fn inet(ty: i32) -> SocketSpec {
    SocketSpec { domain: libc::AF_INET, ty, protocol: 0 }
}

/// A rule that allows captures, or denies them, with these fields.
pub(crate) fn capture_rule(name: &str, effect: &str, fields: &str) -> String {
    format!(
        "[[rule]]\nname = \"{name}\"\nsubject = {{ users = [\"alice\"] }}\n{effect} = [\"capture\"]\n{fields}\n"
    )
}
