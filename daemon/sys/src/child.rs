//! Processes of this program in another role: run again from its own file, with a new address layout.

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use nix::sys::prctl::{self, set_dumpable, set_pdeathsig};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

/// What a process is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// How the process is shown by `ps(1)`: its argument 0.
    pub name: &'a str,
    /// The arguments after it.
    pub arguments: &'a [&'a OsStr],
    /// The whole environment.
    pub environment: &'a [(OsString, OsString)],
    /// Descriptor 0.
    pub input: OwnedFd,
    /// Descriptor 1.
    pub output: Stdio,
}

/// Starts the program of this process again. Standard error is that of this process. The file is the one that
/// runs, even if another one has its path by now.
pub fn start(start: Start<'_>) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(start.name).args(start.arguments).env_clear();
    command.envs(start.environment.iter().map(|(name, value)| (name, value)));
    command.current_dir("/").stdin(start.input).stdout(start.output).spawn()
}

/// Sets how the kernel and `pgrep(1)` name this process (`PR_SET_NAME`, `prctl(2)`), at most 15 bytes. A process that was
/// started by [`start`] is named `exe`.
pub fn set_name(name: &CStr) -> io::Result<()> {
    Ok(prctl::set_name(name)?)
}

/// Sends `SIGTERM` to a child that has not been waited for.
pub fn terminate(child: &Child) -> io::Result<()> {
    let number = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(kill(Pid::from_raw(number), Signal::SIGTERM)?)
}

/// Ends this process when the thread that started it ends (`PR_SET_PDEATHSIG`, `prctl(2)`). To be called after
/// the last change of ids, which resets it. `false` if the parent is not this process (any more).
pub fn end_with_parent(parent: u32) -> io::Result<bool> {
    set_pdeathsig(Signal::SIGKILL)?;
    Ok(u32::try_from(getppid().as_raw()).is_ok_and(|number| number == parent))
}

/// Allows what [`refuse_tracing`] prevents, for a debugger.
pub fn allow_tracing() -> io::Result<()> {
    Ok(set_dumpable(true)?)
}

/// Keeps processes of the same user from tracing this one and from reading its memory and descriptors, and the
/// kernel from writing a core (`PR_SET_DUMPABLE`). A change of ids resets it.
pub fn refuse_tracing() -> io::Result<()> {
    Ok(set_dumpable(false)?)
}
