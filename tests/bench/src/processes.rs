//! Suite `processes`: what the division of the broker into processes costs, and how much a flood of one user delays
//! another one.
//!
//! The other users are threads with other user IDs, which requires root.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sockbroker_monitor::request::SelectedNamespace;
use sockbroker_sys::identity::{self, Identity};
use sockbroker_sys::namespace;
use sockbroker_sys::poll::poll_for;
use sockbroker_sys::stream::receive_stream;

use crate::broker::Broker;
use crate::client::{Client, Framing, call};
use crate::error::{self, Result};
use crate::measure::{Sample, in_turn, median_seconds, ratio};
use crate::opener::BareOpener;
use crate::peers::{Peer, Role};
use crate::placement::{Cpus, Placement};
use crate::report::{Report, Row, Target};

/// The first of the other users. None has an account.
const FIRST: u32 = 4_200_100;
const ROUNDS: usize = 9;
const POLICY: &str = "version = 1\n[[rule]]\nname = \"names\"\nsubject = { everyone = true }\nallow = [\"resolve\"]\n";

/// The calls of one round of a latency.
const CALLS: usize = 5000;
/// The bytes of a large message of the flood.
const LARGE: usize = 7 << 20;
/// The threads of the native program: as many as the flood keeps busy, two of the client and one of its worker.
const BUSY: usize = 3;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    if !identity::can_change()? {
        error::report("processes: not measured: needs root, to act as several users");
        return Ok(());
    }
    first_calls(report)?;
    idle_memory(report)?;
    idle_wake_ups(report)?;
    raw_sockets(report)?;
    connections(report)?;
    for (name, message) in [
        ("small calls", Framing::Lsp.wrap(&call(1, "socket.htons", &json!([1]))).repeat(64)),
        ("7 MiB messages", large_message()),
    ] {
        flood(report, name, &message)?;
    }
    Ok(())
}

fn start(config: &str) -> Result<Broker> {
    let broker = Broker::start_with(config, POLICY)?;
    broker.open_to_all()?;
    Ok(broker)
}

fn large_message() -> Vec<u8> {
    let mut message = call(1, "socket.htons", &json!([1]));
    message.push_str(&" ".repeat(LARGE));
    Framing::Lsp.wrap(&message)
}

/// Connects as another user.
fn connect_as(broker: &Broker, uid: u32) -> Result<UnixStream> {
    let identity = Identity { uid, gid: uid, groups: Arc::default() };
    let (sender, result) = mpsc::channel();
    let path = broker.path();
    let connect = move || UnixStream::connect(path);
    identity::spawn_as(Arc::new(identity), connect, move |stream| drop(sender.send(stream)))?;
    Ok(result.recv()???)
}

/// The time from a connection of a new principal to the answer to its first call, which a new worker gives.
fn first_calls(report: &mut Report) -> Result<()> {
    let broker = start("")?;
    let mut times = Vec::new();
    for uid in (FIRST..).take(15) {
        let begun = Instant::now();
        let mut client = Client::over(connect_as(&broker, uid)?, Framing::Lsp)?;
        client.call("socket.htons", &json!([1]))?;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let row = Row::new("first call of a new principal", Sample::of(&times), "ms");
    report.add(row.target(Target::AtMost(15.0)));
    Ok(())
}

/// The private memory of a worker that has answered a call.
fn idle_memory(report: &mut Report) -> Result<()> {
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let broker = start("")?;
        broker.connect(Framing::Lsp)?.call("socket.htons", &json!([1]))?;
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", broker.process()))?;
        let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
        let kibibytes = lines.filter_map(|line| line.split_whitespace().nth(1));
        let sizes_in_kib =
            kibibytes.map(str::parse::<f64>).collect::<std::result::Result<Vec<_>, _>>()?;
        sizes.push(sizes_in_kib.iter().sum::<f64>() / 1024.0);
    }
    let row = Row::new("private memory of an idle worker", Sample::of(&sizes), "MiB");
    report.add(row.target(Target::AtMost(3.0)));
    Ok(())
}

/// How often a worker wakes while its client does nothing.
#[expect(clippy::disallowed_methods, reason = "no event loop here that could be blocked")]
fn idle_wake_ups(report: &mut Report) -> Result<()> {
    /// What an ended connection leaves is looked after for some time, and the counters of the calls are reported.
    const SETTLES: Duration = Duration::from_secs(6);
    const SECONDS: u32 = 3;
    let broker = start("")?;
    let mut client = broker.connect(Framing::Lsp)?;
    client.call("socket.htons", &json!([1]))?;
    thread::sleep(SETTLES);
    let mut rates = Vec::new();
    for _ in 0..3 {
        let before = switches(broker.process())?;
        thread::sleep(Duration::from_secs(SECONDS.into()));
        rates.push((switches(broker.process())? - before) / f64::from(SECONDS));
    }
    drop(client);
    let row = Row::new("wake-ups of an idle worker with a connection", Sample::of(&rates), "/s");
    report.add(row.target(Target::AtMost(0.0)));
    Ok(())
}

/// How often the threads of a process have waited.
fn switches(process: Pid) -> Result<f64> {
    let mut all = 0.0;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        all += count.ok_or("no count of switches")?.trim().parse::<f64>()?;
    }
    Ok(all)
}

/// Raw sockets, which the opener makes: in the network namespace of the broker, and in that of a client which has another.
fn raw_sockets(report: &mut Report) -> Result<()> {
    /// Rules that need the opener.
    const RULES: &str = "[[rule]]\nname = \"raw\"\nsubject = { uids = [0] }\nallow = [\"create\"]\n\
                         family = [\"AF_INET\"]\ntype = [\"SOCK_RAW\"]\n\
                         [[rule]]\nname = \"caller\"\nsubject = { uids = [0] }\nallow = [\"create\"]\n\
                         family = [\"AF_INET\"]\nnetns = [\"caller\"]\n";
    let bare = bare_exchange()?;
    report.add(Row::new(
        "a raw socket of a process that does nothing else, one CPU",
        bare,
        "x native",
    ));
    for (name, network, most) in [
        (
            "a raw socket by the exchange with the opener alone, one CPU",
            SelectedNamespace::Broker,
            5.0,
        ),
        ("the same in the caller's network namespace", SelectedNamespace::Caller, 7.0),
    ] {
        let row = Row::new(name, exchange_with_opener(&network)?, "x native");
        report.add(row.target(Target::AtMost(most)));
    }
    let broker = Broker::start_with("", &format!("{POLICY}{RULES}"))?;
    let path = broker.path();
    let elsewhere = thread::spawn(move || {
        namespace::enter_network()?;
        UnixStream::connect(path)
    });
    let elsewhere = elsewhere.join().map_err(|_panic| "a thread panicked")??;
    let here = broker.connect(Framing::Lsp)?;
    let there = Client::over(elsewhere, Framing::Lsp)?;
    for (name, client, netns, most) in [
        ("a raw socket and its close by calls, less the calls, one CPU", here, None, 5.0),
        ("the same in the caller's network namespace", there, Some("caller"), 7.0),
    ] {
        let row = Row::new(name, raw_socket(client, netns)?, "x native");
        report.add(row.target(Target::AtMost(most)));
    }
    Ok(())
}

/// A raw socket that another process makes when it gets a byte, and its close: what no broker can save.
fn bare_exchange() -> Result<Sample> {
    let (peer, mut stream) = Peer::start(Role::Opener)?;
    let cpus = Cpus::of_this_process()?;
    cpus.put(Placement::OneCpu, &[peer.process()])?;
    against_native(|| {
        stream.write_all(&[0])?;
        let (mut bytes, mut sockets) = (BytesMut::new(), VecDeque::new());
        poll_for(&[(stream.as_fd(), libc::POLLIN)], None)?;
        receive_stream(stream.as_fd(), &mut bytes, 1, &mut sockets)?;
        sockets.pop_front().map(drop).ok_or_else(|| "no socket came".into())
    })
}

/// A raw socket that the opener makes for a worker, and its close: the same request as that of a broker's worker, without
/// the call of the client.
fn exchange_with_opener(network: &SelectedNamespace) -> Result<Sample> {
    let pair = match network {
        // A socket belongs to the network namespace of the thread that makes it.
        SelectedNamespace::Caller => {
            let elsewhere = thread::spawn(|| {
                namespace::enter_network()?;
                UnixStream::pair()
            });
            elsewhere.join().map_err(|_panic| "a thread panicked")??
        }
        _ => UnixStream::pair()?,
    };
    let opener = BareOpener::start(pair)?;
    opener.raw_socket(network.clone())?;
    let cpus = Cpus::of_this_process()?;
    cpus.put(Placement::OneCpu, &[opener.process()])?;
    against_native(|| opener.raw_socket(network.clone()).map(drop))
}

/// What a raw socket takes, as a multiple of a native one.
fn against_native(mut ours: impl FnMut() -> Result<()>) -> Result<Sample> {
    const SOCKETS: usize = 300;
    let native = || {
        let (kind, protocol) = (SockType::Raw, SockProtocol::Icmp);
        drop(socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, protocol)?);
        Ok(())
    };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push((median_seconds(SOCKETS, &mut ours)?, median_seconds(SOCKETS, native)?));
    }
    Ok(Sample::map(&rounds, ratio))
}

/// A raw socket and its close by two calls of a client. What the same calls take for a UDP socket, which the worker makes
/// itself, is subtracted: the rest is the exchange with the opener, and what it displaces from the caches.
fn raw_socket(mut client: Client, netns: Option<&str>) -> Result<Sample> {
    const SOCKETS: usize = 300;
    let info = client.call("broker.info", &Value::Null)?;
    let pid = |path: &str| -> Result<Pid> {
        let number = info.pointer(path).and_then(Value::as_i64).ok_or("no such process")?;
        Ok(Pid::from_raw(number.try_into()?))
    };
    // As the calls against a ping-pong: wake-ups of another CPU cost more than the rest.
    let cpus = Cpus::of_this_process()?;
    cpus.put(Placement::OneCpu, &[pid("/process/pid")?, pid("/opener/pid")?])?;
    let mut by_broker = |kind: &str, protocol: &str, netns: Option<&str>| {
        let mut params = json!({ "type": kind, "proto": protocol });
        if let Some(netns) = netns {
            params["netns"] = json!(netns);
        }
        median_seconds(SOCKETS, || {
            let made = client.call("socket.socket", &params)?;
            client.call("socket.close", &json!({ "handle": made["handle"] })).map(drop)
        })
    };
    let native = |kind, protocol: SockProtocol| {
        median_seconds(SOCKETS, || {
            drop(socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, protocol)?);
            Ok(())
        })
    };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let raw = by_broker("SOCK_RAW", "IPPROTO_ICMP", netns)?;
        let more = raw - by_broker("SOCK_DGRAM", "IPPROTO_UDP", None)?;
        let raw = native(SockType::Raw, SockProtocol::Icmp)?;
        let udp = native(SockType::Datagram, SockProtocol::Udp)?;
        rounds.push((more + udp, raw));
    }
    Ok(Sample::map(&rounds, ratio))
}

/// A connection with one call, by monitor and worker and by one process.
fn connections(report: &mut Report) -> Result<()> {
    const CONNECTIONS: usize = 300;
    let divided = start("")?;
    let single = start("[processes]\nworkers = false\n")?;
    let connect = |broker: &Broker| {
        median_seconds(CONNECTIONS, || {
            broker.connect(Framing::Lsp)?.call("socket.htons", &json!([1])).map(drop)
        })
    };
    let rounds = in_turn(ROUNDS, || connect(&divided), || connect(&single))?;
    let more = Sample::map(&rounds, |(ours, theirs)| (ours - theirs) * 1e6);
    let row = Row::new("a connection, more than in one process", more, "us");
    report.add(row.target(Target::AtMost(30.0)));
    Ok(())
}

/// Threads that run until they are stopped.
struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// A native program that computes.
    fn native() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let threads = (0..BUSY).map(|_| {
            let stop = over.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        });
        let threads = threads.collect();
        Self { over, threads }
    }

    /// A user who sends this message again and again, and reads the answers.
    fn flood(broker: &Broker, message: &[u8]) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut writer = connect_as(broker, FIRST)?;
        let mut reader = writer.try_clone()?;
        let (stop, message) = (over.clone(), message.to_vec());
        let write = thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) && writer.write_all(&message).is_ok() {}
            // The reader sees the end.
            drop(writer.shutdown(std::net::Shutdown::Both));
        });
        let read = thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while reader.read(&mut buffer).is_ok_and(|n| n > 0) {}
        });
        Ok(Self { over, threads: vec![write, read] })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// The 99th and the 99.9th percentile of a call of one user during the flood of another, as multiples of those beside a
/// native program.
fn flood(report: &mut Report, name: &str, message: &[u8]) -> Result<()> {
    let broker = start("")?;
    let mut client = Client::over(connect_as(&broker, FIRST + 1)?, Framing::Lsp)?;
    let mut measure = |load: Load| {
        let result = percentiles(&mut client);
        drop(load);
        result
    };
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push((measure(Load::flood(&broker, message)?)?, measure(Load::native())?));
    }
    for (index, percentile) in ["99", "99.9"].iter().enumerate() {
        let of = |[one, other]: &[f64; 2]| if index == 0 { *one } else { *other };
        let sample = Sample::map(&rounds, |(flooded, native)| of(flooded) / of(native));
        let row = Row::new(
            format!("percentile {percentile} of a call while another user sends {name}"),
            sample,
            "x beside a native program",
        );
        report.add(row.target(Target::AtMost(1.5)));
    }
    Ok(())
}

/// The 99th and the 99.9th percentile of a call, in seconds.
fn percentiles(client: &mut Client) -> Result<[f64; 2]> {
    let message = Framing::Lsp.wrap(&call(1, "socket.htons", &json!([1])));
    let mut buffer = vec![0; 4096];
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        client.exchange(&message, &mut buffer)?;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get(CALLS * part / 1000).copied().unwrap_or(f64::NAN);
    Ok([at(990), at(999)])
}
