//! What went wrong, on one line, and the exit code that says so.

use std::fmt;
use std::io;
use std::process::ExitCode;

use sockbroker_proto::errno;

/// How the program ends; the numbers are those of `sysexits.h` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// The call failed, or no reply came.
    Failed,
    /// The command line is wrong.
    Usage,
    /// No broker answers (`EX_UNAVAILABLE`).
    NoBroker,
    /// The system refused something (`EX_OSERR`).
    System,
    /// A file or a standard stream (`EX_IOERR`).
    Stream,
    /// The broker's answer is not understood (`EX_PROTOCOL`).
    Protocol,
    /// The system forbids it to this user (`EX_NOPERM`).
    Forbidden,
    /// A policy file cannot be used (`EX_CONFIG`).
    Config,
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
        })
    }
}

/// A failure: what failed and why, and what to do about it if that is known.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    text: String,
    /// The error's number, where the kernel or the broker told one.
    errno: Option<i32>,
    timeout: bool,
    /// Whether the broker's policy refused it.
    denied: bool,
    /// What to do about it.
    hint: Option<&'static str>,
}

impl Failure {
    /// A failure in words.
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), errno: None, timeout: false, denied: false, hint: None }
    }

    /// With the number of its error.
    pub(crate) fn with_errno(mut self, errno: Option<i32>) -> Self {
        self.errno = errno;
        self
    }

    /// As that of a call whose timeout passed.
    pub(crate) fn timed_out(mut self) -> Self {
        self.timeout = true;
        self
    }

    /// As a refusal of the broker's policy.
    pub(crate) fn denied(mut self) -> Self {
        self.denied = true;
        self
    }

    /// Whether the broker's policy refused it.
    pub(crate) fn is_denied(&self) -> bool {
        self.denied
    }

    /// With this advice in place of another one.
    pub(crate) fn with_hint(mut self, hint: impl Into<Option<&'static str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Without a word: only the exit code reports it.
    pub(crate) fn without_message(mut self) -> Self {
        self.text.clear();
        self.hint = None;
        self
    }

    /// Whether a call's timeout passed.
    pub(crate) fn is_timeout(&self) -> bool {
        self.timeout
    }

    /// With another exit code where it was that of a failed call.
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

    /// An answer that is not what the contract says.
    pub(crate) fn protocol(text: impl Into<String>) -> Self {
        Self::new(Exit::Protocol, text)
    }

    /// A system call of our own that failed.
    pub(crate) fn system(what: &str, error: &io::Error) -> Self {
        Self::new(Exit::System, format!("{what}: {}", describe_error(error)))
            .with_errno(error.raw_os_error())
    }

    /// A file or standard stream that failed.
    pub(crate) fn stream(what: &str, error: &io::Error) -> Self {
        Self::new(Exit::Stream, format!("{what}: {}", describe_error(error)))
            .with_errno(error.raw_os_error())
    }

    /// How the program ends with it.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The number of the error.
    pub(crate) fn errno(&self) -> Option<i32> {
        self.errno
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Texts of a broker may have several lines; the promise is one.
        let mut lines = self.text.lines();
        f.write_str(lines.next().unwrap_or_default())?;
        lines.try_for_each(|line| write!(f, " {}", line.trim()))?;
        self.hint.map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

/// An error of the system with its name: `EACCES: permission denied`.
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
