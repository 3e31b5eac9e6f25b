//! System calls that a filter traps (`seccomp(2)`, `SECCOMP_RET_TRAP`): each fails with `EPERM` and is
//! named on standard error, so that a missing entry in the filter is found from the log.

use std::ffi::c_void;
use std::io;

use libc::{c_int, c_uint, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use syscalls::Sysno;

/// `si_code` of a trap by a filter (`SYS_SECCOMP`, `sigaction(2)`); any other was sent by a process.
const SYS_SECCOMP: c_int = 1;

/// From now on a trapped system call fails with `EPERM`, and a line on standard error names it.
pub fn report_refused_calls() -> io::Result<()> {
    let handler = SigHandler::SigAction(on_refused);
    let action = SigAction::new(handler, SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler makes async-signal-safe calls only (`write(2)`), allocates nothing, takes no
    // lock, and touches the interrupted thread in its saved registers alone.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

/// `siginfo_t` as `SIGSYS` fills it (`asm-generic/siginfo.h`), which libc does not spell out.
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
    // SAFETY: the kernel passes a whole siginfo_t for SA_SIGINFO, of which `Trapped` is the beginning.
    let trapped = unsafe { &*info.cast::<Trapped>() };
    if trapped.code != SYS_SECCOMP {
        return;
    }
    say(trapped.number);
    // SAFETY: for SA_SIGINFO the kernel passes the ucontext_t that it restores when this returns;
    // nothing else has it meanwhile.
    set_result(unsafe { &mut *context.cast::<libc::ucontext_t>() });
}

/// Puts `-EPERM` where the interrupted system call's result is expected.
#[cfg(target_arch = "x86_64")]
fn set_result(context: &mut libc::ucontext_t) {
    if let Some(result) = context.uc_mcontext.gregs.get_mut(libc::REG_RAX as usize) {
        *result = -i64::from(libc::EPERM);
    }
}

/// Puts `-EPERM` where the interrupted system call's result is expected.
#[cfg(target_arch = "aarch64")]
fn set_result(context: &mut libc::ucontext_t) {
    if let Some(result) = context.uc_mcontext.regs.first_mut() {
        *result = (-i64::from(libc::EPERM)).cast_unsigned();
    }
}

/// One line, in one write, without an allocation.
fn say(number: c_int) {
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
    // SAFETY: `text` is alive for the call; `write(2)` reads no more than its length. Whether it could be
    // said changes nothing for the call that was refused.
    let _said = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_a_process_sends_is_no_refusal_and_ends_nothing() {
        report_refused_calls().unwrap();
        nix::sys::signal::raise(Signal::SIGSYS).unwrap();
    }

    #[test]
    fn system_calls_have_their_names() {
        let name = |number| Sysno::new(usize::try_from(number).unwrap()).map(|call| call.name());
        assert_eq!(name(libc::SYS_ptrace), Some("ptrace"));
        assert_eq!(name(libc::SYS_execve), Some("execve"));
    }
}
