//! What the program says when something is wrong: one line, and an exit code of its own.

use sockbroker_test_support::{Folder, bounded};

use crate::program::{ask, broker, command, run};

#[test]
fn without_a_broker_it_says_what_was_tried_and_how_to_start_one() {
    bounded(30, || {
        let folder = Folder::new();
        let path = folder.join("nobody");
        let line = run(&["--broker", path.to_str().unwrap(), "info"]).failed_with(69);
        for part in ["nobody (ENOENT)", "`sockbrokerd`", "systemctl start sockbrokerd.socket"] {
            assert!(line.contains(part), "{line}");
        }
        assert!(line.contains("--private"), "{line}");
    });
}

#[test]
fn the_usual_sockets_are_tried_and_told() {
    bounded(30, || {
        let folder = Folder::new();
        let mut command = command(&["info"]);
        command.env("XDG_RUNTIME_DIR", folder.path());
        let ran = command.output().unwrap();
        if ran.status.success() {
            // The system's own broker runs here, and was found after the user's was not.
            return;
        }
        let said = String::from_utf8(ran.stderr).unwrap();
        let user = folder.join("sockbroker.socket");
        assert!(said.contains(user.to_str().unwrap()), "{said}");
        assert!(said.contains("/run/sockbroker/socket ("), "{said}");
    });
}

#[test]
fn the_environment_names_the_broker() {
    bounded(30, || {
        let broker = broker();
        let mut by_name = command(&["info", "--json"]);
        let ran = by_name.env("SOCKBROKER", broker.socket()).output().unwrap();
        assert!(ran.status.success());
        let mut by_nonsense = command(&["info"]);
        let ran = by_nonsense.env("SOCKBROKER", "nonsense").output().unwrap();
        assert_eq!(ran.status.code(), Some(2));
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(said.contains("nonsense") && said.contains("unix:PATH"), "{said}");
    });
}

#[test]
fn errors_of_the_system_are_told_by_name() {
    bounded(30, || {
        let broker = broker();
        let call = ["call", "socket.create_connection", "address=[\"127.0.0.1\",1]"];
        let line = ask(&broker, &call).failed_with(1);
        assert!(line.contains("socket.create_connection: ECONNREFUSED: "), "{line}");
        let line = ask(&broker, &["call", "socket.getsockname", "handle=7"]).failed_with(1);
        assert!(line.contains("no handle 7"), "{line}");
        let call = ["call", "socket.getservbyname", "servicename=no such service"];
        let line = ask(&broker, &call).failed_with(1);
        assert!(line.contains("socket.getservbyname"), "{line}");
        let call = ["call", "socket.getaddrinfo", "host=999.999.999.999", "flags=AI_NUMERICHOST"];
        let line = ask(&broker, &call).failed_with(1);
        assert!(line.contains("EAI_NONAME"), "{line}");
    });
}

#[test]
fn names_that_are_wrong_are_told_with_where_to_look() {
    bounded(30, || {
        let broker = broker();
        let line = ask(&broker, &["call", "socket.nothing"]).failed_with(1);
        assert!(line.contains("socket.nothing") && line.contains("sockbroker discover"), "{line}");
        let line = ask(&broker, &["call", "socket.htons", "y=1"]).failed_with(1);
        assert!(line.contains("discover socket.htons"), "{line}");
        let line = ask(&broker, &["call", "socket.socket", "family=AF_NOTHING"]).failed_with(1);
        assert!(line.contains("AF_NOTHING"), "{line}");
        let line = ask(&broker, &["discover", "nothing"]).failed_with(1);
        assert!(line.contains("nothing"), "{line}");
    });
}

#[test]
fn a_wrong_command_line_is_refused_before_a_broker_is_looked_for() {
    bounded(30, || {
        for wrong in [
            &["call", "socket.htons", "80"][..],
            &["call", "socket.htons", "[80"],
            &["man", "nothing"],
            &["--json", "demo"],
            &["--session", "token", "nc", "127.0.0.1", "1"],
            &["--private", "completions", "bash"],
        ] {
            run(wrong).failed_with(2);
        }
        for wrong in [&["nothing"][..], &["call"], &["nc", "host"], &["ping", "-c", "0", "host"]] {
            let ran = run(wrong);
            assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{wrong:?}: {ran:?}");
            assert!(ran.err.contains("Usage") || ran.err.contains("error:"), "{ran:?}");
        }
    });
}

#[test]
fn the_help_tells_environment_and_exit_codes() {
    bounded(30, || {
        let help = run(&["--help"]).done();
        for part in ["SOCKBROKER_SESSION", "NO_COLOR", "Exit codes:", "69  no broker answers"] {
            assert!(help.contains(part), "{help}");
        }
        assert!(!help.contains("Be the broker"), "the other part is not for people: {help}");
    });
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_to_talk_of() {
    bounded(30, || {
        let script = format!("{} --private discover | head -n 1", crate::program::PROGRAM);
        let ran = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(ran.stderr).unwrap(), "");
        assert!(ran.status.success());
    });
}

#[test]
fn the_help_of_a_subcommand_has_no_option_that_it_refuses() {
    bounded(30, || {
        let help = run(&["demo", "--help"]).done();
        assert!(!help.contains("--broker") && !help.contains("--json"), "{help}");
        let help = run(&["nc", "--help"]).done();
        assert!(help.contains("--private") && !help.contains("--session"), "{help}");
        run(&["demo", "--json"]).failed_with(2);
    });
}
