//! Programs that are stopped, frozen or closed to inspection, locked packet filters, and a broker that restarts.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::skip::{program_or_skip, skip};
use sockbroker_test_support::until;

use crate::ends::{AFTER_GO, children, file, processes};
use crate::stage::{ALL, Outcome, PYTHON, Stage};

/// Creates many sockets when `go` exists. Prints how many, and how many descriptors are left.
const MANY: &str = "
import os, socket, time
open('ready', 'w').close()
while not os.path.exists('go'):
    time.sleep(0.01)
before = len(os.listdir('/proc/self/fd'))
good = 0
for _ in range(120):
    made = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
    made.close()
    low = socket.socket()
    low.bind(('127.0.0.1', 97))
    low.close()
    good += 1
print(good, len(os.listdir('/proc/self/fd')) - before)
";

/// Sends a signal.
fn signal(name: &str, processes: &[u32]) {
    let mut command = Command::new("kill");
    command.arg(format!("-{name}")).args(processes.iter().map(u32::to_string));
    // A process may have ended.
    drop(command.output().unwrap());
}

#[test]
fn stopped_processes_lose_no_call() {
    inside_with_users("states::stopped_processes_lose_no_call", || {
        let stage = Stage::new(ALL);
        let started = stage.exec(&[], &[PYTHON, "-c", MANY]).spawn().unwrap();
        let (launcher, supervisor) = processes(&started);
        let program = children(supervisor)[0];
        file(&stage, "ready");
        let waiting = thread::spawn(move || started.wait_with_output().unwrap());
        stage.folder.write("go", "");
        while !waiting.is_finished() {
            for stopped in [&[supervisor][..], &[program], &[program, supervisor]] {
                signal("STOP", stopped);
                signal("CONT", &[supervisor, program, launcher]);
            }
        }
        assert_eq!(Outcome::from(waiting.join().unwrap()).success(), "120 0\n");
    });
}

/// A control group whose processes can be frozen.
struct Freezer {
    folder: PathBuf,
    file: &'static str,
    states: [&'static str; 2],
}

impl Freezer {
    /// `None` if this process cannot create one.
    fn new() -> Option<Self> {
        let kinds = [
            ("/sys/fs/cgroup", "cgroup.freeze", ["1", "0"]),
            ("/sys/fs/cgroup/unified", "cgroup.freeze", ["1", "0"]),
            ("/sys/fs/cgroup/freezer", "freezer.state", ["FROZEN", "THAWED"]),
        ];
        kinds.into_iter().find_map(|(parent, file, states)| {
            let folder = PathBuf::from(format!("{parent}/sockbroker-exec-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let made = Self { folder, file, states };
            made.folder.join(file).exists().then_some(made)
        })
    }

    fn add(&self, process: u32) {
        fs::write(self.folder.join("cgroup.procs"), process.to_string()).unwrap();
    }

    fn freeze_and_thaw(&self) {
        for state in self.states {
            fs::write(self.folder.join(self.file), state).unwrap();
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        // A control group is empty when its processes have been reaped.
        until("the control group is empty", || fs::remove_dir(&self.folder).is_ok());
    }
}

#[test]
fn frozen_processes_lose_no_call() {
    const TEST: &str = "states::frozen_processes_lose_no_call";
    inside_with_users(TEST, || {
        let Some(freezer) = Freezer::new() else {
            return skip("no control group that can be frozen", TEST);
        };
        let stage = Stage::new(ALL);
        // The program alone, and with its supervisor.
        for together in [false, true] {
            let started = stage.exec(&[], &[PYTHON, "-c", MANY]).spawn().unwrap();
            let (_, supervisor) = processes(&started);
            freezer.add(children(supervisor)[0]);
            if together {
                freezer.add(supervisor);
            }
            stage.folder.write("go", "");
            let waiting = thread::spawn(move || started.wait_with_output().unwrap());
            while !waiting.is_finished() {
                freezer.freeze_and_thaw();
            }
            fs::remove_file(stage.folder.join("go")).unwrap();
            assert_eq!(Outcome::from(waiting.join().unwrap()).success(), "120 0\n");
        }
    });
}

#[test]
fn program_that_is_closed_to_inspection_has_native_calls() {
    inside_with_users("states::program_that_is_closed_to_inspection_has_native_calls", || {
        let stage = Stage::new(ALL);
        let text = "
import ctypes, socket
assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0  # PR_SET_DUMPABLE
for call in (lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), lambda: socket.socket().bind(('127.0.0.1', 98))):
    try:
        call()
        print('made')
    except OSError as error:
        print(error.errno)
plain = socket.socket()
plain.bind(('127.0.0.1', 0))
";
        assert_eq!(stage.python(&[], text).success(), "1\n13\n");
    });
}

#[test]
fn filter_of_a_locked_socket_is_left_to_the_program() {
    inside_with_users("states::filter_of_a_locked_socket_is_left_to_the_program", || {
        let stage = Stage::new(ALL);
        // libpcap filters itself after ENOPROTOOPT, and ends after any other error.
        let text = "
import ctypes, socket, struct
ATTACH, DETACH, LOCK = 26, 27, 44
code = ctypes.create_string_buffer(struct.pack('HBBI', 6, 0, 0, 0xffff))
program = struct.pack('HP', 1, ctypes.addressof(code))
def set(name, value):
    try:
        sock.setsockopt(socket.SOL_SOCKET, name, value)
        return 0
    except OSError as error:
        return error.errno
for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_DGRAM)):
    sock = socket.socket(family, kind)
    print(set(ATTACH, program), set(DETACH, 0), set(DETACH, 0))
    print(set(ATTACH, program), set(LOCK, 1), set(ATTACH, program), set(DETACH, 0), set(LOCK, 0))
";
        // ENOENT: there is no filter to detach. EPERM: the kernel refuses to unlock.
        let each = "0 0 2\n0 0 92 0 1\n";
        assert_eq!(stage.python(&[], text).success(), each.repeat(2));
    });
}

#[test]
fn broker_that_restarts_serves_further_calls() {
    inside_with_users("states::broker_that_restarts_serves_further_calls", || {
        let mut stage = Stage::new(ALL);
        let text = format!(
            "
import socket
first = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
{AFTER_GO}
second = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
socket.socket().bind(('127.0.0.1', 99))
print(first.fileno(), second.fileno())
"
        );
        let started = stage.exec(&[], &[PYTHON, "-c", &text]).spawn().unwrap();
        file(&stage, "ready");
        let path = stage.broker.socket().to_owned();
        stage.broker.process().terminate();
        stage.broker.process().ends();
        let next = Stage::new(ALL);
        fs::rename(next.broker.socket(), path).unwrap();
        stage.folder.write("go", "");
        let outcome = Outcome::from(started.wait_with_output().unwrap());
        assert_eq!(outcome.err, "");
        assert_eq!(outcome.success(), "3 4\n");
    });
}

#[test]
fn java() {
    const TEST: &str = "states::java";
    if !program_or_skip("java", TEST) {
        return;
    }
    inside_with_users(TEST, || {
        let stage = Stage::new(ALL);
        let text = "
public class Low {
    public static void main(String[] arguments) throws Exception {
        var stream = new java.net.ServerSocket(84);
        var datagram = new java.net.DatagramSocket(85);
        var here = java.net.InetAddress.getByName(\"127.0.0.1\");
        System.out.println(stream.getLocalPort() + \" \" + datagram.getLocalPort() + \" \" + here.isReachable(60000));
    }
}";
        let file = stage.folder.write("Low.java", text);
        let words = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", file.to_str().unwrap()];
        let outcome = stage.run(&[], &words);
        if outcome.err.contains("jdk.compiler") {
            return skip("java without its compiler", TEST);
        }
        assert_eq!(outcome.success(), "84 85 true\n");
    });
}
