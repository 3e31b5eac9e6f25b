//! Captures in other network namespaces: of the caller, with names, and of descriptors that the client passes.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd;

use serde_json::{Value, json};
use sockbroker_pcapng::{Block, Reader};
use sockbroker_test_support::lsp::RequestParts;
use sockbroker_test_support::skip::skip;
use sockbroker_test_support::{Answer, LspClient, Start};

use super::fixture::{Pod, connection, make, run, with_one_process};
use super::passed::Owned;
use crate::arena::{PROGRAM, assert_denied, attacker, neighbour};

const POLICY: &str = r#"
version = 1

[[rule]]
name = "own namespace"
subject = { uids = [4200001] }
allow = ["create", "bind", "send", "receive", "capture"]
netns = ["caller"]

[[rule]]
name = "sockets of the laboratory"
subject = { uids = [0, 4200002] }
allow = ["create", "bind", "send", "receive"]
family = ["AF_INET"]
netns = ["lab1"]

[[rule]]
name = "a port of the laboratory"
subject = { uids = [0, 4200002] }
allow = ["capture"]
remote_ports = ["5000"]
netns = ["lab1"]

[[rule]]
name = "passed namespaces"
subject = { uids = [4200001] }
allow = ["create", "bind", "send", "receive", "capture"]
netns = ["owned"]
"#;

/// Calls a method for a network namespace: one with a name, or one whose descriptor comes with the call.
fn call(client: &mut LspClient, method: &str, mut params: Value, netns: &Netns<'_>) -> Answer {
    match netns {
        Netns::Named(name) => {
            params["netns"] = json!(name);
            client.call(method, params)
        }
        Netns::Passed(file) => {
            params["netns"] = json!({"descriptor": 0});
            client.call_with_parts(method, params, RequestParts::descriptors(&[file.as_fd()]))
        }
    }
}

enum Netns<'a> {
    Named(&'a str),
    Passed(&'a File),
}

/// The ports of the datagrams that a capture of the loopback there shows: 5000 and 6000 are sent to.
fn seen(client: &mut LspClient, netns: &Netns<'_>) -> Vec<u16> {
    let mut opened = call(client, "capture.open", json!({"interfaces": ["lo"]}), netns);
    let handle = opened.result()["handle"].clone();
    let mut stream = File::from(opened.descriptors.remove(0));
    let udp = json!({"family": "AF_INET", "type": "SOCK_DGRAM"});
    let sender = call(client, "socket.socket", udp.clone(), netns).handle();
    for port in [5000, 6000] {
        let receiver = call(client, "socket.socket", udp.clone(), netns).handle();
        client.call("socket.bind", json!([receiver, ["127.0.0.1", port]])).result();
        client.call("socket.sendto", json!([sender, "eA==", 0, ["127.0.0.1", port]])).result();
        client.call("socket.recv", json!([receiver, 1])).result();
        client.call("socket.close", json!([receiver])).result();
    }
    client.call("capture.set_filter", json!([handle])).result();
    let stopped = client.call("capture.stop", json!([handle])).result().clone();
    assert_eq!(stopped["complete"], true);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let (mut reader, mut ports) = (Reader::new(&bytes[..]), Vec::new());
    while let Some(block) = reader.next_block().unwrap() {
        if let Block::Packet(packet) = block {
            ports.push(u16::from_be_bytes([packet.data[36], packet.data[37]]));
        }
    }
    ports
}

fn elsewhere(options: fn(Start) -> Start, test: &str) {
    let prepared = options(Start::new(PROGRAM));
    let folder = prepared.folder().join("netns");
    fs::create_dir(&folder).unwrap();
    make(&folder.join("lab1"));
    let section = format!("[namespaces]\nfolders = [\"{}\"]\n", folder.display());
    let broker = prepared.section(&section).policy(POLICY).start().open_to_all();
    // A name; also root needs a rule.
    for mut client in [neighbour().lsp(&broker), broker.lsp()] {
        assert_eq!(seen(&mut client, &Netns::Named("lab1")), [5000]);
        let missing = json!({"interfaces": ["lo"], "netns": "lab2"});
        assert_eq!(client.call("capture.open", missing).fault().data.kind, "denied");
    }
    let mut stranger = attacker().lsp(&broker);
    let lab = json!({"interfaces": ["lo"], "netns": "lab1"});
    let denied = stranger.call("capture.open", lab);
    assert_denied(&denied, "no rule", "netns = [\"lab1\"]", "a capture");
    // A rule about other namespaces is not about the broker's own.
    let here = stranger.call("capture.open", json!({"interfaces": ["lo"]}));
    assert_eq!(here.fault().data.kind, "denied");
    let Some(stream) = connection(&broker, &attacker(), Pod::Plain, "") else {
        return skip("no network namespaces here", test);
    };
    let mut caller = LspClient::over(stream);
    assert_eq!(seen(&mut caller, &Netns::Named("caller")), [5000, 6000]);
    let fault = caller.call("capture.open", json!({"interfaces": ["none0"], "netns": "caller"}));
    assert_eq!(fault.fault().data.name.as_deref(), Some("ENODEV"));
    let Some(owned) = Owned::new(&attacker(), "") else {
        return skip("no user namespaces here", test);
    };
    assert_eq!(seen(&mut stranger, &Netns::Passed(&owned.network)), [5000, 6000]);
    let mut other = neighbour().lsp(&broker);
    let passed = Netns::Passed(&owned.network);
    let fault = call(&mut other, "capture.open", json!({"interfaces": ["lo"]}), &passed).fault();
    assert_eq!(fault.data.name.as_deref(), Some("EPERM"), "{fault:?}");
}

#[test]
fn captures_of_other_namespaces_show_what_rules_about_them_let_through() {
    let test = concat!(
        module_path!(),
        "::captures_of_other_namespaces_show_what_rules_about_them_let_through"
    );
    run(test, move || elsewhere(|start| start, test));
}

#[test]
fn a_broker_of_one_process_captures_in_other_namespaces() {
    let test = concat!(module_path!(), "::a_broker_of_one_process_captures_in_other_namespaces");
    run(test, move || elsewhere(with_one_process, test));
}
