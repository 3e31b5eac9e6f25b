//! `sockbroker sniff`: captures packets of an interface through the broker.

mod args;
pub(crate) mod decode;
mod link;
mod filter;
mod packet;
mod socket;
mod file;
mod show;
mod capture;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::screen::report;
pub(crate) use args::SniffArgs;
use capture::{Capture, Ended, Tally};
use socket::{Counts, PacketSocket};

/// How long to wait for the capture to end after a signal. It waits for its last call, and a write to a pipe
/// can block.
const GRACE: Duration = Duration::from_millis(230);
/// How long to wait for the broker's counters if the capture is blocked.
const LAST_CALL: Duration = Duration::from_millis(50);

/// An event during the capture.
enum Event {
    /// A signal arrived.
    Signal,
    End(Ended),
}

/// Captures until the count is reached or a signal arrives.
pub(crate) fn run(global: &Global, args: &SniffArgs) -> Result<Exit, Failure> {
    let connection = Arc::new(Connection::open(global)?.within(args.netns.as_ref()));
    let socket = PacketSocket::open(connection, args)?;
    let socket = Arc::new(socket);
    let (events, happened) = mpsc::channel();
    let signals = events.clone();
    let interrupt = Interrupt::with(move || {
        // The receiver is gone when the program ends.
        drop(signals.send(Event::Signal));
    })?;
    let tally = Arc::new(Tally::default());
    let capture = Capture {
        args: args.clone(),
        as_json: global.json,
        socket: Arc::clone(&socket),
        interrupt,
        tally: Arc::clone(&tally),
    };
    // On a thread that the program does not join: a write, or opening a FIFO, can block for ever.
    let capturing = thread::spawn(move || capture.run());
    thread::spawn(move || {
        let broken =
            |_panic| (None, Err(Failure::new(Exit::System, "the capture thread panicked")));
        drop(events.send(Event::End(capturing.join().unwrap_or_else(broken))));
    });
    let (total, result) = match end(&happened) {
        Some(ended) => ended,
        None => (last_counts(&socket).map(|counted| tally.total(counted)), Ok(())),
    };
    summarize(tally.captured(), total);
    result.map(|()| Exit::Done)
}

/// Returns the result of the capture, or `None` if it is blocked.
fn end(happened: &mpsc::Receiver<Event>) -> Option<Ended> {
    let mut event = happened.recv().ok();
    loop {
        match event? {
            Event::End(ended) => return Some(ended),
            Event::Signal => event = happened.recv_timeout(GRACE).ok(),
        }
    }
}

/// Returns the kernel's counters, if the broker answers in time.
fn last_counts(socket: &Arc<PacketSocket>) -> Option<Counts> {
    let (answer, answered) = mpsc::channel();
    let socket = Arc::clone(socket);
    thread::spawn(move || drop(answer.send(socket.counts())));
    answered.recv_timeout(LAST_CALL).ok()?.ok()
}

fn summarize(captured: u64, total: Option<Counts>) {
    match total {
        Some(Counts { received, dropped }) => {
            report(&format!("{captured} packets captured, {received} seen, {dropped} lost"));
        }
        None => {
            report(&format!(
                "{captured} packets captured; the broker did not report how many were lost"
            ));
        }
    }
}
