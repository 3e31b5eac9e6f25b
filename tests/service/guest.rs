//! A container with systemd as its first process, for one test.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sockbroker_test_support::Folder;
use sockbroker_test_support::program::{Outcome, run};

/// The time limit for booting a guest. It takes one second on an idle machine.
const BOOT: Duration = Duration::from_mins(10);
/// The time limit of a command in a guest.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// The namespaces of a command that is not a process of the guest.
const OUTSIDE: &[&str] = &["--mount", "--net", "--ipc", "--uts"];

/// A running guest. Dropping it ends the guest.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The process that ends the guest when its standard input ends.
    keeper: Child,
    cgroup: PathBuf,
    /// The process ID of the first process of the guest, on this machine.
    leader: u32,
    folder: Folder,
}

impl Guest {
    /// Boots a tree, without changing it, with its control groups in this folder.
    pub(crate) fn boot(tree: &Path, cgroups: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let machine = format!("sockbroker-{}-{number}", std::process::id());
        let folder = Folder::new();
        let notify = UnixDatagram::bind(folder.join("notify")).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let cgroup = cgroups.join(&machine);
        let keeper = Command::new("sh")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/boot.sh"))
            .args([cgroup.as_os_str(), machine.as_ref(), tree.as_os_str()])
            .env("NOTIFY_SOCKET", folder.join("notify"))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0)
            .spawn()
            .unwrap();
        let mut guest = Self { keeper, cgroup, leader: 0, folder };
        guest.leader = guest.wait_until_up(&notify);
        guest.ok("ip link set lo up");
        guest
    }

    /// Reads the notifications of nspawn and systemd (`sd_notify(3)`) until the guest is up.
    fn wait_until_up(&self, notify: &UnixDatagram) -> u32 {
        let deadline = Instant::now() + BOOT;
        let (mut leader, mut ready) = (None, false);
        let mut message = [0; 4096];
        loop {
            if let (Some(leader), true) = (leader, ready) {
                return leader;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            notify.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let length = notify.recv(&mut message).unwrap_or_else(|error| {
                let log = fs::read_to_string(self.folder.join("log")).unwrap();
                panic!("the guest is not up after {BOOT:?}: {error}\n{log}")
            });
            for line in String::from_utf8_lossy(&message[..length]).lines() {
                ready |= line == "READY=1";
                if let Some(number) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                    leader = Some(number.parse().unwrap());
                }
            }
        }
    }

    /// Runs a shell command as root in the guest.
    pub(crate) fn run(&self, command: &str) -> Outcome {
        run(&mut self.enter(&["sh", "-c", command]), LONGEST_WAIT)
    }

    /// Runs a command as an unprivileged user of the guest, with the current groups.
    pub(crate) fn run_as(&self, user: &str, command: &str) -> Outcome {
        run(&mut self.enter(&as_user(user, command)), LONGEST_WAIT)
    }

    /// Runs a command as root and returns its output. Fails if the command fails.
    pub(crate) fn ok(&self, command: &str) -> String {
        self.expect_success(command, self.run(command))
    }

    /// Runs a command as an unprivileged user and returns its output. Fails if the command fails.
    pub(crate) fn ok_as(&self, user: &str, command: &str) -> String {
        self.expect_success(command, self.run_as(user, command))
    }

    fn expect_success(&self, command: &str, ended: Outcome) -> String {
        if ended.code != Some(0) {
            let log = self.run("journalctl --no-pager -n 60");
            panic!("{command}: {:?}\n{}\nlog:\n{}", ended.code, ended.output, log.output);
        }
        ended.output
    }

    /// Starts a command as an unprivileged user.
    pub(crate) fn start_as(&self, user: &str, command: &str) -> Child {
        start(self.enter(&as_user(user, command)))
    }

    /// Starts a command as a user of the guest that is not one of its processes: the guest cannot end it.
    pub(crate) fn start_outside_as(&self, user: &str, command: &str) -> Child {
        start(self.enter_by(OUTSIDE, &as_user(user, command)))
    }

    /// Starts a shell command as root.
    pub(crate) fn start(&self, command: &str) -> Child {
        start(self.enter(&["sh", "-c", command]))
    }

    /// Returns a property of the service, from `systemctl show`.
    pub(crate) fn property(&self, name: &str) -> String {
        self.property_of("sockbrokerd.service", name)
    }

    /// Returns a property of a unit.
    pub(crate) fn property_of(&self, unit: &str, name: &str) -> String {
        self.ok(&format!("systemctl show --property {name} --value {unit}")).trim().to_owned()
    }

    /// Returns the journal of the service, including systemd's messages about it.
    pub(crate) fn log(&self) -> String {
        self.ok("journalctl --sync; journalctl --no-pager --output=cat --unit sockbrokerd.service")
    }

    /// Returns the processes of the service: their process IDs in the guest, and their names. A name such as
    /// `sockbrokerd: opener` is the first argument.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let processes = self.ok(
            "for process in $(cat /sys/fs/cgroup/system.slice/sockbrokerd.service/cgroup.procs 2>/dev/null); do
                 name=$(tr '\\0' '\\n' 2>/dev/null <\"/proc/$process/cmdline\" | head -n 1)
                 echo \"$process $name\"
             done",
        );
        let parse = |line: &str| {
            let (process, name) = line.split_once(' ')?;
            Some((process.parse().ok()?, name.to_owned()))
        };
        processes.lines().filter_map(parse).collect()
    }

    /// Returns the only process of the service whose name starts with this; `None` if there is none.
    pub(crate) fn process(&self, name: &str) -> Option<u32> {
        let all = self.processes();
        let mut found = all.iter().filter(|(_, own)| own.starts_with(name));
        let process = found.next()?.0;
        assert!(found.next().is_none(), "not one {name}: {all:?}");
        Some(process)
    }

    /// Writes a measured value or a message, which the test runner does not capture.
    pub(crate) fn report(&self, text: &str) {
        let version = self.ok("systemctl --version | head -n 1 | cut -d ' ' -f 1-2");
        let line = format!("\n{}: {text}\n", version.trim());
        io::stderr().write_all(line.as_bytes()).unwrap();
    }

    /// Returns the path of a file of the guest, on this machine.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{file}", self.leader))
    }

    /// Writes a file of the guest, and creates its folder.
    pub(crate) fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads a file of the guest.
    pub(crate) fn read(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.path(file))
    }

    /// Returns the process IDs of the service on this machine, one a line.
    pub(crate) fn outer_processes(&self) -> String {
        let slice = self.cgroup.join("payload/system.slice/sockbrokerd.service/cgroup.procs");
        fs::read_to_string(slice).unwrap()
    }

    /// Returns the process ID of the only worker of the service, on this machine.
    pub(crate) fn outer_worker(&self) -> u32 {
        let processes = self.outer_processes();
        let is_worker = |process: &&str| {
            let name = fs::read_to_string(format!("/proc/{process}/cmdline"));
            name.is_ok_and(|name| name.starts_with("sockbrokerd: worker"))
        };
        let [worker] = processes.lines().filter(is_worker).collect::<Vec<_>>()[..] else {
            panic!("the service does not have one worker: {processes:?}")
        };
        worker.parse().unwrap()
    }

    fn enter(&self, words: &[&str]) -> Command {
        self.enter_by(&["--all"], words)
    }

    /// Returns a command in these namespaces of the guest.
    fn enter_by(&self, namespaces: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.leader)).args(namespaces);
        command.args(["--", "env", "-i"]);
        command.args(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args(["HOME=/", "LANG=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]).args(words);
        command
    }
}

/// Starts a command without input, whose output can be read.
fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn as_user<'a>(user: &'a str, command: &'a str) -> [&'a str; 11] {
    [
        "setpriv",
        "--reuid",
        user,
        "--regid",
        user,
        "--init-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
        "sh",
        "-c",
        command,
    ]
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Closing its input makes the process end the guest, and then itself.
        drop(self.keeper.stdin.take());
        let ended = self.keeper.wait();
        if !std::thread::panicking() {
            assert!(
                ended.is_ok_and(|status| status.success()),
                "the guest did not end with success"
            );
            assert!(!self.cgroup.exists(), "{} was left behind", self.cgroup.display());
        }
    }
}
