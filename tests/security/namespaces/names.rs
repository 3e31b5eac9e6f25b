//! Names in network namespaces: the same results as CPython's, from the files of the namespace and from a server in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sockbroker_sys::namespace::NetworkNamespace;
use sockbroker_test_support::{Daemon, LspClient, Start};

use super::fixture::{Pod, TCP, connection, start};
use super::fixture::{cookie_of, create, make, run, with_one_process};
use crate::arena::{PROGRAM, assert_denied, attacker, neighbour};

const POLICY: &str = r#"
version = 1

[[rule]]
name = "laboratory"
subject = { uids = [0, 4200002] }
allow = ["create", "connect", "bind", "listen", "accept", "send", "option", "resolve"]
family = ["AF_INET", "AF_INET6"]
option = ["ordinary"]
netns = ["lab1", "lab2"]

[[rule]]
name = "names of the laboratory"
subject = { uids = [0, 4200001, 4200002] }
allow = ["resolve", "interfaces"]
netns = ["lab1", "lab2"]
"#;

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// What a server does with a question.
enum Reply {
    /// An answer with this code and these records: type and data.
    Records(u8, Vec<(u16, Vec<u8>)>),
    /// An answer that is too long for a datagram.
    Long(usize),
    Nothing,
    /// An answer to another question first.
    Forged,
}

fn reply(name: &str, kind: u16) -> Reply {
    let found = |data: &[u8]| Reply::Records(0, vec![(kind, data.to_vec())]);
    match (name, kind) {
        ("host.test" | "short.lab.test" | "other.lab.test", A) => found(&[10, 1, 2, 3]),
        ("here.test", A) => found(&[127, 0, 0, 1]),
        ("six.test", AAAA) => found(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]),
        ("3.2.1.10.in-addr.arpa", PTR) => found(b"\x04host\x04test\0"),
        ("alias.test", A) => Reply::Records(
            0,
            // The alias, and the address of its canonical name.
            vec![(5, b"\x04host\x04test\0".to_vec()), (A, vec![10, 1, 2, 3])],
        ),
        ("long.test", A) => Reply::Long(60),
        ("silent.test", _) => Reply::Nothing,
        ("forged.test", A) => Reply::Forged,
        ("failing.test", _) => Reply::Records(2, Vec::new()),
        (
            "here.test" | "host.test" | "short.lab.test" | "alias.test" | "long.test"
            | "forged.test",
            AAAA,
        )
        | ("six.test", A)
        | ("empty.test", _) => Reply::Records(0, Vec::new()),
        _ => Reply::Records(3, Vec::new()),
    }
}

/// The answers to a question, over a stream or in datagrams.
fn answers(question: &[u8], is_stream: bool) -> Vec<Vec<u8>> {
    let mut name = Vec::new();
    let mut at = 12;
    while question[at] != 0 {
        let length = usize::from(question[at]);
        name.push(String::from_utf8_lossy(&question[at + 1..=at + length]).into_owned());
        at += length + 1;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let asked = &question[12..at + 5];
    let message = |code: u8, cut: u8, records: &[(u16, Vec<u8>)]| {
        let mut bytes = question[..2].to_vec();
        bytes.extend([
            0x81 | cut,
            0x80 | code,
            0,
            1,
            0,
            u8::try_from(records.len()).unwrap(),
            0,
            0,
            0,
            0,
        ]);
        bytes.extend(asked);
        for (number, (kind, data)) in records.iter().enumerate() {
            // Behind an alias, records belong to its canonical name.
            let owner = if number > 0 && records[0].0 == 5 {
                &b"\x04host\x04test\0"[..]
            } else {
                &[0xc0, 12]
            };
            bytes.extend(owner);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 9]);
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    };
    match reply(&name.join("."), kind) {
        Reply::Records(code, records) => vec![message(code, 0, &records)],
        Reply::Long(_) if !is_stream => vec![message(0, 2, &[])],
        Reply::Long(count) => {
            let all: Vec<_> =
                (1..=count).map(|last| (A, vec![10, 9, 9, u8::try_from(last).unwrap()])).collect();
            vec![message(0, 0, &all)]
        }
        Reply::Nothing => Vec::new(),
        Reply::Forged => {
            let good = message(0, 0, &[(A, vec![10, 1, 2, 3])]);
            let mut other = message(0, 0, &[(A, vec![6, 6, 6, 6])]);
            other[1] ^= 1;
            vec![other, good]
        }
    }
}

/// Serves port 53 of the loopback interface of a network namespace. The threads end with the test's process.
fn serve(network: &Path) {
    let network = network.to_owned();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        NetworkNamespace::of_file(&network).unwrap().enter().unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:53").unwrap();
        let listener = TcpListener::bind("127.0.0.1:53").unwrap();
        ready.send(()).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                for answer in answers(&question, true) {
                    let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&length[..], &answer].concat()).unwrap();
                }
            }
        });
        let mut question = [0; 600];
        loop {
            let (length, client) = datagrams.recv_from(&mut question).unwrap();
            for answer in answers(&question[..length], false) {
                datagrams.send_to(&answer, client).unwrap();
            }
        }
    });
    is_ready.recv().unwrap();
}

/// What CPython gives within the namespace, with its files in place of those of the machine.
const NATIVE: &str = r#"
import json, socket, sys
def of(call):
    try:
        return call()
    except socket.gaierror as error:
        return ["gaierror", error.errno]
    except socket.herror as error:
        return ["herror", error.errno]
found = {}
for name in json.loads(sys.argv[1]):
    rows = of(lambda: [list(row[:3]) + [list(row[4])] for row in socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)])
    found[name] = [rows, of(lambda: socket.gethostbyname(name))]
for address in json.loads(sys.argv[2]):
    found[address] = [of(lambda: list(socket.gethostbyaddr(address))), of(lambda: list(socket.getnameinfo((address, 80), socket.NI_NUMERICSERV)))]
print(json.dumps(found))
"#;

const NAMES: [&str; 13] = [
    "host.test",
    "alias.test",
    "long.test",
    "forged.test",
    "short",
    "nowhere.test",
    "empty.test",
    "failing.test.",
    "silent.test.",
    "gate",
    "gate.lab.test",
    "localhost",
    "127.0.0.1",
];
const ADDRESSES: [&str; 3] = ["10.1.2.3", "10.7.7.7", "10.1.2.4"];

fn native(folder: &Path) -> BTreeMap<String, Value> {
    let files = folder.join("files/lab1");
    fs::write(folder.join("nsswitch"), "hosts: files dns\nservices: files\n").unwrap();
    let script = format!(
        "mount --bind {files}/resolv.conf /etc/resolv.conf && umount /etc/hosts && mount --bind {files}/hosts /etc/hosts && \
         mount --bind {nsswitch} /etc/nsswitch.conf && exec nsenter --net={network} python3 -c \"$@\"",
        files = files.display(),
        nsswitch = folder.join("nsswitch").display(),
        network = folder.join("netns/lab1").display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh", NATIVE]);
    command.args([json!(NAMES).to_string(), json!(ADDRESSES).to_string()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What the broker gives, in the same form.
fn brokered(client: &mut LspClient) -> BTreeMap<String, Value> {
    let mut of = |method: &str, params: Value| {
        let answer = client.call(method, params);
        if answer.json.get("result").is_some() {
            return answer.result().clone();
        }
        let fault = answer.fault();
        json!([fault.data.kind, fault.data.errno])
    };
    let mut found = BTreeMap::new();
    for name in NAMES {
        let family = json!({"host": name, "port": 80, "family": "AF_INET", "type": "SOCK_STREAM", "netns": "lab1"});
        let rows = of("socket.getaddrinfo", family);
        let is_row = |row: &Value| row.as_array().is_some_and(|row| row.len() == 5);
        let rows = match rows.as_array() {
            Some(rows) if rows.iter().all(is_row) => {
                rows.iter().map(|row| json!([row[0], row[1], row[2], row[4]])).collect()
            }
            _ => rows,
        };
        let one = of("socket.gethostbyname", json!({"hostname": name, "netns": "lab1"}));
        found.insert(name.to_owned(), json!([rows, one]));
    }
    for address in ADDRESSES {
        let host = of("socket.gethostbyaddr", json!({"ip_address": address, "netns": "lab1"}));
        // NI_NUMERICSERV
        let info = json!({"sockaddr": [address, 80], "flags": 2, "netns": "lab1"});
        found.insert(address.to_owned(), json!([host, of("socket.getnameinfo", info)]));
    }
    found
}

/// A broker, and the namespaces `lab1`, with a name server, and `lab2`, which has no files.
fn laboratory(options: fn(Start) -> Start) -> (Daemon, std::path::PathBuf) {
    let prepared = options(Start::new(PROGRAM));
    let folder = prepared.folder().join("");
    let (networks, files) = (folder.join("netns"), folder.join("files"));
    fs::create_dir(&networks).unwrap();
    fs::create_dir_all(files.join("lab1")).unwrap();
    for name in ["lab1", "lab2"] {
        make(&networks.join(name));
    }
    let resolver = "nameserver 127.0.0.1\nsearch lab.test\noptions timeout:4 attempts:1\n";
    fs::write(files.join("lab1/resolv.conf"), resolver).unwrap();
    let hosts = "127.0.0.1 localhost\n10.7.7.7 gate.lab.test gate\n";
    fs::write(files.join("lab1/hosts"), hosts).unwrap();
    for path in [&folder, &files, &files.join("lab1")] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    serve(&networks.join("lab1"));
    let (networks, files) = (networks.display(), files.display());
    let section = format!("[namespaces]\nfolders = [\"{networks}\"]\nfiles = \"{files}\"\n");
    (prepared.section(&section).policy(POLICY).start().open_to_all(), folder)
}

fn names(options: fn(Start) -> Start) {
    let (broker, folder) = laboratory(options);
    let mut client = neighbour().lsp(&broker);
    let (expected, found) = (native(&folder), brokered(&mut client));
    for (name, expected) in &expected {
        assert_eq!(found.get(name), Some(expected), "{name}");
    }
    assert_eq!(found.len(), NAMES.len() + ADDRESSES.len());
    // Both families, and the canonical name.
    let flags = json!({"host": "alias.test", "port": 80, "type": "SOCK_STREAM", "flags": 2, "netns": "lab1"});
    let rows = client.call("socket.getaddrinfo", flags).result().clone();
    assert_eq!(rows, json!([[2, 1, 6, "host.test", ["10.1.2.3", 80]]]));
    let six = json!({"host": "six.test", "port": 80, "type": "SOCK_STREAM", "netns": "lab1"});
    let rows = client.call("socket.getaddrinfo", six).result().clone();
    assert_eq!(rows[0][4][0], "fd00::9");
    let all = json!({"hostname": "alias.test", "netns": "lab1"});
    let entry = client.call("socket.gethostbyname_ex", all).result().clone();
    assert_eq!(entry, json!(["host.test", ["alias.test"], ["10.1.2.3"]]));
    let full = json!({"name": "10.1.2.3", "netns": "lab1"});
    assert_eq!(*client.call("socket.getfqdn", full).result(), "host.test");
    // Sockets of the namespace connect by such names.
    let server = json!({"address": ["here.test", 0], "netns": "lab1"});
    let server = client.call("socket.create_server", server).handle();
    let port = client.call("socket.getsockname", json!([server])).result()[1].clone();
    let made = json!({"address": ["here.test", port], "netns": "lab1", "timeout": 60});
    let made = client.call("socket.create_connection", made).handle();
    assert_eq!(cookie_of(&mut client, made), cookie_of(&mut client, server));
    let by_name = create(&mut client, TCP, "lab1").handle();
    client.call("socket.connect", json!([by_name, ["here.test", port]])).result();
    // A server that does not answer is named.
    for (method, params) in [
        ("socket.getaddrinfo", json!({"host": "failing.test.", "netns": "lab1"})),
        ("socket.gethostbyname", json!({"hostname": "failing.test.", "netns": "lab1"})),
    ] {
        let fault = client.call(method, params).fault();
        let part = "no answer from 127.0.0.1 in the network namespace \"lab1\"";
        assert!(fault.message.ends_with(part), "{method}: {fault:?}");
    }
    // Without files, and with a grant that is not sufficient.
    let fault = client
        .call("socket.gethostbyname", json!({"hostname": "host.test", "netns": "lab2"}))
        .fault();
    assert!(fault.message.contains("files/lab2/resolv.conf: write it"), "{fault:?}");
    assert_eq!(fault.data.name.as_deref(), Some("EOPNOTSUPP"));
    let here = client.call("socket.gethostbyname", json!({"hostname": "host.test"}));
    assert_denied(&here, "no rule", "allow = [\"resolve\"]", "names here");
    let mut other = attacker().lsp(&broker);
    let denied =
        other.call("socket.gethostbyname", json!({"hostname": "host.test", "netns": "lab1"}));
    assert_denied(
        &denied,
        "no rule",
        "SOCK_DGRAM",
        "a server is asked on a socket of the client's rights",
    );
    let local = other.call("socket.gethostbyname", json!({"hostname": "gate", "netns": "lab1"}));
    assert_eq!(*local.result(), "10.7.7.7");
    // A file that cannot be used is an error that names it, and a pipe is not waited for.
    let hosts = folder.join("files/lab1/hosts");
    fs::remove_file(&hosts).unwrap();
    assert!(Command::new("mkfifo").arg(&hosts).status().unwrap().success());
    let params = json!({"hostname": "gate", "netns": "lab1"});
    let fault = other.call("socket.gethostbyname", params).fault();
    assert_eq!(fault.data.name.as_deref(), Some("EINVAL"), "{fault:?}");
    assert!(fault.message.contains("files/lab1/hosts cannot be read"), "{fault:?}");
}

#[test]
fn names_have_the_results_of_cpython_in_the_namespace() {
    let test = concat!(module_path!(), "::names_have_the_results_of_cpython_in_the_namespace");
    run(test, || names(|start| start));
}

#[test]
fn a_broker_of_one_process_resolves_names_in_the_namespace() {
    let test = concat!(module_path!(), "::a_broker_of_one_process_resolves_names_in_the_namespace");
    run(test, || names(with_one_process));
}

#[test]
fn host_names_in_the_namespace_of_the_caller_are_left_to_the_client() {
    let test = concat!(
        module_path!(),
        "::host_names_in_the_namespace_of_the_caller_are_left_to_the_client"
    );
    run(test, || {
        let broker = start(|start| start);
        let stream = connection(&broker, &attacker(), Pod::Plain, "").unwrap();
        let mut client = LspClient::over(stream);
        let name = json!({"host": "host.test", "port": 80, "netns": "caller"});
        let fault = client.call("socket.getaddrinfo", name).fault();
        assert!(fault.message.contains("in the client"), "{fault:?}");
        let number =
            json!({"host": "127.0.0.1", "port": 80, "type": "SOCK_DGRAM", "netns": "caller"});
        let rows = client.call("socket.getaddrinfo", number).result().clone();
        assert_eq!(rows, json!([[2, 2, 17, "", ["127.0.0.1", 80]]]));
    });
}

/// Uses the namespace `lab1` by the Python package. The arguments are the port of a server there, and how to use it.
const PYTHON: &str = r#"
import socket, subprocess, sys
port, how = int(sys.argv[1]), sys.argv[2]
CONNECT = f"import socket; socket.create_connection(('here.test', {port}), 60).sendall(b'x')"
if how == "object":
    import sockbroker
    lab = sockbroker.namespace("lab1")
    rows = lab.getaddrinfo("here.test", port, socket.AF_INET, socket.SOCK_STREAM)
    assert rows == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))], rows
    lab.create_connection(("here.test", port), 60).sendall(b"x")
    with lab.create_server(("here.test", 0), reuse_port=True) as server:
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 1
        with lab.create_connection(server.getsockname(), 60) as client, server.accept()[0] as accepted:
            assert client.getsockname() == accepted.getpeername()
    try:
        lab.create_server(("here.test", 0), dualstack_ipv6=True)
    except ValueError:
        pass
    else:
        raise AssertionError("served")
    assert isinstance(lab, sockbroker.Namespace)
    try:
        lab.create_connection(("here.test", 9))
    except ConnectionRefusedError:
        pass
    else:
        raise AssertionError("connected")
    try:
        lab.getaddrinfo("nowhere.test", port)
    except socket.gaierror as error:
        assert error.errno == socket.EAI_NONAME, error
    else:
        raise AssertionError("found")
elif how == "connect":
    import os, sockbroker
    with sockbroker.connect(os.environ["SOCKBROKER"], mode="remote") as broker:
        lab = broker.namespace("lab1")
        assert lab.getaddrinfo("here.test", port)[0][0] is broker.socket.AF_INET
        with lab.create_connection(("here.test", port), 60) as sock:
            assert isinstance(sock, broker.socket.socket)
            sock.sendall(b"x")
        try:
            broker.socket.create_connection(("here.test", port))
        except socket.gaierror:
            pass
        else:
            raise AssertionError("found")
elif how == "netns":
    import os, sockbroker
    with sockbroker.connect(os.environ["SOCKBROKER"], netns="lab1") as broker:
        assert (broker.mode, broker.netns) == ("mediated", "lab1")
        broker.socket.create_connection(("here.test", port), 60).sendall(b"x")
        assert broker.socket.gethostbyname("alias.test") == "10.1.2.3"
elif how == "run":
    import sockbroker
    sockbroker.namespace("lab1").run(["-c", CONNECT], check=True)
else:
    command = [sys.executable, "-B", "-m", "sockbroker", "--netns", "lab1", "--mode", how, "-c", CONNECT]
    subprocess.run(command, check=True)
    command[-1] = "import socket; print(socket.gethostbyname('alias.test'), socket.if_nameindex())"
    assert subprocess.run(command, check=True, capture_output=True).stdout.startswith(b"10.1.2.3 [(1, 'lo')]\n")
    command[command.index(how)] = "direct"
    refused = subprocess.run(command, capture_output=True)
    assert refused.returncode == 2 and b"mediated or remote" in refused.stderr, refused
"#;

#[test]
fn python_programs_connect_by_names_of_the_namespace() {
    let test = concat!(module_path!(), "::python_programs_connect_by_names_of_the_namespace");
    run(test, || {
        let (broker, folder) = laboratory(|start| start);
        let network = folder.join("netns/lab1");
        let listener = std::thread::spawn(move || {
            NetworkNamespace::of_file(&network).unwrap().enter().unwrap();
            TcpListener::bind("127.0.0.1:0").unwrap()
        });
        let listener = listener.join().unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python/src");
        for how in ["object", "connect", "netns", "run", "mediated", "remote"] {
            let mut command = Command::new("python3");
            command.args(["-B", "-c", PYTHON, &port, how]).env("PYTHONPATH", &package);
            command.env("SOCKBROKER", broker.socket());
            let output = command.output().unwrap();
            assert!(output.status.success(), "{how}: {}", String::from_utf8_lossy(&output.stderr));
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            assert_eq!(received, b"x", "{how}");
        }
    });
}
