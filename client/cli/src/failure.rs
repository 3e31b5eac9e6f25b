//! An error of the program: one line on standard error, and an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use sockbroker_proto::errno;

/// The exit code of the program; the numbers are those of `sysexits.h` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Success.
    Done,
    /// The call failed, or no reply arrived.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No broker answers (`EX_UNAVAILABLE`).
    NoBroker,
    /// A system call of this program failed (`EX_OSERR`).
    System,
    /// A file or a standard stream cannot be read or written (`EX_IOERR`).
    Stream,
    /// The broker's response is invalid (`EX_PROTOCOL`).
    Protocol,
    /// The system refuses it to this user (`EX_NOPERM`).
    Forbidden,
    /// A policy file cannot be used (`EX_CONFIG`).
    Config,
    /// The code of the program that `exec` has run.
    Program(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoBroker => 69,
            Exit::System => 71,
            Exit::Stream => 74,
            Exit::Protocol => 76,
            Exit::Forbidden => 77,
            Exit::Config => 78,
            Exit::Program(code) => code,
        })
    }
}

/// An error: what failed and why, and a hint about what to do if there is one.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    text: String,
    /// The errno, if the kernel or the broker reported one.
    errno: Option<i32>,
    timeout: bool,
    denied: bool,
    hint: Option<&'static str>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), errno: None, timeout: false, denied: false, hint: None }
    }

    /// Sets the errno.
    pub(crate) fn with_errno(mut self, errno: Option<i32>) -> Self {
        self.errno = errno;
        self
    }

    /// Marks the failure as a timeout of the call.
    pub(crate) fn timed_out(mut self) -> Self {
        self.timeout = true;
        self
    }

    /// Marks the failure as a refusal of the broker's policy.
    pub(crate) fn denied(mut self) -> Self {
        self.denied = true;
        self
    }

    /// Whether the broker's policy refused the call.
    pub(crate) fn is_denied(&self) -> bool {
        self.denied
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<Option<&'static str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Removes the message: only the exit code reports the failure.
    pub(crate) fn without_message(mut self) -> Self {
        self.text.clear();
        self.hint = None;
        self
    }

    /// Whether the timeout of the call passed.
    pub(crate) fn is_timeout(&self) -> bool {
        self.timeout
    }

    /// Replaces the exit code of a failed call, [`Exit::Failed`], and keeps any other.
    pub(crate) fn with_exit_code(mut self, exit: Exit) -> Self {
        if self.exit == Exit::Failed {
            self.exit = exit;
        }
        self
    }

    /// A wrong command line.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// An answer of the broker that does not follow the contract.
    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::new(Exit::Protocol, text)
    }

    /// A system call of this program that failed.
    pub(crate) fn system(what: &str, error: &io::Error) -> Self {
        Self::new(Exit::System, format!("{what}: {}", describe_error(error)))
            .with_errno(error.raw_os_error())
    }

    /// A file or standard stream that failed.
    pub(crate) fn stream(what: &str, error: &io::Error) -> Self {
        Self::new(Exit::Stream, format!("{what}: {}", describe_error(error)))
            .with_errno(error.raw_os_error())
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn errno(&self) -> Option<i32> {
        self.errno
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A message of a broker can have several lines; a failure is printed on one.
        let mut lines = self.text.lines();
        f.write_str(lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| write!(f, " {}", line.trim()))?;
        self.hint.map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// Describes a system error with its name: `EACCES: permission denied`.
fn describe_error(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    format!("{}: {text}", errno::name(number).unwrap_or("errno"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_names_the_errno() {
        let failure = Failure::system("cannot do it", &io::Error::from_raw_os_error(13));
        assert_eq!(failure.to_string(), "cannot do it: EACCES: Permission denied");
        assert_eq!(failure.errno(), Some(13));
        assert_eq!(Failure::usage("one\n  two\nthree").to_string(), "one two three");
    }
}
