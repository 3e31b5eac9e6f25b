//! The Python package with a broker on another machine.

use std::path::Path;
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

/// Speaks every framing with Python's own modules, with the certificate in the folder of its second argument and with
/// the token of its third one.
const FRAMINGS: &str = r#"
import http.client
import json
import socket
import ssl
import sys

port, folder, token = int(sys.argv[1]), sys.argv[2] + "/sockbroker/localhost", sys.argv[3]
named, bare = (ssl.create_default_context(cafile=f"{folder}/ca") for _ in range(2))
named.load_cert_chain(f"{folder}/cert", f"{folder}/key")
field = f"Authorization: Bearer {token}\r\n"
call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "session.info"}).encode()


def connect(context):
    plain = socket.create_connection(("127.0.0.1", port), 60)
    return context.wrap_socket(plain, server_hostname="localhost").makefile("rwb")


def head(stream):
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line.decode().strip())
    return lines


def report(how, answer):
    found = json.loads(answer)["result"]
    print(how, found["framing"], found["principal"])


def ndjson(context, _):
    with connect(context) as stream:
        stream.write(call + b"\n")
        stream.flush()
        return stream.readline()


def lsp(context, fields):
    with connect(context) as stream:
        stream.write(f"{fields}Content-Length: {len(call)}\r\n\r\n".encode() + call)
        stream.flush()
        return stream.read(int(head(stream)[0].split(": ")[1]))


def post(context, fields):
    connection = http.client.HTTPSConnection("localhost", port, timeout=60, context=context)
    headers = {"Content-Type": "application/json"}
    if fields:
        headers["Authorization"] = f"Bearer {token}"
    connection.request("POST", "/", call, headers)
    with connection.getresponse() as response:
        return response.read()


def websocket(context, fields):
    with connect(context) as stream:
        upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        stream.write((upgrade + key + fields + "\r\n").encode())
        # The mask of zeros leaves the bytes as they are.
        stream.write(bytes([0x81, 0x80 | len(call), 0, 0, 0, 0]) + call)
        stream.flush()
        assert head(stream)[0].startswith("HTTP/1.1 101 ")
        first, length = stream.read(2)
        assert first == 0x81
        return stream.read(int.from_bytes(stream.read(2), "big") if length == 126 else length)


for framing in (ndjson, lsp, post, websocket):
    report("certificate", framing(named, ""))
for framing in (lsp, post, websocket):
    report("token", framing(bare, field))
"#;

/// Makes a call by the package whose request and answer are large, while another thread makes others.
const BULK: &str = r#"
import sys
import threading
import sockbroker

with sockbroker.connect(sys.argv[1]) as lab:
    socket = lab.socket

    def echo():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.bind(("127.0.0.1", 0))
            for _ in range(20):
                end.sendto(b"x" * 60000, end.getsockname())
                assert len(end.recv(65536)) == 60000

    threads = [threading.Thread(target=echo) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done")
"#;

fn run(lab: &Lab, folder: &Path) -> (Option<i32>, String, String) {
    run_program(lab, folder, PROGRAM)
}

fn run_program(lab: &Lab, folder: &Path, program: &str) -> (Option<i32>, String, String) {
    let url = format!("tls://localhost:{}", lab.address.port());
    run_python(folder, program, &[&url])
}

fn run_python(folder: &Path, program: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let package = concat!(env!("CARGO_MANIFEST_DIR"), "/../client/python/src");
    let mut command = Command::new("timeout");
    command.args(["600", "python3", "-c", program]).args(arguments);
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

#[test]
fn python_speaks_every_framing_with_a_certificate_and_with_a_token() {
    let test = "remote::clients::python_speaks_every_framing_with_a_certificate_and_with_a_token";
    if !program_or_skip("python3", test) {
        return;
    }
    bounded(120, || {
        let files = Files::new();
        files.tokens(&[("ci-7", "sbk_ci", "")]);
        let lab = Lab::start(files, "");
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let folder = lab.files.client_folder(Some(&alice));
        let port = lab.address.port().to_string();
        let (code, out, err) =
            run_python(&folder, FRAMINGS, &[&port, folder.to_str().unwrap(), "sbk_ci"]);
        assert_eq!(code, Some(0), "{err}");
        let expected = "certificate ndjson certificate uri:spiffe://lab/alice\n\
             certificate lsp certificate uri:spiffe://lab/alice\n\
             certificate http certificate uri:spiffe://lab/alice\n\
             certificate websocket certificate uri:spiffe://lab/alice\n\
             token lsp token ci-7\ntoken http token ci-7\ntoken websocket token ci-7\n";
        assert_eq!(out, expected);
    });
}

#[test]
fn large_messages_of_several_python_threads_share_a_connection_with_tls() {
    let test =
        "remote::clients::large_messages_of_several_python_threads_share_a_connection_with_tls";
    if !program_or_skip("python3", test) {
        return;
    }
    bounded(120, || {
        let lab = Lab::start(Files::new(), "");
        let alice = lab.files.authority.client("spiffe://lab/alice");
        let folder = lab.files.client_folder(Some(&alice));
        let (code, out, err) = run_program(&lab, &folder, BULK);
        assert_eq!((code, out.as_str()), (Some(0), "done\n"), "{err}");
    });
}
