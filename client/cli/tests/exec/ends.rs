//! Ends of the supervisor, of the launcher and of the broker, and many programs.

use std::fs;
use std::process::Child;

use sockbroker_test_support::daemon::kill_process;
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::until;

use crate::stage::{ALL, Outcome, PYTHON, Stage};

/// The children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// The process that executes the program under test, below timeout(1), and its supervisor.
pub(crate) fn processes(started: &Child) -> (u32, u32) {
    let mut found = None;
    until("the supervisor has its child", || {
        let launcher = children(started.id()).first().copied();
        let supervisor = launcher.and_then(|launcher| children(launcher).first().copied());
        found =
            launcher.zip(supervisor).filter(|(_, supervisor)| !children(*supervisor).is_empty());
        found.is_some()
    });
    found.unwrap()
}

/// Waits for a file of the stage.
pub(crate) fn file(stage: &Stage, name: &str) {
    until(name, || stage.folder.join(name).exists());
}

/// Writes a file when `go` exists.
pub(crate) const AFTER_GO: &str = "
import os, socket, sys, threading, time
open('ready', 'w').close()
while not os.path.exists('go'):
    time.sleep(0.01)
";

#[test]
fn program_goes_on_natively_without_its_supervisor() {
    inside_with_users("ends::program_goes_on_natively_without_its_supervisor", || {
        let stage = Stage::new(ALL);
        // A call in progress when the supervisor is killed, and calls after that.
        let text = format!(
            "
import threading, socket
def refused():
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    except OSError as error:
        open('answered', 'w').write(str(error.errno))
threading.Thread(target=refused).start()
{AFTER_GO}
plain = socket.socket()
plain.bind(('127.0.0.1', 0))
try:
    socket.socket().bind(('127.0.0.1', 94))
except OSError as error:
    print(error.errno, plain.getsockname()[1] > 0)
sys.exit(9)
"
        );
        let started = stage.exec(&["--delay", "60000"], &[PYTHON, "-c", &text]).spawn().unwrap();
        let (_, supervisor) = processes(&started);
        file(&stage, "ready");
        kill_process(supervisor);
        // The call that the supervisor had received is answered too: by the kernel, with EPERM.
        until("the call is answered", || {
            fs::read_to_string(stage.folder.join("answered")).is_ok_and(|text| text == "1")
        });
        stage.folder.write("go", "");
        let outcome = Outcome::from(started.wait_with_output().unwrap());
        assert_eq!((outcome.code, outcome.out.as_str()), (71, "13 True\n"), "{outcome:?}");
        assert!(outcome.err.contains("the supervisor has ended"), "{outcome:?}");
    });
}

#[test]
fn program_ends_with_its_launcher() {
    inside_with_users("ends::program_ends_with_its_launcher", || {
        let stage = Stage::new(ALL);
        let started = stage.exec(&[], &["sleep", "1000"]).spawn().unwrap();
        let (launcher, supervisor) = processes(&started);
        let program = children(supervisor)[0];
        kill_process(launcher);
        for process in [program, supervisor] {
            until("it ends", || !fs::exists(format!("/proc/{process}")).unwrap());
        }
        started.wait_with_output().unwrap();
    });
}

#[test]
fn broker_that_ends_leaves_native_calls() {
    inside_with_users("ends::broker_that_ends_leaves_native_calls", || {
        let mut stage = Stage::new(ALL);
        let text = format!(
            "
import socket
socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()
{AFTER_GO}
for _ in range(3):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    except OSError as error:
        print(error.errno)
"
        );
        let started = stage.exec(&[], &[PYTHON, "-c", &text]).spawn().unwrap();
        file(&stage, "ready");
        stage.broker.process().terminate();
        stage.broker.process().ends();
        stage.folder.write("go", "");
        let outcome = Outcome::from(started.wait_with_output().unwrap());
        assert_eq!(outcome.err.matches("the broker does not answer").count(), 1, "{outcome:?}");
        assert_eq!(outcome.success(), "1\n1\n1\n");
    });
}

#[test]
fn slow_call_delays_no_other_thread() {
    inside_with_users("ends::slow_call_delays_no_other_thread", || {
        let stage = Stage::new(ALL);
        let text = "
import os, socket, threading
def slow():
    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    os.write(1, b'slow\\n')
waiting = threading.Thread(target=slow, daemon=True)
waiting.start()
for _ in range(200):
    plain = socket.socket()
    plain.bind(('127.0.0.1', 0))
    plain.close()
os.write(1, b'plain\\n')
os._exit(0)
";
        assert_eq!(stage.python(&["--delay", "150000"], text).success(), "plain\n");
    });
}

#[test]
fn many_programs_at_once_leave_nothing() {
    inside_with_users("ends::many_programs_at_once_leave_nothing", || {
        let stage = Stage::new(ALL);
        let text = "
import os, socket
children = []
for _ in range(200):
    child = os.fork()
    if child == 0:
        os._exit(0 if socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno() == 3 else 1)
    children.append(child)
print(sum(os.waitpid(child, 0)[1] for child in children))
supervisor = os.readlink('/proc/self').strip() and os.getppid()
# Those that answer, two that receive, one that watches the launcher, and the first.
print(len(os.listdir(f'/proc/{supervisor}/task')) <= 64 + 4)
";
        let outcome = stage.python(&[], text);
        assert_eq!((outcome.out.as_str(), outcome.err.as_str()), ("0\nTrue\n", ""));
    });
}
