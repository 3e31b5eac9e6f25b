//! `sockbroker-extcap`: its answers to the questions of Wireshark.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use sockbroker_test_support::{Daemon, Folder, namespace};

use crate::program::{Outcome, PROGRAM, broker, command_of, endpoint};
use crate::sniff::{compiler_or_skip, pair};

/// The program under its other name, with folders of its own for what a user configures.
pub(crate) struct Extcap(Folder);

impl Extcap {
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        symlink(PROGRAM, folder.join("sockbroker-extcap")).unwrap();
        Self(folder)
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.0
    }

    /// The command with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command_of(&self.0.join("sockbroker-extcap"), arguments);
        command.env("XDG_RUNTIME_DIR", self.0.path()).env("XDG_CONFIG_HOME", self.0.path());
        command
    }

    /// The command, with a broker that the environment names.
    pub(crate) fn command_at(&self, broker: &Daemon, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("SOCKBROKER", endpoint(broker));
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments).output().unwrap().into()
    }

    fn run_at(&self, broker: &Daemon, arguments: &[&str]) -> Outcome {
        self.command_at(broker, arguments).output().unwrap().into()
    }
}

/// Returns the line on standard error. Fails if there is another output, or another exit code.
pub(crate) fn failure(outcome: &Outcome, code: i32) -> String {
    assert_eq!((outcome.code, outcome.out.as_str()), (code, ""), "{outcome:?}");
    let line = outcome.err.strip_suffix('\n').expect("a line");
    assert!(
        line.starts_with("sockbroker-extcap: ") && !line.contains('\n'),
        "not one line: {line}"
    );
    line.to_owned()
}

#[test]
fn interfaces_of_all_configured_brokers_are_listed() {
    namespace::inside("extcap::interfaces_of_all_configured_brokers_are_listed", || {
        pair("v0", "v1");
        let (one, other, extcap) = (broker(), broker(), Extcap::new());
        let folder = extcap.folder();
        symlink(other.socket(), folder.join("sockbroker.socket")).unwrap();
        std::fs::create_dir_all(folder.join("sockbroker/lab7")).unwrap();
        std::fs::write(folder.join("sockbroker/lab7/ssh_config"), "").unwrap();
        let asked = ["--extcap-interfaces", "--extcap-version=4.0"];
        let outcome = extcap.run_at(&one, &asked);
        // The other host cannot be reached.
        assert!(outcome.err.contains("no interfaces of ssh://lab7: "), "{outcome:?}");
        let output = outcome.success();
        let lines: Vec<&str> = output.lines().collect();
        let version = env!("CARGO_PKG_VERSION");
        let first = format!("extcap {{version={version}}}{{help=https://");
        assert!(lines[0].starts_with(&first), "{output}");
        let interfaces: Vec<&str> =
            lines.iter().filter_map(|line| line.strip_prefix("interface ")).collect();
        let expected = [
            "{value=sockbroker-lo@user}{display=sockbroker: lo of your own broker}",
            "{value=sockbroker-v1@user}{display=sockbroker: v1 of your own broker}",
            "{value=sockbroker-v0@user}{display=sockbroker: v0 of your own broker}",
            "{value=sockbroker-any@user}{display=sockbroker: all interfaces of your own broker}",
            "{value=sockbroker-lo@env}{display=sockbroker: lo of the broker of $SOCKBROKER}",
            "{value=sockbroker-v1@env}{display=sockbroker: v1 of the broker of $SOCKBROKER}",
            "{value=sockbroker-v0@env}{display=sockbroker: v0 of the broker of $SOCKBROKER}",
            "{value=sockbroker-any@env}{display=sockbroker: all interfaces of the broker of $SOCKBROKER}",
            "{value=sockbroker}{display=sockbroker: the broker and the interface of your choice}",
        ];
        // A broker of the machine may serve too.
        let listed: Vec<&str> = interfaces
            .into_iter()
            .filter(|line| line.contains('@') || line.starts_with("{value=sockbroker}"))
            .collect();
        assert_eq!(listed, expected);
        let controls: Vec<&str> =
            lines.iter().copied().skip_while(|line| !line.starts_with("control ")).collect();
        let parts =
            ["{number=0}{type=selector}", "{number=1}{type=string}", "{number=2}{type=button}"];
        assert_eq!(controls.len(), parts.len(), "{output}");
        for (line, part) in controls.iter().zip(parts) {
            assert!(line.starts_with(&format!("control {part}")), "{output}");
        }
        assert!(controls[2].ends_with("{role=logger}"), "{output}");
        // scapy does not pass a version.
        assert_eq!(extcap.run_at(&one, &asked[..1]).success(), output);
        // A broker that has two names is listed once, by the name that does not depend on the environment.
        let mut command = extcap.command(&asked);
        command.env("SOCKBROKER", folder.join("sockbroker.socket"));
        let output = Outcome::from(command.output().unwrap()).success();
        assert!(output.contains("-lo@user}") && !output.contains("@env}"), "{output}");
    });
}

#[test]
fn brokers_that_do_not_answer_do_not_hide_others() {
    namespace::inside("extcap::brokers_that_do_not_answer_do_not_hide_others", || {
        let (serving, extcap) = (broker(), Extcap::new());
        symlink(serving.socket(), extcap.folder().join("sockbroker.socket")).unwrap();
        let silent = extcap.folder().join("silent");
        let _listener = UnixListener::bind(&silent).unwrap();
        let mut command = extcap.command(&["--extcap-interfaces"]);
        let outcome = Outcome::from(command.env("SOCKBROKER", &silent).output().unwrap());
        let late =
            format!("no interfaces of unix:{}: no answer within 3 seconds\n", silent.display());
        // Nothing is reported of the system's broker, which this machine does not have.
        let system = Path::new("/run/sockbroker").exists();
        assert!(outcome.err == late || system && outcome.err.contains(&late), "{outcome:?}");
        let output = outcome.success();
        assert!(output.contains("{value=sockbroker-lo@user}"), "{output}");
        assert!(!output.contains("@env}"), "{output}");
    });
}

/// The options of each interface, in the words of Wireshark.
const OPTIONS: [(&str, &str); 8] = [
    ("--promiscuous", "{type=boolflag}"),
    ("--snaplen", "{type=integer}"),
    ("--direction", "{type=selector}"),
    ("--buffer-size", "{type=integer}"),
    ("--netns", "{type=string}"),
    ("--filter", "{type=string}"),
    ("--log-level", "{type=selector}"),
    ("--log-file", "{type=fileselect}"),
];

#[test]
fn link_type_and_options_of_an_interface_are_listed() {
    let extcap = Extcap::new();
    let link_types =
        extcap.run(&["--extcap-interface", "sockbroker-lo", "--extcap-dlts"]).success();
    assert_eq!(
        link_types,
        "dlt {number=1}{name=EN10MB}{display=Ethernet, or as the capture states}\n"
    );
    let output = extcap.run(&["--extcap-interface", "sockbroker-lo", "--extcap-config"]).success();
    let options: Vec<&str> = output.lines().filter(|line| line.starts_with("arg ")).collect();
    assert_eq!(options.len(), OPTIONS.len(), "{output}");
    for (line, (call, kind)) in options.iter().zip(OPTIONS) {
        let number = line.strip_prefix("arg {number=").unwrap().split('}').next().unwrap();
        let values = output.matches(&format!("value {{arg={number}}}")).count();
        assert!(line.contains(&format!("{{call={call}}}")) && line.contains(kind), "{line}");
        assert_eq!(values > 1, kind == "{type=selector}", "{output}");
    }
    assert!(options[0].ends_with("{default=true}"), "{output}");
    assert!(
        output.contains("value {arg=4}{value=in}{display=received}{default=false}\n"),
        "{output}"
    );
}

#[test]
fn interfaces_of_a_chosen_broker_are_reloaded() {
    namespace::inside("extcap::interfaces_of_a_chosen_broker_are_reloaded", || {
        let (broker, extcap) = (broker(), Extcap::new());
        let question = ["--extcap-interface", "sockbroker", "--extcap-config"];
        let output = extcap.run(&question).success();
        let required = "arg {number=0}{call=--broker}{display=Broker}{type=string}";
        assert!(output.starts_with(required), "{output}");
        assert!(output.contains("{call=--interface}{display=Interface}{type=selector}"));
        assert!(output.contains("{reload=true}"), "{output}");
        let reload = [&question[..], &["--extcap-reload-option", "interface"]].concat();
        let endpoint = endpoint(&broker);
        let reloaded = extcap.run(&[&reload[..], &["--broker", &endpoint]].concat()).success();
        assert_eq!(
            reloaded,
            "value {arg=1}{value=lo}{display=lo}{default=false}\n\
             value {arg=1}{value=any}{display=any}{default=true}\n"
        );
        // Without the option it is that of the environment, as for the command line.
        assert_eq!(extcap.run_at(&broker, &reload).success(), reloaded);
        let line =
            failure(&extcap.run(&[&reload[..], &["--broker", "unix:/nowhere"]].concat()), 69);
        assert!(line.contains("no broker answers; tried unix:/nowhere (ENOENT)"), "{line}");
        assert!(!line.contains("--private"), "{line}");
    });
}

#[test]
fn wrong_questions_are_refused() {
    let extcap = Extcap::new();
    for (arguments, part) in [
        (&[][..], "give --extcap-interfaces"),
        (&["--extcap-dlts"], "give --extcap-interfaces"),
        (&["--extcap-interface", "eth0", "--extcap-dlts"], "cannot use the interface \"eth0\""),
        (&["--extcap-interface", "sockbroker-", "--extcap-config"], "--extcap-interfaces` lists"),
        (&["--extcap-interface", "sockbroker-lo"], "requires --extcap-dlts"),
        (&["--extcap-interface", "sockbroker-lo", "--capture"], "--capture requires --fifo"),
        (
            &[
                "--extcap-interface",
                "sockbroker-lo",
                "--extcap-config",
                "--extcap-reload-option",
                "netns",
            ],
            "no values to reload",
        ),
        (
            &["--extcap-interface", "sockbroker-lo@env", "--capture", "--fifo", "x"],
            "SOCKBROKER is not set",
        ),
        (
            &["--extcap-interface", "sockbroker-lo@lab7", "--capture", "--fifo", "x"],
            "sockbroker/lab7/ssh_config",
        ),
    ] {
        let line = failure(&extcap.run(arguments), 2);
        assert!(line.contains(part), "{arguments:?}: {line}");
    }
    // Out of range, unknown, and half of the toolbar.
    for words in [["--snaplen", "262145"], ["--sideways", "x"], ["--extcap-control-in", "x"]] {
        let outcome = extcap
            .run(&[&["--extcap-interface", "sockbroker-lo", "--extcap-dlts"], &words[..]].concat());
        assert!(
            outcome.code == 2 && outcome.out.is_empty() && outcome.err.starts_with("error: "),
            "{outcome:?}"
        );
    }
}

#[test]
fn filter_expressions_are_checked_without_a_capture() {
    const TEST: &str = "extcap::filter_expressions_are_checked_without_a_capture";
    if !compiler_or_skip(TEST) {
        return;
    }
    let extcap = Extcap::new();
    let check = |expression: &str, more: &[&str]| {
        let words = ["--extcap-interface", "sockbroker-lo", "--extcap-capture-filter", expression];
        extcap.run(&[&words[..], more].concat()).success()
    };
    for more in [&[][..], &["--capture"]] {
        for valid in ["", " ", "udp port 67", "vlan 100 and ip"] {
            assert_eq!(check(valid, more), "", "{valid}");
        }
        let said = check("udp port", more);
        assert!(said.starts_with("cannot compile the filter \"udp port\": "), "{said}");
        assert_eq!(said.lines().count(), 1);
        assert!(check("ip protochain 6", more).contains("the kernel does not run loops"));
    }
}

#[test]
fn a_name_other_than_its_own_is_the_command_line() {
    let folder = Folder::new();
    let other = folder.join("sockbroker-extcap.old");
    symlink(PROGRAM, &other).unwrap();
    let outcome = Outcome::from(command_of(&other, &["--extcap-interfaces"]).output().unwrap());
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.err.contains("unexpected argument '--extcap-interfaces'"), "{outcome:?}");
}

/// Creates a FIFO.
pub(crate) fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).stdin(Stdio::null()).status().unwrap();
    assert!(made.success());
}
