//! Suite `fairness`: what a user at its limits costs another.
//!
//! The other user is a thread with another id, which needs root.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use sockbroker_sys::identity::{self, Identity};

use crate::broker::Broker;
use crate::client::{Client, Framing, call};
use crate::exchange::Exchange;
use crate::measure::{Result, Sample, in_turn, ratio};
use crate::report::{Report, Row, Target, warn};

/// A user that no machine has.
const OTHER: u32 = 4_200_001;
const ROUNDS: usize = 15;
const CALLS: usize = 2000;
/// What the other user may have.
const HANDLES: usize = 100;
const WAITING: usize = 64;
const CONFIG: &str = "[limits]\nhandles_per_user = 100\ncalls_in_flight_per_user = 64\n";
const POLICY: &str = "version = 1\n[[rule]]\nname = \"sockets\"\nsubject = { everyone = true }\n\
                      allow = [\"create\", \"bind\", \"connect\", \"send\", \"receive\"]\n";

/// The slowest call beside a user that holds all it may, in calls beside nobody.
const SLOWER: Target = Target::AtMost(1.2);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    if !identity::can_change()? {
        warn("fairness: not measured: needs root, to be two users");
        return Ok(());
    }
    let (quiet, busy) = (start()?, start()?);
    let mut alone = exchange(&quiet)?;
    let mut beside = exchange(&busy)?;
    let mut other = connect_as_other(&busy)?;
    let held = hold_everything(&mut other)?;
    let rounds = in_turn(ROUNDS, || beside.round_trip(CALLS), || alone.round_trip(CALLS))?;
    let name = "a call beside a user that holds all it may";
    report.add(Row::new(name, Sample::map(&rounds, ratio), "x alone").target(SLOWER));
    let over = Arc::new(AtomicBool::new(false));
    let stop = over.clone();
    let handle = held.last().cloned().unwrap_or_default();
    let refused = thread::spawn(move || {
        be_refused(&mut other, &handle, &stop).map_err(|error| error.to_string())
    });
    let rounds = in_turn(ROUNDS, || beside.round_trip(CALLS), || alone.round_trip(CALLS));
    over.store(true, Ordering::Relaxed);
    let count = refused.join().map_err(|_panic| "the other user failed")??;
    if count == 0 {
        return Err("the other user was never refused".into());
    }
    let name = "a call beside a user that is refused call after call";
    report.add(Row::new(name, Sample::map(&rounds?, ratio), "x alone"));
    Ok(())
}

fn start() -> Result<Broker> {
    let broker = Broker::start_with(CONFIG, POLICY)?;
    broker.open_to_all()?;
    Ok(broker)
}

/// Calls of this user: the smallest that asks the policy and looks a handle up.
fn exchange(broker: &Broker) -> Result<Exchange> {
    let mut client = broker.connect(Framing::Lsp)?;
    let made = client.call("socket.socket", &json!({ "type": "SOCK_DGRAM" }))?;
    let get = call(1, "socket.getsockname", &json!({ "handle": made["handle"] }));
    Exchange::calls(client, &vec![get; CALLS])
}

/// A connection of the other user.
fn connect_as_other(broker: &Broker) -> Result<Client> {
    let identity = Identity { uid: OTHER, gid: OTHER, groups: Arc::default() };
    let (told, result) = mpsc::channel();
    let path = broker.path();
    identity::spawn_as(
        Arc::new(identity),
        move || UnixStream::connect(path),
        move |stream| drop(told.send(stream)),
    )?;
    Client::over(result.recv()???, Framing::Lsp)
}

/// Takes handles, and calls that wait, as many as there are.
fn hold_everything(other: &mut Client) -> Result<Vec<Value>> {
    let mut handles = Vec::new();
    for _ in 0..HANDLES {
        handles
            .push(other.call("socket.socket", &json!({ "type": "SOCK_DGRAM" }))?["handle"].clone());
    }
    for (id, handle) in handles.iter().take(WAITING).enumerate() {
        let bound = json!({ "handle": handle, "address": ["127.0.0.1", 0] });
        other.call("socket.bind", &bound)?;
        let wait = call(1000 + id, "socket.recv", &json!({ "handle": handle, "bufsize": 1 }));
        other.begin(&Framing::Lsp.wrap(&wait))?;
    }
    Ok(handles)
}

/// Asks for what there is no more of until it is told to stop; how often that was refused.
fn be_refused(other: &mut Client, handle: &Value, stop: &AtomicBool) -> Result<usize> {
    other.call("socket.bind", &json!({ "handle": handle, "address": ["127.0.0.1", 0] }))?;
    let wait = call(1, "socket.recv", &json!({ "handle": handle, "bufsize": 1 }));
    let wait = Framing::Lsp.wrap(&wait);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let (_, answer) = other.send(&wait)?;
        match answer["error"]["data"]["limit"].as_str() {
            Some("calls_in_flight_per_user") => count += 1,
            _ => return Err(format!("the call was not refused: {answer}").into()),
        }
    }
    Ok(count)
}
