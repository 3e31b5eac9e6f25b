//! Processes: `fork(2)`, `execvp(3)`, user namespaces, and the end of a process.

use std::ffi::CString;
use std::fs;
use std::io;
use std::ptr;

use rustix::process::Pid;

use super::check;

/// Which process continues after [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forked {
    /// The parent, with the id of the child.
    Parent(Pid),
    Child,
}

/// Creates a child that continues here. Fails in a process with several threads, because the others would not exist
/// in the child, with what they had locked.
pub(crate) fn fork() -> io::Result<Forked> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has several threads"));
    }
    // SAFETY: this process has one thread, so that the child is a complete copy.
    let child = check(unsafe { libc::fork() })?;
    Ok(Pid::from_raw(child).map_or(Forked::Child, Forked::Parent))
}

/// Replaces this process by a program, which is searched in `PATH`. Returns only if it fails.
pub(crate) fn execute(arguments: &[CString]) -> io::Error {
    let Some(program) = arguments.first() else {
        return io::Error::from_raw_os_error(libc::ENOENT);
    };
    let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: `program` and each pointer are strings that end with NUL, the list ends with a null pointer, and all of
    // them live for the call.
    unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// New namespaces for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespaces {
    User,
    NetworkAndMounts,
    UserNetworkAndMounts,
}

/// Enters new namespaces.
pub(crate) fn enter(kinds: Namespaces) -> io::Result<()> {
    let flags = match kinds {
        Namespaces::User => libc::CLONE_NEWUSER,
        Namespaces::NetworkAndMounts => libc::CLONE_NEWNET | libc::CLONE_NEWNS,
        Namespaces::UserNetworkAndMounts => {
            libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWNS
        }
    };
    // SAFETY: the call takes no pointer. This process has no thread that depends on its identity.
    check(unsafe { libc::unshare(flags) }).map(|_zero| ())
}

/// Ends this process at once, without what `atexit(3)` has registered: it belongs to the parent.
pub(crate) fn leave(code: i32) -> ! {
    // SAFETY: the call takes no pointer and does not return.
    unsafe { libc::_exit(code) }
}
