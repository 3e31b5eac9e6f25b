//! What a confined thread cannot do and what it can. Each test confines its own thread.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use sockbroker_sys::{namespace, privileges};
use sockbroker_test_support::attempt;
use sockbroker_test_support::folder::Folder;
use sockbroker_test_support::skip::skip;

use sockbroker_proto::api::broker::Seccomp;

use super::*;
use crate::config::policy::{Accounts, load_files};
use sockbroker_policy::file::read;

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

/// The capabilities that a process with some of them keeps for a rule.
fn kept_of(has: &[Capability], rule: &str) -> Vec<Capability> {
    let text = format!(
        "version = 1\n[[rule]]\nname = \"r\"\nsubject = {{ uids = [7] }}\nfamily = [\"AF_INET\"]\n{rule}"
    );
    let rules = read("p", &text, &Accounts).unwrap().rules.into_iter().map(|(rule, _)| rule);
    let policy = Policy::new(970, rules.collect(), false);
    let needed = needed(&policy, |capability| has.contains(&capability));
    needed.into_iter().filter(|capability| has.contains(capability)).collect()
}

#[test]
fn one_capability_is_kept_if_either_suffices() {
    const RAW: Capability = Capability::NetRaw;
    const ADMIN: Capability = Capability::NetAdmin;
    let (mark, priority) = (
        "allow = [\"option\"]\noption = [\"mark\"]",
        "allow = [\"option\"]\noption = [\"scheduling\"]",
    );
    for (has, rule, kept) in [
        (&[RAW, ADMIN][..], mark, &[RAW][..]),
        (&[RAW], mark, &[RAW]),
        (&[ADMIN], mark, &[ADMIN]),
        (&[], mark, &[]),
        (&[RAW, ADMIN], "allow = [\"transparent\"]", &[RAW]),
        (&[ADMIN], "allow = [\"transparent\"]", &[ADMIN]),
        // Other options of the class need the one, and priorities the other where it is all there is.
        (&[RAW, ADMIN], priority, &[ADMIN]),
        (&[RAW], priority, &[RAW]),
        (&[RAW, ADMIN], "allow = [\"send\"]", &[]),
    ] {
        assert_eq!(kept_of(has, rule), kept, "{has:?} {rule}");
    }
}

/// A role, the capabilities of its drop-in, and those that a broker which has all keeps for it.
const ROLES: [(&str, &[Capability]); 7] = [
    ("capture", &[Capability::NetRaw]),
    (
        "netns",
        &[
            Capability::NetRaw,
            Capability::NetAdmin,
            Capability::NetBindService,
            Capability::SysAdmin,
        ],
    ),
    ("options", &[Capability::NetRaw, Capability::NetAdmin]),
    ("ping", &[]),
    ("ports", &[Capability::NetBindService]),
    ("system", &[Capability::SysAdmin]),
    (
        "unix",
        &[
            Capability::SetUid,
            Capability::SetGid,
            Capability::DacOverride,
            Capability::DacReadSearch,
        ],
    ),
];

#[test]
fn a_role_keeps_what_its_policy_can_use() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let unit = fs::read_to_string(deploy.join("systemd/sockbrokerd.service")).unwrap();
    let unit = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    let policy = |files: &[PathBuf]| load_files(files).unwrap().into_policy(970);
    let main = deploy.join("config/policy.toml");
    assert_eq!(needed(&policy(std::slice::from_ref(&main)), |_| true), []);
    for (role, kept) in ROLES {
        let files = [main.clone(), deploy.join(format!("config/policy.d/{role}.toml"))];
        assert_eq!(needed(&policy(&files), |_| true), kept, "{role}");
        // Every capability of the drop-in is used.
        let drop_in = fs::read_to_string(deploy.join(format!("systemd/roles/{role}.conf")));
        let drop_in = drop_in.unwrap_or_default();
        let line = drop_in.lines().find_map(|line| line.strip_prefix("AmbientCapabilities="));
        for name in line.unwrap_or_default().split_whitespace() {
            assert!(kept.iter().any(|capability| capability.name() == name), "{role}: {name}");
        }
        // The unit itself has those for identities.
        let beyond =
            kept.iter().filter(|one| !unit.contains(one.name()) && !one.name().contains("DAC"));
        assert_eq!(line.is_none(), beyond.count() == 0, "{role}");
    }
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
fn monitor_starts_programs_that_can_restrict_themselves_and_nothing_else() {
    let own = Folder::new();
    let folder = own.join("folder");
    let thread = thread::spawn(move || {
        process::refuse_new_privileges().unwrap();
        let before = privileges::of_this_thread().unwrap().filters;
        confine_monitor(&Confine::default()).unwrap();
        refused("unshare", namespace::enter_network());
        refused("mount", attempt::mount_tmpfs("/mnt"));
        refused("ptrace", attempt::trace_me());
        let made = Command::new("mkdir").arg(&folder).output().unwrap();
        assert!(!made.status.success() && !folder.exists(), "{made:?}");
        // A process that it starts can be confined as any other.
        assert!(Command::new("/bin/true").current_dir("/").status().unwrap().success());
        let files = Files::default();
        let confined = confine_worker(&Confine::default(), false, &files).unwrap();
        assert_eq!(confined.seccomp, Seccomp::Errno);
        // Of the monitor and of the worker, each with one for clone3(2).
        assert_eq!(confined.seccomp_filters, before.map(|before| before + 4));
        UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    });
    thread.join().unwrap();
}

#[test]
fn files_of_others_are_out_of_reach_and_those_of_the_system_are_not() {
    let others = Folder::new();
    let secret = others.write("secret", "text");
    confined(Confine::default(), move |confinement, own| {
        File::open("/etc/passwd").unwrap();
        File::create(own.join("log")).unwrap().write_all(b"line").unwrap();
        fs::remove_file(own.join("log")).unwrap();
        if confinement.landlock == Landlock::None {
            skip("the kernel has no Landlock", "files_of_others_are_out_of_reach");
            return;
        }
        refused("reading", File::open(&secret));
        refused("making", File::create(others.join("new")));
        refused("removing", fs::remove_file(&secret));
        refused("writing", File::options().write(true).open("/etc/passwd"));
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

/// Set for a run of this binary in which a call is refused, whose standard error is checked.
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
    confined(mode(crate::config::Seccomp::Errno), |_, own| {
        refused("mkdir", fs::create_dir(own.join("folder")));
    });
    confined(mode(crate::config::Seccomp::Log), |confinement, own| {
        assert_eq!(confinement.seccomp, Seccomp::Log);
        fs::create_dir(own.join("folder")).unwrap();
    });
}

#[test]
fn disabled_confinement_is_skipped_and_reported() {
    let config =
        Confine { landlock: false, seccomp: crate::config::Seccomp::Off, ..Confine::default() };
    let others = Folder::new();
    let file = others.write("file", "text");
    confined(config, move |confinement, _| {
        assert_eq!((confinement.landlock, confinement.seccomp), (Landlock::Off, Seccomp::Off));
        assert!(Command::new("/bin/true").status().unwrap().success());
        File::open(file).unwrap();
    });
}
