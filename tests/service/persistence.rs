//! Persistent sessions over restarts, upgrades and crashes of the service, with the descriptor store of systemd.

use std::io::{BufRead as _, BufReader};
use std::process::Child;

use sockbroker_test_support::{counts, until};

use crate::crashes::{kill, wait_for, worker_of};
use crate::environment::{self, System, installed_or_skip, take_role};
use crate::guest::Guest;
use crate::lifecycle::{CALL, is_replaced, output};
use crate::upgrade::{put_later_version, upgrade};

/// The program of the clients and their peers, in the guest.
const PROGRAM: &str = "/var/lib/persistent.py";
/// What alice may do with the default policy, and persistent sessions.
const POLICY: &str = "version = 1\n[[rule]]\nname = \"persistent\"\n\
                      subject = { groups = [\"sockbroker\"] }\nallow = [\"persist\"]\n";

/// Installs the program and the rule.
fn prepare(guest: &Guest) {
    guest.write(PROGRAM, include_str!("persistent.py"));
    guest.write("/etc/sockbroker/policy.d/persist.toml", POLICY);
    guest.ok(&format!("chmod 644 {PROGRAM}; systemctl restart sockbrokerd.service"));
}

/// Runs a step of the program as alice, and returns its output.
fn step(guest: &Guest, arguments: &str) -> String {
    guest.ok_as("alice", &format!("exec python3 {PROGRAM} {arguments}")).trim().to_owned()
}

/// Starts a step as alice, and waits until it has begun.
fn begin(guest: &Guest, arguments: &str) -> Child {
    begun(guest, guest.start_as("alice", &command(arguments)))
}

/// Starts a step that is not a process of the guest: the guest does not end it.
fn begin_outside(guest: &Guest, arguments: &str) -> Child {
    begun(guest, guest.start_outside_as("alice", &command(arguments)))
}

fn command(arguments: &str) -> String {
    format!("exec python3 {PROGRAM} {arguments} 2>&1")
}

fn begun(guest: &Guest, mut child: Child) -> Child {
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "begun\n", "{}{}", output(&mut child), guest.log());
    child
}

/// A session of alice with sockets, and their peer.
struct Session<'a> {
    guest: &'a Guest,
    peer: Child,
}

impl<'a> Session<'a> {
    /// Opens the session. `outlives` is what the broker states.
    fn open(guest: &'a Guest, outlives: &str) -> Self {
        let peer = begin_outside(guest, "echo");
        assert_eq!(step(guest, "begin"), outlives);
        Self { guest, peer }
    }

    /// Makes an event happen while a connection, data and a datagram wait, and checks that the session is as before.
    fn outlives(&self, event: &str, epoch: &str, happen: impl FnOnce(&Guest)) {
        let mut knocking = begin_outside(self.guest, &format!("knock '{event}'"));
        happen(self.guest);
        assert_eq!(step(self.guest, &format!("check '{event}' {epoch}")), "as before", "{event}");
        assert_eq!(output(&mut knocking), "answered\n", "{event}");
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        let _ended = self.peer.kill().and_then(|()| self.peer.wait());
    }
}

/// Kills the worker of alice.
fn kill_worker(guest: &Guest) {
    kill(guest, wait_for(guest, &worker_of(guest, "alice")));
}

/// Sends a signal to the monitor, and waits until the service runs in another process.
fn signal(guest: &Guest, name: &str) {
    let process = guest.property("MainPID");
    guest.ok(&format!("kill -{name} {process}"));
    assert!(is_replaced(guest, &process), "{}", guest.log());
}

/// Restarts all of the guest but its kernel and its first process, which keeps the descriptors of services.
fn soft_reboot(guest: &Guest) {
    let unit = "[Service]\nExecStart=touch /run/up-again\n[Install]\nWantedBy=multi-user.target\n";
    guest.write("/etc/systemd/system/up-again.service", unit);
    guest.ok("systemctl enable up-again.service");
    // It stops and ends all processes of the guest, among them the command.
    let mut command = guest.start("systemctl soft-reboot");
    until("the guest is up again", || guest.path("/run/up-again").exists());
    command.kill().and_then(|()| command.wait()).unwrap();
    assert_eq!(guest.ok("systemctl show --property SoftRebootsCount --value"), "1\n");
    guest.ok("ip link set lo up");
}

/// Returns the sessions that the administrator sees, without the header.
fn sessions(guest: &Guest) -> Vec<String> {
    guest.ok("sockbroker sessions").lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn persistent_session_outlives_everything_while_systemd_keeps_its_sockets() {
    let test = "persistent_session_outlives_everything_while_systemd_keeps_its_sockets";
    let Some(guest) = installed_or_skip(test) else { return };
    prepare(&guest);
    assert_eq!(guest.property("FileDescriptorStorePreserve"), "yes");
    let session = Session::open(&guest, "service");
    session.outlives("no event", "same", |_| ());
    session.outlives("worker killed", "new", kill_worker);
    session.outlives("restart", "new", |guest| {
        guest.ok("systemctl restart sockbrokerd.service");
    });
    session.outlives("monitor killed", "new", |guest| signal(guest, "KILL"));
    session.outlives("watchdog", "new", |guest| signal(guest, "STOP"));
    session.outlives("reexec of systemd", "same", |guest| {
        guest.ok("systemctl daemon-reexec");
    });
    session.outlives("reexec, then restart", "new", |guest| {
        guest.ok("systemctl daemon-reexec && systemctl restart sockbrokerd.service");
    });
    session.outlives("stop and start", "new", |guest| {
        guest.ok("systemctl stop sockbrokerd.service");
        assert_eq!(guest.property("SubState"), "dead-resources-pinned");
        guest.ok("systemctl start sockbrokerd.service");
    });
    // The call of the check starts the service.
    session.outlives("stop and call", "new", |guest| {
        guest.ok("systemctl stop sockbrokerd.service");
    });
    let listed = sessions(&guest);
    guest.report(&listed.join("\n"));
    assert!(listed.iter().any(|line| line.contains("service")), "{listed:?}");

    guest.ok("systemctl stop sockbrokerd.service");
    assert_eq!(guest.ok("test -e /var/tmp/persistent/stream-ended || echo open").trim(), "open");
    guest.ok("systemctl clean --what=fdstore sockbrokerd.service");
    assert_eq!(guest.property("NFileDescriptorStore"), "0");
    assert_eq!(step(&guest, "gone"), "session");
}

#[test]
fn persistent_session_outlives_a_soft_reboot() {
    let test = "persistent_session_outlives_a_soft_reboot";
    let Some(guest) = installed_or_skip(test) else { return };
    prepare(&guest);
    let session = Session::open(&guest, "service");
    let process = guest.property("MainPID");
    session.outlives("soft reboot", "new", soft_reboot);
    assert_ne!(guest.property("MainPID"), process);
}

#[test]
fn persistent_session_ends_when_an_old_systemd_stops_the_service() {
    let test = "persistent_session_ends_when_an_old_systemd_stops_the_service";
    environment::on(System::Oldest, test, |guest| {
        prepare(guest);
        // It does not report its store, and ignores FileDescriptorStorePreserve=.
        let session = Session::open(guest, "worker");
        session.outlives("worker killed", "new", kill_worker);
        session.outlives("restart", "new", |guest| {
            guest.ok("systemctl restart sockbrokerd.service");
        });
        session.outlives("monitor killed", "new", |guest| signal(guest, "KILL"));
        session.outlives("reexec of systemd", "same", |guest| {
            guest.ok("systemctl daemon-reexec");
        });
        guest.ok("systemctl stop sockbrokerd.service");
        assert_eq!(step(guest, "gone"), "session");
    });
}

on_each_system!(transfers_continue_through_an_upgrade_of_the_package);

fn transfers_continue_through_an_upgrade_of_the_package(guest: &Guest) {
    prepare(guest);
    put_later_version(guest);
    let ways = ["download", "upload", "descriptor", "mediated_download", "mediated_upload"];
    let mut transfers = ways.map(|name| begin(guest, name));
    let process = guest.property("MainPID");
    upgrade(guest);
    assert_ne!(guest.property("MainPID"), process);
    guest.ok_as("alice", CALL);
    guest.ok("touch /tmp/enough");
    for (transfer, again) in transfers.iter_mut().zip([1, 1, 0, 0, 0]) {
        let output = output(transfer);
        let expected = format!("equal digests, attached again {again} times\n");
        assert!(output.ends_with(&expected), "{output}{}", guest.log());
        guest.report(output.trim());
    }
}

on_each_system!(captures_continue_through_an_upgrade_of_the_package);

fn captures_continue_through_an_upgrade_of_the_package(guest: &Guest) {
    prepare(guest);
    take_role(guest, "capture");
    guest.ok("usermod --append --groups sockbroker-capture alice");
    put_later_version(guest);
    let mut captures = ["capture", "sniff"].map(|name| begin(guest, name));
    let process = guest.property("MainPID");
    upgrade(guest);
    assert_ne!(guest.property("MainPID"), process);
    // The command makes calls, so that its session does not wait longer than `reattach_seconds`.
    until("the command has returned to its session", || {
        let listed = guest.ok("sockbroker --json sessions");
        let listed: Vec<serde_json::Value> = serde_json::from_str(&listed).unwrap();
        let is_back = |session: &serde_json::Value| session["connections"].as_u64() > Some(0);
        listed.iter().any(|session| !session["persist"].is_null() && is_back(session))
    });
    guest.ok("touch /tmp/enough");
    for capture in &mut captures {
        let output = output(capture);
        assert!(output.ends_with(" lost and counted, continued once\n"), "{output}{}", guest.log());
        guest.report(output.trim());
    }
}

#[test]
fn persistent_listener_refuses_no_connection_while_the_service_restarts() {
    let test = "persistent_listener_refuses_no_connection_while_the_service_restarts";
    let Some(guest) = installed_or_skip(test) else { return };
    prepare(&guest);
    let mut server = begin(&guest, "serve");
    let mut client = begin(&guest, &format!("connect {}", counts::CONNECTIONS.get()));
    for _ in 0..counts::SERVICE_RESTARTS.get() {
        // These restarts do not count for the limit of starts.
        guest.ok("systemctl reset-failed sockbrokerd.service
                  systemctl restart sockbrokerd.service");
        guest.ok_as("alice", CALL);
    }
    guest.ok("touch /var/tmp/persistent/restarted");
    let outcomes = output(&mut client);
    guest.ok("touch /tmp/enough");
    assert_eq!(output(&mut server), "", "{outcomes}{}", guest.log());
    guest.report(&format!("connections to a persistent listener: {}", outcomes.trim()));
    let outcomes: serde_json::Value = serde_json::from_str(&outcomes).unwrap();
    let served = outcomes["served"].as_u64().unwrap();
    assert!(served >= u64::from(counts::CONNECTIONS.get()), "{outcomes}");
    assert_eq!(outcomes.as_object().unwrap().len(), 1, "{outcomes}");
    until("the service runs", || guest.property("ActiveState") == "active");
}
