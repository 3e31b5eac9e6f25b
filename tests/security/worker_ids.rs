//! Workers with user ids of their own: what users and other workers can do to them.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::stop_process;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::mount;
use sockbroker_test_support::namespace::{inside, inside_with_users};
use sockbroker_test_support::{Answer, Daemon, LspClient, Start, until};

use crate::arena::{Arena, POLICY, PROGRAM, attacker, neighbour, run_with};

pub(crate) const FIRST: u32 = 2_000_000_000;
pub(crate) const IDS: &str = "[processes]\nworker_ids = \"2000000000-2000000999\"\n";

pub(crate) const SHARED: &str = "[processes]\nworker_ids = \"shared\"\n";

/// Runs an attack on a broker whose workers have ids of their own.
fn run(test: &str, attack: impl FnOnce(Arena) + Send + 'static) {
    run_with(test, |start| start.section(IDS), attack);
}

/// The number and the user id of the process that serves a client.
pub(crate) fn worker_of(client: &mut LspClient) -> (u32, u32) {
    worker_in(&client.call("broker.info", Value::Null))
}

/// The same from the answer of `broker.info`.
pub(crate) fn worker_in(info: &Answer) -> (u32, u32) {
    let info = info.result();
    let number = |name: &str| u32::try_from(info["process"][name].as_u64().unwrap()).unwrap();
    assert_eq!(number("uid"), number("gid"));
    (number("pid"), number("uid"))
}

/// What a process of this user can do to a process.
pub(crate) fn reach(uid: u32, process: u32) -> BTreeSet<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/security/reach.py");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-I", "-c", &fs::read_to_string(script).unwrap(), &process.to_string()]);
    let output = command.uid(uid).gid(uid).current_dir("/").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The processes that a broker has started, by their names.
fn children(broker: &mut Daemon) -> Vec<(u32, String)> {
    let parent = broker.process().number().to_string();
    let listed = Command::new("pgrep").args(["--parent", &parent]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let numbers = listed.lines().map(|line| line.parse().unwrap());
    // One that has ended meanwhile, or for which the monitor has not waited yet, has no name.
    numbers
        .filter_map(|number: u32| {
            let name = fs::read_to_string(format!("/proc/{number}/cmdline")).ok()?;
            let name = name.split('\0').next().filter(|name| !name.is_empty())?;
            Some((number, name.to_owned()))
        })
        .collect()
}

#[test]
fn every_worker_has_an_id_of_its_own() {
    let test = concat!(module_path!(), "::every_worker_has_an_id_of_its_own");
    run(test, |mut arena| {
        let mut clients = [arena.broker.lsp(), neighbour().lsp(&arena.broker)];
        let mut ids: BTreeSet<_> = clients.iter_mut().map(|client| worker_of(client).1).collect();
        ids.insert(worker_of(&mut arena.attacker).1);
        assert_eq!(ids.len(), 3);
        assert!(ids.iter().all(|id| (FIRST..FIRST + 1000).contains(id)), "{ids:?}");
        let (number, uid) = worker_of(&mut arena.attacker);
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
        let ids = format!("\t{uid}\t{uid}\t{uid}\t{uid}\n");
        assert!(status.contains(&format!("Uid:{ids}")) && status.contains(&format!("Gid:{ids}")));
        assert!(status.contains("Groups:\t \n"), "{status}");
    });
}

#[test]
fn users_and_other_workers_cannot_reach_any_process_of_the_broker() {
    let test =
        concat!(module_path!(), "::users_and_other_workers_cannot_reach_any_process_of_the_broker");
    run(test, |mut arena| {
        // A core of a process that has changed its ids would be readable for root alone.
        let dumps = fs::read_to_string("/proc/sys/fs/suid_dumpable").unwrap();
        let mut other = neighbour().lsp(&arena.broker);
        let (own, own_id) = worker_of(&mut arena.attacker);
        let (_, other_id) = worker_of(&mut other);
        let children = children(&mut arena.broker);
        let names: BTreeSet<_> =
            children.iter().map(|(_, name)| name.split(" (").next().unwrap()).collect();
        assert!(names.contains("sockbrokerd: worker") && names.contains("sockbrokerd: opener"));
        let monitor = (arena.broker.process().number(), "monitor".to_owned());
        for (process, name) in children.into_iter().chain([monitor]) {
            for uid in [attacker().uid(), other_id] {
                let reached = reach(uid, process);
                if uid == other_id && reached.contains("signal") {
                    // The worker with this id.
                    assert!(name.starts_with("sockbrokerd: worker"), "{name}");
                    continue;
                }
                assert!(reached.is_empty(), "{uid} can do to {name}: {reached:?}; {dumps}");
            }
        }
        // Who has the id of a worker can stop it, and still not read it.
        let reached = reach(own_id, own);
        for word in ["trace", "read-memory", "take-descriptor", "open-memory", "list-descriptors"] {
            assert!(!reached.contains(word), "{reached:?}");
        }
    });
}

#[test]
fn a_killed_worker_gives_its_id_back() {
    let test = concat!(module_path!(), "::a_killed_worker_gives_its_id_back");
    let ids = "[processes]\nworker_ids = \"2000000000-2000000003\"\n";
    let prepare = move |start: Start| start.section(ids).limit("workers", 2);
    run_with(test, prepare, |mut arena| {
        // More than there are ids.
        for round in 0..6 {
            let (number, uid) = worker_of(&mut arena.attacker);
            assert!((FIRST..FIRST + 4).contains(&uid), "round {round}: {uid}");
            stop_process(number);
            let mut root = arena.broker.lsp();
            // A worker that does not put a new policy in force is killed, with an id that is not the broker's.
            root.call("admin.reload", Value::Null).result();
            assert!(arena.attacker.wire.ends());
            drop(root);
            until("the user is served", || {
                arena.attacker = attacker().lsp(&arena.broker);
                arena.attacker.is_served()
            });
        }
    });
}

#[test]
fn a_port_is_not_shared_by_two_users_without_claims() {
    let test = concat!(module_path!(), "::a_port_is_not_shared_by_two_users_without_claims");
    run(test, |mut arena| {
        let mut other = neighbour().lsp(&arena.broker);
        let bound = |client: &mut LspClient, port: u64| {
            let socket = client.call("socket.socket", json!(["AF_INET", "SOCK_DGRAM"])).handle();
            let reuse = json!([socket, "SOL_SOCKET", "SO_REUSEPORT", 1]);
            client.call("socket.setsockopt", reuse).result();
            let answer = client.call("socket.bind", json!([socket, ["127.0.0.1", port]]));
            (socket, answer)
        };
        let (socket, answer) = bound(&mut arena.attacker, 0);
        answer.result();
        let address = arena.attacker.call("socket.getsockname", json!([socket])).result().clone();
        let port = address[1].as_u64().unwrap();
        assert_eq!(bound(&mut other, port).1.fault().errno(), "EADDRINUSE");
        bound(&mut arena.attacker, port).1.result();
    });
}

#[test]
fn descriptors_in_flight_of_one_user_leave_those_of_others() {
    let test = concat!(module_path!(), "::descriptors_in_flight_of_one_user_leave_those_of_others");
    let prepare = |start: Start| start.section(IDS).open_files(1024);
    run_with(test, prepare, |mut arena| {
        let mut other = neighbour().lsp(&arena.broker);
        let (left, _right) = arena.attacker.pair_of("SOCK_DGRAM");
        arena.attacker.call("socket.settimeout", json!([left, 0])).result();
        let null = fs::File::open("/dev/null").unwrap();
        let descriptors = vec![null.as_fd(); 200];
        let send = |client: &mut LspClient| {
            let item = json!(["SOL_SOCKET", "SCM_RIGHTS", { "descriptors": 200 }]);
            let parts = RequestParts::descriptors(&descriptors);
            client.call_with_parts("socket.sendmsg", json!([left, ["eA=="], [item]]), parts)
        };
        let mut answers: Vec<_> = (0..4).map(|_| send(&mut arena.attacker)).collect();
        while !answers.last().unwrap().is_fault() {
            answers.push(send(&mut arena.attacker));
        }
        assert_eq!(answers.last().unwrap().fault().errno(), "ETOOMANYREFS");
        let (socket, _) = other.pair();
        assert_eq!(other.call("socket.fileno", json!([socket])).descriptors.len(), 1);
    });
}

/// Whether a worker of a broker that chooses the ids has one of those for root. Otherwise it has the broker's.
fn has_id_for_root(broker: &Daemon) -> bool {
    let (number, uid) = worker_of(&mut broker.lsp());
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")), "{status}");
    let is_of_root = (1_879_113_728..=1_879_179_263).contains(&uid);
    let line = if is_of_root {
        "each worker has a user id of its own"
    } else {
        "all workers have the user id of the broker"
    };
    assert!((is_of_root || uid == 0) && broker.log().contains(line), "{uid}: {}", broker.log());
    is_of_root
}

#[test]
fn no_worker_of_root_has_the_id_of_root() {
    inside_with_users("worker_ids::no_worker_of_root_has_the_id_of_root", || {
        assert!(has_id_for_root(&Start::new(PROGRAM).policy(POLICY).start()));
    });
}

#[test]
fn ids_that_the_machine_uses_are_not_given_to_workers_of_root() {
    let test = "worker_ids::ids_that_the_machine_uses_are_not_given_to_workers_of_root";
    inside_with_users(test, || {
        for (path, line, is_used) in [
            ("/etc/passwd", "alice:x:1879179263:7::/:/bin/sh", true),
            ("/etc/passwd", "alice:x:1879179264:7::/:/bin/sh", false),
            ("/etc/group", "alice:x:1879113728:", true),
            ("/etc/subuid", "alice:1800000000:1000000000", true),
            ("/etc/subgid", "alice:1879179263:1", true),
            ("/etc/subgid", "alice:1879113727:1", false),
        ] {
            let start = Start::new(PROGRAM).policy(POLICY);
            let text = fs::read_to_string(path).unwrap_or_default() + line + "\n";
            mount::file(Path::new(path), &start.folder().write("ids", &text)).unwrap();
            let broker = start.start();
            assert_eq!(has_id_for_root(&broker), !is_used, "{path} {line}");
            let reason = format!("alice has ids from 1879113728 to 1879179263 in {path}");
            assert_eq!(broker.log().contains(&reason), is_used, "{}", broker.log());
            mount::detach(Path::new(path));
        }
    });
}

#[test]
fn workers_have_the_id_of_root_in_a_namespace_without_others() {
    let test = "worker_ids::workers_have_the_id_of_root_in_a_namespace_without_others";
    inside(test, || {
        let broker = Start::new(PROGRAM).policy(POLICY).start();
        assert!(!has_id_for_root(&broker));
        assert!(broker.log().contains("do not all exist here: see /proc/self/uid_map"));
    });
}

#[test]
fn ids_that_cannot_be_used_are_refused_at_the_start() {
    inside_with_users("worker_ids::ids_that_cannot_be_used_are_refused_at_the_start", || {
        let log = |ids: &str| {
            let section = format!("[processes]\nworker_ids = \"{ids}\"\n");
            let (mut command, folder) =
                Start::new(PROGRAM).policy(POLICY).section(&section).command();
            let socket = folder.join("socket");
            let status = command.arg("--socket").arg(socket).status().unwrap();
            (status.code(), fs::read_to_string(folder.join("log")).unwrap())
        };
        let (code, few) = log("5000-5009");
        assert_eq!(code, Some(71));
        assert!(few.contains("10 ids are fewer than twice the limit workers (128)"), "{few}");
        for wrong in ["0-1000", "9-5", "5", "5-4294967295", "own"] {
            let (code, text) = log(wrong);
            assert_eq!(code, Some(78), "{wrong}");
            assert!(text.contains("worker_ids is \"auto\""), "{wrong}: {text}");
        }
    });
}
