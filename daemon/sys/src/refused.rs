//! Reports system calls that a filter traps (`seccomp(2)`, `SECCOMP_RET_TRAP`): each fails with `EPERM`, and
//! a line on standard error names it, so that the log shows a missing entry of the filter.

use std::ffi::c_void;
use std::io;

use libc::{c_int, c_uint, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use syscalls::Sysno;

/// `si_code` of a trap by a filter (`SYS_SECCOMP`, `sigaction(2)`); a process sent any other signal.
const SYS_SECCOMP: c_int = 1;

/// Installs a handler: a trapped system call then fails with `EPERM`, and a line on standard error names it.
pub fn report_refused_calls() -> io::Result<()> {
    let handler = SigHandler::SigAction(on_refused);
    let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler makes async-signal-safe calls only (`write(2)`), does not allocate, takes no
    // lock, and changes only the saved registers of the interrupted thread.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

/// The start of `siginfo_t` for `SIGSYS` (`asm-generic/siginfo.h`); the libc crate lacks these fields.
#[repr(C)]
struct Trapped {
    signal: c_int,
    errno: c_int,
    code: c_int,
    address: *mut c_void,
    number: c_int,
    architecture: c_uint,
}

extern "C" fn on_refused(_signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a whole siginfo_t for SA_SIGINFO; `Trapped` is the beginning of it.
    let trapped = unsafe { &*info.cast::<Trapped>() };
    if trapped.code != SYS_SECCOMP {
        return;
    }
    report(trapped.number);
    // SAFETY: for SA_SIGINFO the kernel passes the ucontext_t that it restores on return;
    // nothing else uses it in the meantime.
    set_result(unsafe { &mut *context.cast::<libc::ucontext_t>() });
}

/// Sets the result of the interrupted system call to `-EPERM`.
#[cfg(target_arch = "x86_64")]
fn set_result(context: &mut libc::ucontext_t) {
    if let Some(result) = context.uc_mcontext.gregs.get_mut(libc::REG_RAX as usize) {
        *result = -i64::from(libc::EPERM);
    }
}

/// Sets the result of the interrupted system call to `-EPERM`.
#[cfg(target_arch = "aarch64")]
fn set_result(context: &mut libc::ucontext_t) {
    if let Some(result) = context.uc_mcontext.regs.first_mut() {
        *result = (-i64::from(libc::EPERM)).cast_unsigned();
    }
}

/// Writes one line with one call, without an allocation.
fn report(number: c_int) {
    let name =
        usize::try_from(number).ok().and_then(Sysno::new).map_or("unknown", |call| call.name());
    let mut line = [0; 160];
    let mut length = 0;
    for part in [
        "sockbrokerd: seccomp refused the system call ",
        name,
        ": it failed with EPERM; see seccomp in sockbrokerd.toml\n",
    ] {
        let room = line.get_mut(length..).unwrap_or_default();
        let taken = part.len().min(room.len());
        room.iter_mut().zip(part.bytes()).for_each(|(place, byte)| *place = byte);
        length += taken;
    }
    let text = line.get(..length).unwrap_or_default();
    // SAFETY: `text` is alive for the call; `write(2)` reads no more than its length. Best effort: the
    // refused call fails even if the line cannot be written.
    let _said = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigsys_sent_by_a_process_is_ignored() {
        report_refused_calls().unwrap();
        nix::sys::signal::raise(Signal::SIGSYS).unwrap();
    }

    #[test]
    fn system_calls_have_names() {
        let name = |number| Sysno::new(usize::try_from(number).unwrap()).map(|call| call.name());
        assert_eq!(name(libc::SYS_ptrace), Some("ptrace"));
        assert_eq!(name(libc::SYS_execve), Some("execve"));
    }
}
