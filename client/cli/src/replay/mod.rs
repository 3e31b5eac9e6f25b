//! `sockbroker replay`: sends the packets of a capture file through the broker.

mod args;
mod parts;
mod tally;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_client::blocking::{Broker, Socket};
use sockbroker_client::proto::api::capture::ReplayOptions;
use sockbroker_client::{Address, Domain, Protocol, Type};

use crate::connection::{Connection, failure};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::interrupt::Interrupt;
pub(crate) use args::ReplayArgs;
use parts::{Damaged, Divider, Pace, Part};
use tally::Tally;

/// The parts that are read in advance.
const AHEAD: usize = 2;
/// How long before it is due a part is passed to the broker, which waits for the rest exactly.
const LEAD: f64 = 0.02;

/// Sends the file until its end, the limit or a signal.
pub(crate) fn run(global: &Global, args: &ReplayArgs) -> Result<Exit, Failure> {
    let name = name(&args.file);
    if args.repeat > 1 && !is_regular(&args.file) {
        return Err(Failure::usage(format!(
            "{name} can be read only once: --loop requires a file"
        )));
    }
    let first = open(&args.file)?;
    let connection = Connection::open(global)?;
    let socket = bind(connection.broker(), args)?;
    let (signals, interrupted) = mpsc::channel();
    // The receiver is gone when the program ends.
    let interrupt = Interrupt::with(move || signals.send(()).unwrap_or_default())?;
    let (sender, parts) = mpsc::sync_channel(AHEAD);
    let reading = args.clone();
    // On a thread that the program does not join: reading standard input can block for ever.
    thread::spawn(move || read(&reading, first, &sender));
    let mut tally = Tally::default();
    let replay = Replay { args, socket, interrupt, interrupted };
    let result = replay.send(&parts, &name, &mut tally);
    tally.print(global.json)?;
    result?;
    Ok(if tally.is_complete() { Exit::Done } else { Exit::Failed })
}

/// Whether the file can be read again. One that does not exist fails when it is opened.
fn is_regular(path: &Path) -> bool {
    path != Path::new("-") && path.metadata().map_or(true, |metadata| metadata.is_file())
}

/// The name of the file in messages.
fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// Opens the file; `-` is standard input.
fn open(path: &Path) -> Result<Box<dyn Read + Send>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|error| Failure::stream(&name(path), &error))?;
    Ok(Box::new(file))
}

/// A packet socket that sends on the interface and receives nothing.
fn bind(broker: &Broker, args: &ReplayArgs) -> Result<Socket, Failure> {
    let (domain, ty, protocol) = (Domain::PACKET, Type::RAW, Protocol::DEFAULT);
    let socket = match &args.netns {
        Some(netns) => broker.namespace(netns.as_str()).socket(domain, ty, protocol),
        None => Socket::new(broker, domain, ty, protocol),
    };
    let socket = socket.map_err(|error| failure("socket.socket", &error))?;
    let address = Address::packet(&args.interface, 0);
    socket.bind(address).map_err(|error| failure("socket.bind", &error))?;
    Ok(socket)
}

/// A part of the file, or why it cannot be read further.
type Step = Result<Part, Failure>;

/// Reads the file as often as it is sent.
fn read(args: &ReplayArgs, first: Box<dyn Read + Send>, sender: &SyncSender<Step>) {
    let pace = args.pps.map_or_else(|| Pace::Factor(args.factor()), Pace::Rate);
    let mut divider = Divider::new(pace, args.limit);
    let mut source = Ok(first);
    for pass in 1..=args.repeat {
        // An error means that the receiver is gone.
        let step = source.and_then(|source| {
            let divided = divider.file(source, |part| sender.send(Ok(part)).is_ok());
            divided.map_err(|Damaged { packet, reason }| {
                Failure::new(
                    Exit::Stream,
                    format!("{}: packet {packet}: {reason}", name(&args.file)),
                )
            })
        });
        match step {
            // A pipe has no second beginning.
            Ok(true) if !divider.is_done() && pass < args.repeat => source = open(&args.file),
            Ok(_) => return,
            Err(failure) => return drop(sender.send(Err(failure))),
        }
    }
}

/// A running replay.
struct Replay<'a> {
    args: &'a ReplayArgs,
    socket: Socket,
    interrupt: Interrupt,
    interrupted: Receiver<()>,
}

impl Replay<'_> {
    /// Sends the parts, each when it is due.
    fn send(&self, parts: &Receiver<Step>, name: &str, tally: &mut Tally) -> Result<(), Failure> {
        let mut start = None;
        while let Some(part) = self.next(parts) {
            let part = part?;
            let start = *start.get_or_insert_with(Instant::now);
            if !self.wait(part.due - start.elapsed().as_secs_f64() - LEAD) {
                break;
            }
            let timed = self.args.factor() > 0.0 || self.args.pps.is_some();
            let options = ReplayOptions {
                speed: self.args.pps.is_none().then(|| self.args.factor()),
                packets_per_second: self.args.pps,
                delay: if timed { part.due - start.elapsed().as_secs_f64() } else { 0.0 },
                first: Some(part.first),
                truncated: self.args.truncated,
            };
            let replayed = self.socket.replay(&part.file, &options);
            tally.seconds = start.elapsed().as_secs_f64();
            let replayed = replayed.map_err(|error| failure("capture.replay", &error))?;
            tally.add(name, replayed)?;
        }
        Ok(())
    }

    /// The next part; `None` at the end and after a signal.
    fn next(&self, parts: &Receiver<Step>) -> Option<Step> {
        loop {
            if self.interrupt.is_set() {
                return None;
            }
            match parts.recv_timeout(Duration::from_millis(50)) {
                Err(RecvTimeoutError::Timeout) => {}
                result => return result.ok(),
            }
        }
    }

    /// Waits; `false` if a signal arrived.
    fn wait(&self, seconds: f64) -> bool {
        let Ok(time) = Duration::try_from_secs_f64(seconds) else {
            return !self.interrupt.is_set();
        };
        self.interrupted.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
    }
}
