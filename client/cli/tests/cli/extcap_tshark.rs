//! tshark of an unprivileged user, which runs `sockbroker-extcap` as Wireshark does.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use sockbroker_test_support::skip::program_or_skip;
use sockbroker_test_support::{Daemon, Folder, Start, namespace};

use crate::program::{PROGRAM, endpoint};
use crate::sniff::compiler_or_skip;

/// What the shipped role grants, to a user instead of a group.
const POLICY: &str = r#"
version = 1

[[rule]]
name = "capture"
subject = { uids = [65534] }
allow = ["capture"]
family = ["AF_PACKET"]
interface = ["lo"]

[[rule]]
name = "promiscuous mode"
subject = { uids = [65534] }
allow = ["create", "option"]
family = ["AF_PACKET"]
option = ["ordinary", "filter", "packet"]

[[rule]]
name = "interfaces"
subject = { uids = [65534] }
allow = ["interfaces"]
"#;

/// A folder that every user can read, with the program under its other name.
struct Extcaps(Folder);

impl Extcaps {
    fn new() -> Self {
        let folder = Folder::new();
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), all).unwrap();
        std::fs::create_dir(folder.join("extcap")).unwrap();
        std::fs::create_dir(folder.join("bin")).unwrap();
        // The folder of the build can be private.
        folder.copy_program(Path::new(PROGRAM), "bin/sockbroker");
        std::os::unix::fs::symlink("../bin/sockbroker", folder.join("extcap/sockbroker-extcap"))
            .unwrap();
        std::fs::create_dir(folder.join("home")).unwrap();
        std::os::unix::fs::chown(folder.join("home"), Some(65534), Some(65534)).unwrap();
        Self(folder)
    }

    /// tshark as nobody, without any capability.
    fn tshark(&self, broker: &Daemon, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after", "1", "300", "setpriv", "--reuid=65534", "--regid=65534"]);
        command.args([
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
        ]);
        command.arg("tshark").args(arguments);
        command.env("WIRESHARK_EXTCAP_DIR", self.0.join("extcap"));
        command.env("SOCKBROKER", endpoint(broker)).env("HOME", self.0.join("home"));
        command.env("TMPDIR", self.0.join("home")).env_remove("XDG_RUNTIME_DIR");
        command.env_remove("XDG_CONFIG_HOME").env_remove("SOCKBROKER_SESSION");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Runs `job` while datagrams are sent to the ports 7 and 9.
fn while_sending<T>(job: impl FnOnce() -> T) -> T {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (alive, ended) = mpsc::channel::<()>();
    let traffic = std::thread::spawn(move || {
        let pause = Duration::from_millis(5);
        while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            for port in [7, 9] {
                sender.send_to(b"x", ("127.0.0.1", port)).ok();
            }
        }
    });
    let result = job();
    drop(alive);
    traffic.join().unwrap();
    result
}

#[test]
fn tshark_of_an_unprivileged_user_captures() {
    const TEST: &str = "extcap_tshark::tshark_of_an_unprivileged_user_captures";
    namespace::inside_with_users(TEST, || {
        if !program_or_skip("tshark", TEST) || !compiler_or_skip(TEST) {
            return;
        }
        let start = Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(POLICY);
        let (broker, extcaps) = (start.start().open_to_all(), Extcaps::new());
        let listed = extcaps.tshark(&broker, &["-D"]).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for part in
            ["sockbroker-lo@env (sockbroker: lo of the broker of $SOCKBROKER)", "sockbroker ("]
        {
            assert!(listed.contains(part), "{listed}");
        }
        let types = extcaps.tshark(&broker, &["-i", "sockbroker-lo@env", "-L"]).output().unwrap();
        let types = String::from_utf8(types.stdout).unwrap();
        assert!(types.contains("EN10MB"), "{types}");
        let arguments = [
            "-i",
            "sockbroker-lo@env",
            "-f",
            "udp dst port 7",
            "-c",
            "3",
            "-l",
            "-T",
            "fields",
            "-e",
            "udp.dstport",
            "-e",
            "frame.interface_name",
            "-o",
            "extcap.sockbroker_lo_env.snaplen:128",
        ];
        let mut tshark = extcaps.tshark(&broker, &arguments).spawn().unwrap();
        let mut output = BufReader::new(tshark.stdout.take().unwrap());
        // tshark does not report when its capture is live: packets are sent until the first ones were captured.
        let lines = while_sending(|| {
            let line = |_| {
                let mut line = String::new();
                output.read_line(&mut line).unwrap();
                line
            };
            (0..3).map(line).collect::<Vec<_>>()
        });
        let status = tshark.wait().unwrap();
        let mut errors = String::new();
        tshark.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(status.success(), "{status:?} {lines:?} {errors}");
        assert_eq!(lines, ["7\tlo\n"; 3], "{errors}");
        assert!(errors.contains("3 packets captured"), "{errors}");
    });
}

#[test]
fn tshark_ends_when_a_capture_is_refused() {
    const TEST: &str = "extcap_tshark::tshark_ends_when_a_capture_is_refused";
    namespace::inside_with_users(TEST, || {
        if !program_or_skip("tshark", TEST) {
            return;
        }
        let start = Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(POLICY);
        let (broker, extcaps) = (start.start().open_to_all(), Extcaps::new());
        let outcome =
            extcaps.tshark(&broker, &["-i", "sockbroker-any@env", "-c", "1"]).output().unwrap();
        let errors = String::from_utf8(outcome.stderr).unwrap();
        // The interface of the option `broker`, without the option, and a broker that does not exist.
        let run = |option: &[&str]| {
            let arguments = [&["-i", "sockbroker", "-c", "1"], option].concat();
            extcaps.tshark(&broker, &arguments).env("SOCKBROKER", "nowhere:x").spawn().unwrap()
        };
        let unknown = ["-o", "extcap.sockbroker.broker:elsewhere:x"];
        let started = [run(&[]), run(&unknown), run(&[]), run(&unknown)];
        for child in started {
            let errors = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
            assert!(errors.contains("0 packets captured"), "{errors}");
        }
        // This version of tshark leaves out what the program has written to standard error.
        assert!(errors.contains("0 packets captured"), "{errors}");
    });
}
