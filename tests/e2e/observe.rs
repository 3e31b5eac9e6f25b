//! The audit file, the log and the metrics page.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use sockbroker_test_support::daemon::Process;
use sockbroker_test_support::journal::{Entry, Journal};
use sockbroker_test_support::mount;
use sockbroker_test_support::namespace::inside;
use sockbroker_test_support::user::other_users_or_skip;
use sockbroker_test_support::{Daemon, Folder, HttpClient, LspClient, User, bounded, until};

use crate::broker::{broker, limited, prepare};

const PAYLOAD: &str = "c2VjcmV0IHBheWxvYWQ=";

/// Starts a broker with an audit file.
fn audited(folder: &Folder) -> (Daemon, std::path::PathBuf) {
    let path = folder.join("audit");
    let to = format!("[audit]\nto = \"{}\"\n", path.display());
    (prepare().section(&to).start(), path)
}

/// Waits until a file has at least `least` records, and returns them.
pub(crate) fn wait_for_records(path: &Path, least: usize) -> Vec<Value> {
    let read = || {
        let text = fs::read_to_string(path).unwrap_or_default();
        let whole = text.lines().filter(|_| text.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let mut records = Vec::new();
    until("the records are written", || {
        // A record that is half written hides all.
        records = read();
        records.len() >= least
    });
    records
}

#[test]
fn audit_records_decisions_once_and_no_data() {
    bounded(20, || {
        let folder = Folder::new();
        let (mut broker, path) = audited(&folder);
        let mut client = broker.lsp();
        client.call("session.open", Value::Null).result();
        let server = client.call("socket.create_server", json!([["127.0.0.1", 0]])).handle();
        let address = client.call("socket.getsockname", json!([server])).result().clone();
        let stream = client.call("socket.socket", Value::Null).handle();
        client.call("socket.connect", json!([stream, address])).result();
        for _ in 0..20 {
            client.call("socket.sendall", json!([stream, PAYLOAD])).result();
        }
        client.call("socket.fileno", json!([stream])).result();
        client.call("session.close", Value::Null).result();
        broker.process().terminate();
        until("the broker ends", || broker.process().ended().is_some());
        let records = wait_for_records(&path, 9);
        let session = records[0]["session"].as_u64();
        let summaries: Vec<_> = records
            .iter()
            .map(|record| {
                let what =
                    ["audit", "state", "verdict", "verb"].map(|field| record[field].as_str());
                let what: Vec<_> = what.into_iter().flatten().collect();
                assert_eq!(record["uid"], nix_uid(), "{record}");
                assert_eq!(record["session"].as_u64(), session, "{record}");
                what.join(" ")
            })
            .collect();
        assert_eq!(
            summaries,
            [
                "decision allowed session",
                "session opened",
                "decision allowed create",
                "decision allowed bind",
                "decision allowed listen",
                "decision allowed create",
                "decision allowed connect",
                "decision allowed handover",
                "session closed",
            ]
        );
        let connect = &records[6];
        assert_eq!(
            (&connect["method"], &connect["handle"]),
            (&json!("socket.connect"), &json!(stream))
        );
        assert_eq!(connect["rule"], "built-in: root and the broker's own user");
        let grant = connect["grant"].as_str().unwrap();
        assert!(grant.contains("remote = [\"127.0.0.1\"]"), "{grant}");
        assert!(connect["connection"].is_number() && connect["pid"] == std::process::id());
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(PAYLOAD) && !text.contains("secret"), "{text}");
    });
}

#[test]
fn sighup_reopens_the_audit_file() {
    bounded(20, || {
        let folder = Folder::new();
        let (mut broker, path) = audited(&folder);
        let mut client = broker.lsp();
        client.call("socket.socket", Value::Null).handle();
        assert_eq!(wait_for_records(&path, 1).len(), 1);
        let past = folder.join("audit.1");
        fs::rename(&path, &past).unwrap();
        client.call("socket.socket", Value::Null).handle();
        assert_eq!(
            wait_for_records(&past, 2).len(),
            2,
            "until SIGHUP the broker writes to the open file"
        );
        broker.process().hang_up();
        until("the broker creates the file again", || path.exists());
        // The reader of the policy takes longer.
        wait_for_records(&path, 1);
        client.call("socket.socket", Value::Null).handle();
        let records = wait_for_records(&path, 2);
        assert_eq!(records[0]["audit"], "policy", "{records:?}");
        assert_eq!(records[1]["verb"], "create", "{records:?}");
        assert_eq!(wait_for_records(&past, 2).len(), 2);
        // If the file cannot be created, the open one is used further.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        broker.process().hang_up();
        until("the log reports the error", || {
            broker.log().contains("cannot reopen the audit file")
        });
        client.call("socket.socket", Value::Null).handle();
    });
}

fn nix_uid() -> u32 {
    sockbroker_sys::process::effective_uid()
}

#[test]
fn records_over_audit_records_per_second_are_counted_in_the_next_record() {
    bounded(20, || {
        let folder = Folder::new();
        let path = folder.join("audit");
        let to = format!("[audit]\nto = \"{}\"\n", path.display());
        let broker = prepare().limit("audit_records_per_second", 3).section(&to).start();
        let mut client = broker.lsp();
        let counted = || -> u64 {
            wait_for_records(&path, 1).iter().filter_map(|record| record["dropped"].as_u64()).sum()
        };
        until("many records were dropped, and another second has begun", || {
            for _ in 0..50 {
                let socket = client.call("socket.socket", Value::Null).handle();
                client.call("socket.close", json!([socket])).result();
            }
            counted() >= 100
        });
        let dropped = counted();
        // The metrics page counts them too; callers that are not refused are not slowed down.
        let page = metrics(&mut broker.http());
        assert!(page["sockbroker_audit_dropped_total"] >= dropped, "{page:?}");
    });
}

#[test]
fn records_over_audit_records_per_user_are_counted_in_the_users_next_record() {
    bounded(60, || {
        let folder = Folder::new();
        let path = folder.join("audit");
        let to = format!("[audit]\nto = \"{}\"\n", path.display());
        let broker = prepare().limit("audit_records_per_user", 3).section(&to).start();
        let mut client = broker.lsp();
        let mut make = || {
            let socket = client.call("socket.socket", Value::Null).handle();
            client.call("socket.close", json!([socket])).result();
        };
        let sum = |field: &str| -> u64 {
            wait_for_records(&path, 1).iter().filter_map(|record| record[field].as_u64()).sum()
        };
        until("many records were dropped, and another second has begun", || {
            (0..50).for_each(|_| make());
            sum("user_dropped") >= 100
        });
        let (dropped, of_all) = (sum("user_dropped"), sum("dropped"));
        assert_eq!(of_all, 0, "the rate of all was not reached");
        let page = metrics(&mut broker.http());
        assert!(page["sockbroker_audit_dropped_total"] >= dropped, "{page:?}");
    });
}

#[test]
fn refusal_is_recorded_with_the_rule_and_the_missing_grant() {
    if !other_users_or_skip("observe::refusal_is_recorded_with_the_rule_and_the_missing_grant") {
        return;
    }
    bounded(20, || {
        let folder = Folder::new();
        let (broker, path) = audited(&folder);
        let broker = broker.open_to_all();
        let mut other_user = User::unrelated(1).lsp(&broker);
        other_user.call("socket.socket", json!(["AF_INET", "SOCK_RAW", 1])).fault();
        let records = wait_for_records(&path, 1).swap_remove(0);
        for (field, value) in [
            ("audit", json!("decision")),
            ("verdict", json!("denied")),
            ("verb", json!("create")),
            ("method", json!("socket.socket")),
            ("uid", json!(User::unrelated(1).uid())),
            ("rule", json!("no rule")),
        ] {
            assert_eq!(records[field], value, "{records}");
        }
        assert!(records["grant"].as_str().unwrap().contains("SOCK_RAW"), "{records}");
        // The caller, the action, the object, the deciding rule, and the missing grant.
        let uid = User::unrelated(1).uid();
        let sentence = format!(
            "uid {uid} may not create a socket AF_INET SOCK_RAW IPPROTO_ICMP: no rule allows it; \
             missing grant: allow = [\"create\"]"
        );
        assert!(records["message"].as_str().unwrap().starts_with(&sentence), "{records}");
        let time = records["time"].as_str().unwrap();
        assert!(time.contains('T') && time.ends_with('Z'), "{records}");
    });
}

#[test]
fn log_uses_the_journal_if_standard_error_is_connected_to_it() {
    inside("observe::log_uses_the_journal_if_standard_error_is_connected_to_it", || {
        mount::empty(Path::new("/run")).unwrap();
        fs::create_dir_all("/run/systemd/journal").unwrap();
        let journal = Journal::bind(Path::new("/run/systemd/journal/socket"));
        for to_journal in [true, false] {
            let (stream, mut reader) = UnixStream::pair().unwrap();
            let stream = File::from(OwnedFd::from(stream));
            let own = stream.metadata().unwrap();
            let named =
                if to_journal { format!("{}:{}", own.dev(), own.ino()) } else { "1:2".into() };
            let (mut command, folder) = prepare().command();
            let socket = folder.join("socket");
            command.arg("--socket").arg(&socket).env("JOURNAL_STREAM", named);
            command.stdin(Stdio::null()).stderr(stream);
            let mut broker = Process::spawn(command);
            until("the broker serves", || UnixStream::connect(&socket).is_ok());
            LspClient::connect(&socket).expect_service();
            broker.terminate();
            assert!(broker.ends().success());
            let mut lines = String::new();
            reader.read_to_string(&mut lines).unwrap();
            assert_eq!(lines.contains("confined:"), !to_journal, "{lines}");
            if to_journal {
                let begun = |entry: &Entry| entry["MESSAGE"].starts_with("confined:");
                let confined = journal.entry_with(begun);
                for (name, value) in [
                    ("PRIORITY", "6"),
                    ("SYSLOG_IDENTIFIER", "sockbrokerd"),
                    ("SOCKBROKER_UID", "0"),
                    ("SOCKBROKER_SECCOMP", "errno"),
                ] {
                    assert_eq!(confined[name], value, "{confined:?}");
                }
            }
        }
    });
}

/// Returns the samples of the metrics page by name and labels. Checks the format like `promtool check metrics`.
pub(crate) fn metrics(client: &mut HttpClient) -> BTreeMap<String, u64> {
    let response = client.request("GET /metrics", &[], b"");
    assert_eq!(response.status, 200);
    assert_eq!(response.field("content-type"), Some("text/plain; version=0.0.4"));
    let text = String::from_utf8(response.body).unwrap();
    assert!(text.ends_with('\n'));
    let (mut samples, mut begun, mut helped) = (BTreeMap::new(), BTreeSet::new(), None);
    let mut present: Option<(String, String)> = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(begun.insert(name.to_owned()), "{name} begins twice");
            assert!(help.ends_with('.'), "{line}");
            helped = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(helped.take().as_deref(), Some(name), "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            present = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (labelled, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = labelled.split_once('{').unwrap_or((labelled, "}"));
            assert_eq!(Some(name), present.as_ref().map(|(name, _)| name.as_str()), "{line}");
            check_labels(labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}")));
            let value = value.parse().unwrap();
            assert_eq!(samples.insert(labelled.to_owned(), value), None, "{line} is there twice");
        }
    }
    samples
}

/// Checks `name="value",...`, with the escapes of the format.
fn check_labels(mut rest: &str) {
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap();
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
        let (mut escaped, mut end) = (false, None);
        for (at, c) in after.char_indices() {
            match c {
                _ if escaped => {
                    assert!(['\\', '"', 'n'].contains(&c), "{after}");
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let after = &after[end.unwrap() + 1..];
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}

#[test]
fn metrics_page_counts_events() {
    bounded(20, || {
        let broker = limited(&[("receive_bytes", 1000)]);
        let mut http = broker.http();
        let mut client = broker.lsp();
        let before = metrics(&mut http);
        let (left, right) = client.pair();
        client.call("socket.sendall", json!([left, PAYLOAD])).result();
        client.call("socket.recv", json!([right, 100])).result();
        client.call("socket.recv", json!([right, 1001])).fault();
        client.call("socket.recv", json!([5, 1])).fault();
        let waiting = client.send("socket.recv", json!([right, 1]));
        client.expect_service();
        let after = metrics(&mut http);
        client.cancel(waiting);
        assert_eq!(client.answer(waiting).fault().code, -32800);
        let last = metrics(&mut http);
        let own = "rule=\"built-in: root and the broker's own user\",verdict=\"allowed\"";
        let call = |method: &str, outcome: &str| {
            format!("sockbroker_calls_total{{method=\"socket.{method}\",outcome=\"{outcome}\"}}")
        };
        let of = |page: &BTreeMap<String, u64>, name: &str| page.get(name).copied().unwrap_or(0);
        for (name, expected) in [
            (call("socketpair", "ok"), 1),
            (call("sendall", "ok"), 1),
            (call("recv", "ok"), 1),
            (call("recv", "limit"), 1),
            (call("recv", "handle"), 1),
            ("sockbroker_limits_crossed_total{limit=\"receive_bytes\"}".to_owned(), 1),
            ("sockbroker_handles{family=\"AF_UNIX\"}".to_owned(), 2),
            ("sockbroker_sent_bytes_total".to_owned(), 14),
            ("sockbroker_received_bytes_total".to_owned(), 14),
            ("sockbroker_sent_messages_total".to_owned(), 1),
            ("sockbroker_waiting_calls".to_owned(), 1),
        ] {
            assert_eq!(of(&after, &name) - of(&before, &name), expected, "{name}: {after:?}");
        }
        assert_eq!(of(&last, &call("recv", "cancelled")), 1);
        assert_eq!(of(&last, "sockbroker_waiting_calls"), 0);
        for open in ["lsp", "http"] {
            assert_eq!(of(&after, &format!("sockbroker_connections{{framing=\"{open}\"}}")), 1);
        }
        let decisions = format!("sockbroker_decisions_total{{{own}}}");
        assert!(of(&after, &decisions) > of(&before, &decisions));
        assert_eq!(of(&after, "sockbroker_sessions{kind=\"implicit\"}"), 2);
    });
}

#[test]
fn metrics_page_requires_the_admin_grant() {
    if !other_users_or_skip("observe::metrics_page_requires_the_admin_grant") {
        return;
    }
    bounded(20, || {
        let broker = broker().open_to_all();
        let mut other_user = HttpClient::over(User::unrelated(1).connect(&broker));
        let refused = other_user.request("GET /metrics", &[], b"");
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert_eq!(refused.status, 403);
        assert!(
            text.contains("may not administer the broker") && !text.contains("sockbroker_"),
            "{text}"
        );
        let wrong = broker.http().request("DELETE /metrics", &[], b"");
        assert_eq!((wrong.status, wrong.field("allow")), (405, Some("GET, POST")));
    });
}

#[test]
fn worker_has_the_name_of_its_user_in_ps_and_in_the_log() {
    bounded(20, || {
        let broker = broker();
        broker.lsp().call("socket.htons", json!([1])).result();
        let uid = User::own();
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let is_own = |line: &&str| line.split(':').nth(2) == Some(&uid.to_string());
        let name = users.lines().find(is_own).and_then(|line| line.split(':').next());
        let process = match name {
            Some(name) => format!("worker {name} (uid {uid})"),
            None => format!("worker (uid {uid})"),
        };
        let arguments = fs::read_to_string(format!("/proc/{}/cmdline", broker.worker())).unwrap();
        assert_eq!(arguments.split('\0').next(), Some(&*format!("sockbrokerd: {process}")));
        let part = format!("process=\"{process}\"");
        let has_line = |is_meant: &dyn Fn(&str) -> bool| broker.log().lines().any(is_meant);
        until("the log has a line of the worker", || has_line(&|line| line.ends_with(&part)));
        // The monitor is the program itself.
        let log = broker.log();
        assert!(has_line(&|line| !line.contains("process=")), "{log}");
    });
}
