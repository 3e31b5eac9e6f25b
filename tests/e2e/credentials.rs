//! The sources of configuration and policy: the command line, else credentials of the service manager, else
//! `/etc/sockbroker`.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::namespace::inside;
use sockbroker_test_support::{Folder, LspClient, bounded, mount, until};

use crate::broker::PROGRAM;

/// Writes a configuration with this limit and a policy with this one rule, to recognize them.
fn write(folder: &Path, limit: u64, rule: &str) {
    fs::write(folder.join("sockbrokerd.toml"), format!("[limits]\nbatch_calls = {limit}\n"))
        .unwrap();
    let rule = format!(
        "version = 1\n[[rule]]\nname = \"{rule}\"\nsubject = {{ everyone = true }}\nallow = [\"admin\"]\n"
    );
    fs::write(folder.join("policy.toml"), rule).unwrap();
}

/// A broker without `--config`.
struct UnconfiguredBroker {
    process: Process,
    client: LspClient,
    _folder: Folder,
}

fn start_unconfigured(prepare: impl FnOnce(&mut Command)) -> UnconfiguredBroker {
    let folder = Folder::new();
    let socket = folder.join("socket");
    let mut command = Command::new(PROGRAM);
    command.arg("--socket").arg(&socket).stdin(Stdio::null()).stderr(Stdio::null());
    prepare(command.env_remove("CREDENTIALS_DIRECTORY"));
    let process = Process::spawn(command);
    until("the broker serves", || UnixStream::connect(&socket).is_ok());
    UnconfiguredBroker { process, client: LspClient::connect(&socket), _folder: folder }
}

impl UnconfiguredBroker {
    /// The limit and the policy's files and rules in force.
    fn in_force(&mut self) -> (u64, Value, u64) {
        let limits = self.client.call("session.limits", Value::Null).result().clone();
        let info = self.client.call("broker.info", Value::Null).result()["policy"].clone();
        let limit = limits["batch_calls"]["value"].as_u64().unwrap();
        (limit, info["files"].clone(), info["rules"].as_u64().unwrap())
    }
}

#[test]
fn options_override_credentials_and_credentials_override_host_files() {
    let test = "credentials::options_override_credentials_and_credentials_override_host_files";
    inside(test, || {
        let (credentials, named) = (Folder::new(), Folder::new());
        mount::empty(Path::new("/etc")).unwrap();
        let host = Path::new("/etc/sockbroker");
        assert_eq!(start_unconfigured(|_| ()).in_force(), (64, json!([]), 0), "the defaults");
        fs::create_dir(host).unwrap();
        write(host, 11, "of the host");
        write(named.path(), 33, "named");
        let policy = |folder: &Path| json!([folder.join("policy.toml")]);
        assert_eq!(start_unconfigured(|_| ()).in_force(), (11, policy(host), 1));
        let pass = |command: &mut Command| {
            command.env("CREDENTIALS_DIRECTORY", credentials.path());
        };
        // The folder exists, but without these credentials.
        assert_eq!(start_unconfigured(pass).in_force(), (11, policy(host), 1));
        write(credentials.path(), 22, "credential");
        assert_eq!(start_unconfigured(pass).in_force(), (22, policy(credentials.path()), 1));
        let mut with_options = start_unconfigured(|command| {
            pass(command);
            command.arg("--config").arg(named.join("sockbrokerd.toml"));
            command.arg("--policy").arg(named.join("policy.toml"));
        });
        assert_eq!(with_options.in_force(), (33, policy(named.path()), 1));
        // A private broker (--stdio) uses none of them.
        let mut own = start_unconfigured(|command| {
            pass(command);
            command.arg("--built-in-policy");
        });
        assert_eq!(own.in_force(), (64, json!([]), 0));
    });
}

#[test]
fn reload_reads_the_credential_and_keeps_the_policy_if_it_is_invalid() {
    bounded(20, || {
        let credentials = Folder::new();
        write(credentials.path(), 22, "credential");
        let mut broker = start_unconfigured(|command| {
            command.env("CREDENTIALS_DIRECTORY", credentials.path());
        });
        let generation = |broker: &mut UnconfiguredBroker| {
            let info = broker.client.call("broker.info", Value::Null).result().clone();
            info["policy"]["generation"].clone()
        };
        // Replace the file, as the service manager does.
        fs::remove_file(credentials.join("policy.toml")).unwrap();
        write(credentials.path(), 22, "another");
        broker.process.hang_up();
        until("the policy is read", || generation(&mut broker) == 2);
        let rules = broker.client.call("policy.whoami", Value::Null).result()["rules"].clone();
        assert_eq!(rules[0]["name"], "another", "{rules}");
        fs::write(credentials.join("policy.toml"), "version = 9\n").unwrap();
        let fault = broker.client.call("admin.reload", Value::Null).fault();
        assert!(fault.message.contains("version 9"), "{fault:?}");
        assert_eq!(generation(&mut broker), 2);
    });
}

#[test]
fn check_names_an_unusable_credential() {
    bounded(20, || {
        let credentials = Folder::new();
        for file in ["sockbrokerd.toml", "policy.toml"] {
            write(credentials.path(), 22, "credential");
            let path = credentials.write(file, "odd = 5\n");
            let mut command = Command::new(PROGRAM);
            command.arg("--check").env("CREDENTIALS_DIRECTORY", credentials.path());
            let output = command.output().unwrap();
            let output_text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(78), "{output_text}");
            assert!(
                output_text.contains(path.to_str().unwrap()) && output_text.contains("odd"),
                "{output_text}"
            );
        }
    });
}
