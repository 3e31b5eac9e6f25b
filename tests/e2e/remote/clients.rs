//! The Python package with a broker on another machine.

use std::process::Command;

use sockbroker_test_support::bounded;
use sockbroker_test_support::skip::program_or_skip;

use super::fixture::{Files, Lab};

/// Makes a pair of sockets that talk to each other, by the broker of the URL in its argument.
const PROGRAM: &str = r#"
import sys
import sockbroker

with sockbroker.connect(sys.argv[1]) as lab:
    socket = lab.socket
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as near:
            far, _ = listener.accept()
            with far:
                near.sendall(b"hello " * 20000)
                near.shutdown(socket.SHUT_WR)
                parts = []
                while part := far.recv(65536):
                    parts.append(part)
    print(len(b"".join(parts)))
"#;

fn run(lab: &Lab, folder: &std::path::Path) -> (Option<i32>, String, String) {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../client/python/src");
    let mut command = Command::new("timeout");
    command.args(["100", "python3", "-c", PROGRAM]);
    command.arg(format!("tls://localhost:{}", lab.address.port()));
    command.env("PYTHONPATH", package).env("XDG_CONFIG_HOME", folder);
    let output = command.env_remove("SOCKBROKER_TOKEN").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_python_program_uses_sockets_of_a_broker_by_tls() {
    if !program_or_skip(
        "python3",
        "remote::clients::a_python_program_uses_sockets_of_a_broker_by_tls",
    ) {
        return;
    }
    bounded(120, || {
        let lab = Lab::start(Files::new(), "");
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let folder = lab.files.client_folder(Some(&alice));
        let (code, out, err) = run(&lab, &folder);
        assert_eq!((code, out.as_str()), (Some(0), "120000\n"), "{err}");
    });
}

#[test]
fn a_python_program_without_credentials_fails_with_the_reason() {
    let test = "remote::clients::a_python_program_without_credentials_fails_with_the_reason";
    if !program_or_skip("python3", test) {
        return;
    }
    bounded(120, || {
        let lab = Lab::start(Files::new(), "client_certificates = \"required\"\n");
        let folder = lab.files.client_folder(None);
        let (code, _, err) = run(&lab, &folder);
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("BrokerError") && err.contains("CERTIFICATE_REQUIRED"), "{err}");
    });
}
