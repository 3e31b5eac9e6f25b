//! The service when one of its processes is killed, stopped, or out of memory.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Child;
use std::time::Instant;

use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{HANG, happens_within, pause, until};

use crate::environment::take_role;
use crate::guest::Guest;
use crate::lifecycle::{CALL, drop_in, is_replaced, output};

const WORKER: &str = "sockbrokerd: worker";
const REAPER: &str = "sockbrokerd: reaper";
const READER: &str = "sockbrokerd: policy reader";
const CALLER: &str = "sockbrokerd: caller";
const OPENER: &str = "sockbrokerd: opener";

/// What the monitor logs if a worker ends by itself.
const ENDED: &str = "a worker ended; its sockets are closed";

/// Programs of users. They print a line when the test can go on.
mod program {
    /// Makes calls in one session until a file exists.
    pub(super) const NEIGHBOUR: &str = r#"
import os, time

handle = broker.bound()
name = broker.call("socket.getsockname", handle)
print("begun", flush=True)
while not os.path.exists("/tmp/enough"):
    assert broker.call("socket.getsockname", handle) == name
    time.sleep(0.01)
print("undisturbed")
"#;

    /// Waits for a datagram.
    pub(super) const WAIT: &str = r#"
broker.send("socket.recv", broker.bound(), 1)
print("begun", flush=True)
try:
    broker.receive()
except (EOFError, ConnectionError):
    print("lost")
"#;

    /// Makes calls that the process of the caller makes, until one fails. Then one more in the same session.
    pub(super) const PAIRS: &str = r#"
handle = broker.bound()
print("begun", flush=True)
try:
    while True:
        for end in broker.call("socket.socketpair"):
            broker.call("socket.close", end["handle"])
except OSError as error:
    print("failed:", error)
broker.call("socket.socketpair")
broker.call("socket.getsockname", handle)
print("served")
"#;

    /// Sends messages that are incomplete, each on a connection of its own: the worker keeps them.
    pub(super) const FILL: &str = r#"
import socket

print("begun", flush=True)
held = []
try:
    while len(held) < 64:
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].connect("/run/sockbroker/socket")
        held[-1].sendall(b"Content-Length: 8000000\r\n\r\n" + bytes(7999999))
    print("kept all")
except ConnectionError:
    print("lost with message", len(held))
"#;
}

/// Starts a program as a user, and waits until it has begun.
fn begin(guest: &Guest, user: &str, program: &str) -> Child {
    let file = format!("/tmp/program-of-{user}");
    guest.write(&file, [include_str!("calls.py"), "\nbroker = Broker()\n", program].concat());
    let mut client = guest.start_as(user, &format!("exec python3 {file} 2>&1"));
    let mut line = [0; 6];
    let begun =
        client.stdout.as_mut().unwrap().read_exact(&mut line).is_ok() && &line == b"begun\n";
    assert!(begun, "{}{}{}", String::from_utf8_lossy(&line), output(&mut client), guest.log());
    client
}

/// Starts the calls of carol, whose session must not end.
fn begin_neighbour(guest: &Guest) -> Child {
    guest.ok("useradd --create-home --groups sockbroker carol");
    begin(guest, "carol", program::NEIGHBOUR)
}

/// Asserts that all calls of carol succeeded, and that the service was not restarted.
fn assert_undisturbed(guest: &Guest, mut carol: Child, monitor: &str) {
    guest.ok("touch /tmp/enough");
    let output = output(&mut carol);
    assert_eq!(output, "undisturbed\n", "{}", guest.log());
    assert_eq!(guest.property("MainPID"), monitor, "{}", guest.log());
    assert_eq!(guest.property("NRestarts"), "0");
}

/// Returns the name of the worker of a user.
pub(crate) fn worker_of(guest: &Guest, user: &str) -> String {
    format!("{WORKER} {user} (uid {})", guest.ok(&format!("id -u {user}")).trim())
}

/// Waits until the service has a process with this name.
pub(crate) fn wait_for(guest: &Guest, name: &str) -> u32 {
    let mut process = None;
    until(name, || {
        process = guest.process(name);
        process.is_some()
    });
    process.unwrap()
}

fn is_running(guest: &Guest, process: u32) -> bool {
    guest.path(&format!("/proc/{process}")).exists()
}

/// Kills a process, and waits until its parent has waited for it.
pub(crate) fn kill(guest: &Guest, process: u32) {
    guest.ok(&format!("kill -KILL {process}"));
    until("the process ends", || !is_running(guest, process));
}

/// Waits until the journal of the service contains a text.
fn wait_for_log(guest: &Guest, text: &str) {
    let is_logged = || guest.log().contains(text);
    assert!(happens_within(HANG, is_logged), "no {text:?}: {}", guest.log());
}

on_each_system!(killed_processes_of_one_user_disturb_no_other_user);

fn killed_processes_of_one_user_disturb_no_other_user(guest: &Guest) {
    take_role(guest, "unix");
    guest.ok("usermod --append --groups sockbroker-unix alice");
    let monitor = guest.property("MainPID");
    let carol = begin_neighbour(guest);
    let worker = worker_of(guest, "alice");
    for _ in 0..2 {
        let mut alice = begin(guest, "alice", program::WAIT);
        kill(guest, wait_for(guest, &worker));
        assert_eq!(output(&mut alice), "lost\n");
        wait_for_log(guest, ENDED);
        guest.ok_as("alice", CALL);
        // The monitor has passed the channel of the worker to it.
        kill(guest, wait_for(guest, REAPER));
        guest.ok_as("alice", CALL);
    }
    kill_policy_reader(guest, &monitor);
    kill_caller(guest);
    assert_undisturbed(guest, carol, &monitor);
}

/// The reload fails, and the next one succeeds.
fn kill_policy_reader(guest: &Guest, monitor: &str) {
    // Opening it waits for a writer.
    let file = "/etc/sockbroker/policy.d/zz.toml";
    guest.ok(&format!("mkfifo --mode 644 {file}; kill -HUP {monitor}"));
    kill(guest, wait_for(guest, READER));
    wait_for_log(guest, "the new policy cannot be used: the old one stays in force");
    guest.ok_as("alice", CALL);
    guest.ok(&format!("rm {file}; systemctl reload sockbrokerd.service"));
    wait_for_log(guest, "a new policy is in force");
}

/// The call in progress fails, and the next one is made by another process.
fn kill_caller(guest: &Guest) {
    let mut alice = begin(guest, "alice", program::PAIRS);
    until("a call fails", || {
        if let Some(process) = guest.process(CALLER) {
            guest.ok(&format!("kill -STOP {process}"));
            // So that a call is very probably in progress.
            pause(300);
            kill(guest, process);
        }
        alice.try_wait().unwrap().is_some()
    });
    let output = output(&mut alice);
    assert!(output.contains("failed: ") && output.contains(" ended"), "{output}");
    assert!(output.ends_with("served\n"), "{output}");
    guest.report(output.trim());
}

on_each_system!(killed_opener_or_monitor_restarts_the_service_and_leaves_no_process);

fn killed_opener_or_monitor_restarts_the_service_and_leaves_no_process(guest: &Guest) {
    take_role(guest, "ports");
    guest.ok("usermod --append --groups sockbroker-ports alice
              useradd --create-home --groups sockbroker carol");
    let bind = "cd / && SOCKBROKER_MODE=mediated python3 -c '\
        from sockbroker import socket; socket.create_server((\"127.0.0.1\", 80))'";
    for restarts in 1..=4 {
        guest.ok_as("carol", CALL);
        guest.ok_as("alice", bind);
        let mut alice = begin(guest, "alice", program::WAIT);
        let before = guest.processes();
        assert!(before.len() >= 4, "{before:?}");
        let named = guest.ok("pgrep --count --exact sockbrokerd");
        assert_eq!(named.trim(), before.len().to_string(), "{before:?}");
        let monitor = guest.property("MainPID");
        if restarts % 2 == 0 {
            // A call that arrives now waits in the queue of the listening socket, which belongs to systemd.
            guest.ok(&format!("kill -KILL {monitor}"));
            guest.ok_as("alice", CALL);
        } else {
            guest.ok(&format!("kill -KILL {}", guest.process(OPENER).unwrap()));
            assert!(is_replaced(guest, &monitor), "{}", guest.log());
            let log = guest.log();
            assert!(log.contains("the opener has ended"), "{log}");
            assert!(log.contains("code=exited, status=71"), "{log}");
        }
        guest.ok_as("alice", bind);
        guest.ok_as("carol", CALL);
        for (process, name) in before {
            assert!(!is_running(guest, process), "{name} survives: {:?}", guest.processes());
        }
        assert_eq!(output(&mut alice), "lost\n");
        assert_eq!(guest.property("NRestarts"), restarts.to_string(), "{}", guest.log());
        assert_eq!(guest.property("ActiveState"), "active");
    }
}

on_each_system!(stop_ends_processes_that_do_not_run);

fn stop_ends_processes_that_do_not_run(guest: &Guest) {
    take_role(guest, "ports");
    take_role(guest, "unix");
    guest.ok("usermod --append --groups sockbroker-unix alice");
    let pair = "sockbroker call socket.socketpair";
    for names in [&[WORKER][..], &[OPENER, CALLER, REAPER, WORKER]] {
        guest.ok_as("alice", pair);
        kill(guest, guest.process(WORKER).unwrap());
        guest.ok_as("alice", pair);
        let mut alice = begin(guest, "alice", program::WAIT);
        for name in names {
            guest.ok(&format!("kill -STOP {}", wait_for(guest, name)));
        }
        let before = guest.processes();
        let begun = Instant::now();
        guest.ok("systemctl stop sockbrokerd.service");
        guest.report(&format!("ended while {names:?} did not run: {:?}", begun.elapsed()));
        assert_eq!(guest.property("Result"), "success", "{}", guest.log());
        assert_eq!(guest.property("ActiveState"), "inactive");
        assert!(guest.log().contains("did not receive that the broker stops"), "{}", guest.log());
        assert_eq!(guest.processes(), []);
        for (process, name) in before {
            assert!(!is_running(guest, process), "{name} survives");
        }
        assert_eq!(output(&mut alice), "lost\n");
        guest.ok_as("alice", CALL);
    }
}

on_each_system!(worker_out_of_memory_disturbs_no_other_user);

fn worker_out_of_memory_disturbs_no_other_user(guest: &Guest) {
    // Far less than what the limits of the broker let a worker allocate.
    drop_in(guest, "[Service]\nLimitDATA=64M\n");
    assert_eq!(guest.property("OOMPolicy"), "continue");
    let monitor = guest.property("MainPID");
    let carol = begin_neighbour(guest);
    let mut alice = begin(guest, "alice", program::FILL);
    let output = output(&mut alice);
    assert!(output.starts_with("lost"), "{output}{}", guest.log());
    wait_for_log(guest, ENDED);
    guest.ok_as("alice", CALL);
    assert_undisturbed(guest, carol, &monitor);
    let log = guest.log();
    guest.report(log.lines().find(|line| line.contains(ENDED)).unwrap());
    guest.report(output.trim());
}

on_each_system!(worker_that_the_kernel_ends_for_its_memory_disturbs_no_other_user);

fn worker_that_the_kernel_ends_for_its_memory_disturbs_no_other_user(guest: &Guest) {
    // Far less than what the limits of the broker let a worker allocate.
    drop_in(guest, "[Service]\nMemoryMax=150M\nMemorySwapMax=0\n");
    guest.ok_as("alice", CALL);
    let Some(group) = MemoryGroup::of_worker(guest) else {
        let test = "worker_that_the_kernel_ends_for_its_memory_disturbs_no_other_user";
        return skip("no control group limits memory here", test);
    };
    let monitor = guest.property("MainPID");
    let carol = begin_neighbour(guest);
    let mut alice = begin(guest, "alice", program::FILL);
    let output = output(&mut alice);
    assert!(output.starts_with("lost"), "{output}{}", guest.log());
    wait_for_log(guest, ENDED);
    assert_eq!(group.kills(), 1, "{}", guest.log());
    guest.ok_as("alice", CALL);
    assert_undisturbed(guest, carol, &monitor);
    let log = guest.log();
    guest.report(log.lines().find(|line| line.contains(ENDED)).unwrap());
    guest.report(output.trim());
}

/// The control group that limits the memory of a worker.
enum MemoryGroup {
    /// That of the unit, by `MemoryMax=`. The kernel ends the largest process in it.
    Unit(PathBuf),
    /// One of version 1 for the worker alone, on a machine whose memory controller has that version.
    Worker(PathBuf),
}

impl MemoryGroup {
    /// Returns the group of the only worker; `None` if there is no memory controller.
    fn of_worker(guest: &Guest) -> Option<Self> {
        let unit = guest.path("/sys/fs/cgroup/system.slice/sockbrokerd.service");
        if unit.join("memory.max").exists() {
            return Some(Self::Unit(unit));
        }
        let worker = guest.outer_worker();
        let group = PathBuf::from(format!("/sys/fs/cgroup/memory/sockbroker-{worker}"));
        fs::create_dir(&group).ok()?;
        fs::write(group.join("memory.limit_in_bytes"), "150M").unwrap();
        fs::write(group.join("cgroup.procs"), worker.to_string()).unwrap();
        Some(Self::Worker(group))
    }

    /// Returns how many processes the kernel has ended because of the limit.
    fn kills(&self) -> u32 {
        let (Self::Unit(group) | Self::Worker(group)) = self;
        let file =
            if matches!(self, Self::Unit(_)) { "memory.events" } else { "memory.oom_control" };
        let events = fs::read_to_string(group.join(file)).unwrap();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.unwrap().parse().unwrap()
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if let Self::Worker(group) = self
            && let Err(error) = fs::remove_dir(&*group)
        {
            assert!(std::thread::panicking(), "{}: {error}", group.display());
        }
    }
}
