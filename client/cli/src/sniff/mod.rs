//! `sockbroker sniff`: packets of an interface, captured by the broker.

mod args;
pub(crate) mod decode;
mod pcapng;
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
use pcapng::Counts;
use socket::PacketSocket;

/// How long a capture may take to end after a signal. It has to wait for its last call and may be stuck in a
/// pipe that nobody reads.
const GRACE: Duration = Duration::from_millis(230);
/// How long the broker may take to answer for the statistics of a capture that is stuck.
const LAST_CALL: Duration = Duration::from_millis(50);

/// What happens while packets are captured.
enum Event {
    /// The user wants an end.
    Signal,
    /// The capture ended.
    End(Ended),
}

/// Captures until there are enough packets, or the user has seen enough.
pub(crate) fn run(global: &Global, args: &SniffArgs) -> Result<Exit, Failure> {
    let connection = Arc::new(Connection::open(global)?);
    let socket = PacketSocket::open(connection, &args.interface, args.snaplen, args.promiscuous)?;
    let socket = Arc::new(socket);
    let (events, happened) = mpsc::channel();
    let signals = events.clone();
    let interrupt = Interrupt::with(move || {
        // Nobody listens any more when the program ends.
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
    // On a thread that the program does not wait for: a write or the opening of a fifo may never return.
    let capturing = thread::spawn(move || capture.run());
    thread::spawn(move || {
        let broken = |_panic| (None, Err(Failure::new(Exit::System, "the capture broke off")));
        drop(events.send(Event::End(capturing.join().unwrap_or_else(broken))));
    });
    let (total, result) = match end(&happened) {
        Some(ended) => ended,
        None => (last_counts(&socket).map(|counted| tally.total(counted)), Ok(())),
    };
    summarize(tally.captured(), total);
    result.map(|()| Exit::Done)
}

/// How the capture ended; `None` for one that is stuck and left behind.
fn end(happened: &mpsc::Receiver<Event>) -> Option<Ended> {
    let mut event = happened.recv().ok();
    loop {
        match event? {
            Event::End(ended) => return Some(ended),
            Event::Signal => event = happened.recv_timeout(GRACE).ok(),
        }
    }
}

/// What the kernel counted, if the broker still answers.
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
                "{captured} packets captured; the broker does not report what was lost"
            ));
        }
    }
}
