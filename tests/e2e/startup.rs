//! Start-up: command line, socket path and mode, files, exit codes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::skip::root_or_skip;
use sockbroker_test_support::{Daemon, Folder, LspClient, bounded, until};

use crate::broker::{PROGRAM, broker, prepare};

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stderr_of(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(both).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn socket_has_mode_0660_from_its_creation() {
    bounded(20, || {
        for umask in ["0", "022", "077", "777"] {
            let start = prepare().shell(&format!("umask {umask}"));
            let (mut command, folder) = start.command();
            let path = folder.join("socket");
            command.arg("--socket").arg(&path).stdin(Stdio::null());
            let _process = Process::spawn(command);
            let (mut seen, mut wide) = (Vec::new(), false);
            until("the socket has its mode", || {
                if let Ok(found) = fs::symlink_metadata(&path) {
                    seen.push(format!("{:o}", found.mode() & 0o7777));
                    wide |= found.mode() & 0o7777 & !0o660 != 0;
                }
                seen.last().is_some_and(|mode| mode == "660")
            });
            assert!(!wide, "umask {umask}: {seen:?}");
        }
    });
}

/// Starts a broker and waits until its socket has this mode.
fn serving_with(arguments: &[&str], config: &str, expected: u32) -> (Process, Folder, u32) {
    let folder = Folder::new();
    let (path, file) = (folder.join("socket"), folder.write("config.toml", config));
    let mut command = Command::new(PROGRAM);
    command.arg("--built-in-policy").arg("--config").arg(file).arg("--socket").arg(&path);
    command.args(arguments).stdin(Stdio::null());
    command.stderr(fs::File::create(folder.join("log")).unwrap());
    let process = Process::spawn(command);
    let (mut seen, place) = (None, path.clone());
    until("the socket has its mode", || {
        seen = fs::symlink_metadata(&place).ok();
        seen.as_ref().is_some_and(|found| found.mode() & 0o7777 == expected)
    });
    (process, folder, seen.unwrap().gid())
}

#[test]
fn socket_mode_is_configurable() {
    bounded(20, || {
        drop(serving_with(&["--socket-mode", "0600"], "socket_mode = \"0666\"", 0o600));
        drop(serving_with(&[], "socket_mode = \"0666\"", 0o666));
        let refused_start = run(&["--socket-mode", "0o66", "--check"]);
        assert_eq!(refused_start.status.code(), Some(2));
        assert!(
            stderr_of(&refused_start).contains("octal digits"),
            "{}",
            stderr_of(&refused_start)
        );
    });
}

#[test]
fn root_without_capabilities_can_set_the_socket_group() {
    if !root_or_skip("startup::root_without_capabilities_can_set_the_socket_group") {
        return;
    }
    bounded(20, || {
        // By number and by name: every machine has the group nogroup, nobody or daemon.
        let daemon = sockbroker_sys::accounts::group("daemon").unwrap();
        let (_process, _folder, group) = serving_with(&["--socket-group", "4200007"], "", 0o660);
        assert_eq!(group, 4_200_007);
        let (_process, folder, group) = serving_with(&[], "socket_group = \"daemon\"", 0o660);
        assert_eq!(group, daemon);
        let log = fs::read_to_string(folder.join("log")).unwrap();
        assert!(!log.contains("CAP_CHOWN"), "{log}");
        let refused_start = run(&["--socket", "/nowhere/s", "--socket-group", "no-such-group"]);
        assert_eq!(refused_start.status.code(), Some(78));
        assert!(
            stderr_of(&refused_start).contains("groupadd --system no-such-group"),
            "{}",
            stderr_of(&refused_start)
        );
    });
}

#[test]
fn unknown_log_level_is_refused() {
    bounded(20, || {
        let mut command = Command::new(PROGRAM);
        command.args(["--check", "--built-in-policy"]).env("SOCKBROKER_LOG", "verbose");
        let refused_start = command.output().unwrap();
        assert_eq!(refused_start.status.code(), Some(78));
        assert!(
            stderr_of(&refused_start).contains("no log level \"verbose\""),
            "{}",
            stderr_of(&refused_start)
        );
        assert!(command.env("SOCKBROKER_LOG", "warn").status().unwrap().success());
    });
}

#[test]
fn missing_runtime_directory_is_reported_with_a_hint() {
    bounded(20, || {
        let mut command = Command::new("setpriv");
        if sockbroker_sys::process::effective_uid() == 0 {
            command.args(["--reuid=4200001", "--regid=4200001", "--clear-groups"]);
        }
        command.args(["--", PROGRAM, "--built-in-policy"]).env_remove("XDG_RUNTIME_DIR");
        let refused_start = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(refused_start.status.code(), Some(69), "{}", stderr_of(&refused_start));
        let stderr_of = stderr_of(&refused_start);
        assert!(
            stderr_of.contains("XDG_RUNTIME_DIR") && stderr_of.contains("--socket PATH"),
            "{stderr_of}"
        );
    });
}

#[test]
fn stale_socket_is_replaced_and_removed_at_exit() {
    bounded(20, || {
        let folder = Folder::new();
        let path = folder.join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let stale = fs::symlink_metadata(&path).unwrap().ino();
        let start = || {
            let (mut command, logs) = prepare().command();
            command.arg("--socket").arg(&path);
            let process = Process::spawn(command);
            until("the broker listens", || UnixStream::connect(&path).is_ok());
            (process, logs)
        };
        let (mut process, _logs) = start();
        LspClient::connect(&path).expect_service();
        assert!(fs::symlink_metadata(&path).unwrap().ino() != stale || mode(&path) == 0o660);
        process.terminate();
        assert!(process.ends().success());
        assert!(!path.exists());
        // A killed broker leaves its socket; the next one replaces it.
        let (process, _logs) = start();
        drop(process);
        assert!(path.exists());
        // A process that it was starting has its descriptors for a moment.
        until("nobody listens", || UnixStream::connect(&path).is_err());
        let (mut process, _logs) = start();
        // At exit the broker does not remove a socket of another process at its path.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "not ours").unwrap();
        process.terminate();
        assert!(process.ends().success());
        assert_eq!(fs::read_to_string(&path).unwrap(), "not ours");
    });
}

/// Starts a broker on an unusable path and returns its error.
fn refused_start(path: &Path) -> String {
    let output = run(&["--socket", path.to_str().unwrap()]);
    let stderr_of = stderr_of(&output);
    assert_eq!(output.status.code(), Some(69), "{stderr_of}");
    assert!(stderr_of.contains(path.to_str().unwrap()), "{stderr_of}");
    stderr_of
}

#[test]
fn path_that_is_not_a_socket_is_not_touched() {
    bounded(20, || {
        let folder = Folder::new();
        let file = folder.write("file", "precious");
        assert!(refused_start(&file).contains("not a socket"));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        let inner = folder.join("folder");
        fs::create_dir(&inner).unwrap();
        assert!(refused_start(&inner).contains("not a socket"));
        assert!(inner.is_dir());
        // A symbolic link is refused, whatever its target.
        let link = folder.join("link");
        drop(UnixListener::bind(folder.join("stale")).unwrap());
        symlink(folder.join("stale"), &link).unwrap();
        assert!(refused_start(&link).contains("not a socket"));
        assert!(folder.join("stale").symlink_metadata().unwrap().file_type().is_socket());
        refused_start(&folder.join("nowhere/socket"));
        refused_start(&folder.join(&"x".repeat(200)));
        refused_start(&file.join("below"));
    });
}

#[test]
fn served_socket_is_not_replaced() {
    bounded(20, || {
        let broker = broker();
        assert!(refused_start(broker.socket()).contains("running"));
        broker.lsp().expect_service();
        // A socket that is bound and does not listen is stale.
        let folder = Folder::new();
        let path = folder.join("full");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(refused_start(&path).contains("running"));
    });
}

#[test]
fn socket_of_another_user_is_not_replaced() {
    if !root_or_skip("startup::socket_of_another_user_is_not_replaced") {
        return;
    }
    bounded(20, || {
        let folder = Folder::new();
        let path = folder.join("theirs");
        drop(UnixListener::bind(&path).unwrap());
        std::os::unix::fs::chown(&path, Some(65534), Some(65534)).unwrap();
        assert!(refused_start(&path).contains("another user"));
        assert!(path.exists());
    });
}

/// A valid policy that causes a warning.
const ODD: &str = "version = 1\n[[rule]]\nname = \"odd\"\nsubject = { everyone = true }\nallow = [\"resolve\"]\nremote = [\"any\"]";

#[test]
fn check_reports_unusable_files_by_exit_code() {
    bounded(20, || {
        let folder = Folder::new();
        let socket = folder.join("never");
        for (config, policy, code, part) in [
            ("", "version = 1", 0, ""),
            ("[limits]\nhandles = 5", "version = 1", 0, ""),
            ("socket = \"/run/x\"\n\n[limits]\nhandels = 5", "version = 1", 78, "line 4"),
            ("sockets = 5", "version = 1", 78, "sockets"),
            ("[limits]\nhandles = -1", "version = 1", 78, "line 2"),
            ("[limits]\nhandles = \"5\"", "version = 1", 78, "line 2"),
            ("[limits", "version = 1", 78, "line 1"),
            ("[limits]\nconnections = 0", "version = 1", 78, "connections"),
            ("[limits]\ndescriptors = 254", "version = 1", 78, "descriptors"),
            ("[limits]\nframe_bytes = 10", "version = 1", 78, "frame_bytes"),
            ("", "version = 2", 78, "version 2"),
            ("", "", 78, "version"),
            ("", "version = 1\nrules = []", 78, "rules"),
            ("", ODD, 0, "rule `odd`: it never decides `resolve`, which has no `remote`"),
        ] {
            let config = folder.write("config.toml", config);
            let policy = folder.write("policy.toml", policy);
            let (config, policy) = (config.to_str().unwrap(), policy.to_str().unwrap());
            let socket = socket.to_str().unwrap();
            let output =
                run(&["--check", "--config", config, "--policy", policy, "--socket", socket]);
            let stderr_of = stderr_of(&output);
            assert_eq!(output.status.code(), Some(code), "{part}: {stderr_of}");
            assert!(stderr_of.contains(part), "{part}: {stderr_of}");
            if code != 0 {
                let named = stderr_of.contains(config) || stderr_of.contains(policy);
                assert!(named, "the error does not name the file: {stderr_of}");
            }
        }
        assert!(!socket.exists());
        let missing = folder.join("missing");
        let output = run(&["--check", "--config", missing.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78));
    });
}

#[test]
fn broker_does_not_start_with_unusable_files() {
    bounded(20, || {
        let folder = Folder::new();
        let config = folder.write("config.toml", "[limits]\nhandels = 5");
        let socket = folder.join("socket");
        let output =
            run(&["--config", config.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(78));
        assert!(stderr_of(&output).contains("handels"));
        assert!(!socket.exists());
    });
}

#[test]
fn socket_path_defaults_to_the_configuration() {
    bounded(20, || {
        let folder = Folder::new();
        let path = folder.join("configured");
        let config = folder.write("config.toml", &format!("socket = {path:?}\n"));
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(config).stdin(Stdio::null()).stderr(Stdio::null());
        let _process = Process::spawn(command);
        until("the broker serves", || UnixStream::connect(&path).is_ok());
        LspClient::connect(&path).expect_service();
    });
}

#[test]
fn help_and_usage_errors_are_printed() {
    bounded(20, || {
        let version = run(&["--version"]);
        let running = broker().lsp().call("session.info", Value::Null).result()["version"].clone();
        assert_eq!(
            stderr_of(&version).trim(),
            format!("sockbrokerd {}", running.as_str().unwrap())
        );
        let help = stderr_of(&run(&["--help"]));
        for flag in
            ["--socket", "--stdio", "--config", "--policy", "--check", "--version", "--help"]
        {
            assert!(help.contains(flag), "{flag}: {help}");
        }
        for wrong in [&["--nothing"][..], &["--socket"], &["extra"], &["--stdio", "--socket", "x"]]
        {
            assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
        }
    });
}

#[test]
fn log_contains_no_payload_and_no_tokens() {
    bounded(20, || {
        let start = prepare().shell("export SOCKBROKER_LOG=trace");
        let broker: Daemon = start.start();
        let mut client = broker.lsp();
        let token = client.call("session.open", Value::Null).result()["token"].clone();
        let (left, _) = client.pair();
        let secret = "c2VjcmV0IHBheWxvYWQ=";
        client.call("socket.send", serde_json::json!([left, secret])).result();
        let log = broker.log();
        assert!(!log.is_empty());
        for word in [secret, "secret payload", token.as_str().unwrap()] {
            assert!(!log.contains(word), "the log has {word}");
        }
    });
}

#[test]
fn open_file_limit_is_raised_to_its_maximum_and_that_of_a_worker_is_lower() {
    bounded(20, || {
        let mut broker = prepare().shell("ulimit -Sn 50 && ulimit -Hn 500").start();
        let limit = |process: u32| {
            let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
            let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
            line.split_whitespace().skip(3).take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        let worker = broker.worker();
        assert_eq!(limit(worker), ["469", "469"]);
        assert_eq!(limit(broker.process().number()), ["500", "500"]);
    });
}

#[test]
fn a_policy_with_a_name_that_is_not_utf_8_is_read_again() {
    bounded(20, || {
        let folder = Folder::new();
        let mut command = Command::new(PROGRAM);
        let policy = folder.path().join(OsStr::from_bytes(b"policy-\xff.toml"));
        fs::write(&policy, "version = 1\n").unwrap();
        let socket = folder.join("socket");
        command.arg("--policy").arg(&policy).arg("--socket").arg(&socket).stdin(Stdio::null());
        let _process = Process::spawn(command);
        until("the broker listens", || UnixStream::connect(&socket).is_ok());
        let mut client = LspClient::connect(&socket);
        client.call("admin.reload", Value::Null).result();
        fs::write(&policy, "version = 1\n[[rule]]\nsubject = 7\n").unwrap();
        assert!(client.call("admin.reload", Value::Null).is_fault());
    });
}
