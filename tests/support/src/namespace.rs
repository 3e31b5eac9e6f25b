//! A test inside of namespaces of its own: user, network and mounts. Its names of hosts are its own too.

use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::folder::Folder;
use crate::skip::{self, INNER_RUN};
use crate::user;
use crate::watch::{USUAL, bounded};

const UNSHARE: &[&str] = &["--user", "--map-root-user", "--net", "--mount", "--"];
/// The same of root itself, whose other users are there too.
const UNSHARE_AS_ROOT: &[&str] = &["--net", "--mount", "--uts", "--"];

/// Runs `body` as root of new namespaces, where the loopback interface is up and nothing else is
/// there. `test` is the full name of the test that calls this: its binary is run once more for that
/// test alone. Where namespaces cannot be made the test is skipped, which is said and counted.
pub fn inside(test: &str, body: impl FnOnce() + Send + 'static) {
    enter(test, UNSHARE, unavailable, body);
}

/// Like [`inside`], in namespaces of root for network, mounts and host name, in which other users can
/// be acted as. Without root the test is skipped.
pub fn inside_with_users(test: &str, body: impl FnOnce() + Send + 'static) {
    let unavailable = || (!user::others_are_possible()).then_some("needs root with a second user");
    enter(test, UNSHARE_AS_ROOT, unavailable, body);
}

fn enter(
    test: &str,
    namespaces: &'static [&str],
    unavailable: impl FnOnce() -> Option<&'static str>,
    body: impl FnOnce() + Send + 'static,
) {
    if std::env::var_os(INNER_RUN).is_some_and(|inner| inner == test) {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success(), "the loopback interface does not come up");
        replace_hosts();
        return bounded(USUAL, body);
    }
    if let Some(reason) = unavailable() {
        return skip::skip(reason, test);
    }
    let (name, output) = (test.to_owned(), test.to_owned());
    let output = bounded(USUAL + 10, move || run_again(&output, namespaces));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A name that is misspelt runs no test, which is a success too.
    let passed = output.status.success() && printed.contains("1 passed");
    assert!(passed, "{name} failed in its namespaces:\n{printed}\n{said}");
    for reason in skip::reasons(&said) {
        skip::skip(reason, &name);
    }
}

/// Covers the machine's `/etc/hosts`, so that no test depends on it. The names are `localhost` and the
/// host's own.
fn replace_hosts() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let folder = Folder::new();
    let hosts = folder.write("hosts", &format!("127.0.0.1 localhost {name}::1 localhost\n"));
    let mounted =
        Command::new("mount").arg("--bind").arg(hosts).arg("/etc/hosts").status().unwrap();
    assert!(mounted.success(), "/etc/hosts cannot be covered");
}

fn run_again(test: &str, namespaces: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(namespaces).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env(INNER_RUN, test).stdin(Stdio::null()).output().unwrap()
}

/// Why namespaces cannot be made here, if so; tried once.
fn unavailable() -> Option<&'static str> {
    static TRIED: OnceLock<bool> = OnceLock::new();
    let possible = TRIED.get_or_init(|| {
        let mut command = Command::new("unshare");
        command.args(UNSHARE).args(["ip", "link", "set", "lo", "up"]);
        let tried = command.stdin(Stdio::null()).output();
        tried.is_ok_and(|output| output.status.success())
    });
    (!possible).then_some("no user and network namespaces here")
}
