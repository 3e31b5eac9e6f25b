//! What is out of reach for somebody who has taken the service over: by the unit, and by the broker itself.

use std::collections::BTreeMap;

use crate::ground::{installed_or_skip, take_role};
use crate::guest::Guest;

/// Files that everybody may read, as far as their modes go.
fn put_files(guest: &Guest) {
    guest.ok("chmod 755 /home/alice
              echo text >/home/alice/file
              echo text >/srv/file
              chmod 777 /srv");
}

/// What became of each attempt of `probe.py`.
fn outcomes(printed: &str) -> BTreeMap<&str, &str> {
    printed.lines().filter_map(|line| line.split_once(": ")).collect()
}

/// A family that this kernel may not have. Without it the kernel's answer is that of the filter.
const FOREIGN: [&str; 2] = ["AF_VSOCK", "AF_XDP"];

#[test]
fn the_unit_keeps_files_mounts_tracing_and_other_families_away() {
    let test = "the_unit_keeps_files_mounts_tracing_and_other_families_away";
    let Some(guest) = installed_or_skip(test) else { return };
    put_files(&guest);
    take_role(&guest, "capture");
    guest.write("/usr/local/lib/probe.py", include_str!("probe.py"));
    // The probe in place of the broker; everything else of the unit as it is.
    guest.write(
        "/etc/systemd/system/sockbrokerd.service.d/zz-probe.conf",
        "[Service]\nType=oneshot\nRestart=no\nExecStartPre=\nExecStart=\n\
         ExecStart=/usr/bin/python3 /usr/local/lib/probe.py\n",
    );
    guest.ok("systemctl daemon-reload; systemctl restart sockbrokerd.service");
    let log = guest.log();
    let inside = outcomes(&log);
    let expected = [
        ("read /home/alice/file", "EACCES"),
        ("write /srv/new", "EROFS"),
        ("write /usr/new", "EROFS"),
        ("write /etc/sockbroker/policy.toml", "EACCES"),
        ("ptrace", "EPERM"),
        ("new user namespace", "EPERM"),
        ("mount", "EPERM"),
        ("fsopen", "EPERM"),
        ("open_tree", "EPERM"),
        ("executable memory", "EACCES"),
        ("AF_VSOCK", "EAFNOSUPPORT"),
        ("AF_XDP", "EAFNOSUPPORT"),
        // What the broker needs.
        ("read /etc/hosts", "done"),
        ("AF_UNIX", "done"),
        ("AF_INET", "done"),
        ("AF_INET6", "done"),
        ("AF_NETLINK", "done"),
        ("AF_PACKET", "done"),
        // Open in the unit: the broker closes them for itself, as the next test shows.
        ("read /srv/file", "done"),
        ("execve", "done"),
    ];
    for (attempt, outcome) in expected {
        assert_eq!(inside.get(attempt), Some(&outcome), "{attempt}: {log}");
    }
    // The probe can do all of it: outside, root does.
    let printed = guest.ok("python3 /usr/local/lib/probe.py");
    let outside = outcomes(&printed);
    assert_eq!(outside.len(), expected.len(), "{printed}");
    for (attempt, outcome) in outside {
        let unknown = FOREIGN.contains(&attempt) && outcome == "EAFNOSUPPORT";
        assert!(outcome == "done" || unknown, "{attempt}: {outcome}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn whoever_takes_the_broker_over_is_held_by_its_filter_and_landlock() {
    use sockbroker_test_support::intruder::Argument::{Number, Text};
    use sockbroker_test_support::intruder::Intruder;

    let test = "whoever_takes_the_broker_over_is_held_by_its_filter_and_landlock";
    let Some(guest) = installed_or_skip(test) else { return };
    put_files(&guest);
    guest.ok_as("alice", "sockbroker call socket.gethostname");
    assert!(guest.log().contains("seccomp: errno; landlock: full"), "{}", guest.log());
    let open = |path| vec![Number(libc::AT_FDCWD.cast_unsigned().into()), Text(path), Number(0)];
    let create = |path| {
        let mut arguments = open(path);
        arguments[2] = Number((libc::O_CREAT | libc::O_WRONLY).cast_unsigned().into());
        arguments
    };
    let family = |family: i32| vec![Number(family.cast_unsigned().into()), Number(1), Number(0)];
    let mut intruder = Intruder::into(guest.outer_pid());
    // What the broker needs: the intruder can make calls.
    for (call, arguments) in [
        (libc::SYS_openat, open("/etc/hosts")),
        (libc::SYS_socket, family(libc::AF_INET)),
        (libc::SYS_getpid, Vec::new()),
    ] {
        intruder.call(call, &arguments).unwrap();
    }
    for (what, call, arguments, error) in [
        ("a file of a user", libc::SYS_openat, open("/home/alice/file"), libc::EACCES),
        ("a file of no user", libc::SYS_openat, open("/srv/file"), libc::EACCES),
        ("passwords", libc::SYS_openat, open("/etc/shadow"), libc::EACCES),
        ("a new file", libc::SYS_openat, create("/tmp/new"), libc::EACCES),
        ("a program", libc::SYS_execve, vec![Text("/bin/true"), Number(0), Number(0)], libc::EPERM),
        ("a process", libc::SYS_fork, Vec::new(), libc::EPERM),
        ("being traced", libc::SYS_ptrace, Vec::new(), libc::EPERM),
        ("memory of others", libc::SYS_process_vm_readv, vec![Number(1)], libc::EPERM),
        ("a signal", libc::SYS_kill, vec![Number(1), Number(0)], libc::EPERM),
        ("a mount", libc::SYS_mount, vec![Text("none"), Text("/mnt"), Text("tmpfs")], libc::EPERM),
        ("a mount by parts", libc::SYS_fsopen, vec![Text("tmpfs")], libc::EPERM),
        ("a copied mount", libc::SYS_open_tree, open("/etc"), libc::EPERM),
        ("a moved mount", libc::SYS_move_mount, Vec::new(), libc::EPERM),
        ("a namespace", libc::SYS_unshare, vec![Number(0x1000_0000)], libc::EPERM),
        ("a program for the kernel", libc::SYS_bpf, Vec::new(), libc::EPERM),
        ("io_uring", libc::SYS_io_uring_setup, vec![Number(1)], libc::EPERM),
        ("a key", libc::SYS_keyctl, Vec::new(), libc::EPERM),
        ("a module", libc::SYS_init_module, Vec::new(), libc::EPERM),
        ("another filter", libc::SYS_seccomp, Vec::new(), libc::EPERM),
        ("a family of another unit", libc::SYS_socket, family(libc::AF_VSOCK), libc::EAFNOSUPPORT),
        ("a raw socket", libc::SYS_socket, vec![Number(2), Number(3), Number(1)], libc::EPERM),
    ] {
        let answer = intruder.call(call, &arguments).map_err(|refused| refused as i32);
        assert_eq!(answer, Err(error), "{what}");
    }
    drop(intruder);
    // Each is told by name, once.
    let log = guest.log();
    for call in ["execve", "ptrace", "mount", "bpf"] {
        assert!(log.contains(&format!("seccomp refused the system call {call}:")), "{call}: {log}");
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[test]
fn whoever_takes_the_broker_over_is_held_by_its_filter_and_landlock() {
    let test = "whoever_takes_the_broker_over_is_held_by_its_filter_and_landlock";
    sockbroker_test_support::skip::skip("the intruder speaks x86-64 alone", test);
}
