//! Suite `handles`: the cost of idle handles and connections, and their effect on other calls.

use serde_json::{Value, json};
use sockbroker_sys::socket;

use crate::broker::Broker;
use crate::client::{Client, Framing, call};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::measure::{Sample, in_turn, median_seconds, number, ratio, timed};
use crate::placement::{Cpus, Placement};
use crate::report::{Report, Row, Target};

/// Numbers of handles.
const FEW: usize = 10;
const SOME: usize = 1000;
const MANY: usize = 15_000;
/// The number of handles that wait once, and how long each waits.
const WAITED: usize = 500;
const WAIT_SECONDS: f64 = 0.001;
/// Numbers of connections.
const CONNECTIONS: [usize; 2] = [10, 500];
/// The number of rounds; each memory measurement uses a new broker.
const BROKERS: usize = 3;
const ROUNDS: usize = 15;
const CALLS: usize = 2000;

/// The target of an idle handle, in bytes.
const BYTES: Target = Target::AtMost(1024.0);
/// The target of a call with many handles, as a multiple of a call with few.
const SLOWER: Target = Target::AtMost(1.2);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let cpus = Cpus::of_this_process()?;
    let many = most_handles()?;
    memory_of_handles(report, many)?;
    memory_of_connections(report)?;
    calls_among_handles(report, &cpus, many)?;
    creation(report, &cpus)
}

/// Returns [`MANY`], or fewer if the broker allows a user fewer: its limit depends on that of open files.
fn most_handles() -> Result<usize> {
    let broker = Broker::start()?;
    let mut client = broker.connect(Framing::Lsp)?;
    let limits = client.call("session.limits", &json!({}))?;
    let allowed = limits["handles_per_user"]["value"].as_u64().ok_or("no limit of handles")?;
    match usize::try_from(allowed)?.min(MANY) {
        too_few if too_few < SOME => Err("the limit of open files is too low".into()),
        many => Ok(many),
    }
}

/// Creates handles with a timeout, up to this number.
fn fill(client: &mut Client, handles: &mut Vec<Value>, count: usize) -> Result<()> {
    let params = json!({ "type": "SOCK_DGRAM", "timeout": WAIT_SECONDS });
    while handles.len() < count {
        handles.push(client.call("socket.socket", &params)?["handle"].clone());
    }
    Ok(())
}

fn memory_of_handles(report: &mut Report, many: usize) -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..BROKERS {
        let broker = Broker::start()?;
        let mut client = broker.connect(Framing::Lsp)?;
        let mut handles = Vec::new();
        let mut resident = Vec::new();
        for count in [FEW, SOME, many] {
            fill(&mut client, &mut handles, count)?;
            resident.push(broker.resident_bytes()?);
        }
        for handle in handles.iter().take(WAITED) {
            wait_until_timeout(&mut client, handle)?;
        }
        resident.push(broker.resident_bytes()?);
        rounds.push(resident);
    }
    let growth = |from: usize, to: usize, count: usize| {
        Sample::map(&rounds, |resident| match (resident.get(from), resident.get(to)) {
            (Some(from), Some(to)) => (to - from) / number(count),
            _ => f64::NAN,
        })
    };
    let unit = "bytes/handle";
    let some = growth(0, 1, SOME - FEW);
    report.add(Row::new(format!("memory, {FEW} to {SOME} handles"), some, unit).target(BYTES));
    let all = growth(0, 2, many - FEW);
    report.add(Row::new(format!("memory, {FEW} to {many} handles"), all, unit).target(BYTES));
    let waited = growth(2, 3, WAITED);
    report.add(Row::new("memory, more once a handle has waited", waited, unit));
    Ok(())
}

/// Makes a receive that times out. After it the handle is registered with the event loop.
fn wait_until_timeout(client: &mut Client, handle: &Value) -> Result<()> {
    let json = call(1, "socket.recv", &json!({ "handle": handle, "bufsize": 1 }));
    let (_, answer) = client.send(&Framing::Lsp.wrap(&json))?;
    match answer["error"]["data"]["kind"].as_str() {
        Some("timeout") => Ok(()),
        _ => Err(format!("a receive without data returned {answer}").into()),
    }
}

fn memory_of_connections(report: &mut Report) -> Result<()> {
    for (name, method) in [
        ("connection after a call", "socket.getdefaulttimeout"),
        ("connection after session.open", "session.open"),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..BROKERS {
            rounds.push(bytes_of_a_connection(method)?);
        }
        let [few, many] = CONNECTIONS;
        let name = format!("memory, {few} to {many}, {name}");
        report.add(Row::new(name, Sample::of(&rounds), "bytes/conn."));
    }
    Ok(())
}

fn bytes_of_a_connection(method: &str) -> Result<f64> {
    let broker = Broker::start()?;
    let mut clients = Vec::new();
    let mut resident = Vec::new();
    for count in CONNECTIONS {
        while clients.len() < count {
            let mut client = broker.connect(Framing::Lsp)?;
            client.call(method, &json!({}))?;
            clients.push(client);
        }
        resident.push(broker.resident_bytes()?);
    }
    let [few, many] = CONNECTIONS;
    let grown = resident.iter().skip(1).zip(&resident).map(|(more, less)| more - less).sum::<f64>();
    Ok(grown / number(many - few))
}

/// Measures calls on each handle in turn, in two brokers that differ only in the number of handles.
fn calls_among_handles(report: &mut Report, cpus: &Cpus, many: usize) -> Result<()> {
    let (small, large) = (Broker::start()?, Broker::start()?);
    let mut calls_of_many = getters(&large, many, many)?;
    let mut calls_of_few = getters(&small, FEW, many)?;
    cpus.put(Placement::OneCpu, &[small.process(), large.process()])?;
    let rounds =
        in_turn(ROUNDS, || calls_of_many.round_trip(CALLS), || calls_of_few.round_trip(CALLS))?;
    let name = format!("gettimeout with {many} handles, one CPU");
    report.add(Row::new(name, Sample::map(&rounds, ratio), "x with 10").target(SLOWER));
    Ok(())
}

/// Prepares calls that are distributed over the handles.
fn getters(broker: &Broker, handles: usize, calls: usize) -> Result<Exchange> {
    let mut client = broker.connect(Framing::Lsp)?;
    let mut made = Vec::new();
    fill(&mut client, &mut made, handles)?;
    let all = made.iter().cycle().take(calls);
    let calls = all.map(|handle| call(1, "socket.gettimeout", &json!({ "handle": handle })));
    Exchange::calls(client, &calls.collect::<Vec<_>>())
}

fn creation(report: &mut Report, cpus: &Cpus) -> Result<()> {
    let broker = Broker::start()?;
    cpus.put(Placement::OneCpu, &[broker.process()])?;
    for (name, want_fd) in [("a handle", false), ("a handle with its descriptor", true)] {
        let mut client = broker.connect(Framing::Lsp)?;
        let params = json!({ "type": "SOCK_DGRAM", "want_fd": want_fd });
        let ours = || timed(CALLS, || create_and_close(&mut client, &params, want_fd));
        let rounds = in_turn(ROUNDS, ours, || median_seconds(CALLS, native_socket))?;
        let name = format!("creation of {name}, one CPU: time");
        report.add(Row::new(name, Sample::map(&rounds, ratio), "x native"));
    }
    Ok(())
}

/// Returns the time of the creation alone.
fn create_and_close(client: &mut Client, params: &Value, want_fd: bool) -> Result<f64> {
    let mut made = Value::Null;
    let seconds = median_seconds(1, || {
        made = client.call("socket.socket", params)?;
        if want_fd { client.take_descriptor().map(drop) } else { Ok(()) }
    })?;
    client.call("socket.close", &json!({ "handle": made["handle"] }))?;
    Ok(seconds)
}

fn native_socket() -> Result<()> {
    let (internet, datagram) = (nix::libc::AF_INET, nix::libc::SOCK_DGRAM);
    drop(socket::create(internet, datagram, 0)?);
    Ok(())
}
