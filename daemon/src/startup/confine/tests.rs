//! What a confined thread can no longer do, and what it still can. Each test confines a thread of its own.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::thread;

use sockbroker_sys::namespace;
use sockbroker_test_support::attempt;
use sockbroker_test_support::folder::Folder;
use sockbroker_test_support::skip::skip;

use sockbroker_proto::api::broker::Seccomp;

use super::*;

/// Runs `test` in a thread that is confined; its folder may be written.
fn confined(config: Confine, test: impl FnOnce(&Process, &Folder) + Send + 'static) {
    let thread = thread::spawn(move || {
        let own = Folder::new();
        let files = Files { read: Vec::new(), write: vec![own.path().to_owned()] };
        let confinement = confine(&config, &[Capability::NetRaw], &files).unwrap();
        test(&confinement, &own);
    });
    thread.join().unwrap();
}

fn refused<T>(what: &str, result: io::Result<T>) {
    let error = result.err().unwrap_or_else(|| panic!("{what} was not refused"));
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
}

#[test]
fn programs_namespaces_mounts_and_tracing_are_out_of_reach() {
    confined(Confine::default(), |confinement, _| {
        assert_eq!(confinement.seccomp, Seccomp::Errno);
        refused("execve", Command::new("/bin/true").status());
        refused("unshare", namespace::enter_network());
        refused("mount", attempt::mount_tmpfs("/mnt"));
        refused("ptrace", attempt::trace_me());
    });
}

#[test]
fn files_of_others_are_out_of_reach_and_those_of_the_system_are_not() {
    let others = Folder::new();
    let secret = others.write("secret", "text");
    confined(Confine::default(), move |confinement, own| {
        File::open("/etc/hosts").unwrap();
        File::create(own.join("log")).unwrap().write_all(b"line").unwrap();
        fs::remove_file(own.join("log")).unwrap();
        if confinement.landlock == Landlock::None {
            skip("the kernel has no Landlock", "files_of_others_are_out_of_reach");
            return;
        }
        refused("reading", File::open(&secret));
        refused("making", File::create(others.join("new")));
        refused("removing", fs::remove_file(&secret));
        refused("writing", File::options().write(true).open("/etc/hosts"));
    });
}

#[test]
fn sockets_of_any_kind_are_within_reach() {
    confined(Confine::default(), |_, own| {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        UnixListener::bind(own.join("socket")).unwrap();
        thread::spawn(|| ()).join().unwrap();
    });
}

#[test]
fn only_needed_capabilities_are_left() {
    confined(Confine::default(), |confinement, _| {
        assert!(confinement.no_new_privs);
        let left = confinement.capabilities.as_slice();
        assert!(left.is_empty() || left == ["CAP_NET_RAW"], "{left:?}");
    });
}

/// Set for a run of this binary in which a call is refused, whose standard error is looked at.
const MARK: &str = "SOCKBROKER_TEST_REFUSED";

#[test]
fn a_refused_call_is_named_on_standard_error() {
    let name = "startup::confine::tests::a_refused_call_is_named_on_standard_error";
    if std::env::var_os(MARK).is_some() {
        return confined(Confine::default(), |_, _| refused("ptrace", attempt::trace_me()));
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", name, "--nocapture"]).env(MARK, "");
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = said.lines().filter(|line| line.contains("seccomp refused the system call ptrace"));
    assert!(output.status.success() && lines.count() == 1, "{said}");
    assert!(said.contains("it failed with EPERM; see seccomp in sockbrokerd.toml"), "{said}");
}

#[test]
fn a_filter_that_logs_refuses_nothing() {
    let mode = |seccomp| Confine { landlock: false, seccomp, ..Confine::default() };
    // mkdir(2) is on no list.
    confined(mode(crate::config::confine::Seccomp::Errno), |_, own| {
        refused("mkdir", fs::create_dir(own.join("folder")));
    });
    confined(mode(crate::config::confine::Seccomp::Log), |confinement, own| {
        assert_eq!(confinement.seccomp, Seccomp::Log);
        fs::create_dir(own.join("folder")).unwrap();
    });
}

#[test]
fn what_is_switched_off_is_not_done_and_said_so() {
    let config = Confine {
        landlock: false,
        seccomp: crate::config::confine::Seccomp::Off,
        ..Confine::default()
    };
    let others = Folder::new();
    let file = others.write("file", "text");
    confined(config, move |confinement, _| {
        assert_eq!((confinement.landlock, confinement.seccomp), (Landlock::Off, Seccomp::Off));
        assert!(Command::new("/bin/true").status().unwrap().success());
        File::open(file).unwrap();
    });
}
