//! Clients on other machines: `sockbroker pki`, `sockbroker token`, and a broker by `tls://`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;
use sockbroker_test_support::{Daemon, Folder, Start, bounded, until};

use crate::program::{Outcome, PROGRAM, command, run};

const POLICY: &str = r#"version = 1
[[rule]]
name = "lab"
subject = { certificates = ["uri:spiffe://lab/*"], tokens = ["ci-*"] }
allow = ["session", "hostname", "create", "connect", "send", "receive", "inspect", "resolve"]
"#;

/// A broker with a TLS port, whose files the program has made.
pub(crate) struct Lab {
    broker: Daemon,
    folder: Folder,
    port: u16,
}

impl Lab {
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let place = folder.path().to_str().unwrap().to_owned();
        run(&["pki", "init", "--folder", &place]).success();
        run(&["pki", "server", "--folder", &place, "localhost", "127.0.0.1"]).success();
        run(&["pki", "client", "--folder", &place, "spiffe://lab/alice"]).success();
        let tokens = folder.join("tokens.toml");
        fs::write(&tokens, "").unwrap();
        fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
        let path = |name: &str| folder.join(name).display().to_string();
        let section = format!(
            "[remote]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n\
             revocation = \"{}\"\ntokens = \"{}\"\n",
            path("localhost.pem"),
            path("localhost.key"),
            path("ca.pem"),
            path("crl.pem"),
            path("tokens.toml"),
        );
        let start = Start::new(PROGRAM).shell("set -- broker \"$@\"");
        let broker = start.section(&section).policy(POLICY).start();
        let mut port = None;
        until("the log has the address of the TLS port", || {
            let log = broker.log();
            let rest = log.split("bound=127.0.0.1:").nth(1).unwrap_or_default().to_owned();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            port = digits.parse().ok();
            port.is_some()
        });
        Self { broker, folder, port: port.unwrap() }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }

    /// The configuration of the client with a certificate.
    pub(crate) fn alice(&self) -> Folder {
        let made = self.folder.join("alice");
        let (ca, cert, key) = (made.join("ca"), made.join("cert"), made.join("key"));
        Self::client(&[("ca", &ca), ("cert", &cert), ("key", &key)])
    }

    /// The folder of a client's configuration with these files for the host.
    fn client(files: &[(&str, &Path)]) -> Folder {
        let configuration = Folder::new();
        let host = configuration.join("sockbroker/localhost");
        fs::create_dir_all(&host).unwrap();
        for (name, source) in files {
            fs::copy(source, host.join(name)).unwrap();
        }
        configuration
    }

    /// Runs the program as this client.
    fn run(&self, configuration: &Folder, arguments: &[&str]) -> Outcome {
        let mut command = command(&[&["--broker", &self.endpoint()], arguments].concat());
        command.env("XDG_CONFIG_HOME", configuration.path()).env_remove("SOCKBROKER_TOKEN");
        command.output().unwrap().into()
    }
}

#[test]
fn certificates_and_tokens_of_the_program_reach_the_broker() {
    bounded(60, || {
        let lab = Lab::start();
        let (ca, alice) = (lab.folder.join("alice/ca"), lab.alice());
        let who = lab.run(&alice, &["call", "policy.whoami"]).json();
        assert_eq!(who["principal"], "certificate uri:spiffe://lab/alice");
        assert!(lab.run(&alice, &["call", "--raw", "socket.gethostname"]).code == 0);
        // A token, which the broker knows after a reload.
        let tokens = lab.folder.join("tokens.toml");
        let file = tokens.to_str().unwrap();
        let new = run(&["token", "new", "ci-7", "--rule", "lab", "--file", file]);
        assert!(new.err.contains("reload the broker"), "{new:?}");
        let token = new.success();
        let token = token.trim();
        assert!(token.starts_with("sbk_") && token.len() == 47, "{token}");
        assert!(!fs::read_to_string(&tokens).unwrap().contains(token));
        let mut local = lab.broker.ndjson();
        let reloaded =
            sockbroker_test_support::Client::call(&mut local, "admin.reload", Value::Null);
        assert!(!reloaded.is_fault(), "{reloaded:?}");
        let written = lab.folder.join("token");
        fs::write(&written, format!("{token}\n")).unwrap();
        let ci = Lab::client(&[("ca", &ca), ("token", &written)]);
        let who = lab.run(&ci, &["call", "policy.whoami"]).json();
        assert_eq!(who["principal"], "token ci-7");
    });
}

#[test]
fn a_client_without_credentials_reads_why() {
    bounded(60, || {
        let lab = Lab::start();
        let ca = lab.folder.join("alice/ca");
        let nobody = Lab::client(&[("ca", &ca)]);
        let line = lab.run(&nobody, &["call", "policy.whoami"]).failure(69);
        assert!(
            line.contains("neither a client certificate nor a token")
                || line.contains("no client certificate"),
            "{line}"
        );
        let nothing = Lab::client(&[]);
        let line = lab.run(&nothing, &["call", "policy.whoami"]).failure(69);
        assert!(line.contains("sockbroker/localhost/ca is missing"), "{line}");
        // A certificate of another authority.
        let other = Folder::new();
        let place = other.path().to_str().unwrap();
        run(&["pki", "init", "--folder", place]).success();
        run(&["pki", "client", "--folder", place, "spiffe://lab/eve"]).success();
        let (cert, key) = (other.join("eve/cert"), other.join("eve/key"));
        let eve = Lab::client(&[("ca", &ca), ("cert", &cert), ("key", &key)]);
        let line = lab.run(&eve, &["call", "policy.whoami"]).failure(69);
        assert!(line.contains("UnknownCA"), "{line}");
    });
}

#[test]
fn files_that_exist_and_names_that_are_none_are_refused() {
    bounded(60, || {
        let folder = Folder::new();
        let place = folder.path().to_str().unwrap();
        let line = run(&["pki", "client", "--folder", place, "a:b"]).failure(74);
        assert!(line.contains("sockbroker pki init"), "{line}");
        run(&["pki", "init", "--folder", place]).success();
        let key = fs::metadata(folder.join("ca.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let line = run(&["pki", "init", "--folder", place]).failure(74);
        assert!(line.contains("ca.key"), "{line}");
        let line = run(&["pki", "client", "--folder", place, "x:/../"]).failure(2);
        assert!(line.contains("cannot name a file"), "{line}");
        let tokens = folder.join("tokens.toml");
        let file = tokens.to_str().unwrap();
        run(&["token", "new", "a", "--expires", "2027-03-01", "--file", file]).success();
        let text = fs::read_to_string(&tokens).unwrap();
        assert!(text.contains("expires = 2027-03-01") && text.contains("name = \"a\""), "{text}");
        let line = run(&["token", "new", "a", "--file", file]).failure(74);
        assert!(line.contains("it has a token"), "{line}");
        for arguments in
            [["a b", "--rule", "x"], ["b", "--expires", "tomorrow"], ["b", "--rule", "x\"y"]]
        {
            let line =
                run(&[&["token", "new", "--file", file], &arguments[..]].concat()).failure(2);
            assert!(line.contains("cannot use"), "{line}");
        }
        // What the broker would not read, or not accept.
        let long = "x".repeat(256);
        for (arguments, part) in [
            (["b", "--expires", "2027-13-45"], "cannot use the token"),
            (["b", "--expires", "2027-02-30"], "cannot use the token"),
            (["b", "--expires", "2020-01-01"], "has expired"),
            (["b", "--network", "10.1.0.0/33"], "not like 10.1.0.0/16"),
            (["b", "--network", "lab7"], "not like 10.1.0.0/16"),
            ([long.as_str(), "--rule", "x"], "of at most 255 bytes"),
        ] {
            let line =
                run(&[&["token", "new", "--file", file], &arguments[..]].concat()).failure(2);
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(fs::read_to_string(&tokens).unwrap(), text);
        // A file that the broker cannot read is not made longer.
        fs::write(&tokens, "[[token]]\nname = \"x\"\n").unwrap();
        let line = run(&["token", "new", "b", "--file", file]).failure(74);
        assert!(line.contains("sha256"), "{line}");
    });
}
