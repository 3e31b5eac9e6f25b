//! Words that this project does not use, and where they may still stand.

/// Where a token is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Documents, comments and messages.
    Prose,
    /// Names in code, in parts: `told` is in `is_told` and `ToldBytes`.
    Name,
    /// Prose and names.
    Both,
    /// This very name of a type.
    Type,
}
use Place::{Both, Name, Prose, Type};

/// A token, what to write instead, and where it is forbidden.
pub(crate) const WORDS: &[(&str, &str, Place)] = &[
    ("spell", "write, encode", Both),
    ("spells", "writes, encodes", Both),
    ("spelt", "framing, written as", Both),
    ("spelled", "framing, written as", Both),
    ("spelling", "framing, encoding, JSON form", Both),
    ("spellings", "framings, encodings, JSON forms", Both),
    ("tell", "report, log, return, show, notify", Both),
    ("tells", "reports, logs, returns, shows, notifies", Both),
    ("telling", "reporting, showing", Both),
    ("told", "reported, shown, notified", Both),
    ("whoever", "anyone who", Both),
    ("one's own", "its own, the caller's own", Prose),
    ("so many", "as many", Prose),
    ("anew", "again", Both),
    ("minded", "a plain clause", Both),
    ("kin", "related", Both),
    ("of which", "a plain clause", Prose),
    ("is no", "is not a", Prose),
    ("patience", "deadline, wait policy", Both),
    ("rides beside", "is attached to", Prose),
    ("beside a frame", "attached to a frame", Prose),
    ("beside the frame", "attached to the frame", Prose),
    ("beside one frame", "attached to one frame", Prose),
    ("beside the message", "attached to the message", Prose),
    ("beside the json", "attached to the JSON", Prose),
    ("descriptors beside", "attached descriptors", Prose),
    ("attachments beside", "attachments of", Prose),
    ("hand over", "pass, transfer", Prose),
    ("hands over", "passes, transfers", Prose),
    ("handed over", "passed, transferred", Prose),
    ("look at one's", "inspect", Prose),
    ("looking at one's", "inspecting", Prose),
    ("house", "crate, project", Both),
    ("story", "stage, walkthrough", Both),
    ("kept from", "excluded from", Prose),
    ("let in", "admitted", Prose),
    ("as told", "all steps succeeded", Prose),
    ("say so", "print, report", Prose),
    ("says so", "prints, reports", Prose),
    ("needs no excuse", "stale exception", Prose),
    ("strike it", "remove it", Prose),
    ("crossed", "exceeded", Name),
    ("enclosed", "request parts", Name),
    ("beside", "response parts", Name),
    ("lane", "call queue", Both),
    ("lanes", "call queues", Both),
    ("actor", "caller identity", Both),
    ("carriage", "payload encoding", Both),
    ("heir", "what collects the dropped call", Both),
    ("orphan", "dropped call", Both),
    ("orphans", "dropped calls", Both),
    ("Taken", "Reservation", Type),
    ("whereabouts", "socket_endpoints", Both),
    ("sniffer", "rcvall", Name),
    ("SocketFacts", "SocketSpec", Type),
    ("SocketKind", "SocketSpec", Type),
];

/// Good English that holds one of the tokens.
pub(crate) const GOOD: &[&str] =
    &["there is no", "is no longer", "is no more than", "is no less than", "carriage return"];

/// What nobody writes by hand here, and the words themselves.
pub(crate) const NOT_READ: &[&str] = &[
    "LICENSE-",
    "Cargo.lock",
    "proto/openrpc.json",
    "tests/tidy/src/vocabulary.rs",
    "tests/tidy/src/words.rs",
];

/// Tokens that stay, the beginning of the paths where they may, and why.
pub(crate) const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("crossed", "daemon/src/observe/metrics.rs", "the metric limits_crossed_total"),
    ("crossed", "tests/e2e/observe.rs", "the metric limits_crossed_total"),
    ("tell", "client/python/tests/behaviour/test_whole.py", "the method of Python's files"),
    ("tell", "tests/compliance/oracle/scenarios/files.py", "the method of Python's files"),
    ("SocketKind", "tests/compliance/oracle/brokered.py", "an enum of Python's socket module"),
    ("sniffer", "client/", "a program that sniffs, as in Python's documentation"),
    ("sniffer", "tests/e2e/documentation.rs", "the sniffer of Python's documentation"),
    ("sniffer", "tests/scapy/", "scapy's AsyncSniffer"),
    ("actor", "SECURITY.md", "the word of threat models"),
    ("tell", "client/cli/src/sniff/decode.rs", "the line that tcpdump prints for ARP"),
];

/// Folders, without those within them, that are not rewritten yet.
pub(crate) const NOT_YET: &str = "";
