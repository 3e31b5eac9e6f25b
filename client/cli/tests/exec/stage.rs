//! A broker of root, and programs of the user nobody, in namespaces of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sockbroker_test_support::{Daemon, Folder, Start};

/// The path of the program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sockbroker");
/// The interpreter of the system, which every user can execute.
pub(crate) const PYTHON: &str = "/usr/bin/python3";
/// The seconds after which timeout(1) ends a program that hangs.
const LONGEST_WAIT: &str = "200";

/// Everything that the tests need.
pub(crate) const ALL: &str = r#"
version = 1
[[rule]]
name = "all"
subject = { uids = [65534] }
allow = ["create", "handover", "bind", "option", "spoof", "capture", "inject", "transparent", "session"]
handover = "unrevocable"
unchecked = true
"#;

/// The policy of a role that serves one port.
pub(crate) const PORTS: &str = r#"
version = 1
[[rule]]
name = "ports"
subject = { uids = [65534] }
allow = ["bind"]
family = ["AF_INET", "AF_INET6"]
type = ["SOCK_STREAM"]
protocol = ["IPPROTO_TCP"]
local_ports = ["84"]
"#;

/// A running broker, and a copy of the program under test that nobody can execute.
pub(crate) struct Stage {
    pub(crate) broker: Daemon,
    pub(crate) folder: Folder,
    program: PathBuf,
}

/// What a program has written, and how it has ended: its exit code, or 128 and the signal.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: i32,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let status = output.status;
        Self {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
        }
    }
}

impl Outcome {
    /// Standard output of a program that succeeded.
    pub(crate) fn success(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// Ends a program that serves, and its launcher, by SIGTERM.
pub(crate) fn terminate(mut started: std::process::Child) {
    let status = Command::new("kill").arg(started.id().to_string()).status().unwrap();
    assert!(status.success());
    started.wait().unwrap();
}

impl Stage {
    /// Starts a broker with a policy.
    pub(crate) fn new(policy: &str) -> Self {
        Self::of(Self::prepare(policy))
    }

    /// A broker with a policy, which has not been started.
    pub(crate) fn prepare(policy: &str) -> Start {
        Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(policy)
    }

    /// Starts a broker.
    pub(crate) fn of(start: Start) -> Self {
        let broker = start.start().open_to_all();
        let folder = Folder::new();
        fs::set_permissions(folder.join("."), fs::Permissions::from_mode(0o777)).unwrap();
        let stage = Self { program: folder.join("sockbroker"), broker, folder };
        stage.copy(Path::new(PROGRAM), "sockbroker");
        stage
    }

    /// A copy of a program without file capabilities, which the user can execute.
    pub(crate) fn copy(&self, program: &Path, name: &str) -> PathBuf {
        self.folder.copy_program(program, name)
    }

    /// Compiles a program in C.
    pub(crate) fn compile(&self, name: &str, source: &str, options: &[&str]) -> PathBuf {
        let file = self.folder.write(&format!("{name}.c"), source);
        let program = self.folder.join(name);
        let mut command = Command::new("cc");
        command.args(["-O1", "-w", "-pthread", "-o"]).arg(&program).arg(file).args(options);
        let output = command.output().expect("cc");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    /// A command of the user nobody, natively.
    pub(crate) fn natively(&self, words: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
        command.args(["--bounding-set=-all", "timeout", "--foreground", LONGEST_WAIT]).args(words);
        command.env("SOCKBROKER", format!("unix:{}", self.broker.socket().display()));
        command.env_remove("SOCKBROKER_SESSION").env("HOME", self.folder.join("."));
        command.current_dir(self.folder.join("."));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The command that runs a program with these options of `exec`.
    pub(crate) fn exec(&self, options: &[&str], words: &[&str]) -> Command {
        let program = self.program.to_str().unwrap();
        self.natively(&[&[program, "exec"], options, words].concat())
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, options: &[&str], words: &[&str]) -> Outcome {
        self.exec(options, words).output().unwrap().into()
    }

    /// Runs a Python program to its end.
    pub(crate) fn python(&self, options: &[&str], text: &str) -> Outcome {
        self.run(options, &[PYTHON, "-c", text])
    }

    /// The path of the program under test.
    pub(crate) fn program(&self) -> &str {
        self.program.to_str().unwrap()
    }
}
