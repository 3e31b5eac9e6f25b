//! `--capture`: captures until Wireshark ends it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_client::blocking::CaptureStream;
use sockbroker_client::{CaptureRequest, Endpoint};
use sockbroker_sys::poll;

use super::args::ExtcapArgs;
use super::interface::Interface;
use super::join::Joined;
use super::log::Log;
use super::names::PROMISCUOUS_HINT;
use super::resolve::{connect, resolve};
use super::running::{Current, Running};
use super::toolbar::{self, Messages, Toolbar};
use crate::connection::failure;
use crate::failure::{Exit, Failure};
use crate::interrupt::Interrupt;
use crate::sniff::blocks::Blocks;
use crate::sniff::end::{GRACE, explain};
use crate::sniff::filter::Filter;
use crate::sniff::open::open_filtered;

/// An event during the capture.
enum Event {
    /// Wireshark ends the capture.
    Signal,
    /// Wireshark does not read the FIFO any more.
    ReaderGone,
    /// The capture is written to its end, or has failed.
    Written(Result<(), Failure>),
}

/// Captures until Wireshark ends it, or until the capture fails.
pub(super) fn run(args: &ExtcapArgs, interface: &Interface, fifo: &Path) -> Result<Exit, Failure> {
    let log = Arc::new(Log::open(args).inspect_err(|_failure| release(fifo))?);
    let (events, happened) = mpsc::channel();
    // The receiver is gone when the program ends.
    let signals = events.clone();
    let _interrupt = Interrupt::with(move || drop(signals.send(Event::Signal)))?;
    let messages = args.extcap_control_in.as_deref().map(toolbar::listen);
    let target = resolve(interface, args)
        .map(|(endpoint, name)| Target { endpoint, request: args.request(&name) });
    let current = Current::default();
    let job = Job {
        target,
        expression: args.expression(),
        fifo: fifo.to_owned(),
        toolbar: messages.zip(args.extcap_control_out.clone()),
        current: current.clone(),
        log: Arc::clone(&log),
        events: events.clone(),
    };
    // On a thread that the program does not join: connecting, looking up names and writing can block for ever.
    let job = thread::spawn(move || job.run());
    thread::spawn(move || {
        let broken = |_panic| Err(Failure::new(Exit::System, "the capture thread panicked"));
        drop(events.send(Event::Written(job.join().unwrap_or_else(broken))));
    });
    let result = wait(&happened, &current);
    match &result {
        Ok(()) => log.message("the capture has ended"),
        Err(failure) => log.error(&failure.to_string()),
    }
    result.map(|()| Exit::Done)
}

/// How long the FIFO waits for its reader after an error.
const READER_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the FIFO and closes it, after an error that precedes the capture: Wireshark waits until a writer has gone. Waits
/// for Wireshark, but not for ever.
pub(super) fn release(fifo: &Path) {
    let fifo = fifo.to_owned();
    let (opened, is_open) = mpsc::channel();
    thread::spawn(move || {
        let file = File::options().write(true).open(fifo);
        // The receiver is gone after the deadline.
        drop(opened.send(file));
    });
    drop(is_open.recv_timeout(READER_TIMEOUT));
}

/// Waits for the end. A signal ends the capture, and what is captured is written if Wireshark still reads.
fn wait(happened: &Receiver<Event>, current: &Current) -> Result<(), Failure> {
    let mut deadline: Option<Instant> = None;
    loop {
        let event = match deadline {
            None => happened.recv().ok(),
            Some(at) => happened.recv_timeout(at.saturating_duration_since(Instant::now())).ok(),
        };
        match event {
            // A signal that also ends ssh makes writing fail.
            Some(Event::Written(result)) => {
                return if deadline.is_some() { Ok(()) } else { result };
            }
            // The deadline has passed.
            Some(Event::ReaderGone) | None => return Ok(()),
            Some(Event::Signal) => {
                // Nothing is captured before the capture is open.
                let Some(running) = current.get() else { return Ok(()) };
                if deadline.is_none() {
                    deadline = Some(Instant::now() + GRACE);
                    thread::spawn(move || running.stop());
                }
            }
        }
    }
}

/// What is captured.
struct Target {
    endpoint: Endpoint,
    request: CaptureRequest,
}

/// A capture to a FIFO.
struct Job {
    target: Result<Target, Failure>,
    expression: Option<String>,
    fifo: PathBuf,
    toolbar: Option<(Messages, PathBuf)>,
    current: Current,
    log: Arc<Log>,
    events: Sender<Event>,
}

impl Job {
    fn run(self) -> Result<(), Failure> {
        let cannot_write =
            |error: &io::Error| Failure::stream(&self.fifo.display().to_string(), error);
        // Waits for the reader of the FIFO. It is open before anything can fail: tshark waits until its writer has gone.
        let fifo = File::options().write(true).open(&self.fifo);
        let Target { endpoint, request } = self.target?;
        let fifo = fifo.map_err(|error| cannot_write(&error))?;
        let filter = self.expression.map(Filter::compile).transpose()?;
        let connection = Arc::new(connect(&endpoint)?);
        let hint = PROMISCUOUS_HINT;
        let stream = open_filtered(&connection, request.clone(), filter.as_ref(), hint)?;
        self.current.replace(Running::new(&connection, &stream));
        self.log.message(&format!("the capture of {endpoint} is live"));
        let (captures, next) = mpsc::channel();
        if let Some((messages, path)) = self.toolbar {
            let toolbar = Toolbar {
                connection,
                current: self.current,
                captures,
                request,
                filter,
                log: self.log,
            };
            thread::spawn(move || toolbar.run(&messages, &path));
        }
        let watched = fifo.try_clone().map_err(|error| cannot_write(&error))?;
        let events = self.events;
        thread::spawn(move || {
            // A regular file has no reader.
            if poll::wait_for_hang_up(watched.as_fd()).is_ok() {
                drop(events.send(Event::ReaderGone));
            }
        });
        match write_all(stream, &next, &fifo)? {
            Ok(()) => Ok(()),
            // Wireshark has ended.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error) => Err(cannot_write(&error)),
        }
    }
}

/// Writes a capture, and those that follow it, until one ends by itself. The inner result is that of writing.
fn write_all(
    mut stream: CaptureStream,
    next: &Receiver<CaptureStream>,
    mut fifo: &File,
) -> Result<io::Result<()>, Failure> {
    let (mut joined, mut output) = (Joined::default(), Vec::new());
    loop {
        let mut blocks = Blocks::default();
        while blocks.read(|buffer| {
            stream.read_part(buffer).map_err(|error| failure("capture.read", &error))
        })? > 0
        {
            output.clear();
            joined.take(&mut blocks, &mut output)?;
            if let Err(error) = fifo.write_all(&output) {
                return Ok(Err(error));
            }
        }
        match next.try_recv() {
            Ok(following) => stream = following,
            Err(_none) => {
                let stats = stream.stats().map_err(|error| failure("capture.stats", &error))?;
                return explain(&stats, &stream.opened().interfaces).map(Ok);
            }
        }
        joined.next_capture();
    }
}
