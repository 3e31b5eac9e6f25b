//! Suite `capture`: captures against `tcpdump -w` on the same traffic, in network namespaces of their own.
//!
//! The CPU time of a capture is that of all processes of the broker and of the program that writes the file. The kernel's
//! work for each packet before it is in the ring is the sender's, for all programs.
//!
//! On a machine with other work, `chrt -f 1` in front of the command gives the figures of a quiet one (`sched(7)`).

use std::fs;
use std::io::pipe;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use sockbroker_client::CaptureRequest;
use sockbroker_client::blocking;
use sockbroker_sys::identity;

use crate::broker::Broker;
use crate::client::{Client, Framing, call};
use crate::cpu_time::cpu_time_of;
use crate::error::{self, Result};
use crate::measure::{Sample, ratio};
use crate::recorder::{Recorded, Recorder, Tool, command_line, has_tcpdump};
use crate::report::{Report, Row, Target};
use crate::traffic::{Frames, Pace, RECEIVER, Traffic, receiver};

/// The sizes of frames, and the targets of the CPU time of a packet in live mode, as a multiple of tcpdump's.
const SIZES: [(usize, f64); 2] = [(1400, 1.0), (64, 1.5)];
/// The target of bulk mode.
const BULK: f64 = 0.8;
/// The frames of a round at full rate, and the rounds.
const FRAMES: u32 = 200_000;
const ROUNDS: usize = 5;
/// The rates at which no packet may be lost, frames each second, and the rounds, which take half a second.
const RATES: [u32; 2] = [50_000, 168_000];
const RATE_ROUNDS: usize = 3;
/// The calls of one measurement of a latency.
const CALLS: usize = 4000;
/// The frames that fill every buffer if nobody reads, and the rounds of a stop.
const FILLING: u32 = 40_000;
const STOPS: usize = 3;
/// How long the broker is idle for its CPU time.
const IDLE: Duration = Duration::from_secs(2);
const POLICY: &str = "version = 1\n[[rule]]\nname = \"capture\"\nsubject = { uids = [0] }\n\
                      allow = [\"create\", \"option\", \"bind\", \"capture\"]\nfamily = [\"AF_PACKET\"]\n\
                      option = [\"ordinary\", \"filter\", \"packet\"]\n";

pub(crate) fn run(report: &mut Report) -> Result<()> {
    if !identity::can_change()? {
        error::report("capture: not measured: needs root, to make network namespaces");
        return Ok(());
    }
    if !has_tcpdump() {
        error::report("capture: not measured: needs tcpdump as the reference (package tcpdump)");
        return Ok(());
    }
    command_line()?;
    // On a thread of its own, which leaves the network namespace of the other suites.
    thread::scope(|scope| {
        let measured =
            scope.spawn(|| Bench::start()?.run(report).map_err(|error| error.to_string()));
        measured.join().map_err(|_panic| "a thread panicked")?.map_err(Into::into)
    })
}

/// The broker in the namespace of the traffic.
struct Bench {
    traffic: Traffic,
    broker: Broker,
    folder: Folder,
    /// Its worker, and the process that reads packets, run as long as this is connected.
    client: Client,
}

/// A folder for the files of captures.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let name = format!("sockbroker-bench-capture-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    fn file(&self) -> PathBuf {
        self.0.join("file")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Bench {
    fn start() -> std::result::Result<Self, String> {
        let start = || -> Result<Self> {
            let traffic = Traffic::start()?;
            let broker = Broker::start_with("", POLICY)?;
            let mut client = broker.connect(Framing::Lsp)?;
            // A connection that says nothing is closed.
            client.call("socket.htons", &json!([1]))?;
            Ok(Self { traffic, broker, folder: Folder::new()?, client })
        };
        start().map_err(|error| error.to_string())
    }

    fn run(&mut self, report: &mut Report) -> Result<()> {
        // Starts the process that reads packets.
        drop(self.library()?.capture(&CaptureRequest::on("lo"))?);
        for (bytes, most) in SIZES {
            self.full_rate(report, bytes, most)?;
        }
        for (bytes, _) in SIZES {
            for rate in RATES {
                self.losses(report, bytes, rate)?;
            }
        }
        self.idle(report)?;
        for (rate, packets) in [(10, 100), (1000, 2000)] {
            self.delivery(report, rate, packets)?;
        }
        self.stops(report)?;
        self.calls(report)
    }

    fn library(&self) -> Result<blocking::Broker> {
        Ok(blocking::Broker::connect_to(&self.broker.endpoint())?)
    }

    /// Sends frames while a program captures.
    fn record(&self, tool: Tool, (bytes, pace, count): (usize, Pace, u32)) -> Result<Measured> {
        let file = self.folder.file();
        let recorder = Recorder::start(tool, &self.broker, &file, Stdio::null())?;
        let sent = self.traffic.send(bytes, pace, count)?;
        wait_until_written(&file)?;
        let recorded = recorder.stop()?;
        let (rate, sent) = (f64::from(sent.frames) / sent.seconds, f64::from(sent.frames));
        // What the kernel has not received was lost before every capture.
        if recorded.seen > sent || recorded.captured + recorded.dropped > recorded.seen {
            return Err(format!("{tool:?}: of {sent} frames: {recorded:?}").into());
        }
        Ok(Measured { rate, recorded })
    }

    /// The CPU time of a packet at full rate.
    fn full_rate(&self, report: &mut Report, bytes: usize, most: f64) -> Result<()> {
        let mut rounds = Vec::new();
        for round in 0..=ROUNDS {
            let measure = |tool| self.record(tool, (bytes, Pace::Full, FRAMES));
            let measured = [measure(Tool::Live)?, measure(Tool::Bulk)?, measure(Tool::Tcpdump)?];
            // The first round warms up.
            if round > 0 {
                rounds.push(measured);
            }
        }
        let rates = Sample::map(&rounds, |[live, _, _]| live.rate / 1e3);
        report.add(Row::new(format!("{bytes} B: full rate of the sender"), rates, "1000/s"));
        let tcpdump = Sample::map(&rounds, |[_, _, tcpdump]| tcpdump.nanoseconds());
        report.add(Row::new(format!("{bytes} B: CPU time of tcpdump -w"), tcpdump, "ns/packet"));
        let lost = Sample::map(&rounds, |[_, _, tcpdump]| tcpdump.percent_dropped());
        let name = format!("{bytes} B: dropped by tcpdump at full rate");
        report.add(Row::new(name, lost, "% of packets"));
        let most_lost = lost.median;
        for (name, is_bulk, most) in [("live", false, most), ("bulk", true, BULK)] {
            let own = |[live, bulk, _]: &[Measured; 3]| if is_bulk { *bulk } else { *live };
            let ratios = Sample::map(&rounds, |round| {
                let [_, _, tcpdump] = round;
                ratio(&(own(round).nanoseconds(), tcpdump.nanoseconds()))
            });
            let text = format!("{bytes} B: CPU time of {name} mode at full rate");
            report.add(Row::new(text, ratios, "x tcpdump").target(Target::AtMost(most)));
            let lost = Sample::map(&rounds, |round| own(round).percent_dropped());
            let text = format!("{bytes} B: dropped by {name} mode at full rate");
            let row = Row::new(text, lost, "% of packets");
            report.add(row.target(Target::AtMost(most_lost)));
        }
        Ok(())
    }

    /// The packets that are lost at a rate which tcpdump follows.
    fn losses(&self, report: &mut Report, bytes: usize, rate: u32) -> Result<()> {
        let mut rounds = Vec::new();
        for _ in 0..RATE_ROUNDS {
            let measure = |tool| self.record(tool, (bytes, Pace::PerSecond(rate), rate / 2));
            rounds.push([measure(Tool::Live)?, measure(Tool::Tcpdump)?]);
        }
        let name = |of: &str| format!("{bytes} B at {} 000/s: dropped by {of}", rate / 1000);
        let tcpdump = Sample::map(&rounds, |[_, tcpdump]| tcpdump.percent_dropped());
        report.add(Row::new(name("tcpdump"), tcpdump, "% of packets"));
        let live = Sample::map(&rounds, |[live, _]| live.percent_dropped());
        let row = Row::new(name("live mode"), live, "% of packets");
        report.add(row.target(Target::AtMost(tcpdump.median)));
        let cpu = Sample::map(&rounds, |[live, tcpdump]| {
            ratio(&(live.nanoseconds(), tcpdump.nanoseconds()))
        });
        let name = format!("{bytes} B at {} 000/s: CPU time of live mode", rate / 1000);
        report.add(Row::new(name, cpu, "x tcpdump"));
        Ok(())
    }

    /// The CPU time that the broker uses in addition while a capture sees no packet.
    fn idle(&self, report: &mut Report) -> Result<()> {
        let processes = self.broker.processes()?;
        let percent = || -> Result<f64> {
            let before = cpu_time_of(&processes)?;
            pause(IDLE);
            Ok(100.0 * (cpu_time_of(&processes)? - before) / IDLE.as_secs_f64())
        };
        let without = percent()?;
        let _capture = self.library()?.capture(&CaptureRequest::on(RECEIVER))?;
        let more = Sample::of(&[percent()? - without]);
        let row = Row::new("CPU time of an idle capture", more, "% of a CPU");
        report.add(row.target(Target::AtMost(0.1)));
        Ok(())
    }

    /// The time from the sending of a packet until a program has read it from the stream of a capture. A program that
    /// receives on a packet socket reads the same packets, and shows what the machine adds.
    fn delivery(&self, report: &mut Report, rate: u32, packets: usize) -> Result<()> {
        let library = self.library()?;
        let mut capture = library.capture(&CaptureRequest::on(RECEIVER))?;
        let (native, clock) = (receiver()?, self.traffic.clock());
        let count = u32::try_from(packets)?;
        let pace = Pace::Random(rate);
        let (ours, theirs) = thread::scope(|scope| -> Result<_> {
            let ages = scope.spawn(|| -> std::result::Result<Vec<f64>, String> {
                let mut ages = Vec::with_capacity(packets);
                let mut frame = [0; 2048];
                while ages.len() < packets {
                    let length =
                        rustix::net::recv(&native, &mut frame, rustix::net::RecvFlags::empty());
                    let (length, _) = length.map_err(|error| error.to_string())?;
                    let frame = frame.get(..length).unwrap_or_default();
                    ages.extend(clock.age(frame));
                }
                Ok(ages)
            });
            self.traffic.begin(Frames { bytes: 64, pace, count, over: Arc::default() })?;
            let mut own = Vec::with_capacity(packets);
            while own.len() < packets {
                let packet = capture.next().ok_or("the capture has ended")??;
                own.extend(clock.age(&packet.data));
            }
            self.traffic.wait()?;
            Ok((own, ages.join().map_err(|_panic| "a thread panicked")??))
        })?;
        for (name, ages, target) in [
            ("delivery of a packet", ours, Some(Target::AtMost(1.0))),
            ("the same by recv(2) without a ring", theirs, None),
        ] {
            let ages: Vec<_> = ages.iter().map(|age| age * 1e3).collect();
            let highest = Sample::of(&[percentile_99(&ages)]);
            let row = Row::new(format!("{name}, {rate}/s: percentile 99"), highest, "ms");
            report.add(target.into_iter().fold(row, Row::target));
        }
        Ok(())
    }

    /// The end of a capture that nobody reads, while every buffer is full.
    fn stops(&self, report: &mut Report) -> Result<()> {
        let (mut programs, mut calls) = (Vec::new(), Vec::new());
        for _ in 0..STOPS {
            let (reader, writer) = pipe()?;
            let to_pipe = Path::new("-");
            let recorder = Recorder::start(Tool::Live, &self.broker, to_pipe, writer.into())?;
            self.traffic.send(1400, Pace::Full, FILLING)?;
            let begun = Instant::now();
            recorder.stop()?;
            programs.push(begun.elapsed().as_secs_f64() * 1e3);
            drop(reader);
            let stream = self.library()?.capture(&CaptureRequest::on(RECEIVER))?.into_stream();
            self.traffic.send(1400, Pace::Full, FILLING)?;
            let begun = Instant::now();
            let stats = stream.stop(Duration::ZERO)?;
            calls.push(begun.elapsed().as_secs_f64() * 1e3);
            if stats.complete != Some(false) || stats.dropped == 0 {
                return Err(format!("the buffers were not full: {stats:?}").into());
            }
        }
        for (name, times) in [
            ("end of sniff -w - that nobody reads, by SIGINT", programs),
            ("capture.stop of a stream that nobody reads", calls),
        ] {
            let row = Row::new(name, Sample::of(&times), "ms");
            report.add(row.target(Target::AtMost(300.0)));
        }
        Ok(())
    }

    /// Calls of the principal that captures at full rate.
    fn calls(&mut self, report: &mut Report) -> Result<()> {
        let Self { traffic, broker, client, .. } = self;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let idle = latency(client)?;
            let alone = latency_in_flood(traffic, client)?;
            let file = Path::new("/dev/null");
            let recorder = Recorder::start(Tool::Live, broker, file, Stdio::null())?;
            let captured = latency_in_flood(traffic, client)?;
            recorder.stop()?;
            rounds.push([idle, alone, captured]);
        }
        let medians = Sample::map(&rounds, |[idle, alone, _]| alone.median / idle.median);
        let name = "a call beside the same traffic without a capture";
        report.add(Row::new(name, medians, "x idle"));
        let medians = Sample::map(&rounds, |[idle, _, captured]| captured.median / idle.median);
        let row = Row::new("a call during a capture at full rate", medians, "x idle");
        report.add(row.target(Target::AtMost(2.0)));
        let highest = Sample::map(&rounds, |[_, alone, captured]| captured.high / alone.high);
        let name = "percentile 99 of a call during a capture at full rate";
        report.add(Row::new(name, highest, "x without a capture"));
        Ok(())
    }
}

/// A capture of one round.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Frames that were sent each second.
    rate: f64,
    recorded: Recorded,
}

impl Measured {
    fn nanoseconds(&self) -> f64 {
        1e9 * self.recorded.cpu / self.recorded.captured
    }

    fn percent_dropped(&self) -> f64 {
        100.0 * self.recorded.dropped / self.recorded.seen
    }
}

/// The latency of a call, in seconds.
#[derive(Debug, Clone, Copy)]
struct Latency {
    median: f64,
    /// The 99th percentile.
    high: f64,
}

fn latency(client: &mut Client) -> Result<Latency> {
    let message = Framing::Lsp.wrap(&call(1, "socket.htons", &json!([1])));
    let mut buffer = vec![0; 4096];
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let begun = Instant::now();
        client.exchange(&message, &mut buffer)?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(Latency { median: Sample::of(&times).median, high: percentile_99(&times) })
}

/// The latency of a call while frames are sent as fast as possible.
fn latency_in_flood(traffic: &Traffic, client: &mut Client) -> Result<Latency> {
    let over = Arc::new(AtomicBool::new(false));
    traffic.begin(Frames { bytes: 1400, pace: Pace::Full, count: u32::MAX, over: over.clone() })?;
    let measured = latency(client);
    over.store(true, Ordering::Relaxed);
    traffic.wait()?;
    measured
}

fn percentile_99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * 99).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Waits until a file does not grow any more. What a program has not written then is missing in its count of packets too.
fn wait_until_written(file: &Path) -> Result<()> {
    let mut last = u64::MAX;
    loop {
        let length = fs::metadata(file)?.len();
        if length == last {
            return Ok(());
        }
        last = length;
        pause(Duration::from_millis(50));
    }
}

#[expect(clippy::disallowed_methods, reason = "no event loop here that could be blocked")]
fn pause(time: Duration) {
    thread::sleep(time);
}
