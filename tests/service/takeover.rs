//! An attacker who controls the broker's process is confined by seccomp and Landlock, under the shipped unit.

use sockbroker_test_support::injection::Argument::{self, Number, Text};
use sockbroker_test_support::injection::SyscallInjector;
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::until;

use crate::environment::installed_or_skip;
use crate::sandbox::{info, put_files};

#[test]
fn injected_calls_are_confined_by_seccomp_and_landlock() {
    let test = "injected_calls_are_confined_by_seccomp_and_landlock";
    let Some(guest) = installed_or_skip(test) else { return };
    put_files(&guest);
    if info(&guest)["process"]["landlock"] == "none" {
        return skip("the kernel has no Landlock", test);
    }
    let create = |path| {
        let mut arguments = open(path);
        arguments[2] = Number((libc::O_CREAT | libc::O_WRONLY).cast_unsigned().into());
        arguments
    };
    let mut injector = SyscallInjector::into(guest.outer_worker());
    expect_needed_calls(&mut injector);
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
        (
            "a signal to a thread",
            libc::SYS_tgkill,
            vec![Number(1), Number(1), Number(0)],
            libc::EPERM,
        ),
        ("limits of others", libc::SYS_prlimit64, vec![Number(1), Number(7)], libc::EPERM),
        ("a copy of the process", libc::SYS_clone, vec![Number(17)], libc::EPERM),
        ("another user", libc::SYS_setresuid, vec![Number(0), Number(0), Number(0)], libc::EPERM),
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
        let answer = injector.call(call, &arguments).map_err(|refused| refused as i32);
        assert_eq!(answer, Err(error), "{what}");
    }
    drop(injector);
    // The log has the name of each refused call, once.
    for call in ["execve", "ptrace", "mount", "bpf"] {
        let line = format!("seccomp refused the system call {call}:");
        until(&line, || guest.log().contains(&line));
    }
}

/// Makes system calls that a worker needs: injection works.
fn expect_needed_calls(injector: &mut SyscallInjector) {
    for (call, arguments) in [
        (libc::SYS_openat, open("/etc/hosts")),
        (libc::SYS_socket, family(libc::AF_INET)),
        (libc::SYS_getpid, Vec::new()),
        (libc::SYS_prlimit64, vec![Number(0), Number(7)]),
    ] {
        injector.call(call, &arguments).unwrap();
    }
}

/// The arguments of `openat(2)` for reading.
fn open(path: &'static str) -> Vec<Argument<'static>> {
    vec![Number(libc::AT_FDCWD.cast_unsigned().into()), Text(path), Number(0)]
}

/// The arguments of `socket(2)` for a stream socket.
fn family(family: i32) -> Vec<Argument<'static>> {
    vec![Number(family.cast_unsigned().into()), Number(1), Number(0)]
}
