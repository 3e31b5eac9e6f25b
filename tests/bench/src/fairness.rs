//! Suite `fairness`: how a user at its limits affects another user.
//!
//! The other user is a thread with another user ID, which requires root.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};
use sockbroker_sys::identity::{self, Identity};

use crate::broker::Broker;
use crate::client::{Client, Framing, call};
use crate::error::{self, Result};
use crate::exchange::Exchange;
use crate::measure::{Sample, in_turn, ratio};
use crate::report::{Report, Row, Target};

/// A user ID without an account.
const OTHER: u32 = 4_200_001;
const ROUNDS: usize = 15;
const CALLS: usize = 2000;
/// The limits of the other user.
const HANDLES: usize = 100;
const WAITING: usize = 64;
const CONFIG: &str = "[limits]\nhandles_per_user = 100\ncalls_in_flight_per_user = 64\n";
const POLICY: &str = "version = 1\n[[rule]]\nname = \"sockets\"\nsubject = { everyone = true }\n\
                      allow = [\"create\", \"bind\", \"connect\", \"send\", \"receive\"]\n";

/// The target of a call while another user is at its limits, as a multiple of a call without another user.
const SLOWER: Target = Target::AtMost(1.2);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    if !identity::can_change()? {
        error::report("fairness: not measured: needs root, to act as two users");
        return Ok(());
    }
    let (quiet, busy) = (start()?, start()?);
    let mut alone = exchange(&quiet)?;
    let mut contended = exchange(&busy)?;
    let mut other = connect_as_other(&busy)?;
    let held = exhaust_limits(&mut other)?;
    let rounds = in_turn(ROUNDS, || contended.round_trip(CALLS), || alone.round_trip(CALLS))?;
    let name = "a call while another user holds all it may";
    report.add(Row::new(name, Sample::map(&rounds, ratio), "x alone").target(SLOWER));
    let over = Arc::new(AtomicBool::new(false));
    let stop = over.clone();
    let handle = held.last().cloned().unwrap_or_default();
    let refused = thread::spawn(move || {
        make_refused_calls(&mut other, &handle, &stop).map_err(|error| error.to_string())
    });
    let rounds = in_turn(ROUNDS, || contended.round_trip(CALLS), || alone.round_trip(CALLS));
    over.store(true, Ordering::Relaxed);
    let count = refused.join().map_err(|_panic| "the other user failed")??;
    if count == 0 {
        return Err("the other user was never refused".into());
    }
    let name = "a call while another user is refused call after call";
    report.add(Row::new(name, Sample::map(&rounds?, ratio), "x alone"));
    Ok(())
}

fn start() -> Result<Broker> {
    let broker = Broker::start_with(CONFIG, POLICY)?;
    broker.open_to_all()?;
    Ok(broker)
}

/// The measured calls: the smallest ones that check the policy and look up a handle.
fn exchange(broker: &Broker) -> Result<Exchange> {
    let mut client = broker.connect(Framing::Lsp)?;
    let made = client.call("socket.socket", &json!({ "type": "SOCK_DGRAM" }))?;
    let get = call(1, "socket.getsockname", &json!({ "handle": made["handle"] }));
    Exchange::calls(client, &vec![get; CALLS])
}

/// Connects as the other user.
fn connect_as_other(broker: &Broker) -> Result<Client> {
    let identity = Identity { uid: OTHER, gid: OTHER, groups: Arc::default() };
    let (sender, result) = mpsc::channel();
    let path = broker.path();
    identity::spawn_as(
        Arc::new(identity),
        move || UnixStream::connect(path),
        move |stream| drop(sender.send(stream)),
    )?;
    Client::over(result.recv()???, Framing::Lsp)
}

/// Creates handles and waiting calls up to the limits.
fn exhaust_limits(other: &mut Client) -> Result<Vec<Value>> {
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

/// Makes calls beyond the limits until `stop` is set. Returns the number of refusals.
fn make_refused_calls(other: &mut Client, handle: &Value, stop: &AtomicBool) -> Result<usize> {
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
