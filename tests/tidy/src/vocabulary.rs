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
    ("sniffer", "client/", "a program that sniffs, as in Python's documentation"),
    ("sniffer", "tests/compliance/", "a socket that sniffs, as in Python's documentation"),
    ("sniffer", "tests/e2e/documentation.rs", "the sniffer of Python's documentation"),
    ("sniffer", "tests/scapy/program.py", "scapy's AsyncSniffer"),
    ("actor", "SECURITY.md", "the word of threat models"),
    ("spelling", "proto/PROTOCOL.md", "a field of session.info"),
    ("spelling", "proto/src/api/session.rs", "a field of session.info"),
    ("tell", "client/cli/src/sniff/decode.rs", "the line that tcpdump prints for ARP"),
    ("actor", "tests/tidy/src/permits.rs", "the name of a file"),
    ("whereabouts", "tests/tidy/src/permits.rs", "the name of a file"),
    ("spelling", "daemon/src/handlers/session.rs", "the name of a field of the protocol"),
    ("orphan", "tests/tidy/src/cycles.rs", "the name of a file"),
];

/// Folders, without those within them, that are not rewritten yet.
pub(crate) const NOT_YET: &str = "
    README.md SECURITY.md client/cli/src
    client/cli/src/demo client/cli/src/nc client/cli/src/ping client/cli/src/policy
    client/cli/src/sniff client/python client/python/src/sockbroker
    client/python/tests client/python/tests/behaviour client/python/tests/process
    client/rust client/rust/examples client/rust/src
    client/rust/src/address client/rust/src/asynchronous client/rust/src/blocking
    client/rust/src/operation client/rust/src/option client/rust/src/wire
    client/rust/tests/faces client/rust/tests/hostile clippy.toml daemon/src/config
    daemon/src/observe daemon/src/observe/audit
    daemon/src/policy daemon/src/policy/traffic daemon/src/session daemon/src/startup
    daemon/src/startup/confine daemon/src/table daemon/src/transport
    daemon/src/transport/codec deploy/config
    deploy/config/policy.d deploy/container deploy/kubernetes/capture deploy/man
    deploy/systemd
    tests/bench/src tests/compliance/oracle
    tests/compliance/oracle/scenarios tests/compliance/upstream tests/e2e tests/families
    tests/families/scenarios tests/fuzz/bodies/src tests/package tests/policy
    tests/security tests/security/inputs tests/service tests/support/src
";
