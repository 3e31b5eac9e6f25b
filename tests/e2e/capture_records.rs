//! What the audit and the page of metrics have of captures.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::UdpSocket;
use std::path::Path;

use serde_json::{Value, json};
use sockbroker_test_support::namespace::inside;
use sockbroker_test_support::{Daemon, Folder, LspClient, base64, until};

use crate::broker::prepare;
use crate::observe::{metrics, wait_for_records};

/// Runs a test in a namespace with each kind of broker: one with an opener and a reader, and one of a single process.
fn with_each_broker(test: &str, body: fn(Daemon, &Path)) {
    inside(&format!("capture_records::{test}"), move || {
        for processes in ["", "\n[processes]\nworkers = false"] {
            let folder = Folder::new();
            let path = folder.join("audit");
            let sections = format!("[audit]\nto = \"{}\"{processes}", path.display());
            body(prepare().section(&sections).start(), &path);
        }
    });
}

/// A capture of the loopback, and the client's end of its stream.
fn open(client: &mut LspClient, options: &Value) -> (u64, File) {
    let mut answer = client.call("capture.open", json!({"interfaces": ["lo"], "options": options}));
    assert_eq!(answer.result()["fd"], true, "{answer:?}");
    (answer.result()["handle"].as_u64().unwrap(), File::from(answer.descriptors.remove(0)))
}

/// Sends datagrams of 1000 bytes over the loopback.
fn send(count: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    for _ in 0..count {
        socket.send_to(&[0; 1000], address).unwrap();
        socket.recv(&mut []).unwrap();
    }
}

fn page(broker: &Daemon) -> BTreeMap<String, u64> {
    metrics(&mut broker.http())
}

/// The samples of captures that run: the labels and the values.
fn of_captures(page: &BTreeMap<String, u64>, name: &str) -> Vec<(String, u64)> {
    let prefix = format!("sockbroker_{name}{{");
    let samples =
        page.iter().filter_map(|(sample, value)| Some((sample.strip_prefix(&prefix)?, *value)));
    samples.map(|(labels, value)| (labels.trim_end_matches('}').to_owned(), value)).collect()
}

/// The records about captures in the audit, once there are as many.
fn records(path: &Path, count: usize) -> Vec<Value> {
    let all = || -> Vec<Value> {
        let records = wait_for_records(path, 1).into_iter();
        records.filter(|record| record["audit"] == "capture").collect()
    };
    until("the records of captures are written", || all().len() >= count);
    all()
}

fn has<const N: usize>(record: &Value, fields: [(&str, Value); N]) {
    for (field, value) in fields {
        assert_eq!(record[field], value, "{field}: {record}");
    }
}

#[test]
fn packets_and_drops_of_captures_are_counted() {
    with_each_broker("packets_and_drops_of_captures_are_counted", |broker, _| {
        let mut client = broker.lsp();
        let sum = |page: &BTreeMap<String, u64>, name: &str| page[&format!("sockbroker_{name}")];
        assert_eq!(sum(&page(&broker), "captures"), 0);
        let (handle, mut stream) = open(&mut client, &json!({"snaplen": 100}));
        send(7);
        until("the packets are counted", || sum(&page(&broker), "captured_packets_total") == 7);
        let running = page(&broker);
        assert_eq!((sum(&running, "captures"), sum(&running, "captured_bytes_total")), (1, 700));
        let samples = of_captures(&running, "capture_packets");
        let [(labels, 7)] = &samples[..] else { panic!("{running:?}") };
        assert!(labels.contains(&format!("handle=\"{handle}\",interfaces=\"lo\"")), "{labels}");
        assert!(labels.starts_with("uid=\"") && labels.contains(",session=\""), "{labels}");
        assert_eq!(of_captures(&running, "capture_dropped_packets"), [(labels.clone(), 0)]);
        client.call("capture.stop", json!([handle])).result();
        stream.read_to_end(&mut Vec::new()).unwrap();
        let ended = page(&broker);
        assert_eq!((sum(&ended, "captures"), sum(&ended, "captured_packets_total")), (0, 7));
        assert_eq!(sum(&ended, "captures_ended_total{reason=\"stopped\"}"), 1);
        assert!(of_captures(&ended, "capture_packets").is_empty(), "{ended:?}");
        // One that nobody reads loses packets.
        let (handle, _stream) = open(&mut client, &json!({"buffer_bytes": 65536}));
        send(5000);
        let stopped = client.call("capture.stop", json!([handle])).result().clone();
        let dropped = stopped["dropped"].as_u64().unwrap();
        assert!(dropped > 0, "{stopped}");
        let lost = page(&broker);
        assert_eq!(sum(&lost, "capture_dropped_packets_total"), dropped);
        assert!(sum(&lost, "captured_packets_total") >= 7 + stopped["captured"].as_u64().unwrap());
    });
}

#[test]
fn start_and_end_of_captures_are_recorded() {
    with_each_broker("start_and_end_of_captures_are_recorded", |broker, path| {
        let mut client = broker.lsp();
        let text = "udp and greater 1000";
        let (handle, mut stream) = open(&mut client, &json!({"snaplen": 100, "filter_text": text}));
        send(3);
        // `BPF_RET`: accepts each packet.
        let all = base64([6, 0, 0, 0, 0, 0, 4, 0]);
        client.call("capture.set_filter", json!([handle, all, "all of it"])).result();
        client.call("capture.stop", json!([handle])).result();
        stream.read_to_end(&mut Vec::new()).unwrap();
        let found = records(path, 3);
        let [started, filtered, ended] = &found[..] else { panic!("{found:?}") };
        let uid = &started["uid"];
        has(
            started,
            [
                ("state", json!("started")),
                ("handle", json!(handle)),
                ("pid", json!(std::process::id())),
                ("interfaces", json!("lo")),
                ("filter", json!(text)),
                ("filter_instructions", json!(0)),
                ("snaplen", json!(100)),
                ("promiscuous", json!("no")),
                ("message", json!(format!("uid {uid} captures packets of lo"))),
            ],
        );
        has(
            filtered,
            [
                ("state", json!("filtered")),
                ("handle", json!(handle)),
                ("session", started["session"].clone()),
                ("interfaces", json!("lo")),
                ("filter", json!("all of it")),
                ("filter_instructions", json!(1)),
                (
                    "message",
                    json!(format!("uid {uid} has replaced the filter of its capture of lo")),
                ),
            ],
        );
        let message = format!(
            "uid {uid} captured 3 packets of lo, 0 were dropped, and the capture ended: stopped"
        );
        has(
            ended,
            [
                ("state", json!("ended")),
                ("handle", json!(handle)),
                ("uid", uid.clone()),
                ("session", started["session"].clone()),
                ("reason", json!("stopped")),
                ("captured", json!(3)),
                ("dropped", json!(0)),
                ("bytes", json!(300)),
                ("complete", json!("yes")),
                ("message", json!(message)),
            ],
        );
    });
}

#[test]
fn ends_that_no_call_has_asked_for_are_recorded() {
    with_each_broker("ends_that_no_call_has_asked_for_are_recorded", |broker, path| {
        let mut client = broker.lsp();
        drop(open(&mut client, &json!({})));
        assert_eq!(records(path, 2)[1]["reason"], "unread");
        let (_, _stream) = open(&mut client, &json!({"packets": 1}));
        send(1);
        assert_eq!(records(path, 4)[3]["reason"], "limit");
        let (_, _stream) = open(&mut client, &json!({}));
        drop(client);
        assert_eq!(records(path, 6)[5]["state"], "ended");
    });
}

#[test]
fn the_end_of_the_broker_is_an_end_of_its_captures_in_the_audit() {
    with_each_broker(
        "the_end_of_the_broker_is_an_end_of_its_captures_in_the_audit",
        |mut broker, path| {
            let mut client = broker.lsp();
            let (_, _stream) = open(&mut client, &json!({}));
            broker.process().terminate();
            until("the broker ends", || broker.process().ended().is_some());
            assert_eq!(records(path, 2)[1]["state"], "ended");
        },
    );
}
