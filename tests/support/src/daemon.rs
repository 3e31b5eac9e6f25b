//! Starts a broker as a child process, and controls it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::folder::Folder;
use crate::http::HttpClient;
use crate::lsp::LspClient;
use crate::ndjson::NdjsonClient;
use crate::processes::{has_parent, is_idle, processes, threads};
use crate::running;
use crate::watch::{HANG, happens_within, pause, until};
use crate::websocket::WebSocketClient;

/// The name of the socket in the folder of the broker.
const SOCKET: &str = "socket";
/// The name of the log in the folder of the broker.
const LOG: &str = "log";
/// The log message about a system call that the seccomp filter of the broker refused.
const REFUSED: &str = "seccomp refused";

/// The variable with user ids for the workers of brokers whose test does not choose them.
const WORKER_IDS: &str = "SOCKBROKER_TEST_WORKER_IDS";

/// The options of a broker to start.
#[derive(Debug)]
pub struct Start {
    binary: PathBuf,
    folder: Folder,
    config: String,
    sections: String,
    shell: String,
    arguments: Vec<String>,
}

impl Start {
    /// Options for this binary, with a new folder.
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.into(),
            folder: Folder::new(),
            config: String::from("[limits]\n"),
            sections: String::new(),
            shell: String::new(),
            arguments: Vec::new(),
        }
    }

    /// Sets a limit of the configuration.
    #[must_use]
    pub fn limit(mut self, name: &str, value: u64) -> Self {
        writeln!(self.config, "{name} = {value}").unwrap();
        self
    }

    /// Adds a section to the configuration.
    #[must_use]
    pub fn section(mut self, text: &str) -> Self {
        self.sections.push_str(text);
        self
    }

    /// Limits the number of open files.
    #[must_use]
    pub fn open_files(self, most: u32) -> Self {
        self.shell(&format!("ulimit -n {most}"))
    }

    /// Runs this shell command first, in the same process.
    #[must_use]
    pub fn shell(mut self, command: &str) -> Self {
        self.shell.push_str(command);
        self.shell.push_str(" && ");
        self
    }

    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Writes this policy to `policy.toml` in the folder, and uses it.
    #[must_use]
    pub fn policy(self, text: &str) -> Self {
        let path = self.folder.write("policy.toml", text);
        self.argument("--policy").argument(&path.display().to_string())
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Returns the command that starts the broker, without an endpoint, and the folder that it uses.
    pub fn command(self) -> (Command, Folder) {
        let Self { binary, folder, config, mut sections, shell, arguments } = self;
        // Without root, the kernel shows the open files of the worker only if it can be traced.
        if !geteuid().is_root() {
            let confine = "[confine]\n";
            if !sections.contains(confine) {
                sections.push_str(confine);
            }
            sections = sections.replace(confine, "[confine]\ntracing = true\n");
        }
        if let Ok(ids) = std::env::var(WORKER_IDS)
            && !sections.contains("worker_ids")
        {
            let processes = "[processes]\n";
            if !sections.contains(processes) {
                sections.push_str(processes);
            }
            let ids = format!("{processes}worker_ids = \"{ids}\"\n");
            sections = sections.replace(processes, &ids);
        }
        let config = folder.write("config.toml", &(config + &sections));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{shell}exec \"$0\" \"$@\"")).arg(binary);
        command.arg("--config").arg(config).args(arguments);
        command.stderr(File::create(folder.join(LOG)).unwrap());
        (command, folder)
    }

    /// Starts the broker on a socket in its folder, and waits until it listens. It answers calls, and its log is complete,
    /// only after it has started its opener and confined itself.
    pub fn start(self) -> Daemon {
        let (mut command, folder) = self.command();
        let socket = folder.join(SOCKET);
        command.arg("--socket").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null());
        let mut daemon = Daemon { process: Process::spawn(command), folder, socket };
        let mut ended = None;
        until("the broker serves its socket", || {
            ended = daemon.process.ended();
            ended.is_some() || UnixStream::connect(&daemon.socket).is_ok()
        });
        assert_eq!(ended, None, "the broker ended during its start:\n{}", daemon.log());
        daemon
    }
}

/// A broker that serves a socket. Dropping it kills the broker.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    folder: Folder,
    socket: PathBuf,
}

impl Daemon {
    /// Starts this binary with default options.
    pub fn start(binary: &str) -> Self {
        Start::new(binary).start()
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Allows all users to connect.
    #[must_use]
    pub fn open_to_all(self) -> Self {
        let mode = |bits| fs::Permissions::from_mode(bits);
        fs::set_permissions(self.folder.path(), mode(0o711)).unwrap();
        fs::set_permissions(&self.socket, mode(0o666)).unwrap();
        self
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Returns what the broker has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join(LOG)).unwrap_or_default()
    }

    /// Connects without a client.
    pub fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    /// Connects with LSP framing.
    pub fn lsp(&self) -> LspClient {
        LspClient::over(self.connect())
    }

    /// Connects with newline-delimited JSON.
    pub fn ndjson(&self) -> NdjsonClient {
        NdjsonClient::over(self.connect())
    }

    /// Connects with HTTP.
    pub fn http(&self) -> HttpClient {
        HttpClient::over(self.connect())
    }

    /// Connects with WebSocket.
    pub fn websocket(&self) -> WebSocketClient {
        WebSocketClient::over(self.connect())
    }

    /// Returns the number of the worker that serves the test's user, and starts it if it does not run.
    pub fn worker(&self) -> u32 {
        self.process.worker().unwrap_or_else(|| {
            self.lsp().expect_service();
            self.process.worker().expect("the broker has a worker")
        })
    }

    /// Runs `job` while the worker of the test's user is stopped.
    pub fn worker_stopped_during<T>(&self, job: impl FnOnce() -> T) -> T {
        stopped_during(self.worker(), job)
    }

    /// Lowers the limit on open files of the running worker; the broker's own limits do not change.
    pub fn lower_open_file_limit(&self, most: u32) {
        let number = self.worker();
        let mut command = Command::new("prlimit");
        command.args(["--pid", &number.to_string(), &format!("--nofile={most}:{most}")]);
        // Root of a container may not have CAP_SYS_RESOURCE, without which only the ids of the worker permit it.
        command.uid(id_of(number, "Uid:")).gid(id_of(number, "Gid:"));
        assert!(command.status().unwrap().success(), "prlimit fails");
    }

    /// Returns the number of open files of the worker.
    pub fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.worker())).unwrap().count()
    }

    /// Starts the process that acts as the caller, if the worker needs one for its calls on `AF_UNIX` sockets. The worker
    /// has files for it until it has been idle for long: tests that count files start it before. They keep the client,
    /// because its files count too until the worker has seen its end.
    #[must_use]
    pub fn start_caller(&self) -> LspClient {
        let mut client = self.lsp();
        client.pair();
        client
    }

    /// Waits until the processes of the broker have nothing to do and the number of open files is stable, and returns it:
    /// earlier connections take time to end.
    pub fn idle_open_files(&self) -> usize {
        let (mut files, mut looks) = (self.open_files(), 0);
        until("the broker is idle", || {
            pause(10);
            let now = is_idle(self.process.number()).then(|| self.open_files());
            looks = if now == Some(files) { looks + 1 } else { 0 };
            files = now.unwrap_or(files);
            looks == 3
        });
        files
    }

    /// Waits until at most `files` files are open.
    pub fn wait_for_open_files(&self, files: usize) {
        let settled = happens_within(HANG, || self.open_files() <= files);
        assert!(settled, "{} files are open, not {files}: {:?}", self.open_files(), self.files());
    }

    fn files(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(format!("/proc/{}/fd", self.worker())).unwrap();
        folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect()
    }

    /// Returns the resident memory of the worker in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.worker())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

/// How many lines of the log a failed test shows.
const LAST_LINES: usize = 20;

impl Drop for Daemon {
    #[expect(clippy::print_stdout, reason = "it belongs to the output of the failed test")]
    fn drop(&mut self) {
        let log = self.log();
        let refused: Vec<&str> = log.lines().filter(|line| line.contains(REFUSED)).collect();
        // A system call that is missing in the broker's filter would fail for its users too.
        assert!(refused.is_empty() || thread::panicking(), "{refused:?}");
        if thread::panicking() {
            let last = log.lines().count().saturating_sub(LAST_LINES);
            let lines: Vec<&str> = log.lines().skip(last).collect();
            println!("the last lines of the broker's log:\n{}", lines.join("\n"));
        }
    }
}

/// The process of a broker. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    /// The child process, for its pipes.
    pub child: Child,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        let child = command.spawn().unwrap();
        running::add(child.id());
        Self { child }
    }

    pub fn number(&self) -> u32 {
        self.child.id()
    }

    /// Returns the number of the oldest worker of the test's user.
    pub fn worker(&self) -> Option<u32> {
        self.worker_of(geteuid().as_raw())
    }

    /// Returns the number of the oldest worker of a user.
    pub fn worker_of(&self, uid: u32) -> Option<u32> {
        self.child_of("worker", uid)
    }

    /// Returns the number of the oldest process that makes calls with the ids of a user.
    pub fn caller_of(&self, uid: u32) -> Option<u32> {
        self.child_of("caller", uid)
    }

    /// Returns the number of the oldest process that reads captures of a user.
    pub fn reader_of(&self, uid: u32) -> Option<u32> {
        self.child_of("reader", uid)
    }

    fn child_of(&self, role: &str, uid: u32) -> Option<u32> {
        processes().filter(|number| is_child(*number, self.number(), role, uid)).min()
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        kill(pid(self.number()), Signal::SIGHUP).unwrap();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        kill(pid(self.number()), Signal::SIGTERM).unwrap();
    }

    /// Runs `job` while the process is stopped.
    pub fn stopped_during<T>(&self, job: impl FnOnce() -> T) -> T {
        stopped_during(self.number(), job)
    }

    /// Returns the exit status, if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until the process ends.
    pub fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        until("the broker ends", || {
            status = self.ended();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let number = self.number();
        running::remove(number);
        // An error means that the process has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs `job` while a process is stopped.
fn stopped_during<T>(number: u32, job: impl FnOnce() -> T) -> T {
    stop_process(number);
    let result = job();
    continue_process(number);
    result
}

/// Kills a process, such as a worker, unless it has ended. It still runs when this returns, until the kernel has ended it:
/// see [`wait_until_ended`].
pub fn kill_process(number: u32) {
    let killed = kill(pid(number), Signal::SIGKILL);
    assert!(matches!(killed, Ok(()) | Err(Errno::ESRCH)), "{killed:?}");
}

/// Waits until all threads of a process have ended, so that its files are closed. Its parent may not have waited for it.
pub fn wait_until_ended(number: u32) {
    until("the process ends", || {
        // The first thread stays as a zombie until the parent waits, and the others disappear.
        threads(number).iter().all(|thread| matches!(thread.state, 'Z' | 'X'))
    });
}

/// Sends SIGTERM to a process.
pub fn terminate_process(number: u32) {
    kill(pid(number), Signal::SIGTERM).unwrap();
}

/// Stops a process, such as a worker, without ending it.
pub fn stop_process(number: u32) {
    kill(pid(number), Signal::SIGSTOP).unwrap();
    until("every thread of the process stops", || {
        let threads = threads(number);
        assert!(!threads.is_empty(), "the process has ended");
        threads.iter().all(|thread| thread.state == 'T')
    });
}

/// Continues a stopped process.
pub fn continue_process(number: u32) {
    kill(pid(number), Signal::SIGCONT).unwrap();
}

/// Whether a process has this role for a user of a broker. One that ends meanwhile has not.
fn is_child(number: u32, broker: u32, role: &str, uid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{number}/cmdline")).unwrap_or_default();
    has_parent(number, broker)
        && name.starts_with(&format!("sockbrokerd: {role} "))
        && name.split('\0').next().is_some_and(|name| name.ends_with(&format!("(uid {uid})")))
}

/// The first id of a line of `/proc/PID/status`.
fn id_of(number: u32, line: &str) -> u32 {
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
    let ids = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    ids.split_whitespace().next().unwrap().parse().unwrap()
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap())
}
