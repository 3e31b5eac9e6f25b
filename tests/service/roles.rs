//! Roles: the capabilities of the service, and what members can do.

use std::io::Read as _;
use std::time::Instant;

use sockbroker_test_support::skip::skip;
use sockbroker_test_support::until;

use crate::environment::{installed_or_skip, take_role};
use crate::guest::Guest;

/// `CAP_NET_RAW`.
pub(crate) const NET_RAW: u64 = 1 << 13;
/// Of the monitor: `CAP_KILL`, `CAP_SETGID` and `CAP_SETUID`.
pub(crate) const OF_MONITOR: u64 = 1 << 5 | 1 << 6 | 1 << 7;
/// The highest exposure of the service without a role.
const EXPOSURE: f64 = 2.1;
/// Roles that need capabilities, with their numbers (`linux/capability.h`), and the highest exposure of the service.
const ROLES: [(&str, u64, f64); 7] = [
    ("capture", NET_RAW, 2.3),
    // With CAP_NET_BIND_SERVICE, CAP_NET_ADMIN and CAP_SYS_ADMIN.
    ("netns", NET_RAW | 1 << 10 | 1 << 12 | 1 << 21, 2.8),
    ("scapy", NET_RAW, 2.3),
    ("options", 1 << 12, 2.2),
    ("ports", 1 << 10, 2.1),
    ("unix", 0, EXPOSURE),
    ("system", 1 << 21, 2.4),
];
/// The same with all roles.
const EXPOSURE_OF_ALL: f64 = 2.8;

/// Returns the capabilities of the service: permitted and effective sets of the monitor and the opener together, and the
/// permitted set of alice's worker.
pub(crate) fn capabilities(guest: &Guest) -> [u64; 3] {
    let info = guest.ok_as("alice", "sockbroker call broker.info");
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let set = |process: &str, name: &str| {
        let status = guest.read(&format!("/proc/{process}/status")).unwrap();
        let set = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(set.trim(), 16).unwrap()
    };
    let main = guest.property("MainPID");
    let opener = guest.ok("grep -ls '^sockbrokerd: opener' /proc/[0-9]*/cmdline | cut -d/ -f3");
    let service: Vec<&str> = [main.as_str()].into_iter().chain(opener.split_whitespace()).collect();
    let of_service = |name| service.iter().fold(0, |all, process| all | set(process, name));
    let worker = info["process"]["pid"].to_string();
    [of_service("CapPrm:"), of_service("CapEff:"), set(&worker, "CapPrm:")]
}

/// Writes how systemd rates the exposure of the service, which must not be higher than `most`.
fn report_exposure(guest: &Guest, roles: &str, most: f64) {
    let report = guest.ok("systemd-analyze security --no-pager sockbrokerd.service");
    let (_, exposure) = report.rsplit_once("sockbrokerd.service: ").unwrap();
    guest.report(&format!("exposure {roles}: {}", exposure.trim()));
    let rated: f64 = exposure.split_whitespace().next().unwrap().parse().unwrap();
    assert!(rated <= most, "{roles}: {rated} is above {most}: {report}");
}

/// Removes all roles.
fn leave_roles(guest: &Guest) {
    guest.ok("rm -rf /etc/systemd/system/sockbrokerd.service.d /etc/sockbroker/policy.d/*.toml
              systemctl daemon-reload
              systemctl reset-failed
              systemctl restart sockbrokerd.service");
}

on_each_system!(service_has_exactly_the_capabilities_of_its_roles);

fn service_has_exactly_the_capabilities_of_its_roles(guest: &Guest) {
    guest.ok_as("alice", "sockbroker call socket.gethostname");
    assert_eq!(capabilities(guest), [OF_MONITOR, OF_MONITOR, 0], "without a role");
    report_exposure(guest, "without a role", EXPOSURE);
    for (role, set, exposure) in ROLES {
        take_role(guest, role);
        let all = OF_MONITOR | set;
        assert_eq!(capabilities(guest), [all, all, 0], "{role}");
        report_exposure(guest, &format!("with role {role}"), exposure);
        // Capabilities that no rule can use are dropped before the first byte is read.
        guest.ok(&format!(
            "rm /etc/sockbroker/policy.d/{role}.toml; systemctl restart sockbrokerd.service"
        ));
        assert_eq!(capabilities(guest), [OF_MONITOR, OF_MONITOR, 0], "{role} without its policy");
        leave_roles(guest);
    }
    for (role, ..) in ROLES {
        guest.ok("systemctl reset-failed");
        take_role(guest, role);
    }
    let all = ROLES.iter().fold(OF_MONITOR, |all, (_, set, _)| all | set);
    assert_eq!(capabilities(guest), [all, all, 0], "all roles");
    report_exposure(guest, "with all roles", EXPOSURE_OF_ALL);
}

/// Returns the command of a Python program with these lines that uses sockets of the broker.
fn mediated(lines: &[&str]) -> String {
    let program = lines.join("\n");
    format!(
        "cd / && cat >/tmp/program.$$ <<'.' && python3 -m sockbroker --mode mediated /tmp/program.$$\n{program}\n.\n"
    )
}

/// Boots a guest in which alice is a member of one role.
pub(crate) fn member_or_skip(role: &str, test: &str) -> Option<Guest> {
    let guest = installed_or_skip(test)?;
    take_role(&guest, role);
    guest.ok(&format!("usermod --append --groups sockbroker-{role} alice"));
    Some(guest)
}

#[test]
fn ports_role_can_listen_on_port_80() {
    let Some(guest) = member_or_skip("ports", "ports_role_can_listen_on_port_80") else { return };
    let serve = |port: u16| {
        mediated(&[
            "import socket",
            &format!("server = socket.create_server(('127.0.0.1', {port}))"),
            &format!("client = socket.create_connection(('127.0.0.1', {port}), 5)"),
            "server.accept()[0].sendall(b'hello')",
            "print(client.recv(10))",
        ])
    };
    assert_eq!(guest.ok_as("alice", &serve(80)).trim(), "b'hello'");
    let refused = guest.run_as("alice", &serve(81));
    assert!(refused.output.contains("PermissionError: [Errno 13]"), "{}", refused.output);
}

#[test]
fn members_run_unmodified_programs_by_exec() {
    let test = "members_run_unmodified_programs_by_exec";
    let Some(guest) = member_or_skip("ports", test) else { return };
    for role in ["ping", "capture"] {
        take_role(&guest, role);
        guest.ok(&format!("usermod --append --groups sockbroker-{role} alice"));
    }
    let served = guest.ok_as("alice", "cd $(mktemp -d) && echo served >page
        sockbroker exec python3 -m http.server --bind 127.0.0.1 80 2>log & server=$!
        fetch() { python3 -c 'import urllib.request as u; print(u.urlopen(\"http://127.0.0.1/page\").read())'; }
        until fetch 2>/dev/null; do kill -0 $server || exec cat log; sleep 0.1; done
        kill $server");
    assert_eq!(served.trim(), "b'served\\n'");
    let answered = guest.ok_as("alice", "sockbroker exec ping -c 1 127.0.0.1");
    assert!(answered.contains("1 received"), "{answered}");
    // The role for captures passes no packet socket: an administrator adds that.
    let capture = "sockbroker exec tcpdump -i lo -c 1 -n -l udp port 9999";
    let refused = guest.run_as("alice", capture);
    assert!(refused.output.contains("handover = \"unrevocable\""), "{}", refused.output);
    guest.write(
        "/etc/sockbroker/policy.d/tcpdump.toml",
        "version = 1\n[[rule]]\nname = \"tcpdump\"\nsubject = { groups = [\"sockbroker-capture\"] }\n\
         allow = [\"handover\"]\nfamily = [\"AF_PACKET\"]\nhandover = \"unrevocable\"\n",
    );
    guest.ok("systemctl reload sockbrokerd.service");
    let captured = guest.ok_as(
        "alice",
        &format!(
            "
        python3 -c 'import socket; s = socket.socket(type=2)
while True: s.sendto(b\"x\", (\"127.0.0.1\", 9999))' & sender=$!
        {capture}
        kill $sender"
        ),
    );
    assert!(captured.contains("127.0.0.1.9999: UDP, length 1"), "{captured}");
}

#[test]
fn options_role_can_mark_packets() {
    let Some(guest) = member_or_skip("options", "options_role_can_mark_packets") else { return };
    let marked = guest.ok_as(
        "alice",
        &mediated(&[
            "import socket",
            "s = socket.socket()",
            "s.setsockopt(socket.SOL_SOCKET, 36, 7)",
            "print(s.getsockopt(socket.SOL_SOCKET, 36))",
        ]),
    );
    assert_eq!(marked.trim(), "7");
}

#[test]
fn unix_role_connects_with_the_members_identity() {
    let test = "unix_role_connects_with_the_members_identity";
    let Some(guest) = member_or_skip("unix", test) else { return };
    let seen = guest.ok_as("alice", &mediated(&[
        "import os, socket, struct, tempfile",
        "path = tempfile.mkdtemp() + '/socket'",
        "server = socket.create_server(path, family=socket.AF_UNIX)",
        "client = socket.socket(socket.AF_UNIX)",
        "client.connect(path)",
        "seen = server.accept()[0].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)",
        "print(struct.unpack('3i', seen)[1] == os.getuid(), os.stat(path).st_uid == os.getuid())",
    ]));
    assert_eq!(seen.trim(), "True True");
}

#[test]
fn system_role_can_rename_the_host() {
    let Some(guest) = member_or_skip("system", "system_role_can_rename_the_host") else { return };
    guest.ok_as("alice", "sockbroker call socket.sethostname name=renamed");
    assert_eq!(guest.ok("uname -n").trim(), "renamed");
}

/// Pings, captures and serves port 80 in the network namespace in which it runs, which it cannot by itself, and tries what
/// is outside.
const POD: &str = r#"
import errno, os, socket, sockbroker
assert "CapEff:\t0000000000000000\n" in open("/proc/self/status").read()
own = sockbroker.namespace("caller")
ping = own.socket(socket.AF_INET, socket.SOCK_RAW, 1)
packets = own.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
packets.bind(("lo", 0x0800))
ping.sendto(bytes([8, 0, 0xf7, 0xfe, 0, 0, 0, 1]), ("127.0.0.1", 0))
assert ping.recv(100)[20] in (0, 8) and packets.recv(100)
server = own.socket()
server.bind(("127.0.0.1", 80))
server.listen()
client = own.create_connection(("127.0.0.1", 80), 5)
server.accept()[0].sendall(b"hello")
assert client.recv(10) == b"hello"
for expected, refused in (
    (errno.EPERM, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    (errno.EACCES, lambda: socket.socket().bind(("127.0.0.1", 81))),
    (errno.EPERM, lambda: sockbroker.socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    (errno.EACCES, lambda: sockbroker.namespace("other").socket()),
    # The namespace has no way out, and none of the interfaces of the host.
    (errno.ENETUNREACH, lambda: ping.sendto(bytes(8), ("192.0.2.1", 0))),
    (errno.ENODEV, lambda: packets.bind(("host0", 0x0800))),
):
    try:
        refused()
    except OSError as error:
        assert error.errno == expected, error
    else:
        raise AssertionError("granted outside of the own namespace")
print("served", os.getuid())
"#;

on_each_system!(netns_role_is_about_the_namespace_of_the_member_alone);

fn netns_role_is_about_the_namespace_of_the_member_alone(guest: &Guest) {
    let test = "netns_role_is_about_the_namespace_of_the_member_alone";
    take_role(guest, "netns");
    guest.write("/var/lib/pod.py", POD);
    guest.ok("chmod 644 /var/lib/pod.py");
    if guest.run("ip link add host0 type veth peer name host1").code != Some(0) {
        skip("no veth interfaces here", test);
    }
    let groups = "--groups=$(getent group sockbroker sockbroker-netns | cut -d: -f3 | paste -sd,)";
    let ids = format!("--reuid=100000 --regid=100000 {groups}");
    let python = "--bounding-set=-all --inh-caps=-all --no-new-privs env SOCKBROKER_MODE=mediated \
                  python3 /var/lib/pod.py";
    // Within the user namespace of the host.
    let inside = format!("ip link set lo up && exec setpriv {ids} {python}");
    assert_eq!(guest.ok(&format!("unshare --net sh -c '{inside}'")).trim(), "served 100000");
    // Root of a user namespace of its own, without its capabilities.
    let unshare = "unshare --user --map-root-user --net";
    let allowed = guest.run(&format!("setpriv {ids} {unshare} true"));
    if allowed.code != Some(0) {
        return skip("no user namespaces here", test);
    }
    let inside = format!("ip link set lo up && exec setpriv {python}");
    let served = guest.ok(&format!("setpriv {ids} {unshare} sh -c '{inside}'"));
    assert_eq!(served.trim(), "served 0");
}

/// Opens sockets in the network namespace in which it runs, and waits for its end.
const HOLDER: &str = r#"
import socket, sockbroker, time
own = sockbroker.namespace("caller")
held = [own.socket(), own.socket(type=socket.SOCK_DGRAM), own.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        own.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)]
held[0].bind(("127.0.0.1", 80))
held[0].listen()
held += [own.create_connection(("127.0.0.1", 80), 5), held[0].accept()[0]]
print("held", flush=True)
time.sleep(1000)
"#;

on_each_system!(veth_of_an_ended_pod_is_gone);

fn veth_of_an_ended_pod_is_gone(guest: &Guest) {
    take_role(guest, "netns");
    guest.write("/var/lib/pod.py", HOLDER);
    guest.ok("chmod 644 /var/lib/pod.py");
    let groups = "--groups=$(getent group sockbroker sockbroker-netns | cut -d: -f3 | paste -sd,)";
    let ids = format!("--reuid=100000 --regid=100000 {groups} --bounding-set=-all --inh-caps=-all");
    let veth = "ip link set lo up && ip link add far type veth peer name near netns 1";
    let python = "env SOCKBROKER_MODE=mediated python3 /var/lib/pod.py";
    let pod = format!("exec unshare --net sh -c '{veth} && exec setpriv {ids} {python}' 2>&1");
    let mut pod = guest.start(&pod);
    let mut line = [0; 5];
    if pod.stdout.as_mut().unwrap().read_exact(&mut line).is_err() || &line != b"held\n" {
        let output = crate::lifecycle::output(&mut pod);
        let test = "veth_of_an_ended_pod_is_gone";
        assert!(line.starts_with(b"RTNET"), "{}{output}", String::from_utf8_lossy(&line));
        return skip("no veth interfaces here", test);
    }
    guest.ok("ip link show near");
    let ended = Instant::now();
    guest.ok("pkill -KILL --full '[/]var/lib/pod.py'");
    until("the interface is gone", || guest.run("ip link show near").code != Some(0));
    guest.report(&format!("the veth of an ended pod was gone after {:?}", ended.elapsed()));
    pod.wait().unwrap();
}
