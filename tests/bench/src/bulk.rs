//! Suite `bulk`: payload through the broker, in each of its encodings, against a native socket.
//!
//! A call is timed while the data is already queued, or while the buffer has space, so that no other process works.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::{Value, json};
use sockbroker_proto::bytes::encode_base64;

use crate::broker::Broker;
use crate::client::{BLOCK, Client, Framing, Lengths, TIMEOUT, call, frame, set_send_buffer};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::measure::{FILLING, Sample, in_turn, number, ratio, timed};
use crate::peers::{Peer, Role};
use crate::placement::{Cpus, Placement};
use crate::report::{Report, Row, Target};

/// The approximate size of the answer to a send.
const SMALL_ANSWER: usize = 64;
/// The number of rounds, and of transfers in each.
const ROUNDS: usize = 11;
const TRANSFERS: usize = 200;

/// The target of a transfer by attachment, in GB/s.
const GIGABYTES: Target = Target::AtLeast(1.5);
/// The target of a passed descriptor, as a multiple of a native one.
const NATIVE: Target = Target::AtMost(1.1);

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let cpus = Cpus::of_this_process()?;
    let broker = Broker::start()?;
    for placement in [Placement::OneCpu, Placement::TwoCpus, Placement::Free] {
        let bench = Bench { cpus: &cpus, placement, broker: &broker };
        bench.receive(report, Mode::Attachment)?;
        bench.send(report, "send", Mode::Attachment)?;
        bench.receive_without_end(report)?;
    }
    let bench = Bench { cpus: &cpus, placement: Placement::OneCpu, broker: &broker };
    bench.send(report, "sendall", Mode::Attachment)?;
    bench.receive(report, Mode::Base64)?;
    bench.send(report, "send", Mode::Base64)?;
    bench.receive_by_descriptor(report)
}

/// The encoding of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Attachment,
    Base64,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Attachment => "attachment",
            Self::Base64 => "base64",
        }
    }
}

/// A native socket. The broker has the other end.
struct Brokered {
    client: Client,
    handle: Value,
    native: UnixStream,
    buffer: Vec<u8>,
}

impl Brokered {
    fn new(broker: &Broker) -> Result<Self> {
        let (native, theirs) = pair()?;
        let mut client = broker.connect(Framing::Lsp)?;
        let handle = adopt(&mut client, &theirs)?;
        // Base64 encodes three bytes as four, and the answer has a head.
        Ok(Self { client, handle, native, buffer: vec![0; BLOCK / 3 * 4 + 4096] })
    }

    fn call(&self, method: &str, mut params: Value) -> String {
        params["handle"] = self.handle.clone();
        call(1, method, &params)
    }

    fn receive(&mut self, message: &[u8], block: &[u8]) -> Result<(f64, Lengths)> {
        self.native.write_all(block)?;
        let start = Instant::now();
        let lengths = self.client.exchange(message, &mut self.buffer)?;
        Ok((start.elapsed().as_secs_f64(), lengths))
    }

    fn send(&mut self, message: &[u8]) -> Result<f64> {
        let start = Instant::now();
        self.client.exchange(message, &mut self.buffer)?;
        let seconds = start.elapsed().as_secs_f64();
        self.native.read_exact(self.buffer.get_mut(..BLOCK).unwrap_or_default())?;
        Ok(seconds)
    }
}

fn pair() -> Result<(UnixStream, UnixStream)> {
    let (first, second) = UnixStream::pair()?;
    for end in [&first, &second] {
        set_send_buffer(end)?;
        end.set_read_timeout(Some(TIMEOUT))?;
        end.set_write_timeout(Some(TIMEOUT))?;
    }
    Ok((first, second))
}

fn adopt(client: &mut Client, stream: &UnixStream) -> Result<Value> {
    let made = client.call_with("socket.fromfd", &json!({}), &[stream.as_fd()])?;
    Ok(made["handle"].clone())
}

/// The state that the measurements of one placement share.
struct Bench<'a> {
    cpus: &'a Cpus,
    placement: Placement,
    broker: &'a Broker,
}

impl Bench<'_> {
    fn put(&self, peers: &[&Peer]) -> Result<()> {
        let peers = peers.iter().map(|peer| peer.process());
        let others: Vec<_> = std::iter::once(self.broker.process()).chain(peers).collect();
        self.cpus.put(self.placement, &others)
    }

    fn receive(&self, report: &mut Report, mode: Mode) -> Result<()> {
        let block = vec![FILLING; BLOCK];
        let mut brokered = Brokered::new(self.broker)?;
        let attachments = (mode == Mode::Attachment).then_some(&[][..]);
        let json = brokered.call("socket.recv", json!({ "bufsize": BLOCK }));
        let message = frame(&json, attachments, 0);
        let (_, first) = brokered.receive(&message, &block)?;
        let same_bytes = (message.len(), first.json + first.attachments);
        let mut native = pair()?;
        let ours = || {
            timed(TRANSFERS, || {
                let (seconds, lengths) = brokered.receive(&message, &block)?;
                let whole = lengths == first && lengths.json + lengths.attachments > BLOCK;
                whole.then_some(seconds).ok_or_else(|| "a receive gave less than was there".into())
            })
        };
        self.compare(report, &format!("recv, {}", mode.word()), ours, same_bytes, || {
            receive_natively(&mut native)
        })
    }

    fn send(&self, report: &mut Report, method: &str, mode: Mode) -> Result<()> {
        let block = vec![FILLING; BLOCK];
        let parts = [block.as_slice()];
        let (bytes, attachments) = match mode {
            Mode::Attachment => (json!({ "attachment": 0 }), Some(&parts[..])),
            Mode::Base64 => (encode_base64(&block).into(), None),
        };
        let mut brokered = Brokered::new(self.broker)?;
        let json = brokered.call(&format!("socket.{method}"), json!({ "bytes": bytes }));
        let message = frame(&json, attachments, 0);
        let same_bytes = (message.len(), SMALL_ANSWER);
        let mut native = pair()?;
        let ours = || timed(TRANSFERS, || brokered.send(&message));
        self.compare(report, &format!("{method}, {}", mode.word()), ours, same_bytes, || {
            send_natively(&mut native, &block)
        })
    }

    /// Adds three rows: the speed, and the time as a multiple of the native time and of a ping-pong with the sizes of
    /// request and answer.
    fn compare(
        &self,
        report: &mut Report,
        name: &str,
        mut ours: impl FnMut() -> Result<f64>,
        (request, answer): (usize, usize),
        native: impl FnMut() -> Result<f64>,
    ) -> Result<()> {
        let (peer, stream) = Peer::start(Role::Echo { request, answer })?;
        let mut echo = Exchange::with_echo(stream, (request, answer), 1)?;
        self.put(&[&peer])?;
        let against_native = in_turn(ROUNDS, &mut ours, native)?;
        let against_echo = in_turn(ROUNDS, &mut ours, || echo.round_trip(TRANSFERS))?;
        let name = format!("{name}, {}", self.placement.word());
        let speed = Sample::map(&against_native, |round| number(BLOCK) / round.0 / 1e9);
        let row = Row::new(&name, speed, "GB/s");
        let has_target = name.contains(Mode::Attachment.word());
        report.add(if has_target { row.target(GIGABYTES) } else { row });
        let time = format!("{name}: time");
        report.add(Row::new(&time, Sample::map(&against_native, ratio), "x native"));
        report.add(Row::new(&time, Sample::map(&against_echo, ratio), "x ping-pong"));
        Ok(())
    }

    /// Measures a descriptor that the broker has passed; only the kernel takes part.
    fn receive_by_descriptor(&self, report: &mut Report) -> Result<()> {
        let Brokered { mut client, handle, native: feeder, .. } = Brokered::new(self.broker)?;
        client.call("socket.detach", &json!({ "handle": handle }))?;
        let mut handed = (feeder, UnixStream::from(client.take_descriptor()?));
        let mut native = pair()?;
        self.put(&[])?;
        let ours = || receive_natively(&mut handed);
        let rounds = in_turn(ROUNDS, ours, || receive_natively(&mut native))?;
        let name = format!("recv, passed descriptor, {}: time", self.placement.word());
        report.add(Row::new(name, Sample::map(&rounds, ratio), "x native").target(NATIVE));
        Ok(())
    }

    /// Measures the data rate while another process writes as fast as possible, on the broker's CPU if pinned.
    fn receive_without_end(&self, report: &mut Report) -> Result<()> {
        let (ours, end) = Peer::start(Role::Source)?;
        let (theirs, mut native) = Peer::start(Role::Source)?;
        self.put(&[&ours, &theirs])?;
        let mut client = self.broker.connect(Framing::Lsp)?;
        let params = json!({ "handle": adopt(&mut client, &end)?, "bufsize": BLOCK });
        drop(end);
        let message = frame(&call(1, "socket.recv", &params), Some(&[]), 0);
        let mut buffer = vec![0; BLOCK + 4096];
        let mut other = vec![0; BLOCK];
        let ours = || flow(|| Ok(client.exchange(&message, &mut buffer)?.attachments));
        let rounds = in_turn(ROUNDS, ours, || flow(|| Ok(native.read(&mut other)?)))?;
        let name = format!("recv, attachment, {}, fed without end", self.placement.word());
        report.add(Row::new(&name, Sample::map(&rounds, |round| round.0 / 1e9), "GB/s"));
        let share = Sample::map(&rounds, |round| 100.0 * ratio(round));
        report.add(Row::new(format!("{name}: of native"), share, "%"));
        Ok(())
    }
}

fn receive_natively((from, to): &mut (UnixStream, UnixStream)) -> Result<f64> {
    let (block, mut buffer) = (vec![FILLING; BLOCK], vec![0; BLOCK]);
    timed(TRANSFERS, || {
        from.write_all(&block)?;
        let start = Instant::now();
        to.read_exact(&mut buffer)?;
        Ok(start.elapsed().as_secs_f64())
    })
}

fn send_natively((from, to): &mut (UnixStream, UnixStream), block: &[u8]) -> Result<f64> {
    let mut buffer = vec![0; BLOCK];
    timed(TRANSFERS, || {
        let start = Instant::now();
        from.write_all(block)?;
        let seconds = start.elapsed().as_secs_f64();
        to.read_exact(&mut buffer)?;
        Ok(seconds)
    })
}

/// Returns bytes per second.
fn flow(mut receive: impl FnMut() -> Result<usize>) -> Result<f64> {
    let (mut bytes, wanted) = (0, TRANSFERS * BLOCK);
    let start = Instant::now();
    while bytes < wanted {
        match receive()? {
            0 => return Err("a source has run dry".into()),
            n => bytes += n,
        }
    }
    Ok(number(bytes) / start.elapsed().as_secs_f64())
}
