//! The interface to a service manager: passed sockets and notifications.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::{Folder, HANG, LspClient, bounded, until};

use crate::broker::prepare;

/// A service manager: the socket of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    folder: Folder,
}

impl Manager {
    fn new() -> Self {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        Self { socket, folder }
    }

    /// The shell command that sets this and further variables.
    fn variables(&self, further: &str) -> String {
        format!("export NOTIFY_SOCKET={} {further}", self.folder.join("notify").display())
    }

    /// Returns the lines of the next notification, except watchdog notifications.
    fn notification(&self) -> Vec<String> {
        loop {
            let mut text = [0; 1024];
            let length = self.socket.recv(&mut text).unwrap();
            let text = String::from_utf8(text[..length].to_vec()).unwrap();
            if text.trim() != "WATCHDOG=1" {
                return text.lines().map(str::to_owned).collect();
            }
        }
    }
}

#[test]
fn service_manager_is_notified_of_start_reload_and_stop() {
    bounded(20, || {
        let manager = Manager::new();
        let start = prepare().shell(&manager.variables("")).policy("version = 1\n");
        let policy = start.folder().join("policy.toml");
        let mut broker = start.start();
        assert_eq!(manager.notification(), ["READY=1", "STATUS=serving"]);
        let reload = |broker: &mut sockbroker_test_support::Daemon| {
            let before = uptime();
            broker.process().hang_up();
            let notification = manager.notification();
            assert_eq!(notification[0], "RELOADING=1");
            let at =
                notification[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse::<f64>().unwrap();
            let at = Duration::from_secs_f64(at / 1e6);
            // The clock of /proc/uptime includes suspended time and has a resolution of 10 ms.
            assert!(at < uptime() + Duration::from_secs(1), "{at:?}, requested at {before:?}");
            manager.notification()
        };
        assert_eq!(reload(&mut broker), ["READY=1", "STATUS=serving"]);
        fs::write(&policy, "version = 9\n").unwrap();
        let kept = "STATUS=serving with the old policy: the new one is not usable";
        assert_eq!(reload(&mut broker), ["READY=1", kept]);
        fs::write(&policy, "version = 1\n").unwrap();
        assert_eq!(reload(&mut broker), ["READY=1", "STATUS=serving"]);
        broker.process().terminate();
        assert_eq!(manager.notification()[0], "STOPPING=1");
    });
}

fn uptime() -> Duration {
    let text = fs::read_to_string("/proc/uptime").unwrap();
    Duration::from_secs_f64(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn watchdog_is_notified_in_time() {
    bounded(20, || {
        let manager = Manager::new();
        let watchdog = manager.variables("WATCHDOG_USEC=200000 WATCHDOG_PID=$$");
        let _broker = prepare().shell(&watchdog).start();
        assert_eq!(manager.notification()[0], "READY=1");
        manager.socket.set_read_timeout(Some(HANG)).unwrap();
        for _ in 0..3 {
            let mut text = [0; 64];
            let length = manager.socket.recv(&mut text).unwrap();
            assert_eq!(text[..length].trim_ascii(), b"WATCHDOG=1");
        }
    });
}

#[test]
fn passed_socket_is_served_and_not_removed() {
    bounded(20, || {
        let folder = Folder::new();
        let path = folder.join("passed");
        let listener = UnixListener::bind(&path).unwrap();
        let pass = "exec 3<&0 </dev/null && export LISTEN_FDS=1 LISTEN_PID=$$";
        let (mut command, _files) = prepare().shell(pass).command();
        command.stdin(OwnedFd::from(listener.try_clone().unwrap())).stdout(Stdio::null());
        let mut process = Process::spawn(command);
        let mut client = LspClient::connect(&path);
        let notification = client.call("broker.info", Value::Null).result()["process"].clone();
        assert_eq!(
            (&notification["activated"], &notification["pid"]),
            (&json!(true), &json!(process.worker()))
        );
        process.terminate();
        assert!(process.ends().success());
        assert!(path.exists());
        // A client that connects in between waits for the next broker.
        let waiting = UnixStream::connect(&path).unwrap();
        drop(waiting);
    });
}

#[test]
fn unknown_descriptor_of_the_store_is_discarded() {
    bounded(20, || {
        let manager = Manager::new();
        let path = manager.folder.join("passed");
        let listener = UnixListener::bind(&path).unwrap();
        let stored = "LISTEN_FDS=3 LISTEN_FDNAMES=old-1:sockbrokerd.socket:stored LISTEN_PID=$$";
        let pass = format!(
            "exec 4<&0 3</dev/null 5</dev/zero </dev/null && {}",
            manager.variables(stored)
        );
        let (mut command, files) = prepare().shell(&pass).command();
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null());
        let _process = Process::spawn(command);
        assert_eq!(manager.notification(), ["FDSTOREREMOVE=1", "FDNAME=old-1"]);
        assert_eq!(manager.notification(), ["FDSTOREREMOVE=1", "FDNAME=stored"]);
        assert_eq!(manager.notification()[0], "READY=1");
        let mut client = LspClient::connect(&path);
        client.call("session.info", Value::Null).result();
        let log = fs::read_to_string(files.join("log")).unwrap();
        assert!(log.contains("discarded a stored descriptor"), "{log}");
    });
}

#[test]
fn unusable_passed_socket_is_refused_by_name() {
    bounded(20, || {
        let (mut command, files) =
            prepare().shell("exec 3<&0 && export LISTEN_FDS=1 LISTEN_PID=$$").command();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process::spawn(command);
        until("the broker ends", || process.ended().is_some());
        assert_eq!(process.ended().unwrap().code(), Some(69));
        let log = fs::read_to_string(files.join("log")).unwrap();
        assert!(log.contains("not a listening Unix stream socket"), "{log}");
    });
}
