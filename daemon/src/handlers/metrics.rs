//! The page of metrics, for callers with the grant `admin`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sockbroker_monitor::message::Query;
use sockbroker_proto::constant;
use sockbroker_proto::handle::Handle;
use tokio::time::timeout;

use crate::error::OpResult;
use crate::handlers::other_workers::query;
use crate::network::captures::Capture;
use crate::observe::metrics::Page;
use crate::quota::Share;
use crate::quota::traffic::Volume;
use crate::rpc::call::{Call, RequestParts};
use crate::rpc::methods::{MethodTable, outcomes};
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::connection::Connection;
use sockbroker_policy::action::Administer;

/// How long the captures may take to report their counts. They do so within a millisecond.
const REFRESH: Duration = Duration::from_millis(250);
/// A sample that is not added over workers.
const POLICY_NUMBER: &str = "policy_number";

/// The page in the text format of Prometheus, or the message of the refusal if the policy does not allow it.
pub async fn page(connection: &Arc<Connection>, methods: &MethodTable) -> Result<String, String> {
    let call = Call::new(connection, ("metrics", None), RequestParts::default(), true);
    let allowed: OpResult<_> = call.permit(Administer);
    match allowed {
        Ok(permit) => {
            let Administer = permit.into_request();
            refresh(connection.broker()).await;
            let own = describe(connection.broker(), methods);
            if let Some(monitor) = connection.broker().monitor() {
                monitor.keep_counters(own.clone().into_bytes());
            }
            match query(connection.broker(), Query::Metrics).await {
                Ok(others) => Ok(sum(&own, &others)),
                Err(error) => Err(crate::rpc::error::RpcError::from(error).message),
            }
        }
        Err(error) => Err(crate::rpc::error::RpcError::from(error).message),
    }
}

pub(super) fn describe(broker: &Broker, methods: &MethodTable) -> String {
    let mut page = Page::default();
    broker.metrics.describe(&mut page);
    page.begin("calls_total", "counter", "Calls that ended, by method and outcome.");
    for (method, ended) in methods.outcomes() {
        for (outcome, count) in outcomes().zip(ended.counts()).filter(|(_, count)| *count > 0) {
            page.sample(&[("method", method), ("outcome", outcome)], count);
        }
    }
    let sessions = broker.sessions();
    let opened = sessions.iter().filter(|session| session.is_open()).count();
    page.begin("sessions", "gauge", "Sessions, opened ones and those of one connection alone.");
    page.sample(&[("kind", "opened")], opened as u64);
    page.sample(&[("kind", "implicit")], (sessions.len() - opened) as u64);
    let mut families = BTreeMap::<i32, u64>::new();
    for (_, entry) in sessions.iter().flat_map(|session| session.entries()) {
        *families.entry(entry.actual().domain).or_default() += 1;
    }
    page.begin("handles", "gauge", "Open handles, by the family of their socket.");
    for (family, count) in families {
        page.sample(&[("family", &family_name(family))], count);
    }
    for (name, share, help) in [
        ("waiting_calls", Share::Calls, "Calls that wait."),
        ("buffered_bytes", Share::Bytes, "Bytes held for calls that wait and unfinished messages."),
        ("buffered_descriptors", Share::Descriptors, "Descriptors held for calls that wait."),
    ] {
        page.begin(name, "gauge", help);
        page.sample(&[], broker.users.used(share));
    }
    let traffic = broker.users.traffic();
    volume(&mut page, "sent", &traffic.sent);
    volume(&mut page, "received", &traffic.received);
    captures(&mut page, broker);
    page.begin("audit_dropped_total", "counter", "Audit records that were dropped.");
    page.sample(&[], broker.audit.lost());
    page.begin(POLICY_NUMBER, "gauge", "The number of the policy in force; the first is 1.");
    page.sample(&[], broker.policy.generation());
    page.text()
}

/// The captures that have a handle.
fn running(broker: &Broker) -> Vec<(Arc<Session>, Handle, Arc<Capture>)> {
    let mut found = Vec::new();
    for session in broker.sessions() {
        for (handle, stream) in session.streams() {
            if let Some(capture) =
                Capture::of(&stream).filter(|capture| capture.outcome().is_none())
            {
                found.push((session.clone(), handle, capture));
            }
        }
    }
    found
}

/// Reads the counts of captures, for the next page.
pub(super) async fn refresh(broker: &Broker) {
    let read = async {
        for (_, _, capture) in running(broker) {
            // Of one that does not answer, the page has the counts that were read before.
            capture.counts().await.ok();
        }
    };
    timeout(REFRESH, read).await.ok();
}

/// The sums of all captures, and the counts of those that run: at most `captures_per_user` for each user.
fn captures(page: &mut Page, broker: &Broker) {
    let sums = broker.captures.sums();
    page.begin("captures", "gauge", "Captures that run.");
    page.sample(&[], sums.running);
    page.begin("captures_ended_total", "counter", "Captures that have ended, by reason.");
    for (reason, count) in &sums.ended {
        page.sample(&[("reason", reason)], *count);
    }
    for (name, help, sum) in [
        ("captured_packets_total", "Packets that captures wrote to their streams.", sums.captured),
        ("captured_bytes_total", "Bytes of these packets.", sums.bytes),
        ("capture_dropped_packets_total", "Packets that captures have lost.", sums.dropped),
    ] {
        page.begin(name, "counter", help);
        page.sample(&[], sum);
    }
    let running: Vec<_> = running(broker)
        .into_iter()
        .map(|(session, handle, capture)| {
            let names = [
                session.uid().to_string(),
                session.number().to_string(),
                handle.number().to_string(),
            ];
            (names, capture.interfaces(), capture.latest())
        })
        .collect();
    let help =
        ["Packets of a running capture in its stream.", "Packets that a running capture has lost."];
    for (name, help, dropped) in
        [("capture_packets", help[0], false), ("capture_dropped_packets", help[1], true)]
    {
        page.begin(name, "gauge", help);
        for ([uid, session, handle], interfaces, counts) in &running {
            let labels = [
                ("uid", &**uid),
                ("session", session),
                ("handle", handle),
                ("interfaces", interfaces),
            ];
            page.sample(&labels, if dropped { counts.dropped } else { counts.captured });
        }
    }
}

/// The pages of this worker, of others and of the monitor as one: the samples of the same name and labels are added, and
/// stand behind the header of their metric. All workers have the policy of one number.
fn sum(own: &str, others: &[(u32, Vec<u8>)]) -> String {
    let mut headers: Vec<String> = Vec::new();
    let mut sums: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let others = others.iter().map(|(_, page)| String::from_utf8_lossy(page));
    for page in std::iter::once(own.into()).chain(others) {
        for line in page.lines() {
            if line.starts_with('#') {
                if !headers.iter().any(|known| known == line) {
                    headers.push(line.to_owned());
                }
                continue;
            }
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let value: u64 = value.parse().unwrap_or_default();
            let metric = name.split('{').next().unwrap_or_default();
            let samples = sums.entry(metric.to_owned()).or_default();
            let sum = samples.entry(name.to_owned()).or_default();
            *sum = if metric.ends_with(POLICY_NUMBER) { value } else { sum.saturating_add(value) };
        }
    }
    let mut text = String::new();
    for header in headers {
        text.push_str(&header);
        text.push('\n');
        let metric = header.strip_prefix("# TYPE ").and_then(|rest| rest.split(' ').next());
        for (name, value) in metric.and_then(|metric| sums.remove(metric)).unwrap_or_default() {
            text.extend([name.as_str(), " ", &value.to_string(), "\n"]);
        }
    }
    text
}

fn volume(page: &mut Page, way: &str, volume: &Volume) {
    let names = match way {
        "sent" => ("sent_bytes_total", "sent_messages_total"),
        _ => ("received_bytes_total", "received_messages_total"),
    };
    page.begin(names.0, "counter", "Bytes of data that went through sockets this way.");
    page.sample(&[], volume.bytes.load(Ordering::Relaxed));
    page.begin(names.1, "counter", "Messages that went through sockets this way.");
    page.sample(&[], volume.packets.load(Ordering::Relaxed));
}

/// The name of a family, such as `AF_INET`; its number if it has no name.
fn family_name(family: i32) -> String {
    constant::names()
        .find(|(name, value)| name.starts_with("AF_") && *value == i64::from(family))
        .map_or_else(|| family.to_string(), |(name, _)| name.to_owned())
}
