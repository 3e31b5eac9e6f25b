//! Suite `client`: the Rust library against the best that a program can do without it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::json;
use sockbroker_client::{Domain, Protocol, Type, asynchronous, blocking};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::client::{BLOCK, Framing, TIMEOUT, call, frame, result, set_send_buffer};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::measure::{FILLING, Sample, in_turn, median_seconds, number, ratio, timed};
use crate::peers::{Peer, Role};
use crate::placement::{Cpus, Placement};
use crate::report::{Report, Row, Target};

/// The number of pipelined calls in flight.
const IN_FLIGHT: usize = 64;
/// The number of pairs of broker and peer, because the scheduler treats each pair differently, of rounds for each
/// pair, and of measurements in a round.
const PAIRS: usize = 5;
const ROUNDS: usize = 3;
const ROUND_TRIPS: usize = 2000;
const PIPELINED: usize = 40_000;
const TRANSFERS: usize = 200;

/// The target of a typed call, as a multiple of a ping-pong.
const ROUND_TRIP: Target = Target::AtMost(1.6);
/// The target of pipelined calls per second.
const CALLS_PER_SECOND: Target = Target::AtLeast(150_000.0);
/// The target of a stream, in GB/s.
const GIGABYTES: Target = Target::AtLeast(1.0);
/// The target of a passed socket, as a multiple of the speed of a native one.
const NATIVE: Target = Target::AtLeast(0.99);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let cpus = Cpus::of_this_process()?;
    for placement in [Placement::OneCpu, Placement::TwoCpus, Placement::Free] {
        typed_calls(report, &cpus, placement)?;
        in_flight(report, &cpus, placement)?;
        stream(report, &cpus, placement)?;
    }
    passed_sockets(report, &cpus)
}

/// Measures a typed `gettimeout` against a ping-pong of the same size.
fn typed_calls(report: &mut Report, cpus: &Cpus, placement: Placement) -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..PAIRS {
        let broker = Broker::start()?;
        let sizes = sizes(&broker)?;
        let (peer, stream) = Peer::start(Role::Echo { request: sizes.0, answer: sizes.1 })?;
        let mut echo = Exchange::with_echo(stream, sizes, 1)?;
        let library = blocking::Broker::connect_to(&broker.endpoint())?;
        let socket = blocking::Socket::new(&library, Domain::IPV4, Type::DGRAM, Protocol::DEFAULT)?;
        cpus.put(placement, &[broker.process(), peer.process()])?;
        let ours = || median_seconds(ROUND_TRIPS, || Ok(socket.timeout().map(drop)?));
        rounds.extend(in_turn(ROUNDS, ours, || echo.round_trip(ROUND_TRIPS))?);
    }
    let name = format!("blocking gettimeout, {}", placement.word());
    let row = Row::new(name, Sample::map(&rounds, ratio), "x ping-pong");
    report.add(if placement == Placement::OneCpu { row.target(ROUND_TRIP) } else { row });
    Ok(())
}

/// Returns the lengths of a typed `gettimeout` and of its answer.
fn sizes(broker: &Broker) -> Result<(usize, usize)> {
    let mut client = broker.connect(Framing::Lsp)?;
    let made = client.call("socket.socket", &json!({ "type": "SOCK_DGRAM" }))?;
    let request = frame(&call(1000, "socket.gettimeout", &json!([made["handle"]])), Some(&[]), 0);
    let (answer, json) = client.send(&request)?;
    result(&json)?;
    Ok((request.len(), answer.len()))
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Measures calls in flight with as many tasks. Each makes one call after the other.
fn in_flight(report: &mut Report, cpus: &Cpus, placement: Placement) -> Result<()> {
    let broker = Broker::start()?;
    let runtime = runtime()?;
    let library = runtime.block_on(asynchronous::Broker::connect_to(&broker.endpoint()))?;
    cpus.put(placement, &[broker.process()])?;
    let mut rates = Vec::new();
    for _ in 0..PAIRS * ROUNDS {
        rates.push(runtime.block_on(calls_per_second(&library))?);
    }
    let name = format!("{IN_FLIGHT} asynchronous calls in flight, {}", placement.word());
    report.add(Row::new(name, Sample::of(&rates), "calls/s").target(CALLS_PER_SECOND));
    runtime.block_on(async { drop(library) });
    Ok(())
}

async fn calls_per_second(library: &asynchronous::Broker) -> Result<f64> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let library = library.clone();
        tasks.spawn(async move {
            for _ in 0..PIPELINED / IN_FLIGHT {
                library.default_timeout().await?;
            }
            Ok::<(), sockbroker_client::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(number(PIPELINED) / start.elapsed().as_secs_f64())
}

/// Measures a block through `AsyncRead` while the data is already queued, and the data rate while another process
/// writes as fast as possible.
fn stream(report: &mut Report, cpus: &Cpus, placement: Placement) -> Result<()> {
    let broker = Broker::start()?;
    let runtime = runtime()?;
    let (mut feeder, theirs) = UnixStream::pair()?;
    set_send_buffer(&feeder)?;
    let (source, endless) = Peer::start(Role::Source)?;
    let (mut socket, mut flowing) = runtime.block_on(async {
        let library = asynchronous::Broker::connect_to(&broker.endpoint()).await?;
        Ok::<_, Box<dyn std::error::Error>>((
            library.adopt(theirs).await?,
            library.adopt(endless).await?,
        ))
    })?;
    cpus.put(placement, &[broker.process(), source.process()])?;
    let (block, mut buffer) = (vec![FILLING; BLOCK], vec![0; BLOCK]);
    let mut speeds = Vec::new();
    for _ in 0..PAIRS * ROUNDS {
        let seconds = timed(TRANSFERS, || {
            feeder.write_all(&block)?;
            let start = Instant::now();
            runtime.block_on(socket.read_exact(&mut buffer))?;
            Ok(start.elapsed().as_secs_f64())
        })?;
        speeds.push(number(BLOCK) / seconds / 1e9);
    }
    let name = format!("AsyncRead by attachments, {}", placement.word());
    report.add(Row::new(&name, Sample::of(&speeds), "GB/s").target(GIGABYTES));
    let mut speeds = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..TRANSFERS {
            runtime.block_on(flowing.read_exact(&mut buffer))?;
        }
        speeds.push(number(TRANSFERS * BLOCK) / start.elapsed().as_secs_f64() / 1e9);
    }
    report.add(Row::new(format!("{name}, fed without end"), Sample::of(&speeds), "GB/s"));
    runtime.block_on(async { drop((socket, flowing)) });
    Ok(())
}

/// Measures bulk transfers over a TCP connection with two passed ends, against a native connection.
fn passed_sockets(report: &mut Report, cpus: &Cpus) -> Result<()> {
    let broker = Broker::start()?;
    let library = blocking::Broker::connect_to(&broker.endpoint())?;
    let listener = library.create_server(("127.0.0.1", 0))?;
    let client = library.create_connection(&listener.local_addr()?)?;
    let (server, _peer) = listener.accept()?;
    let mut handed =
        (TcpStream::from(client.into_owned_fd()?), TcpStream::from(server.into_owned_fd()?));
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let mut native = (client, listener.accept()?.0);
    for stream in [&handed.0, &handed.1, &native.0, &native.1] {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
    }
    cpus.put(Placement::OneCpu, &[])?;
    let rounds = in_turn(PAIRS * ROUNDS, || transfer(&mut handed), || transfer(&mut native))?;
    let share = Sample::map(&rounds, |round| 1.0 / ratio(round));
    let name = "TCP bulk over into_owned_fd: speed";
    report.add(Row::new(name, share, "x native").target(NATIVE));
    Ok(())
}

/// Returns the time of a transfer that fits into the buffers of a connection.
fn transfer((from, to): &mut (TcpStream, TcpStream)) -> Result<f64> {
    let (piece, mut buffer) = (vec![FILLING; 64 << 10], vec![0; 64 << 10]);
    median_seconds(TRANSFERS * 4, || {
        from.write_all(&piece)?;
        Ok(to.read_exact(&mut buffer)?)
    })
}
