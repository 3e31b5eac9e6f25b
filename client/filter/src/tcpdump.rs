//! Compiles with `tcpdump -ddd`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sockbroker_bpf::{Instruction, Program};

use crate::error::FilterError;
use crate::link_layer::LinkLayer;

/// Where tcpdump is installed for administrators, also if `PATH` does not have these folders.
const FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The program tcpdump.
#[derive(Debug)]
pub(crate) struct Tcpdump {
    path: PathBuf,
}

impl Tcpdump {
    /// Finds it in `PATH` and in the folders of administrators.
    pub(crate) fn find() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
        let mut paths = folders.map(|folder| folder.join("tcpdump"));
        paths.find(|path| path.is_file()).map(|path| Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn compile(
        &self,
        expression: &str,
        link: LinkLayer,
    ) -> Result<Program, FilterError> {
        let mut command = Command::new(&self.path);
        command.args(["-ddd", "-y", link.name(), "--"]).arg(OsStr::new(expression));
        command.env("LC_ALL", "C").stdin(Stdio::null());
        let output = command.output().map_err(FilterError::Run)?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(FilterError::Refused {
                expression: expression.to_owned(),
                message: message(&errors).to_owned(),
            });
        }
        parse(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Returns the message of libpcap in what tcpdump prints on standard error: its last line, without the name.
fn message(errors: &str) -> &str {
    let last =
        errors.lines().rfind(|line| !line.is_empty()).unwrap_or("tcpdump failed without a message");
    last.strip_prefix("tcpdump: ").unwrap_or(last)
}

/// Reads the number of instructions, and an instruction in each line.
fn parse(text: &str) -> Result<Program, FilterError> {
    let wrong = |line: &str| FilterError::Output { line: line.to_owned() };
    let (first, rest) = text.split_once('\n').ok_or_else(|| wrong(text))?;
    let count: usize = first.trim().parse().ok().ok_or_else(|| wrong(first))?;
    let program: Result<Vec<_>, _> =
        rest.lines().map(|line| instruction(line).ok_or_else(|| wrong(line))).collect();
    let program = program?;
    if program.len() == count { Ok(Program(program)) } else { Err(wrong(first)) }
}

fn instruction(line: &str) -> Option<Instruction> {
    let mut fields = line.split_ascii_whitespace();
    let instruction = Instruction {
        code: fields.next()?.parse().ok()?,
        jump_true: fields.next()?.parse().ok()?,
        jump_false: fields.next()?.parse().ok()?,
        k: fields.next()?.parse().ok()?,
    };
    fields.next().is_none().then_some(instruction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read() {
        let program = parse("2\n40 0 0 12\n6 0 0 262144\n").unwrap();
        assert_eq!(program, Program(vec![Instruction::new(40, 12), Instruction::new(6, 262_144)]));
        for text in ["", "x\n", "2\n6 0 0 1\n", "1\n6 0 0\n", "1\n6 0 0 1 1\n", "1\n6 256 0 1\n"] {
            assert!(matches!(parse(text), Err(FilterError::Output { .. })), "{text}");
        }
    }

    #[test]
    fn message_is_the_last_line() {
        assert_eq!(message("Warning: x\ntcpdump: unknown host 'x'\n"), "unknown host 'x'");
        assert_eq!(message(""), "tcpdump failed without a message");
    }
}
