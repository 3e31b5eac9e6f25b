//! Start, stop and restart of the service.

use std::io::Read as _;
use std::process::Child;

use sockbroker_test_support::{HANG, happens_within, pause};

use crate::environment::installed_or_skip;
use crate::guest::Guest;

/// A call that every member of the broker's group can make.
pub(crate) const CALL: &str = "sockbroker call socket.gethostname";

/// Waits until the service runs in another process.
pub(crate) fn is_replaced(guest: &Guest, process: &str) -> bool {
    happens_within(HANG, || {
        pause(100);
        let now = guest.property("MainPID");
        now != "0" && now != process && guest.property("ActiveState") == "active"
    })
}

/// Adds a drop-in to the unit, as an administrator does.
pub(crate) fn drop_in(guest: &Guest, text: &str) {
    guest.write("/etc/systemd/system/sockbrokerd.service.d/test.conf", text);
    guest.ok("systemctl daemon-reload && systemctl restart sockbrokerd.service");
}

on_each_system!(stopped_event_loop_is_detected_and_the_service_restarted);

fn stopped_event_loop_is_detected_and_the_service_restarted(guest: &Guest) {
    guest.ok_as("alice", CALL);
    let process = guest.property("MainPID");
    assert_eq!(guest.property("WatchdogUSec"), "10s");
    guest.ok(&format!("kill -STOP {process}"));
    assert!(is_replaced(guest, &process), "{}", guest.log());
    assert!(guest.log().contains("Watchdog timeout (limit 10s)!"), "{}", guest.log());
    guest.ok_as("alice", CALL);
}

#[test]
fn running_event_loop_is_not_restarted() {
    let Some(guest) = installed_or_skip("running_event_loop_is_not_restarted") else { return };
    drop_in(&guest, "[Service]\nWatchdogSec=5s\n");
    let process = guest.property("MainPID");
    pause(12_000);
    assert_eq!(guest.property("MainPID"), process, "{}", guest.log());
    assert_eq!(guest.property("NRestarts"), "0");
}

on_each_system!(killed_service_is_restarted_for_the_next_call);

fn killed_service_is_restarted_for_the_next_call(guest: &Guest) {
    for _ in 0..3 {
        guest.ok_as("alice", CALL);
        let process = guest.property("MainPID");
        // The main process, and clients that wait for an answer.
        let mut waiting = wait_for_a_datagram(guest, 30);
        guest.ok("systemctl kill --signal=KILL sockbrokerd.service");
        // No client gets an error: the socket belongs to the service manager, and connections wait in its queue.
        guest.ok_as("alice", CALL);
        assert_ne!(guest.property("MainPID"), process);
        let output = output(&mut waiting);
        assert!(output.contains("ConnectionError") || output.contains("OSError"), "{output}");
    }
    assert_eq!(guest.property("NRestarts"), "3");
}

#[test]
fn repeatedly_killed_service_is_restarted() {
    let test = "repeatedly_killed_service_is_restarted";
    let Some(guest) = installed_or_skip(test) else { return };
    let kill = "systemctl kill --signal=KILL sockbrokerd.service";
    // The default limit of systemd is 5 restarts in 10 seconds.
    assert_eq!(guest.property("StartLimitBurst"), "20");
    for _ in 0..12 {
        guest.ok_as("alice", CALL);
        guest.ok(kill);
    }
    guest.ok_as("alice", CALL);
    assert_eq!(guest.property("NRestarts"), "12", "{}", guest.log());
}

/// Starts a client as alice that waits for a datagram for this time. No datagram arrives.
fn wait_for_a_datagram(guest: &Guest, seconds: u32) -> Child {
    let program = format!(
        "import sys\nfrom sockbroker import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\n\
         s.bind((\"127.0.0.1\", 0))\ns.settimeout({seconds})\nprint(\"waiting\", flush=True)\n\
         try:\n    s.recv(1)\nexcept Exception as error:\n    print([type.__name__ for type in type(error).__mro__], error)\n"
    );
    let command = format!("cd / && SOCKBROKER_MODE=mediated exec python3 -c '{program}'");
    let mut client = guest.start_as("alice", &command);
    let mut line = [0; 8];
    client.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"waiting\n");
    // The call has been sent.
    pause(300);
    client
}

/// Returns the output of a client after its end.
pub(crate) fn output(client: &mut Child) -> String {
    let mut text = String::new();
    client.stdout.as_mut().unwrap().read_to_string(&mut text).unwrap();
    client.wait().unwrap();
    text
}

#[test]
fn stop_waits_for_calls_in_flight() {
    let Some(guest) = installed_or_skip("stop_waits_for_calls_in_flight") else { return };
    // Longer than a worker may take that does not respond, and shorter than drain_seconds.
    let mut waiting = wait_for_a_datagram(&guest, 4);
    let process = guest.property("MainPID");
    guest.ok("systemctl stop sockbrokerd.service");
    assert_eq!(guest.property("Result"), "success", "{}", guest.log());
    let output = output(&mut waiting);
    assert!(output.contains("timed out"), "{output}\n{}", guest.log());
    // The socket is not stopped, so the next call starts the service.
    guest.ok_as("alice", CALL);
    assert_ne!(guest.property("MainPID"), process);
}

#[test]
fn stop_waits_no_longer_than_drain_seconds() {
    let test = "stop_waits_no_longer_than_drain_seconds";
    let Some(guest) = installed_or_skip(test) else { return };
    guest.ok(
        "sed -i 's/^#* *drain_seconds = .*/drain_seconds = 1/' /etc/sockbroker/sockbrokerd.toml
              grep -q '^drain_seconds = 1$' /etc/sockbroker/sockbrokerd.toml
              systemctl restart sockbrokerd.service",
    );
    let mut waiting = wait_for_a_datagram(&guest, 30);
    guest.ok("systemctl stop sockbrokerd.service");
    assert_eq!(guest.property("Result"), "success", "{}", guest.log());
    let output = output(&mut waiting);
    assert!(!output.contains("timed out"), "{output}");
}

#[test]
fn systemd_waits_until_the_broker_serves() {
    let Some(guest) = installed_or_skip("systemd_waits_until_the_broker_serves") else { return };
    guest.ok("systemctl stop sockbrokerd.service");
    guest.write(
        "/etc/systemd/system/sockbrokerd.service.d/test.conf",
        "[Service]\nExecStart=\nExecStart=/bin/sh -c \
         'until [ -e /run/go ]; do sleep 0.1; done; exec /usr/bin/sockbrokerd'\n",
    );
    guest
        .ok("systemctl daemon-reload && systemctl start --no-block sockbrokerd.service && sleep 1");
    assert_eq!(guest.property("ActiveState"), "activating");
    guest.ok("touch /run/go; systemctl start sockbrokerd.service");
    assert_eq!(guest.property("ActiveState"), "active");
    assert_eq!(guest.property("StatusText"), "serving");
    guest.ok_as("alice", CALL);
}
