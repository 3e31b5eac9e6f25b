//! Signals: the mask of this process, a descriptor that reports signals, and the end by a signal.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use super::{at_start, check};

/// The signals that are blocked.
#[derive(Clone, Copy)]
pub(crate) struct Mask(libc::sigset_t);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

fn full() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is memory for one set, which the function initialises; it fails only for a wrong pointer.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: `sigfillset` has initialised the set.
    unsafe { set.assume_init() }
}

/// Blocks all signals that can be blocked. Returns the earlier mask.
pub(crate) fn block_all() -> io::Result<Mask> {
    let all = full();
    let mut earlier = full();
    // SAFETY: both are initialised sets that live for the call.
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut earlier) };
    check(result)?;
    Ok(Mask(earlier))
}

/// Sets the mask.
pub(crate) fn restore(mask: &Mask) -> io::Result<()> {
    // SAFETY: the mask is an initialised set that lives for the call; the other pointer is allowed to be null.
    let result =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const mask.0, ptr::null_mut()) };
    check(result).map(|_zero| ())
}

/// A descriptor from which the blocked signals of this process are read (`signalfd(2)`).
pub(crate) fn descriptor() -> io::Result<OwnedFd> {
    let all = full();
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: `all` is an initialised set that lives for the call.
    let made = check(unsafe { libc::signalfd(-1, &raw const all, flags) })?;
    // SAFETY: the kernel has just returned this descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// Gives `SIGPIPE` the disposition that this process was started with: the runtime of Rust ignores it.
pub(crate) fn restore_pipe_signal() {
    let disposition = if at_start::ignored_pipe_signal() { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: the disposition is not a function.
    unsafe { libc::signal(libc::SIGPIPE, disposition) };
}

/// Stops this process by the signal that stopped the program, so that the shell reports the same. If this process
/// ignores the signal, stops it by `SIGSTOP`. Returns when it continues.
pub(crate) fn stop_by(signal: i32) -> io::Result<()> {
    let signal = if is_ignored(signal) { libc::SIGSTOP } else { signal };
    // A blocked signal is delivered below.
    // SAFETY: the call takes no pointer.
    unsafe { libc::raise(signal) };
    let mut set = empty();
    // SAFETY: `set` is an initialised set that lives for the call.
    unsafe { libc::sigaddset(&raw mut set, signal) };
    // SAFETY: `set` is an initialised set that lives for the call; the other pointer is allowed to be null.
    let result = unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
    check(result)?;
    block_all().map(drop)
}

fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `action` is memory for one structure, which the call fills; the other pointer is allowed to be null.
    let result = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the structure contains integers and pointers, for which zero is a value.
    let action = unsafe { action.assume_init() };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

fn empty() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `set` is memory for one set, which the function initialises.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: `sigemptyset` has initialised the set.
    unsafe { set.assume_init() }
}

/// Ends this process by a signal, as the program ended. Returns if the signal does not end a process.
pub(crate) fn die_by(signal: i32) {
    // SAFETY: the disposition is not a function.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // Delivered when the mask no longer has it.
    // SAFETY: the call takes no pointer.
    unsafe { libc::raise(signal) };
    drop(restore(&Mask(empty())));
}
