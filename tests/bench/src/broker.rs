//! Starts a broker as a child process.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sockbroker_client::Endpoint;

use crate::client::{Client, Framing};
use crate::cpu_time::family;
use crate::error::Result;
use crate::peers::{self, Role};

/// The time limit for the start and for the end of a broker.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A broker with a socket in a new folder. Dropping it ends the broker.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    folder: PathBuf,
    /// The process that serves the user of the benchmark.
    worker: Pid,
}

impl Broker {
    /// Starts a broker and waits until it serves connections.
    pub(crate) fn start() -> Result<Self> {
        Self::start_with("", "version = 1\n")
    }

    /// Like [`Broker::start`], with this configuration and policy. The audit is written to a file, as in production.
    pub(crate) fn start_with(config: &str, policy: &str) -> Result<Self> {
        let mut command = Role::Broker.command()?;
        command.arg0("sockbrokerd");
        Self::start_by(command, config, policy)
    }

    /// Like [`Broker::start_with`], by a command that starts this program in the role of the broker.
    pub(crate) fn start_by(mut command: Command, config: &str, policy: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("sockbroker-bench-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let audit = format!("[audit]\nto = \"{}\"\n{config}", folder.join("audit").display());
        fs::write(folder.join("config.toml"), audit)?;
        fs::write(folder.join("policy.toml"), policy)?;
        let child = command
            .arg("--socket")
            .arg(folder.join("s"))
            .arg("--config")
            .arg(folder.join("config.toml"))
            .arg("--policy")
            .arg(folder.join("policy.toml"))
            .env("SOCKBROKER_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()?;
        let worker = peers::process(&child);
        let mut broker = Self { child, folder, worker };
        let mut client = broker.wait_until_it_serves()?;
        let info = client.call("broker.info", &Value::Null)?;
        let pid = info.pointer("/process/pid").and_then(Value::as_i64).ok_or("no process")?;
        broker.worker = Pid::from_raw(pid.try_into()?);
        Ok(broker)
    }

    fn wait_until_it_serves(&self) -> Result<Client> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.connect(Framing::Lsp) {
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => pause(),
                Ok(client) => return Ok(client),
            }
        }
    }

    /// Allows all users to connect.
    pub(crate) fn open_to_all(&self) -> Result<()> {
        fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o711))?;
        Ok(fs::set_permissions(self.path(), fs::Permissions::from_mode(0o666))?)
    }

    /// Opens a new connection.
    pub(crate) fn connect(&self, framing: Framing) -> Result<Client> {
        Client::connect(&self.folder.join("s"), framing)
    }

    /// Returns the endpoint for the client library.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.path())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("s")
    }

    /// Returns the ID of the process that serves the user of the benchmark.
    pub(crate) fn process(&self) -> Pid {
        self.worker
    }

    /// Returns the IDs of all its processes.
    pub(crate) fn processes(&self) -> Result<Vec<Pid>> {
        family(peers::process(&self.child))
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process()))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:"));
        let size = line.and_then(|line| line.split_whitespace().next());
        Ok(1024.0 * size.ok_or("smaps_rollup has no Rss")?.parse::<f64>()?)
    }
}

impl Drop for Broker {
    /// Sends SIGTERM, and kills the broker if it does not end in time.
    fn drop(&mut self) {
        let asked = kill(peers::process(&self.child), Signal::SIGTERM).is_ok();
        let deadline = Instant::now() + TIMEOUT;
        while asked && matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            pause();
        }
        peers::end(&mut self.child);
        drop(fs::remove_dir_all(&self.folder));
    }
}

#[expect(clippy::disallowed_methods, reason = "no event loop here that could be blocked")]
fn pause() {
    sleep(Duration::from_millis(2));
}
