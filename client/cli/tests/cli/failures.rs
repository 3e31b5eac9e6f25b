//! Errors of the program: one line, and the exit code.

use sockbroker_test_support::{Folder, bounded};

use crate::program::{broker, command, run, run_at};

#[test]
fn without_a_broker_the_error_lists_sockets_and_how_to_start_one() {
    bounded(30, || {
        let folder = Folder::new();
        let path = folder.join("missing");
        let line = run(&["--broker", path.to_str().unwrap(), "info"]).failure(69);
        for part in ["missing (ENOENT)", "`sockbrokerd`", "systemctl start sockbrokerd.socket"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(line.contains("--private"), "{line}");
    });
}

#[test]
fn default_sockets_are_tried_and_reported() {
    bounded(30, || {
        let folder = Folder::new();
        let mut command = command(&["info"]);
        command.env("XDG_RUNTIME_DIR", folder.path());
        let outcome = command.output().unwrap();
        if outcome.status.success() {
            // This machine runs a broker at the system's socket, which is tried after the user's socket.
            return;
        }
        let stderr = String::from_utf8(outcome.stderr).unwrap();
        let user = folder.join("sockbroker.socket");
        assert!(stderr.contains(user.to_str().unwrap()), "{stderr}");
        assert!(stderr.contains("/run/sockbroker/socket ("), "{stderr}");
    });
}

#[test]
fn environment_variable_selects_the_broker() {
    bounded(30, || {
        let broker = broker();
        let mut by_name = command(&["info", "--json"]);
        let outcome = by_name.env("SOCKBROKER", broker.socket()).output().unwrap();
        assert!(outcome.status.success());
        let mut by_nonsense = command(&["info"]);
        let outcome = by_nonsense.env("SOCKBROKER", "nonsense").output().unwrap();
        assert_eq!(outcome.status.code(), Some(2));
        let stderr = String::from_utf8(outcome.stderr).unwrap();
        assert!(stderr.contains("nonsense") && stderr.contains("unix:PATH"), "{stderr}");
    });
}

#[test]
fn system_errors_are_reported_by_name() {
    bounded(30, || {
        let broker = broker();
        let call = ["call", "socket.create_connection", "address=[\"127.0.0.1\",1]"];
        let line = run_at(&broker, &call).failure(1);
        assert!(line.contains("socket.create_connection: ECONNREFUSED: "), "{line}");
        let line = run_at(&broker, &["call", "socket.getsockname", "handle=7"]).failure(1);
        assert!(line.contains("no handle 7"), "{line}");
        let call = ["call", "socket.getservbyname", "servicename=no such service"];
        let line = run_at(&broker, &call).failure(1);
        assert!(line.contains("socket.getservbyname"), "{line}");
        let call = ["call", "socket.getaddrinfo", "host=999.999.999.999", "flags=AI_NUMERICHOST"];
        let line = run_at(&broker, &call).failure(1);
        assert!(line.contains("EAI_NONAME"), "{line}");
    });
}

#[test]
fn wrong_names_are_reported_with_a_hint() {
    bounded(30, || {
        let broker = broker();
        let line = run_at(&broker, &["call", "socket.nothing"]).failure(1);
        assert!(line.contains("socket.nothing") && line.contains("sockbroker discover"), "{line}");
        let line = run_at(&broker, &["call", "socket.htons", "y=1"]).failure(1);
        assert!(line.contains("discover socket.htons"), "{line}");
        let line = run_at(&broker, &["call", "socket.socket", "family=AF_NOTHING"]).failure(1);
        assert!(line.contains("AF_NOTHING"), "{line}");
        let line = run_at(&broker, &["discover", "nothing"]).failure(1);
        assert!(line.contains("nothing"), "{line}");
    });
}

#[test]
fn wrong_command_line_is_refused_before_connecting() {
    bounded(30, || {
        for wrong in [
            &["call", "socket.htons", "80"][..],
            &["call", "socket.htons", "[80"],
            &["man", "nothing"],
            &["--json", "demo"],
            &["--session", "token", "nc", "127.0.0.1", "1"],
            &["--private", "completions", "bash"],
            &["--persist", "completions", "bash"],
            &["--persist", "policy", "check"],
            &["--persist", "agent", "--listen", "none"],
        ] {
            run(wrong).failure(2);
        }
        for wrong in [&["nothing"][..], &["call"], &["nc", "host"], &["ping", "-c", "0", "host"]] {
            let outcome = run(wrong);
            assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{wrong:?}: {outcome:?}");
            assert!(outcome.err.contains("Usage") || outcome.err.contains("error:"), "{outcome:?}");
        }
    });
}

#[test]
fn help_lists_environment_and_exit_codes() {
    bounded(30, || {
        let help = run(&["--help"]).success();
        for part in ["SOCKBROKER_SESSION", "NO_COLOR", "Exit codes:", "69  no broker answers"] {
            assert!(help.contains(part), "{help}");
        }
        assert!(!help.contains("Run as the broker"), "the hidden subcommand is listed: {help}");
    });
}

#[test]
fn closed_output_pipe_is_not_reported() {
    bounded(30, || {
        let script = format!("{} --private discover | head -n 1", crate::program::PROGRAM);
        let outcome = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(outcome.stderr).unwrap(), "");
        assert!(outcome.status.success());
    });
}

#[test]
fn help_of_a_subcommand_omits_refused_options() {
    bounded(30, || {
        let help = run(&["demo", "--help"]).success();
        assert!(!help.contains("--broker") && !help.contains("--json"), "{help}");
        let help = run(&["nc", "--help"]).success();
        assert!(help.contains("--private") && !help.contains("--session"), "{help}");
        for other in ["agent", "completions", "demo", "dial-stdio", "man", "pki", "policy", "token"]
        {
            let help = run(&[other, "--help"]).success();
            assert!(
                !help.contains("--persist") && !help.contains("--reconnect"),
                "{other}: {help}"
            );
        }
        run(&["demo", "--json"]).failure(2);
    });
}
