//! Somebody who has taken a process over, and makes system calls as it: what the process is held to holds
//! for them. By `ptrace(2)`, so the test is root.

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

/// The instruction `syscall`.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// How far below the stack's end texts are put: beyond what the process itself still uses.
const BELOW: u64 = 4096;
/// SIGSYS in a mask of signals (`proc(5)`): what a filter that traps sends.
const SIGSYS_BIT: u64 = 1 << (Signal::SIGSYS as u64 - 1);

/// A process that is no longer its own. It is killed when this is dropped.
#[derive(Debug)]
pub struct Intruder {
    process: Pid,
    memory: File,
    /// As the process was when it was taken, in a system call that waits.
    registers: user_regs_struct,
}

/// An argument of a system call.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    /// A number.
    Number(u64),
    /// A pointer to this text.
    Text(&'a str),
}

impl Intruder {
    /// Takes the main thread of a process, which must spend its time in system calls that wait.
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
        panic!("process {process} is never in a system call");
    }

    /// Makes a system call; what the kernel answers. A filter's signal is delivered, and what the process's
    /// handler makes of it is the answer.
    pub fn call(&mut self, number: i64, arguments: &[Argument<'_>]) -> Result<u64, Errno> {
        let values = self.prepared(arguments);
        let mut registers = self.registers;
        registers.rip -= 2;
        registers.rax = number.cast_unsigned();
        // No system call to be made again.
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

    /// Arguments as numbers; texts are put into the process's memory.
    fn prepared(&self, arguments: &[Argument<'_>]) -> [u64; 6] {
        let mut place = self.registers.rsp - BELOW;
        let mut values = [0; 6];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = match argument {
                Argument::Number(number) => *number,
                Argument::Text(text) => {
                    place -= text.len() as u64 + 1;
                    let text = [text.as_bytes(), &[0]].concat();
                    self.memory.write_all_at(&text, place).unwrap();
                    place
                }
            };
        }
        values
    }

    /// On to where a system call begins or ends, or a signal comes.
    fn step(&self, signal: Option<Signal>) -> WaitStatus {
        ptrace::syscall(self.process, signal).unwrap();
        next_stop(self.process)
    }

    fn has_pending_refusal(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap();
        let pending = status.lines().find_map(|line| line.strip_prefix("SigPnd:")).unwrap();
        u64::from_str_radix(pending.trim(), 16).unwrap() & SIGSYS_BIT != 0
    }

    /// Lets the process's own handler run, to the end of its `sigreturn(2)`.
    fn run_handler(&self) {
        let stop = self.step(None);
        assert_eq!(stop, WaitStatus::Stopped(self.process, Signal::SIGSYS));
        let mut signal = Some(Signal::SIGSYS);
        loop {
            let (begins, ends) = (self.step(signal.take()), ptrace::getregs(self.process).unwrap());
            assert_eq!(begins, WaitStatus::PtraceSyscall(self.process));
            let returns = ends.orig_rax == libc::SYS_rt_sigreturn.cast_unsigned();
            self.step(None);
            if returns {
                return;
            }
        }
    }
}

fn next_stop(process: Pid) -> WaitStatus {
    waitpid(process, Some(WaitPidFlag::__WALL)).unwrap()
}

impl Drop for Intruder {
    fn drop(&mut self) {
        kill(self.process, Signal::SIGKILL).ok();
        // Its end is told to who traces it, and then to its parent.
        waitpid(self.process, Some(WaitPidFlag::__WALL)).ok();
    }
}
