//! The process that makes calls on `AF_UNIX` sockets with the ids of a user: what it holds, and what its user can do to
//! it.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::stop_process;
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::namespace::inside_with_users;
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::watch::pause;
use sockbroker_test_support::{Folder, LspClient, Start, base64, mount, until};

use crate::arena::{Arena, POLICY, PROGRAM, attacker, neighbour, run_with};
use crate::worker_ids::{IDS, SHARED, reach};

/// The process that acts as the attacker, which its worker has started.
fn caller(arena: &mut Arena) -> u32 {
    arena.attacker.pair();
    arena.broker.process().caller_of(attacker().uid()).unwrap()
}

/// Defines a test that runs with workers that have the broker's user id, and with workers that have ids of their own.
macro_rules! in_both_modes {
    ($name:ident, $arena:pat, $body:block) => {
        mod $name {
            use super::*;

            #[test]
            fn with_the_id_of_the_broker() {
                let test = concat!(module_path!(), "::with_the_id_of_the_broker");
                run_with(test, |start| start.section(SHARED), |$arena| $body);
            }

            #[test]
            fn with_ids_of_workers() {
                let test = concat!(module_path!(), "::with_ids_of_workers");
                run_with(test, |start| start.section(IDS), |$arena| $body);
            }
        }
    };
}

/// The value of a line of `/proc/PID/status`.
fn status(process: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().to_owned()
}

fn assert_no_capability(process: u32) {
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status(process, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(process, "NoNewPrivs:"), "1");
    assert_eq!(status(process, "Seccomp:"), "2");
}

/// Sends a signal to a process as the attacker.
fn signal(signal: &str, process: u32) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -\"$0\" \"$1\"", signal, &process.to_string()]);
    kill.uid(attacker().uid()).gid(attacker().uid());
    assert!(kill.status().unwrap().success());
}

/// Waits until the monitor has waited for a process.
fn wait_for_end(process: u32) {
    let folder = PathBuf::from(format!("/proc/{process}"));
    until("the process ends", || !folder.exists());
}

/// Two connected sockets whose messages the process of the caller sends, if the worker has another id.
fn send(client: &mut LspClient, handles: (u64, u64)) {
    client.call("socket.send", json!([handles.0, "aGk="])).result();
    assert_eq!(client.call("socket.recv", json!([handles.1, 8])).result()["data"], "aGk=");
}

in_both_modes!(workers_and_processes_of_callers_hold_no_capability, mut arena, {
    let caller = caller(&mut arena);
    let handles = arena.attacker.pair();
    send(&mut arena.attacker, handles);
    let worker = arena.broker.process().worker_of(attacker().uid()).unwrap();
    assert_no_capability(worker);
    assert_no_capability(caller);
    let uid = attacker().uid();
    let ids = [uid; 4].map(|uid| uid.to_string()).join("\t");
    assert_eq!((status(caller, "Uid:"), status(caller, "Gid:")), (ids.clone(), ids));
    assert_eq!(status(caller, "Groups:"), "");
    assert_ne!(status(worker, "Uid:").split('\t').next().unwrap(), uid.to_string());
    // Its user can signal it, and limit it, and learns nothing from it.
    let reached = reach(uid, caller);
    assert!(reached.contains("signal"), "{reached:?}");
    for word in [
        "trace",
        "read-memory",
        "take-descriptor",
        "open-memory",
        "list-descriptors",
        "read-environment",
    ] {
        assert!(!reached.contains(word), "{reached:?}");
    }
    assert!(reach(neighbour().uid(), caller).is_empty());
});

in_both_modes!(root_has_its_rights_and_its_worker_has_no_capability, mut arena, {
    let folder = Folder::new();
    std::os::unix::fs::chown(folder.path(), Some(attacker().uid()), None).unwrap();
    let _listener = UnixListener::bind(folder.join("s")).unwrap();
    let mut root = arena.broker.lsp();
    let socket = root.call("socket.socket", json!(["AF_UNIX"])).handle();
    root.call("socket.connect", json!([socket, folder.join("s")])).result();
    let worker = arena.broker.process().worker_of(0).unwrap();
    assert_no_capability(worker);
    let caller = arena.broker.process().caller_of(0).unwrap();
    // CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
    assert_eq!(status(caller, "CapPrm:"), "0000000000000006");
    assert_eq!(status(caller, "CapEff:"), "0000000000000006");
});

#[test]
fn without_a_rule_no_process_acts_as_the_user() {
    let test = concat!(module_path!(), "::without_a_rule_no_process_acts_as_the_user");
    let policy = POLICY.replace("family = [\"AF_UNIX\"]", "family = [\"AF_VSOCK\"]");
    // So that the socket of another one can be lent.
    let adopt = "[[rule]]\nname = \"adopt\"\nsubject = { uids = [4200001] }\nallow = [\"adopt\"]\n";
    let policy = format!("{policy}\n{adopt}");
    let (_, test) = test.split_once("::").unwrap();
    inside_with_users(test, move || {
        let mut broker = Start::new(PROGRAM).policy(&policy).start().open_to_all();
        let mut client = attacker().lsp(&broker);
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let folder = Folder::new();
        let file = fs::File::open(folder.path()).unwrap();
        let adopted = client.lend(&ours);
        let passed = json!({ "descriptor": 0, "name": "s" });
        for (method, params, descriptors) in [
            ("socket.socketpair", Value::Null, &[][..]),
            ("socket.send", json!([adopted, "aGk="]), &[]),
            ("socket.connect", json!([adopted, "/run/s"]), &[]),
            ("socket.bind", json!([adopted, passed]), &[file.as_fd()]),
        ] {
            let parts = RequestParts::descriptors(descriptors);
            let refused = client.call_with_parts(method, params, parts).fault();
            assert_eq!(refused.kind(), (3000, "denied"), "{method}: {refused:?}");
        }
        client.expect_service();
        assert_eq!(broker.process().caller_of(attacker().uid()), None);
        assert!(!broker.log().contains("asks to act as its user"));
    });
}

in_both_modes!(a_process_killed_by_its_user_disturbs_nobody_and_is_replaced, mut arena, {
    let mut other = neighbour().lsp(&arena.broker);
    let others = other.pair();
    let handles = arena.attacker.pair();
    for _ in 0..3 {
        let caller = caller(&mut arena);
        signal("KILL", caller);
        wait_for_end(caller);
        send(&mut arena.attacker, handles);
        arena.attacker.pair();
        assert_ne!(self::caller(&mut arena), caller);
        send(&mut other, others);
        pause(300);
    }
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let socket = arena.socket(json!(["AF_UNIX"]));
    arena.attacker.call("socket.bind", json!([socket, folder.join("s")])).result();
});

in_both_modes!(a_process_stopped_by_its_user_delays_only_its_calls, mut arena, {
    let mut other = neighbour().lsp(&arena.broker);
    let others = other.pair();
    let caller = caller(&mut arena);
    stop_process(caller);
    let waiting = arena.attacker.send("socket.socketpair", Value::Null);
    arena.attacker.expect_silence_for(200);
    arena.attacker.expect_service();
    send(&mut other, others);
    arena.broker.lsp().call("admin.reload", Value::Null).result();
    signal("KILL", caller);
    let fault = arena.attacker.answer(waiting).fault();
    assert!(fault.message.contains("acts as user 4200001 ended"), "{fault:?}");
    arena.attacker.pair();
});

#[test]
fn a_send_fails_if_the_process_is_stopped() {
    let test = concat!(module_path!(), "::a_send_fails_if_the_process_is_stopped");
    run_with(
        test,
        |start| start.section(IDS),
        |mut arena| {
            let handles = arena.attacker.pair();
            let caller = caller(&mut arena);
            stop_process(caller);
            let fault = arena.attacker.call("socket.send", json!([handles.0, "aGk="])).fault();
            assert!(fault.message.contains("ended, and may have made the call"), "{fault:?}");
            send(&mut arena.attacker, handles);
            assert_ne!(self::caller(&mut arena), caller);
        },
    );
}

in_both_modes!(a_path_that_never_answers_delays_neither_other_calls_nor_the_monitor, mut arena, {
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let place = folder.join("stuck");
    fs::create_dir(&place).unwrap();
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    let mounted = device.and_then(|device| mount::fuse(&place, device.as_fd()).map(|()| device));
    let Ok(_device) = mounted else {
        return skip("no FUSE here", "caller::a_path_that_never_answers");
    };
    let handles = arena.attacker.pair();
    let socket = arena.socket(json!(["AF_UNIX"]));
    let waiting = arena.attacker.send("socket.connect", json!([socket, place.join("s")]));
    arena.attacker.expect_silence_for(200);
    arena.attacker.expect_service();
    send(&mut arena.attacker, handles);
    arena.attacker.pair();
    neighbour().lsp(&arena.broker).expect_service();
    arena.broker.lsp().call("admin.reload", Value::Null).result();
    arena.attacker.cancel(waiting);
    assert_eq!(arena.attacker.answer(waiting).fault().code, -32800);
    // The call goes on, and the process ends with its worker all the same.
    let caller = arena.broker.process().caller_of(attacker().uid()).unwrap();
    let worker = arena.broker.process().worker_of(attacker().uid()).unwrap();
    sockbroker_test_support::daemon::kill_process(worker);
    wait_for_end(caller);
    mount::detach(&place);
});

#[test]
fn an_idle_process_ends_and_the_next_call_starts_another() {
    let test = concat!(module_path!(), "::an_idle_process_ends_and_the_next_call_starts_another");
    run_with(
        test,
        |start| start.limit("worker_idle_seconds", 1),
        |mut arena| {
            let first = caller(&mut arena);
            until("the process ends", || {
                arena.broker.process().caller_of(attacker().uid()).is_none()
            });
            assert_ne!(caller(&mut arena), first);
        },
    );
}

in_both_modes!(large_messages_and_many_descriptors_are_sent, mut arena, {
    let client = &mut arena.attacker;
    let (left, right) = client.pair_of("SOCK_DGRAM");
    let data = base64(vec![7; 150_000]);
    assert_eq!(*client.call("socket.send", json!([left, data])).result(), 150_000);
    let received = client.call("socket.recv", json!([right, 200_000]));
    assert_eq!(received.result()["data"], data);
    let file = fs::File::open("/dev/null").unwrap();
    let item = json!(["SOL_SOCKET", "SCM_RIGHTS", { "descriptors": 253 }]);
    let files = vec![file.as_fd(); 253];
    let sent = RequestParts::descriptors(&files);
    client.call_with_parts("socket.sendmsg", json!([left, ["aGk="], [item]]), sent).result();
    let received = client.call("socket.recvmsg", json!([right, 8, 2048]));
    assert_eq!(received.descriptors.len(), 253);
    let folder = Folder::new();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let bound = client.call("socket.socket", json!(["AF_UNIX", "SOCK_DGRAM"])).handle();
    client.call("socket.bind", json!([bound, folder.join("d")])).result();
    client.call("socket.sendto", json!([left, data, 0, folder.join("d")])).result();
    let received = client.call("socket.recv", json!([bound, 200_000]));
    assert_eq!(received.result()["data"], data);
    // A stream takes as much as its buffer has room for, over several messages to the process.
    let (left, right) = client.pair();
    client.call("socket.settimeout", json!([left, 0])).result();
    let sent = client.call("socket.send", json!([left, base64(vec![8; 1_000_000])]));
    let sent = sent.result().as_u64().unwrap();
    assert!(sent > 100_000, "{sent}");
    client.call("socket.settimeout", json!([left, Value::Null])).result();
    let all = client.send("socket.sendall", json!([left, base64(vec![9; 1_000_000])]));
    let whole = json!([right, sent + 1_000_000, "MSG_WAITALL"]);
    let received = client.call("socket.recv", whole).result()["data"].clone();
    client.answer(all).result();
    let expected = [vec![8; usize::try_from(sent).unwrap()], vec![9; 1_000_000]].concat();
    assert!(received == base64(expected));
});
