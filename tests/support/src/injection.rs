//! Makes system calls from another process with `ptrace(2)`, like an attacker who controls it: the confinement
//! of that process applies. The test needs root.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use libc::user_regs_struct;
use nix::errno::Errno;

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The machine code of the instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// The distance below the stack pointer where strings are written, beyond what the process still uses.
const BELOW: u64 = 4096;
/// SIGSYS in a signal mask of `proc(5)`. A seccomp filter that traps sends it.
const SIGSYS_BIT: u64 = 1 << (Signal::SIGSYS as u64 - 1);

/// A traced process. Dropping it kills the process.
#[derive(Debug)]
pub struct SyscallInjector {
    process: Pid,
    memory: File,
    /// The registers when tracing began, in a blocking system call.
    registers: user_regs_struct,
}

/// An argument of a system call.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    Number(u64),
    /// A pointer to a copy of this string.
    Text(&'a str),
}

impl SyscallInjector {
    /// Traces the main thread of a process, which must spend its time in blocking system calls.
    pub fn into(process: u32) -> Self {
        let process = Pid::from_raw(i32::try_from(process).unwrap());
        let memory = File::options().read(true).write(true).open(format!("/proc/{process}/mem"));
        let memory = memory.unwrap();
        let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
        for _ in 0..100 {
            ptrace::attach(process).unwrap();
            next_stop(process);
            let registers = ptrace::getregs(process).unwrap();
            let mut instruction = [0; 2];
            memory.read_exact_at(&mut instruction, registers.rip - 2).unwrap();
            if instruction == SYSCALL {
                ptrace::setoptions(process, options).unwrap();
                return Self { process, memory, registers };
            }
            ptrace::detach(process, None).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        panic!("process {process} was never found in a system call");
    }

    /// Makes a system call and returns the result of the kernel. If a filter sends a signal, the handler of the
    /// process runs and sets the result.
    pub fn call(&mut self, number: i64, arguments: &[Argument<'_>]) -> Result<u64, Errno> {
        let values = self.prepare_arguments(arguments);
        let mut registers = self.registers;
        registers.rip -= 2;
        registers.rax = number.cast_unsigned();
        // Prevents the kernel from restarting the interrupted call.
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] =
            values;
        ptrace::setregs(self.process, registers).unwrap();
        self.step(None);
        self.step(None);
        if self.has_pending_refusal() {
            self.run_handler();
        }
        let answer = ptrace::getregs(self.process).unwrap().rax.cast_signed();
        match i32::try_from(answer) {
            Ok(error @ -4095..=-1) => Err(Errno::from_raw(-error)),
            _ => Ok(answer.cast_unsigned()),
        }
    }

    /// Converts arguments to numbers and writes strings to the memory of the process.
    fn prepare_arguments(&self, arguments: &[Argument<'_>]) -> [u64; 6] {
        let mut address = self.registers.rsp - BELOW;
        let mut values = [0; 6];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => *number,
                Argument::Text(text) => {
                    address -= text.len() as u64 + 1;
                    let text = [text.as_bytes(), &[0]].concat();
                    self.memory.write_all_at(&text, address).unwrap();
                    address
                }
            };
        }
        values
    }

    /// Continues until the next entry to or exit from a system call, or the next signal.
    fn step(&self, signal: Option<Signal>) -> WaitStatus {
        ptrace::syscall(self.process, signal).unwrap();
        next_stop(self.process)
    }

    fn has_pending_refusal(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:")).unwrap();
        u64::from_str_radix(pending.trim(), 16).unwrap() & SIGSYS_BIT != 0
    }

    /// Runs the signal handler of the process until its `sigreturn(2)`.
    fn run_handler(&self) {
        let stop = self.step(None);
        assert_eq!(stop, WaitStatus::Stopped(self.process, Signal::SIGSYS));
        let mut signal = Some(Signal::SIGSYS);
        loop {
            let (entry, registers) =
                (self.step(signal.take()), ptrace::getregs(self.process).unwrap());
            assert_eq!(entry, WaitStatus::PtraceSyscall(self.process));
            let is_sigreturn = registers.orig_rax == libc::SYS_rt_sigreturn.cast_unsigned();
            self.step(None);
            if is_sigreturn {
                return;
            }
        }
    }
}

fn next_stop(process: Pid) -> WaitStatus {
    waitpid(process, Some(WaitPidFlag::__WALL)).unwrap()
}

impl Drop for SyscallInjector {
    fn drop(&mut self) {
        kill(self.process, Signal::SIGKILL).ok();
        // The kernel reports the end to the tracer before the parent.
        waitpid(self.process, Some(WaitPidFlag::__WALL)).ok();
    }
}
