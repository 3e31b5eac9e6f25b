//! Brokers behind ssh: `--broker ssh://HOST`, and `sockbroker dial-stdio`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use serde_json::{Value, json};
use sockbroker_test_support::daemon::kill_process;
use sockbroker_test_support::sshd::{installed_or_skip, shell_or_skip};
use sockbroker_test_support::{Daemon, Folder, Sshd, User, bounded, skip, until};

use crate::program::{Outcome, PROGRAM, broker, command, run, run_with_input};

/// `sshd_config`: no forwarded sockets, so that clients use `dial-stdio`.
const NO_FORWARDING: &str = "AllowStreamLocalForwarding no";

/// What the server logs when it starts a program.
const PROGRAM_STARTED: &str = "Starting session: command";

/// A broker, and a server of ssh for it.
struct Lab {
    broker: Daemon,
    sshd: Sshd,
}

impl Lab {
    /// `None` if the machine has no ssh.
    fn new(test: &str, configuration: &str) -> Option<Self> {
        installed_or_skip(test)
            .then(|| Self { broker: broker(), sshd: Sshd::start(PROGRAM, configuration) })
    }

    /// The same with a login shell, by which sshd starts programs.
    fn with_shell(test: &str, configuration: &str) -> Option<Self> {
        if shell_or_skip(test) { Self::new(test, configuration) } else { None }
    }

    fn url(&self) -> String {
        self.sshd.url(None, self.broker.socket())
    }

    /// Adds a line to the configuration of ssh.
    fn configure(&self, line: &str) {
        let file = self.sshd.folder().join("config/sockbroker/127.0.0.1/ssh_config");
        let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
        writeln!(file, "{line}").unwrap();
    }

    fn command(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = command(&[&["--broker", url], arguments].concat());
        command.envs(self.sshd.variables());
        command
    }

    fn run_at(&self, url: &str, arguments: &[&str]) -> Outcome {
        let outcome = Outcome::from(self.command(url, arguments).output().unwrap());
        assert_eq!(self.sshd.sockets(), [""; 0], "{}", self.sshd.log());
        outcome
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_at(&self.url(), arguments)
    }

    /// Returns the number of sessions that clients have opened.
    fn sessions(&self) -> usize {
        let sessions = self.broker.lsp().call("admin.sessions", Value::Null);
        let sessions = sessions.result().as_array().unwrap().clone();
        sessions.iter().filter(|session| session["opened"] == true).count()
    }
}

fn is_info_of(info: &Value, uid: u32) {
    assert_eq!(info["session"]["uid"], uid, "{info}");
    assert_eq!(info["session"]["descriptors"], false, "{info}");
    assert!(info["endpoint"].as_str().unwrap().starts_with("ssh://"), "{info}");
}

#[test]
fn forwarded_socket_serves_the_login_without_descriptors() {
    bounded(60, || {
        let test = "ssh::forwarded_socket_serves_the_login_without_descriptors";
        let Some(lab) = Lab::new(test, "") else { return };
        is_info_of(&lab.run(&["info", "--json"]).json(), User::own());
        // The program on the other host was not needed.
        assert!(!lab.sshd.log().contains(PROGRAM_STARTED), "{}", lab.sshd.log());
        let error = lab.run(&["call", "socket.socket", "want_fd=true"]).failure(1);
        assert!(error.contains("carries no descriptors"), "{error}");
        until("the session ends", || lab.sessions() == 0);
    });
}

#[test]
fn user_of_the_login_is_the_caller() {
    bounded(60, || {
        let test = "ssh::user_of_the_login_is_the_caller";
        if !skip::root_or_skip(test) {
            return;
        }
        let Some(mut lab) = Lab::new(test, "") else { return };
        lab.broker = lab.broker.open_to_all();
        let url = lab.sshd.url(Some("nobody"), lab.broker.socket());
        is_info_of(&lab.run_at(&url, &["info", "--json"]).json(), 65534);
    });
}

#[test]
fn without_forwarding_dial_stdio_carries_the_connection() {
    bounded(60, || {
        let test = "ssh::without_forwarding_dial_stdio_carries_the_connection";
        let Some(lab) = Lab::with_shell(test, NO_FORWARDING) else { return };
        is_info_of(&lab.run(&["info", "--json"]).json(), User::own());
        assert!(lab.sshd.log().contains(PROGRAM_STARTED), "{}", lab.sshd.log());
        until("the session ends", || lab.sessions() == 0);
    });
}

#[test]
fn text_of_the_login_shell_is_skipped() {
    bounded(60, || {
        let test = "ssh::text_of_the_login_shell_is_skipped";
        let Some(lab) = Lab::with_shell(test, NO_FORWARDING) else { return };
        lab.sshd.folder().write("home/.bashrc", "echo welcome to lab7; echo Content is 7\n");
        is_info_of(&lab.run(&["info", "--json"]).json(), User::own());
    });
}

#[test]
fn login_may_take_longer_than_a_local_broker_to_answer() {
    bounded(60, || {
        let test = "ssh::login_may_take_longer_than_a_local_broker_to_answer";
        let Some(lab) = Lab::with_shell(test, NO_FORWARDING) else { return };
        // Ten seconds are the limit of a local broker.
        lab.sshd.folder().write("home/.bashrc", "sleep 11\n");
        is_info_of(&lab.run(&["info", "--json"]).json(), User::own());
    });
}

#[test]
fn program_of_proxy_command_ends_with_the_client() {
    bounded(60, || {
        let test = "ssh::program_of_proxy_command_ends_with_the_client";
        if !skip::program_or_skip("socat", test) {
            return;
        }
        for configuration in ["", NO_FORWARDING] {
            if !configuration.is_empty() && !shell_or_skip(test) {
                continue;
            }
            let Some(lab) = Lab::new(test, configuration) else { return };
            // Like nc, it does not end with its standard input.
            lab.configure("ProxyCommand socat STDIO,ignoreeof TCP:%h:%p");
            let (mut child, _stderr) = listening(&lab);
            until("one program remains", || lab.sshd.processes("socat").len() == 1);
            child.kill().unwrap();
            child.wait().unwrap();
            until("the program ends", || lab.sshd.processes("socat").is_empty());
            is_info_of(&lab.run(&["info", "--json"]).json(), User::own());
            until("the program ends", || lab.sshd.processes("socat").is_empty());
            until("the sessions end", || lab.sessions() == 0);
        }
    });
}

#[test]
fn forwarding_of_the_configuration_may_use_a_port_that_is_taken() {
    bounded(60, || {
        let test = "ssh::forwarding_of_the_configuration_may_use_a_port_that_is_taken";
        let Some(lab) = Lab::new(test, "") else { return };
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        lab.configure("ExitOnForwardFailure yes");
        lab.configure(&format!("LocalForward 127.0.0.1:{port} 127.0.0.1:1"));
        is_info_of(&lab.run(&["info", "--json"]).json(), User::own());
        assert!(!lab.sshd.log().contains(PROGRAM_STARTED), "{}", lab.sshd.log());
    });
}

#[test]
fn key_that_is_restricted_to_dial_stdio_can_do_nothing_else() {
    bounded(60, || {
        let test = "ssh::key_that_is_restricted_to_dial_stdio_can_do_nothing_else";
        let Some(lab) = Lab::with_shell(test, "") else { return };
        let folder = lab.sshd.folder();
        let key = fs::read_to_string(folder.join("user_key.pub")).unwrap();
        let socket = lab.broker.socket().display();
        let restriction =
            format!("restrict,command=\"{PROGRAM} dial-stdio --socket {socket}\" {key}");
        folder.write("authorized_keys", &restriction);
        // The path of the client has no effect.
        let url = lab.sshd.url(None, Path::new("/nowhere"));
        is_info_of(&lab.run_at(&url, &["info", "--json"]).json(), User::own());
        let port = url.rsplit(':').next().unwrap().split('/').next().unwrap();
        let mut ssh = Command::new("ssh");
        ssh.arg("-F").arg(folder.join("config/sockbroker/127.0.0.1/ssh_config"));
        ssh.args(["-p", port, "127.0.0.1", "echo", "it ran"]).stdin(Stdio::null());
        let output = ssh.output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "sockbroker dial-stdio 1\n");
    });
}

#[test]
fn errors_of_ssh_are_reported_with_its_own_words() {
    bounded(100, || {
        let test = "ssh::errors_of_ssh_are_reported_with_its_own_words";
        let Some(lab) = Lab::new(test, "") else { return };
        let fails = |parts: &[&str]| {
            let line = lab.run(&["info"]).failure(69);
            for part in parts {
                assert!(line.contains(part), "{part}: {line}");
            }
            assert!(!line.contains("systemctl"), "{line}");
            line
        };
        lab.sshd.know("other_key");
        let changed =
            ["ssh://127.0.0.1", "HOST IDENTIFICATION HAS CHANGED", "key verification failed"];
        assert!(!fails(&changed).contains("unknown key"));
        lab.sshd.folder().write("known_hosts", "");
        let port = lab.sshd.url(None, Path::new("/s"));
        let port = port.rsplit(':').next().unwrap().split('/').next().unwrap();
        let hint = format!("-p {port} 127.0.0.1` once, and confirm it");
        fails(&["Host key verification failed", "to add an unknown key, run `ssh -F ", &hint]);
        lab.sshd.know("host_key");
        lab.sshd.folder().write("authorized_keys", "");
        fails(&["ssh failed", "Permission denied (publickey)"]);
        let refused = lab.run_at("ssh://127.0.0.1:1/s", &["info"]).failure(69);
        let reason = "ssh failed: connect to host 127.0.0.1 port 1: Connection refused";
        assert!(refused.contains(reason), "{refused}");
        let mut direct = Command::new(PROGRAM);
        direct.args(["--broker", &lab.url(), "info"]).envs(lab.sshd.variables());
        direct.env("PATH", lab.sshd.folder().path()).env_remove("SOCKBROKER_SESSION");
        let missing = Outcome::from(direct.output().unwrap()).failure(69);
        assert!(missing.contains("ssh: not found"), "{missing}");
    });
}

#[test]
fn missing_broker_is_reported_by_the_program_on_the_other_host() {
    bounded(60, || {
        let test = "ssh::missing_broker_is_reported_by_the_program_on_the_other_host";
        let Some(lab) = Lab::with_shell(test, "") else { return };
        let url = lab.sshd.url(None, &lab.sshd.folder().join("none"));
        let line = lab.run_at(&url, &["info"]).failure(69);
        assert!(line.contains("/none (ENOENT)"), "{line}");
        let part = "/none on 127.0.0.1, and `sockbroker dial-stdio` there failed: ";
        assert!(line.contains(part), "{line}");
    });
}

#[test]
fn missing_program_on_the_other_host_is_reported() {
    bounded(60, || {
        let test = "ssh::missing_program_on_the_other_host_is_reported";
        if !shell_or_skip(test) || !installed_or_skip(test) {
            return;
        }
        let lab = Lab { broker: broker(), sshd: Sshd::start("/usr/bin/true", NO_FORWARDING) };
        let line = lab.run(&["info"]).failure(69);
        let socket = lab.broker.socket().display();
        let reason =
            format!("no broker answers at {socket} on 127.0.0.1: probably none runs there, or ");
        assert!(line.contains(&reason), "{line}");
        assert!(
            line.contains("AllowStreamLocalForwarding") && !line.contains("not found"),
            "{line}"
        );
    });
}

#[test]
fn sniff_captures_where_the_broker_runs() {
    bounded(60, || {
        let test = "ssh::sniff_captures_where_the_broker_runs";
        if !skip::root_or_skip(test) || sockbroker_filter::Compiler::new().is_err() {
            return;
        }
        for configuration in ["", NO_FORWARDING] {
            if !configuration.is_empty() && !shell_or_skip(test) {
                continue;
            }
            let Some(lab) = Lab::new(test, configuration) else { return };
            let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = receiver.local_addr().unwrap();
            let expression = format!("udp dst port {}", address.port());
            let file = lab.sshd.folder().join("captured");
            let arguments = ["sniff", "lo", &expression, "--print", "-w", file.to_str().unwrap()];
            let mut child = lab.command(&lab.url(), &arguments).spawn().unwrap();
            let mut stderr = BufReader::new(child.stderr.take().unwrap());
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            stderr.read_line(&mut line).unwrap();
            assert!(line.starts_with("listening on lo"), "{line}");
            for _ in 0..3 {
                receiver.send_to(b"hello", address).unwrap();
                line.clear();
                stdout.read_line(&mut line).unwrap();
                assert!(line.contains("UDP length 5"), "{line}");
            }
            // timeout(1) forwards it.
            let mut kill = Command::new("kill");
            assert!(kill.args(["-INT", &child.id().to_string()]).status().unwrap().success());
            let mut rest = String::new();
            stderr.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, crate::sniff::complete(3));
            assert_eq!(child.wait().unwrap().code(), Some(0));
            let bytes = fs::read(&file).unwrap();
            assert_eq!(bytes.windows(5).filter(|part| part == b"hello").count(), 3);
            until("the session ends", || lab.sessions() == 0);
        }
    });
}

/// Starts `nc -l` at the broker. Returns it with its standard error once it listens.
fn listening(lab: &Lab) -> (Child, BufReader<std::process::ChildStderr>) {
    // Without timeout(1), so that its process is the program.
    let mut program = Command::new(PROGRAM);
    program.args(["--broker", &lab.url(), "nc", "-l", "127.0.0.1", "0"]);
    program.envs(lab.sshd.variables()).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    (child, stderr)
}

#[test]
fn killed_ssh_ends_the_session_and_the_program() {
    bounded(60, || {
        let test = "ssh::killed_ssh_ends_the_session_and_the_program";
        for configuration in ["", NO_FORWARDING] {
            if !configuration.is_empty() && !shell_or_skip(test) {
                continue;
            }
            let Some(lab) = Lab::new(test, configuration) else { return };
            let (mut child, mut stderr) = listening(&lab);
            let clients = lab.sshd.clients();
            assert_eq!(clients.len(), 1);
            kill_process(clients[0]);
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            assert!(text.contains("the connection to the broker ended"), "{text}");
            assert_eq!(child.wait().unwrap().code(), Some(69));
            until("the session ends", || lab.sessions() == 0);
            until("the folder is removed", || lab.sshd.sockets().is_empty());
        }
    });
}

#[test]
fn killed_program_leaves_no_ssh_no_session_and_no_folder() {
    bounded(60, || {
        let test = "ssh::killed_program_leaves_no_ssh_no_session_and_no_folder";
        for (configuration, sockets) in [("", 1), (NO_FORWARDING, 0)] {
            if !configuration.is_empty() && !shell_or_skip(test) {
                continue;
            }
            let Some(lab) = Lab::new(test, configuration) else { return };
            let (mut child, _stderr) = listening(&lab);
            assert_eq!((lab.sshd.clients().len(), lab.sshd.sockets().len()), (1, sockets));
            child.kill().unwrap();
            child.wait().unwrap();
            until("ssh ends", || lab.sshd.clients().is_empty());
            until("the session ends", || lab.sessions() == 0);
            until("the folder is removed", || lab.sshd.sockets().is_empty());
        }
    });
}

#[test]
fn data_sent_before_the_end_of_the_program_arrive() {
    bounded(100, || {
        let test = "ssh::data_sent_before_the_end_of_the_program_arrive";
        for configuration in ["", NO_FORWARDING] {
            if !configuration.is_empty() && !shell_or_skip(test) {
                continue;
            }
            let Some(lab) = Lab::new(test, configuration) else { return };
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port().to_string();
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut received = Vec::new();
                stream.read_to_end(&mut received).unwrap();
                received
            });
            let data: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
            let mut nc = lab.command(&lab.url(), &["nc", "127.0.0.1", &port]);
            let mut child = nc.stdin(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(&data).unwrap();
            assert!(server.join().unwrap() == data);
            Outcome::from(child.wait_with_output().unwrap()).success();
        }
    });
}

#[test]
fn dial_stdio_prints_a_line_and_then_copies_until_both_ends_close() {
    bounded(30, || {
        let broker = broker();
        let socket = broker.socket().to_str().unwrap();
        let request =
            |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "socket.htons", "params": [id]});
        let requests = format!("{}\n{}\n{}\n", request(1), request(2), request(3));
        let out =
            run_with_input(&["dial-stdio", "--socket", socket], requests.as_bytes()).success();
        let mut lines = out.lines();
        assert_eq!(lines.next(), Some("sockbroker dial-stdio 1"));
        let answers: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        let results: Vec<_> = answers.iter().map(|answer| answer["result"].clone()).collect();
        assert_eq!(results, [256, 512, 768]);
        // A broker that closes ends it, although the input is open.
        let mut child = crate::program::start(&["dial-stdio", "--socket", socket]);
        child.stdin.as_mut().unwrap().write_all(b"Content-Length: x\r\n\r\n").unwrap();
        let input = child.stdin.take();
        assert!(child.wait().unwrap().success());
        drop(input);
    });
}

#[test]
fn dial_stdio_reports_a_missing_broker_and_prints_nothing() {
    bounded(30, || {
        let folder = Folder::new();
        let missing = folder.join("none");
        let outcome = run(&["dial-stdio", "--socket", missing.to_str().unwrap()]);
        let line = outcome.failure(69);
        assert!(line.contains("/none (ENOENT)"), "{line}");
        let line = run(&["dial-stdio", "--json"]).failure(2);
        assert!(line.contains("does not accept"), "{line}");
    });
}

#[test]
fn commands_are_relays_whose_text_before_the_protocol_is_reported() {
    bounded(60, || {
        let broker = broker();
        let folder = Folder::new();
        let relay = |script: &str| {
            let text = format!("#!/bin/sh\n{script}\n");
            format!("stdio:sh {}", folder.write("relay", &text).display())
        };
        let dial = format!("exec {PROGRAM} dial-stdio --socket {}", broker.socket().display());
        for script in [dial.clone(), format!("echo welcome; printf '\\n\\n'; {dial}")] {
            let info = run(&["--broker", &relay(&script), "info", "--json"]).json();
            assert_eq!(info["session"]["descriptors"], false);
        }
        let direct =
            format!("SOCKBROKER_LOG=error exec {PROGRAM} broker --stdio --built-in-policy");
        let info = run(&["--broker", &relay(&direct), "info", "--json"]).json();
        assert_eq!(info["session"]["descriptors"], false);
        for script in [format!("echo welcome to lab7; {direct}"), "echo welcome to lab7".to_owned()]
        {
            let line = run(&["--broker", &relay(&script), "info"]).failure(76);
            assert!(line.contains("printed \"welcome to lab7\" before the protocol"), "{line}");
        }
    });
}

#[test]
fn dial_stdio_ends_with_its_reader_also_while_a_call_waits() {
    bounded(30, || {
        let broker = broker();
        let socket = broker.socket().to_str().unwrap();
        let mut child = crate::program::start(&["dial-stdio", "--socket", socket]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "sockbroker dial-stdio 1");
        let mut input = child.stdin.take().unwrap();
        let mut call = |id: u32, method: &str, params: Value| {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
            writeln!(input, "{request}").unwrap();
        };
        call(1, "socket.socketpair", json!([]));
        let made: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        call(2, "socket.recv", json!([made["result"][0]["handle"], 1]));
        drop((input, lines));
        assert!(child.wait().unwrap().success());
        until("the call ends", || {
            broker.lsp().call("admin.sessions", Value::Null).result()[1].is_null()
        });
    });
}
