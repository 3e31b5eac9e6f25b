//! Suite `replay`: packets a second of `capture.replay` without waiting, against `tcpreplay --topspeed`, for the same file on
//! the same interface.
//!
//! A thread enters a network namespace, which the broker and tcpreplay inherit, so that no other traffic is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sched::{CloneFlags, unshare};
use sockbroker_client::blocking::{Broker as Client, Socket};
use sockbroker_client::{Address, Domain, Protocol, Type};
use sockbroker_pcapng::{LinkType, PcapWriter};
use sockbroker_proto::api::capture::ReplayOptions;
use sockbroker_sys::identity;

use crate::broker::Broker;
use crate::error::{self, Result};
use crate::measure::{FILLING, Sample, in_turn, number, ratio};
use crate::report::{Report, Row, Target};

const ROUNDS: usize = 7;
/// Packets of the file, and how often it is sent in a round.
const PACKETS: usize = 10_000;
const LOOPS: usize = 10;
/// The bytes of packets in one call.
const CALL_BYTES: usize = 1 << 20;
const POLICY: &str = "version = 1\n[[rule]]\nname = \"replay\"\nsubject = { everyone = true }\n\
                      allow = [\"create\", \"bind\", \"inject\"]\nfamily = [\"AF_PACKET\"]\n";

pub(crate) fn run(report: &mut Report) -> Result<()> {
    if !identity::can_change()? {
        error::report("replay: not measured: needs root, for a network namespace");
        return Ok(());
    }
    if Command::new("tcpreplay").arg("--version").stdout(Stdio::null()).status().is_err() {
        error::report("replay: not measured: tcpreplay is not installed");
        return Ok(());
    }
    // Errors of this program cannot move between threads.
    let measured = std::thread::spawn(|| measure().map_err(|error| error.to_string())).join();
    for (length, rounds) in measured.map_err(|_panic| "the measurement panicked")?? {
        let row = Row::new(
            format!("packets of {length} bytes a second"),
            Sample::map(&rounds, ratio),
            "x tcpreplay",
        );
        report.add(row.target(Target::AtLeast(1.0)));
        let ours = Sample::map(&rounds, |(ours, _)| ours / 1e3);
        report.add(Row::new(format!("packets of {length} bytes"), ours, "1000/s"));
    }
    Ok(())
}

type Measured = Vec<(usize, Vec<(f64, f64)>)>;

fn measure() -> Result<Measured> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    for line in ["add v0 type veth peer name v1", "set v0 up", "set v1 up"] {
        let status = Command::new("ip").arg("link").args(line.split(' ')).status()?;
        if !status.success() {
            return Err(format!("ip link {line}: {status}").into());
        }
    }
    let broker = Broker::start_with("", POLICY)?;
    let client = Client::connect_to(&broker.endpoint())?;
    let socket = Socket::new(&client, Domain::PACKET, Type::RAW, Protocol::DEFAULT)?;
    socket.bind(Address::packet("v0", 0))?;
    let mut measured = Vec::new();
    for length in [64, 1400] {
        let file = CaptureFile::write(length)?;
        let rounds = in_turn(ROUNDS, || ours(&socket, length), || peers(&file.0))?;
        measured.push((length, rounds));
    }
    Ok(measured)
}

/// Packets a second of the broker.
fn ours(socket: &Socket, length: usize) -> Result<f64> {
    let options = ReplayOptions { speed: Some(0.0), ..ReplayOptions::default() };
    let start = Instant::now();
    let mut sent = 0;
    for _ in 0..LOOPS {
        // As a program that reads a file and divides it.
        let mut left = PACKETS;
        while left > 0 {
            let count = left.min(CALL_BYTES / (length + 16));
            left -= count;
            sent += socket.replay(&capture(length, count)?, &options)?.packets;
        }
    }
    if sent != (PACKETS * LOOPS) as u64 {
        return Err(format!("{sent} packets were sent").into());
    }
    Ok(number(PACKETS * LOOPS) / start.elapsed().as_secs_f64())
}

/// Packets a second of tcpreplay, as it reports them.
fn peers(file: &Path) -> Result<f64> {
    let output = Command::new("tcpreplay")
        .args(["--topspeed", "--intf1", "v0", "--loop", &LOOPS.to_string()])
        .arg(file)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.split(", ").find_map(|part| part.lines().next()?.strip_suffix(" pps"));
    let rate = rate.and_then(|rate| rate.parse().ok());
    Ok(rate.ok_or_else(|| format!("tcpreplay reports no rate: {text}"))?)
}

/// A capture file of equal packets.
fn capture(length: usize, packets: usize) -> Result<Vec<u8>> {
    let mut file = Vec::with_capacity(packets * (length + 16) + 24);
    let writer = PcapWriter::begin(LinkType::ETHERNET, 65_535, &mut file);
    let mut frame = vec![FILLING; length];
    // An experimental EtherType.
    let header = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
    frame.iter_mut().zip(header).for_each(|(byte, of_header)| *byte = of_header);
    for _ in 0..packets {
        writer.packet(1, &[&frame], u32::try_from(length)?, &mut file)?;
    }
    Ok(file)
}

/// The file for tcpreplay.
struct CaptureFile(PathBuf);

impl CaptureFile {
    fn write(length: usize) -> Result<Self> {
        let name = format!("sockbroker-bench-{}-{length}.pcap", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        fs::write(&file.0, capture(length, PACKETS)?)?;
        Ok(file)
    }
}

impl Drop for CaptureFile {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}
