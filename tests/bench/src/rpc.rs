//! Suite `rpc`: small calls, against a peer that only reads and writes messages of the same size.

use serde_json::json;

use crate::broker::Broker;
use crate::client::{Framing, call};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::measure::{Sample, in_turn, ratio};
use crate::peers::{Peer, Role};
use crate::placement::{Cpus, Placement};
use crate::report::{Report, Row, Target};

/// The number of pipelined calls in flight.
const IN_FLIGHT: usize = 64;
/// The number of pairs of broker and peer, because the scheduler treats each pair differently, of rounds for each
/// pair, and of measurements in a round.
const PAIRS: usize = 9;
const ROUNDS: usize = 3;
const ROUND_TRIPS: usize = 2000;
const PIPELINED: usize = 30_000;

/// The target of a round trip, as a multiple of a ping-pong.
const ROUND_TRIP: Target = Target::AtMost(1.6);
/// The target of pipelined calls per second.
const CALLS_PER_SECOND: Target = Target::AtLeast(350_000.0);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let cpus = Cpus::of_this_process()?;
    for framing in [Framing::Lsp, Framing::Ndjson] {
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            pairs.push(Pair::start(framing)?);
        }
        for placement in [Placement::OneCpu, Placement::TwoCpus, Placement::Free] {
            round_trips(report, (framing, placement), &cpus, &mut pairs)?;
            pipelined(report, (framing, placement), &cpus, &mut pairs)?;
        }
    }
    Ok(())
}

/// A broker and a peer.
struct Pair {
    broker: Broker,
    calls: Exchange,
    peer: Peer,
    echo: Exchange,
}

impl Pair {
    fn start(framing: Framing) -> Result<Self> {
        let broker = Broker::start()?;
        let calls = getters(&broker, framing)?;
        let (request, answer) = calls.sizes();
        let (peer, stream) = Peer::start(Role::Echo { request, answer })?;
        let echo = Exchange::with_echo(stream, (request, answer), IN_FLIGHT)?;
        Ok(Self { broker, calls, peer, echo })
    }

    fn put(&self, cpus: &Cpus, placement: Placement) -> Result<()> {
        cpus.put(placement, &[self.broker.process(), self.peer.process()])
    }
}

/// Prepares one `socket.gettimeout` for each call in flight, with IDs of the same length.
fn getters(broker: &Broker, framing: Framing) -> Result<Exchange> {
    let mut client = broker.connect(framing)?;
    let made = client.call("socket.socket", &json!({ "type": "SOCK_DGRAM" }))?;
    let handle = json!({ "handle": made["handle"] });
    let calls = (0..IN_FLIGHT).map(|at| call(100 + at, "socket.gettimeout", &handle));
    Exchange::calls(client, &calls.collect::<Vec<_>>())
}

fn round_trips(
    report: &mut Report,
    (framing, placement): (Framing, Placement),
    cpus: &Cpus,
    pairs: &mut [Pair],
) -> Result<()> {
    let mut rounds = Vec::new();
    for pair in pairs {
        pair.put(cpus, placement)?;
        let Pair { calls, echo, .. } = pair;
        let ours = || calls.round_trip(ROUND_TRIPS);
        rounds.extend(in_turn(ROUNDS, ours, || echo.round_trip(ROUND_TRIPS))?);
    }
    let name = format!("gettimeout, {}, {}", framing.word(), placement.word());
    let row = Row::new(name, Sample::map(&rounds, ratio), "x ping-pong");
    let has_target = (framing, placement) == (Framing::Lsp, Placement::OneCpu);
    report.add(if has_target { row.target(ROUND_TRIP) } else { row });
    Ok(())
}

fn pipelined(
    report: &mut Report,
    (framing, placement): (Framing, Placement),
    cpus: &Cpus,
    pairs: &mut [Pair],
) -> Result<()> {
    let mut rounds = Vec::new();
    for pair in pairs {
        pair.put(cpus, placement)?;
        let Pair { calls, echo, .. } = pair;
        let ours = || calls.in_flight(PIPELINED);
        rounds.extend(in_turn(ROUNDS, ours, || echo.in_flight(PIPELINED))?);
    }
    let name = format!("{IN_FLIGHT} in flight, {}, {}", framing.word(), placement.word());
    let row = Row::new(&name, Sample::map(&rounds, |round| round.0), "calls/s");
    report.add(if framing == Framing::Lsp { row.target(CALLS_PER_SECOND) } else { row });
    let share = Sample::map(&rounds, |round| 100.0 * ratio(round));
    report.add(Row::new(format!("{name}: of the echo"), share, "%"));
    Ok(())
}
