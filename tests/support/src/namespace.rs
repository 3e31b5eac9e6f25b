//! Runs a test in new user, network and mount namespaces, with its own `/etc/hosts`.

use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use crate::folder::Folder;
use crate::skip::{self, INNER_TEST};
use crate::user;
use crate::watch::{USUAL, bounded};

const UNSHARE: &[&str] = &["--user", "--map-root-user", "--net", "--mount", "--"];
/// The namespaces if the test needs several users: root keeps the user namespace.
const UNSHARE_AS_ROOT: &[&str] = &["--net", "--mount", "--uts", "--"];

/// Runs `body` as root of new namespaces with only a loopback interface, which is up. `test` is the full name
/// of the calling test: this function runs the test binary again for that test alone. If the system refuses
/// namespaces, the test is skipped and counted as skipped.
pub fn inside(test: &str, body: impl FnOnce() + Send + 'static) {
    enter(test, UNSHARE, unavailable, body);
}

/// Like [`inside`], but keeps the user namespace of root, so that threads can act as other users. The new
/// namespaces are for network, mounts and host name. Without root, the test is skipped.
pub fn inside_with_users(test: &str, body: impl FnOnce() + Send + 'static) {
    let unavailable =
        || (!user::can_act_as_other_users()).then_some("needs root with a second user");
    enter(test, UNSHARE_AS_ROOT, unavailable, body);
}

fn enter(
    test: &str,
    namespaces: &'static [&str],
    unavailable: impl FnOnce() -> Option<&'static str>,
    body: impl FnOnce() + Send + 'static,
) {
    if std::env::var_os(INNER_TEST).is_some_and(|inner| inner == test) {
        let brought_up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(brought_up.success(), "cannot bring the loopback interface up");
        replace_hosts();
        return bounded(USUAL, body);
    }
    if let Some(reason) = unavailable() {
        return skip::skip(reason, test);
    }
    let (name, output) = (test.to_owned(), test.to_owned());
    let output = bounded(USUAL + 10, move || run_again(&output, namespaces));
    let output_text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    // A wrong test name runs no test, which is a success for the test binary.
    let passed = output.status.success() && output_text.contains("1 passed");
    assert!(passed, "{name} failed in its namespaces:\n{output_text}\n{errors}");
    for reason in skip::reasons(&errors) {
        skip::skip(reason, &name);
    }
}

/// Mounts a file over `/etc/hosts`, so that no test depends on the machine's. It has the names `localhost`
/// and the host name.
fn replace_hosts() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let folder = Folder::new();
    let hosts = folder.write("hosts", &format!("127.0.0.1 localhost {name}::1 localhost\n"));
    let mounted =
        Command::new("mount").arg("--bind").arg(hosts).arg("/etc/hosts").status().unwrap();
    assert!(mounted.success(), "cannot mount over /etc/hosts");
}

fn run_again(test: &str, namespaces: &[&str]) -> Output {
    let mut command = Command::new("unshare");
    command.args(namespaces).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env(INNER_TEST, test).stdin(Stdio::null()).output().unwrap()
}

/// Returns the reason if the system refuses namespaces. Tries once per process.
fn unavailable() -> Option<&'static str> {
    static TRIED: OnceLock<bool> = OnceLock::new();
    let possible = TRIED.get_or_init(|| {
        let mut command = Command::new("unshare");
        command.args(UNSHARE).args(["ip", "link", "set", "lo", "up"]);
        let tried = command.stdin(Stdio::null()).output();
        tried.is_ok_and(|output| output.status.success())
    });
    (!possible).then_some("no user and network namespaces available")
}
