//! Inputs that choose the file of an `AF_UNIX` socket.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::mount;

use super::Answers;
use crate::arena::Arena;

const RULES: &str = r#"
[[rule]]
name = "not the engine"
subject = { uids = [4200001] }
deny = ["bind", "connect", "send"]
path = ["/run/engine"]
[[rule]]
name = "not by its other name"
subject = { uids = [4200001] }
deny = ["bind", "connect", "send"]
path = ["/var/tmp-link/agent"]
"#;

/// Mounts a tmpfs over `/run` and creates the sockets of a container engine there.
fn engine() -> UnixListener {
    mount::empty(Path::new("/run")).unwrap();
    fs::create_dir("/run/engine").unwrap();
    fs::create_dir("/run/open").unwrap();
    for folder in ["/run/engine", "/run/open"] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let listener = UnixListener::bind("/run/engine/s").unwrap();
    fs::set_permissions("/run/engine/s", fs::Permissions::from_mode(0o777)).unwrap();
    listener
}

/// Connects to a file that the attacker has opened through this path.
fn connects(arena: &mut Arena, path: &str) -> Answers {
    let stream = arena.socket(json!(["AF_UNIX"]));
    let params = json!([stream, { "descriptor": 0 }]);
    vec![arena.tries_with("connect", params, Path::new(path))]
}

fn binds(arena: &mut Arena, folder: &str, written: &str) -> Answers {
    let stream = arena.socket(json!(["AF_UNIX"]));
    let address = json!({ "descriptor": 0, "name": "planted", "path": written });
    vec![arena.tries_with("bind", json!([stream, address]), Path::new(folder))]
}

rows! { RULES;
    file_itself: "the file of a descriptor", "not the engine", |arena| {
        let _engine = engine();
        connects(arena, "/run/engine/s")
    };
    symbolic_link: "a symbolic link to the file, and to a folder on its way", "not the engine", |arena| {
        let _engine = engine();
        symlink("/run/engine/s", "/run/open/link").unwrap();
        symlink("/run/engine", "/run/open/folder").unwrap();
        let mut answers = connects(arena, "/run/open/link");
        answers.extend(connects(arena, "/run/open/folder/s"));
        answers
    };
    detour: "`..`, `.`, `//` and `/proc`", "not the engine", |arena| {
        let _engine = engine();
        let paths = [
            "/run/open/../engine/s",
            "/run/./engine//s",
        ];
        // The root folder of a process, through `/proc`.
        let roots = ["self", "thread-self"].map(|who| format!("/proc/{who}/root"));
        let roots = roots.map(|root| format!("{root}/run/engine/s"));
        let paths = paths.map(str::to_owned).into_iter().chain(roots);
        paths.flat_map(|path| connects(arena, &path)).collect()
    };
    bind_mount: "a folder that is mounted at another place as well", "not the engine", |arena| {
        let _engine = engine();
        mounts(&["--bind", "/run/engine", "/run/open"]);
        connects(arena, "/run/open/s")
    };
    mounted_file: "the file alone, mounted at another place", "not the engine", |arena| {
        let _engine = engine();
        fs::write("/run/open/other", "").unwrap();
        mounts(&["--bind", "/run/engine/s", "/run/open/other"]);
        connects(arena, "/run/open/other")
    };
    private_mount: "a file that only the caller's mount namespace names so", "not the engine", |arena| {
        let _engine = engine();
        let file = opened_elsewhere("/run/engine", "/run/open", "/run/open/s");
        let stream = arena.socket(json!(["AF_UNIX"]));
        let descriptors = [file.as_fd()];
        let params = json!([stream, { "descriptor": 0 }]);
        let parts = RequestParts::descriptors(&descriptors);
        vec![arena.attacker.call_with_parts("socket.connect", params, parts)]
    };
    other_name_in_the_rule: "a rule that names the file by a symbolic link", "not by its other name", |arena| {
        let _engine = engine();
        mount::empty(Path::new("/var")).unwrap();
        fs::create_dir("/run/open/real").unwrap();
        let _agent = UnixListener::bind("/run/open/real/agent").unwrap();
        symlink("/run/open/real", "/var/tmp-link").unwrap();
        connects(arena, "/run/open/real/agent")
    };
    destination_of_a_datagram: "`sendto`, `sendmsg`, `sendmmsg`: the file", "not the engine", |arena| {
        let _engine = engine();
        let _log = UnixDatagram::bind("/run/engine/log").unwrap();
        fs::set_permissions("/run/engine/log", fs::Permissions::from_mode(0o777)).unwrap();
        let socket = arena.socket(json!(["AF_UNIX", "SOCK_DGRAM"]));
        let (log, file) = (Path::new("/run/engine/log"), json!({ "descriptor": 0 }));
        let message = json!({ "buffers": ["aGk="], "address": file });
        vec![
            arena.tries_with("sendto", json!([socket, "aGk=", 0, file]), log),
            arena.tries_with("sendmsg", json!([socket, ["aGk="], [], 0, file]), log),
            arena.tries_with("sendmmsg", json!([socket, [message]]), log),
        ]
    };
    folder_of_bind: "`bind`: the folder, whatever path is shown with it", "not the engine", |arena| {
        let _engine = engine();
        symlink("/run/engine", "/run/open/folder").unwrap();
        let mut answers = binds(arena, "/run/engine", "/run/engine/planted");
        answers.extend(binds(arena, "/run/open/folder", "/run/open/planted"));
        assert!(!Path::new("/run/engine/planted").exists());
        answers
    };
    name_of_bind: "`bind`: a rule that names the very file", "not the engine", |arena| {
        mount::empty(Path::new("/run")).unwrap();
        fs::set_permissions("/run", fs::Permissions::from_mode(0o777)).unwrap();
        let stream = arena.socket(json!(["AF_UNIX"]));
        let address = json!({ "descriptor": 0, "name": "engine" });
        vec![arena.tries_with("bind", json!([stream, address]), Path::new("/run"))]
    };
    path_as_text: "a path as text: its meaning depends on the process that resolves it", "no rule", |arena| {
        let _engine = engine();
        let _open = UnixListener::bind("/run/open/s").unwrap();
        let (stream, datagram) =
            (arena.socket(json!(["AF_UNIX"])), arena.socket(json!(["AF_UNIX", "SOCK_DGRAM"])));
        let mut answers = Vec::new();
        for path in ["/run/open/s", "s", "./s", "/proc/self/cwd/s"] {
            answers.push(arena.tries("connect", json!([stream, path])));
            answers.push(arena.tries("bind", json!([stream, path])));
            answers.extend(arena.sends(datagram, &json!(path), &json!([])));
        }
        for answer in &answers {
            let fault = answer.fault();
            assert!(fault.message.contains("O_PATH"), "{fault:?}");
            assert!(fault.data.grant.unwrap().ends_with("paths = \"broker\""));
        }
        answers
    };
    control_socket: "the broker's own control socket, for root as well", "built-in: the broker's control socket is not a destination", |arena| {
        let control: PathBuf = arena.broker.socket().to_owned();
        symlink(&control, control.with_extension("link")).unwrap();
        let stream = arena.socket(json!(["AF_UNIX"]));
        let params = json!([stream, { "descriptor": 0 }]);
        let mut answers = vec![
            arena.tries_with("connect", params.clone(), &control),
            arena.tries_with("connect", params, &control.with_extension("link")),
        ];
        let mut root = arena.broker.lsp();
        for path in [control.clone(), control.with_extension("link")] {
            let stream = root.call("socket.socket", json!(["AF_UNIX"])).handle();
            answers.push(root.call("socket.connect", json!([stream, path])));
        }
        answers
    };
}

fn mounts(arguments: &[&str]) {
    let done = Command::new("mount").args(arguments).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Opens a file in another mount namespace, where one folder is mounted over another.
fn opened_elsewhere(folder: &str, over: &str, file: &str) -> std::os::fd::OwnedFd {
    let script = "import os, socket, subprocess, sys\n\
        subprocess.run(['mount', '--bind', sys.argv[1], sys.argv[2]], check=True)\n\
        fd = os.open(sys.argv[3], os.O_PATH)\n\
        with socket.socket(fileno=0) as s: socket.send_fds(s, [b'x'], [fd])\n";
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "python3", "-c", script, folder, over, file]);
    let status = command.stdin(std::os::fd::OwnedFd::from(theirs)).status().unwrap();
    assert!(status.success(), "cannot open the file in another mount namespace");
    let message = sockbroker_sys::message::receive_message(ours.as_fd(), 1, 64, 0).unwrap();
    let mut items = message.control.into_iter();
    let descriptors = items.find_map(|item| match item {
        sockbroker_sys::control::ControlMessage::Descriptors { descriptors, .. } => {
            Some(descriptors)
        }
        sockbroker_sys::control::ControlMessage::Data { .. } => None,
    });
    descriptors.unwrap().remove(0)
}

#[test]
fn file_of_the_caller_is_bound_and_connected_by_descriptor() {
    let test = concat!(module_path!(), "::file_of_the_caller_is_bound_and_connected_by_descriptor");
    let policy = format!("{}{RULES}", super::EVERYTHING);
    crate::arena::run_with(
        test,
        move |start| {
            start.folder().write("policy.toml", &policy);
            start
        },
        |mut arena| {
            let _engine = engine();
            let folder = Path::new("/run/open");
            for written in ["/run/open/own", "own", "/nowhere/own"] {
                let server = arena.socket(json!(["AF_UNIX"]));
                let address = json!({ "descriptor": 0, "name": "own", "path": written });
                arena.tries_with("bind", json!([server, address]), folder).result();
                assert_eq!(arena.does("getsockname", json!([server])), written);
                arena.does("listen", json!([server]));
                let client = arena.socket(json!(["AF_UNIX"]));
                let params = json!([client, { "descriptor": 0 }]);
                arena.tries_with("connect", params, Path::new("/run/open/own")).result();
                let accepted = arena.does("accept", json!([server]))["handle"].clone();
                // The kernel reports the full path, which is the same file.
                let shown = fs::read_to_string("/proc/net/unix").unwrap();
                assert_eq!(
                    shown.contains("/run/open/own\n"),
                    written == "/run/open/own",
                    "{shown}"
                );
                fs::remove_file("/run/open/own").unwrap();
                for handle in [json!(server), json!(client), accepted] {
                    arena.does("close", json!([handle]));
                }
            }
            let wrong: [(Value, &str, &str); 4] = [
                (json!({ "descriptor": 0 }), "/run/open", "ECONNREFUSED"),
                (json!({ "descriptor": 0 }), "/etc/passwd", "ECONNREFUSED"),
                (json!({ "descriptor": 0, "name": "x" }), "/run/engine/s", "ValueError"),
                (json!({ "descriptor": 1 }), "/run/engine/s", "descriptor"),
            ];
            for (address, file, error) in wrong {
                let client = arena.socket(json!(["AF_UNIX"]));
                let refused =
                    arena.tries_with("connect", json!([client, address]), Path::new(file));
                assert!(format!("{:?}", refused.fault()).contains(error), "{refused:?}");
            }
        },
    );
}
