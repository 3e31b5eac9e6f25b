//! The calls that both faces have are plain methods in each. This test keeps them the same.
//!
//! A mirrored file of the blocking face is the one of the asynchronous face without `async` and `.await`.
//! Edit `src/asynchronous`, then run
//! `UPDATE_MIRROR=1 cargo test -p sockbroker-client --test mirror && cargo fmt`.

use std::fs;
use std::path::{Path, PathBuf};

/// The mirrored files.
const MIRRORED: [&str; 6] = [
    "broker_calls.rs",
    "delegation.rs",
    "names.rs",
    "namespace.rs",
    "socket_calls.rs",
    "options.rs",
];

fn path(face: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(face).join(file)
}

/// The blocking form of a file of the asynchronous face.
fn blocking(asynchronous: &str) -> String {
    asynchronous.replace("pub async fn ", "pub fn ").replace(".await", "")
}

/// A file without what the formatter can change: white space, and commas before a closing bracket.
fn unformatted(text: &str) -> String {
    let mut text: String = text.chars().filter(|char| !char.is_whitespace()).collect();
    for bracket in [')', ']', '}', '>'] {
        text = text.replace(&format!(",{bracket}"), &bracket.to_string());
    }
    text
}

#[test]
fn blocking_calls_are_the_asynchronous_ones_without_await() {
    for file in MIRRORED {
        let expected = blocking(&fs::read_to_string(path("asynchronous", file)).unwrap());
        if std::env::var_os("UPDATE_MIRROR").is_some() {
            fs::write(path("blocking", file), &expected).unwrap();
        }
        let found = fs::read_to_string(path("blocking", file)).unwrap();
        assert!(
            unformatted(&found) == unformatted(&expected),
            "src/blocking/{file} differs from src/asynchronous/{file}: run \
             `UPDATE_MIRROR=1 cargo test -p sockbroker-client --test mirror && cargo fmt`"
        );
    }
}

#[test]
fn blocking_form_has_neither_async_nor_await() {
    let asynchronous =
        "pub async fn f(&self) -> T {\n    self.run(g(\n        a,\n    )).await\n}\n";
    assert_eq!(unformatted(&blocking(asynchronous)), "pubfnf(&self)->T{self.run(g(a))}");
}
