//! Suite `restart`: what it costs that a session outlives its worker, and how long a restart of the service with many
//! persistent handles takes, measured by `tests/restart/measure.py`.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};
use sockbroker_sys::identity;

use crate::broker::Broker;
use crate::client::{Client, Framing};
use crate::error::{self, Result};
use crate::figures::measured;
use crate::measure::Sample;
use crate::peers::Role;
use crate::placement::{Cpus, Placement};
use crate::report::{Report, Row, Target};

/// The handles of each session.
const HANDLES: usize = 400;
/// How far the next handle that is closed is from the last one. All handles have their turn.
const STRIDE: usize = 157;
const CALLS: usize = 1000;
const ROUNDS: usize = 15;
const POLICY: &str = "version = 1\n[[rule]]\nname = \"persist\"\nsubject = { everyone = true }\nallow = [\"persist\"]\n";

/// A figure that the program prints.
#[derive(Debug, Deserialize)]
struct Figure {
    name: String,
    rounds: Vec<f64>,
}

pub(crate) fn run(report: &mut Report) -> Result<()> {
    calls(report)?;
    if !identity::can_change()? {
        error::report("restart of the service: not measured: needs root, to act as several users");
        return Ok(());
    }
    restarts(report)
}

/// The times of the two calls, in seconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    open: f64,
    close: f64,
}

/// Selects the time of one call.
type Part = fn(&Times) -> f64;

/// A session with handles.
#[derive(Debug)]
struct Session {
    client: Client,
    handles: Vec<Value>,
    next: usize,
}

impl Session {
    fn open(broker: &Broker, persist: bool) -> Result<Self> {
        let mut client = broker.connect(Framing::Lsp)?;
        client.call("session.open", &json!({ "persist": persist }))?;
        let mut session = Self { client, handles: Vec::new(), next: 0 };
        for _ in 0..HANDLES {
            let handle = session.create()?;
            session.handles.push(handle);
        }
        Ok(session)
    }

    fn create(&mut self) -> Result<Value> {
        let made = self.client.call("socket.socket", &json!({ "type": "SOCK_DGRAM" }))?;
        Ok(made["handle"].clone())
    }

    /// Opens a handle, and closes another one.
    fn exchange(&mut self) -> Result<Times> {
        let begun = Instant::now();
        let made = self.create()?;
        let open = begun.elapsed().as_secs_f64();
        self.next = (self.next + STRIDE) % HANDLES;
        let place = self.handles.get_mut(self.next).ok_or("no handle")?;
        let handle = std::mem::replace(place, made);
        let begun = Instant::now();
        self.client.call("socket.close", &json!({ "handle": handle }))?;
        Ok(Times { open, close: begun.elapsed().as_secs_f64() })
    }

    /// The medians of many exchanges.
    fn round(&mut self) -> Result<Times> {
        let all: Vec<Times> = (0..CALLS).map(|_| self.exchange()).collect::<Result<_>>()?;
        let median = |time: Part| Sample::map(&all, time).median;
        Ok(Times { open: median(|times| times.open), close: median(|times| times.close) })
    }
}

/// Opening and closing a handle, in a persistent session and in an ordinary one of the same worker, and in one of a worker
/// without persistent sessions.
fn calls(report: &mut Report) -> Result<()> {
    let (broker, other) = (Broker::start_with("", POLICY)?, Broker::start_with("", POLICY)?);
    let mut persistent = Session::open(&broker, true)?;
    let mut ordinary = Session::open(&broker, false)?;
    let mut alone = Session::open(&other, false)?;
    Cpus::of_this_process()?.put(Placement::OneCpu, &[broker.process(), other.process()])?;
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let times = [persistent.round()?, ordinary.round()?, alone.round()?];
        // The first is a warm-up.
        if round > 0 {
            rounds.push(times);
        }
    }
    let calls: [(&str, Part); 2] =
        [("socket.socket", |times| times.open), ("socket.close", |times| times.close)];
    for (name, time) in calls {
        let more =
            |[persistent, ordinary, _]: &[Times; 3]| (time(persistent) - time(ordinary)) * 1e6;
        let text = format!("{name}, {HANDLES} persistent handles, more than ordinary");
        let row = Row::new(text, Sample::map(&rounds, more), "us, one CPU");
        report.add(row.target(Target::AtMost(15.0)));
    }
    for (name, time) in calls {
        let ratio = |[_, ordinary, alone]: &[Times; 3]| time(ordinary) / time(alone);
        let text = format!("{name}, ordinary session beside a persistent one");
        let row = Row::new(text, Sample::map(&rounds, ratio), "x without");
        report.add(row.target(Target::AtMost(1.05)));
    }
    Ok(())
}

/// The restart of the service, under a stand-in for the service manager that keeps the descriptors.
fn restarts(report: &mut Report) -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../restart/measure.py");
    let mut program = Command::new("python3");
    program
        .arg(script)
        .arg(std::env::current_exe()?)
        .envs([Role::Broker.variable()])
        .env("SOCKBROKER_LOG", "warn");
    for figure in measured::<Figure>(&mut program)? {
        let row = Row::new(&figure.name, Sample::of(&figure.rounds), "s");
        let is_first = figure.name.contains("first answer");
        report.add(if is_first { row.target(Target::AtMost(1.0)) } else { row });
    }
    Ok(())
}
