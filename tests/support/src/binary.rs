//! The path of the broker's binary, for tests of other packages than the daemon's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// Returns the broker of the same build as this test. Cargo builds binaries only for the tests of their own
/// package, so this function builds the broker if it is missing or older than its sources. A test that
/// Cargo has not started uses the existing binary.
pub fn broker() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().and_then(Path::parent).unwrap();
        let binary = folder.join("sockbrokerd");
        if let Some(cargo) = std::env::var_os("CARGO").filter(|_| is_old(&binary)) {
            let mut command = Command::new(cargo);
            command.args(["build", "-q", "-p", "sockbrokerd", "--manifest-path"]);
            command.arg(tree().join("Cargo.toml"));
            if folder.ends_with("release") {
                command.arg("--release");
            }
            assert!(command.status().unwrap().success(), "cannot build the broker");
        }
        assert!(binary.is_file(), "{} is missing: build the broker first", binary.display());
        binary.into_os_string().into_string().unwrap()
    })
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn is_old(binary: &Path) -> bool {
    let Ok(built) = fs::metadata(binary).and_then(|found| found.modified()) else { return true };
    ["daemon", "proto"].iter().any(|folder| newest(&tree().join(folder)) > built)
}

fn newest(folder: &Path) -> SystemTime {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let time = |path: PathBuf| {
        if path.is_dir() { newest(&path) } else { fs::metadata(path).unwrap().modified().unwrap() }
    };
    entries.map(time).max().unwrap_or(SystemTime::UNIX_EPOCH)
}
