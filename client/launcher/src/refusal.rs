//! What the user is shown: one line for each distinct refusal.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The most lines on standard error. A program that tries many ports must not hide its own output.
const LINES_MAX: usize = 20;
/// The most lines in a file.
const LOGGED_LINES_MAX: usize = 10_000;

/// Where the lines go.
#[derive(Debug)]
pub enum Output {
    /// Standard error of the program.
    StandardError,
    /// A file.
    File(File),
    /// Nowhere.
    Discarded,
}

/// Writes lines, each distinct one once.
#[derive(Debug)]
pub(crate) struct Lines {
    output: Output,
    written: Mutex<HashSet<String>>,
}

impl Lines {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, written: Mutex::default() }
    }

    /// Whether the lines need standard error.
    pub(crate) fn use_standard_error(&self) -> bool {
        matches!(self.output, Output::StandardError)
    }

    /// Writes `sockbroker: PREFIX: TEXT`, unless the same text was written with any process id.
    pub(crate) fn refused(&self, name: &str, pid: u32, text: &str) {
        if self.is_new(&format!("{name}: {text}")) {
            self.write(&format!("sockbroker: {name} (pid {pid}): {text}"));
        }
    }

    /// Writes a line that concerns no single call.
    pub(crate) fn note(&self, text: &str) {
        if self.is_new(text) {
            self.write(&format!("sockbroker: {text}"));
        }
    }

    fn is_new(&self, text: &str) -> bool {
        let most = match self.output {
            Output::StandardError => LINES_MAX,
            Output::File(_) => LOGGED_LINES_MAX,
            Output::Discarded => 0,
        };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.len() < most && written.insert(text.to_owned())
    }

    /// Best effort: a call must not fail or wait because a line cannot be written.
    fn write(&self, line: &str) {
        // A program chooses its name: it must not control the terminal.
        let line = line.replace(char::is_control, "?") + "\n";
        match &self.output {
            Output::StandardError => {
                let stderr = io::stderr();
                let mut entries = [PollFd::new(&stderr, PollFlags::OUT)];
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                if poll(&mut entries, Some(&now)).is_ok_and(|ready| ready == 1)
                    && entries[0].revents().contains(PollFlags::OUT)
                {
                    drop(stderr.lock().write_all(line.as_bytes()));
                }
            }
            Output::File(file) => drop((&*file).write_all(line.as_bytes())),
            Output::Discarded => {}
        }
    }
}

/// The text of a refusal by the policy.
pub(crate) fn denied(call: &str, rule: &str, grant: Option<&str>) -> String {
    let by = if rule == NO_RULE {
        "refused: no rule allows it".to_owned()
    } else {
        format!("refused by rule {rule:?}")
    };
    let missing = grant.map(|grant| format!("; missing: {grant}")).unwrap_or_default();
    format!("{call} {by}{missing}")
}

/// What the broker reports in place of a rule if none decided.
const NO_RULE: &str = "no rule";

/// A number and its name without the prefix.
type Named = (i32, &'static str);

/// The name of a constant, or its number.
pub(crate) fn constant_name(prefix: &str, number: i32) -> String {
    let known: [(&str, &[Named]); 4] = [
        (
            "AF_",
            &[
                (1, "UNIX"),
                (2, "INET"),
                (10, "INET6"),
                (15, "KEY"),
                (16, "NETLINK"),
                (17, "PACKET"),
                (21, "RDS"),
                (29, "CAN"),
                (30, "TIPC"),
                (31, "BLUETOOTH"),
                (38, "ALG"),
                (40, "VSOCK"),
                (42, "QIPCRTR"),
                (44, "XDP"),
            ],
        ),
        ("SOCK_", &[(1, "STREAM"), (2, "DGRAM"), (3, "RAW"), (10, "PACKET")]),
        (
            "IPPROTO_",
            &[(1, "ICMP"), (2, "IGMP"), (6, "TCP"), (17, "UDP"), (58, "ICMPV6"), (255, "RAW")],
        ),
        (
            "NETLINK_",
            &[
                (0, "ROUTE"),
                (2, "USERSOCK"),
                (4, "SOCK_DIAG"),
                (5, "NFLOG"),
                (6, "XFRM"),
                (9, "AUDIT"),
                (12, "NETFILTER"),
                (15, "KOBJECT_UEVENT"),
                (16, "GENERIC"),
                (21, "CRYPTO"),
            ],
        ),
    ];
    let names = known.iter().find(|(known, _)| *known == prefix).map_or(&[][..], |(_, row)| row);
    let name = names.iter().find(|(known, _)| *known == number);
    name.map_or_else(|| number.to_string(), |(_, name)| format!("{prefix}{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> (Lines, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("sockbroker-lines-{}", std::process::id()));
        (Lines::new(Output::File(File::create(&path).unwrap())), path)
    }

    #[test]
    fn each_text_is_written_once_whatever_the_process() {
        let (lines, path) = lines();
        lines.refused("ping", 1, "socket() refused");
        lines.refused("ping", 2, "socket() refused");
        lines.refused("fping", 3, "socket() refused");
        lines.refused("a\nb\u{1b}[0m", 4, "x");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        let expected = "sockbroker: ping (pid 1): socket() refused\n\
                        sockbroker: fping (pid 3): socket() refused\n\
                        sockbroker: a?b?[0m (pid 4): x\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn standard_error_gets_a_bounded_number_of_lines() {
        let lines = Lines::new(Output::StandardError);
        let new = (0..100).filter(|number| lines.is_new(&number.to_string())).count();
        assert_eq!(new, LINES_MAX);
        assert!(!Lines::new(Output::Discarded).is_new("x"));
    }

    #[test]
    fn a_refusal_names_the_rule_and_the_missing_grant() {
        let grant = Some("allow = [\"bind\"]");
        assert_eq!(
            denied("bind to 0.0.0.0:80", "ports", grant),
            "bind to 0.0.0.0:80 refused by rule \"ports\"; missing: allow = [\"bind\"]"
        );
        assert_eq!(
            denied("socket(AF_PACKET, SOCK_RAW)", "no rule", None),
            "socket(AF_PACKET, SOCK_RAW) refused: no rule allows it"
        );
    }
}
