//! Suite `rpc`: small calls against a peer that reads and writes the same bytes and does nothing else.

use serde_json::json;

use crate::broker::Broker;
use crate::client::{Framing, call};
use crate::exchange::Exchange;
use crate::measure::{Result, Sample, in_turn, ratio};
use crate::peers::{Peer, Role};
use crate::place::{Cpus, Place};
use crate::report::{Report, Row, Target};

/// Calls in flight when they are pipelined.
const IN_FLIGHT: usize = 64;
/// Pairs of broker and peer, since the scheduler deals differently with each, rounds with each pair,
/// and what is measured in a round.
const PAIRS: usize = 9;
const ROUNDS: usize = 3;
const ROUND_TRIPS: usize = 2000;
const PIPELINED: usize = 30_000;

/// The slowest round trip that is good enough, in ping-pongs.
const ROUND_TRIP: Target = Target::AtMost(1.6);
/// The fewest pipelined calls a second that are good enough.
const CALLS_PER_SECOND: Target = Target::AtLeast(350_000.0);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let cpus = Cpus::of_this_process()?;
    for framing in [Framing::Lsp, Framing::Ndjson] {
        let mut pairs = Vec::new();
        for _ in 0..PAIRS {
            pairs.push(Pair::start(framing)?);
        }
        for place in [Place::OneCpu, Place::TwoCpus, Place::Free] {
            round_trips(report, (framing, place), &cpus, &mut pairs)?;
            pipelined(report, (framing, place), &cpus, &mut pairs)?;
        }
    }
    Ok(())
}

/// A broker and its peer.
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

    fn put(&self, cpus: &Cpus, place: Place) -> Result<()> {
        cpus.put(place, &[self.broker.process(), self.peer.process()])
    }
}

/// `socket.gettimeout` as often as calls shall be in flight, with ids of one length.
fn getters(broker: &Broker, framing: Framing) -> Result<Exchange> {
    let mut client = broker.connect(framing)?;
    let made = client.call("socket.socket", &json!({ "type": "SOCK_DGRAM" }))?;
    let handle = json!({ "handle": made["handle"] });
    let calls = (0..IN_FLIGHT).map(|at| call(100 + at, "socket.gettimeout", &handle));
    Exchange::calls(client, &calls.collect::<Vec<_>>())
}

fn round_trips(
    report: &mut Report,
    (framing, place): (Framing, Place),
    cpus: &Cpus,
    pairs: &mut [Pair],
) -> Result<()> {
    let mut rounds = Vec::new();
    for pair in pairs {
        pair.put(cpus, place)?;
        let Pair { calls, echo, .. } = pair;
        let ours = || calls.round_trip(ROUND_TRIPS);
        rounds.extend(in_turn(ROUNDS, ours, || echo.round_trip(ROUND_TRIPS))?);
    }
    let name = format!("gettimeout, {}, {}", framing.word(), place.word());
    let row = Row::new(name, Sample::map(&rounds, ratio), "x ping-pong");
    let has_target = (framing, place) == (Framing::Lsp, Place::OneCpu);
    report.add(if has_target { row.target(ROUND_TRIP) } else { row });
    Ok(())
}

fn pipelined(
    report: &mut Report,
    (framing, place): (Framing, Place),
    cpus: &Cpus,
    pairs: &mut [Pair],
) -> Result<()> {
    let mut rounds = Vec::new();
    for pair in pairs {
        pair.put(cpus, place)?;
        let Pair { calls, echo, .. } = pair;
        let ours = || calls.in_flight(PIPELINED);
        rounds.extend(in_turn(ROUNDS, ours, || echo.in_flight(PIPELINED))?);
    }
    let name = format!("{IN_FLIGHT} in flight, {}, {}", framing.word(), place.word());
    let row = Row::new(&name, Sample::map(&rounds, |round| round.0), "calls/s");
    report.add(if framing == Framing::Lsp { row.target(CALLS_PER_SECOND) } else { row });
    let share = Sample::map(&rounds, |round| 100.0 * ratio(round));
    report.add(Row::new(format!("{name}: of the echo"), share, "%"));
    Ok(())
}
