//! `--netns`: ping, nc and sniff in another network namespace than the broker's.

use std::process::{Command, Stdio};

use sockbroker_test_support::{Start, namespace};

use crate::program::{Outcome, PROGRAM, endpoint, run_at};

const POLICY: &str = r#"
version = 1

[[rule]]
name = "own namespace"
subject = { uids = [0] }
allow = ["create", "bind", "listen", "accept", "connect", "send", "receive", "option", "capture", "interfaces", "resolve"]
netns = ["caller"]

[[rule]]
name = "here"
subject = { uids = [0] }
allow = ["resolve"]
"#;

/// Waits for the line of a program that runs in the background, and uses it from the same namespace.
const SCRIPT: &str = r#"
set -e
ip link set lo up
cd "$2"
started() { until grep -q 'listening on' "$1"; do sleep 0.02; done; }
"$0" --broker "$1" ping --netns caller -c 2 -i 0 127.0.0.1
"$0" --broker "$1" ping --netns caller -c 1 -4 localhost >named
# Without an end of its input, so that its peer ends first.
mkfifo open
exec 9<>open
"$0" --broker "$1" nc --netns caller -l 127.0.0.1 80 <&9 >received 2>listening &
started listening
echo hello | "$0" --broker "$1" nc --netns caller localhost 80
"$0" --broker "$1" sniff --netns caller lo --count 2 >packets 2>capturing &
started capturing
"$0" --broker "$1" ping --netns caller -c 1 127.0.0.1 >more
wait
cat received packets
"#;

#[test]
fn programs_use_their_own_network_namespace() {
    namespace::inside("netns::programs_use_their_own_network_namespace", || {
        let broker = Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(POLICY).start();
        let folder = sockbroker_test_support::Folder::new();
        let mut command = Command::new("timeout");
        command.args(["--kill-after", "1", "300", "unshare", "--net", "sh", "-c", SCRIPT, PROGRAM]);
        command.arg(endpoint(&broker)).arg(folder.join("")).stdin(Stdio::null());
        let outcome = Outcome::from(command.output().unwrap());
        let output = outcome.success();
        assert!(output.contains("2 packets transmitted, 2 received"), "{output}");
        assert!(output.contains("hello\n"), "{output}");
        assert_eq!(output.matches("ICMP echo").count(), 2, "{output}");
        let refused = run_at(&broker, &["nc", "--netns", "lab1", "127.0.0.1", "80"]).failure(1);
        assert!(refused.contains("netns = [\"lab1\"]"), "{refused}");
        let wrong = run_at(&broker, &["sniff", "--netns", "a/b", "lo"]).failure(1);
        assert!(wrong.contains("does not select a network namespace"), "{wrong}");
    });
}

const NAMED_POLICY: &str = r#"
version = 1

[[rule]]
name = "laboratory"
subject = { uids = [0] }
allow = ["create", "bind", "listen", "accept", "connect", "send", "receive", "option", "capture", "interfaces", "resolve"]
netns = ["lab1"]
"#;

#[test]
fn programs_use_a_network_namespace_with_a_name() {
    namespace::inside("netns::programs_use_a_network_namespace_with_a_name", || {
        let start = Start::new(PROGRAM).shell("set -- broker \"$@\"").policy(NAMED_POLICY);
        let folder = start.folder().join("netns");
        let file = folder.join("lab1");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&file, "").unwrap();
        let steps = "ip link set lo up && ip link add far0 type veth peer name far1";
        let mut made = Command::new("unshare");
        made.arg(format!("--net={}", file.display())).args(["sh", "-c", steps]);
        assert!(made.status().unwrap().success());
        let section = format!("[namespaces]\nfolders = [\"{}\"]\n", folder.display());
        let broker = start.section(&section).start();
        let named = |program: &[&str]| run_at(&broker, program).success();
        let listed = named(&["sniff", "--netns", "lab1", "--list-interfaces"]);
        assert!(listed.contains(".far0\n"), "{listed}");
        let replies = named(&["ping", "--netns", "lab1", "-c", "1", "127.0.0.1"]);
        assert!(replies.contains("1 packets transmitted, 1 received"), "{replies}");
        // The port is refused where nothing listens, by the network of the name.
        let refused = run_at(&broker, &["nc", "--netns", "lab1", "127.0.0.1", "9"]).failure(1);
        assert!(refused.contains("ECONNREFUSED"), "{refused}");
        // The network of the broker is another one.
        assert!(!named(&["sniff", "--list-interfaces"]).contains("far0"));
    });
}
