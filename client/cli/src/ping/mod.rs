//! `sockbroker ping`: sends ICMP echo requests through the broker and prints replies like ping(8).

mod args;
pub(crate) mod packet;
pub(crate) mod socket;
mod statistics;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::interrupt::{Interrupt, POLL_INTERVAL};
use crate::screen::Screen;
pub(crate) use args::PingArgs;
use socket::{Event, Reply, Socket};
use statistics::{Statistics, Times, milliseconds};

/// Pings the host. The exit codes are those of ping(8): 0 if a reply arrived, 1 if none did, 2 on an error.
pub(crate) fn run(global: &Global, args: &PingArgs) -> Result<Exit, Failure> {
    ping(global, args).map_err(|failure| failure.with_exit_code(Exit::Usage))
}

fn ping(global: &Global, args: &PingArgs) -> Result<Exit, Failure> {
    let connection = Connection::open(global)?.within(args.netns.as_ref());
    let socket = Socket::open(&connection, args)?;
    let interrupt = Interrupt::catch()?;
    let mut run = Run {
        args,
        as_json: global.json,
        socket,
        screen: Screen::new(),
        statistics: Statistics::default(),
        requests: HashMap::new(),
        last: Instant::now(),
    };
    run.print_header(connection.endpoint())?;
    run.exchange(&interrupt)?;
    run.summary()?;
    let wanted = args.deadline.and(args.count).unwrap_or(1);
    Ok(if run.statistics.received >= wanted { Exit::Done } else { Exit::Failed })
}

/// A running ping.
struct Run<'a> {
    args: &'a PingArgs,
    as_json: bool,
    socket: Socket<'a>,
    screen: Screen,
    statistics: Statistics,
    /// By sequence number: when the request was sent, and whether a reply arrived.
    requests: HashMap<u16, (Instant, bool)>,
    /// When the last request was sent.
    last: Instant,
}

impl Run<'_> {
    fn print_header(&mut self, endpoint: &str) -> Result<(), Failure> {
        if self.as_json {
            return Ok(());
        }
        let (size, whole) = (self.args.size, u32::from(self.args.size) + self.socket.overhead());
        let Self { args, socket, .. } = self;
        let (address, kind) = (socket.address(), socket.kind());
        self.screen.line(format_args!(
            "PING {} ({address}) {size}({whole}) bytes of data, {kind} of {endpoint}",
            args.host
        ))
    }

    fn exchange(&mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        let start = Instant::now();
        let end = self.args.deadline.map(|seconds| start + Duration::from_secs_f64(seconds));
        let mut next = start;
        while !interrupt.is_set() {
            let now = Instant::now();
            if self.is_done(now, end) {
                break;
            }
            // With a deadline, ping(8) sends until all replies have arrived.
            let enough = self.args.count.is_some_and(|count| self.statistics.sent >= count);
            let sending = end.is_some() || !enough;
            if sending && now >= next {
                self.socket.wait(POLL_INTERVAL)?;
                self.send()?;
                next += Duration::from_secs_f64(self.args.interval);
                next = next.max(now);
            }
            let until = if sending { next } else { self.deadline() };
            let until = end.map_or(until, |end| until.min(end));
            let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
            self.socket.wait(left.clamp(0.0, POLL_INTERVAL))?;
            for event in self.socket.receive()? {
                self.report(event)?;
            }
        }
        self.statistics.time = start.elapsed();
        Ok(())
    }

    /// Whether the ping has ended, by the rules of ping(8). Without a deadline: all replies have arrived or are
    /// late. With one: it has passed, all wanted replies have arrived, or an error has.
    fn is_done(&self, now: Instant, end: Option<Instant>) -> bool {
        let Statistics { sent, received, errors, .. } = self.statistics;
        match (end, self.args.count) {
            (Some(end), count) => {
                let answered = count.is_some_and(|count| received >= count);
                now >= end || answered || errors > 0
            }
            (None, Some(count)) => {
                sent >= count && (received + errors >= sent || now >= self.deadline())
            }
            (None, None) => false,
        }
    }

    fn deadline(&self) -> Instant {
        self.last + Duration::from_secs_f64(self.args.timeout)
    }

    fn send(&mut self) -> Result<(), Failure> {
        // The sequence number wraps after 65536 requests.
        let sequence = u16::try_from((self.statistics.sent + 1) & 0xFFFF).unwrap_or(0);
        self.last = Instant::now();
        self.requests.insert(sequence, (self.last, false));
        self.statistics.sent += 1;
        match self.socket.send(sequence, usize::from(self.args.size)) {
            Err(failure) if failure.errno().is_some() => {
                self.report(Event::Error { sequence: Some(sequence), what: failure.to_string() })
            }
            result => result,
        }
    }

    fn report(&mut self, event: Event) -> Result<(), Failure> {
        match event {
            Event::Reply(reply) => self.replied(&reply),
            Event::Error { sequence, what } => {
                self.statistics.errors += 1;
                if self.args.quiet {
                    return Ok(());
                }
                if self.as_json {
                    return self.screen.line(json!({ "sequence": sequence, "error": what }));
                }
                let number =
                    sequence.map(|number| format!("icmp_seq={number} ")).unwrap_or_default();
                self.screen.line(format_args!("{number}{what}"))
            }
        }
    }

    fn replied(&mut self, reply: &Reply) -> Result<(), Failure> {
        let Some((sent, answered)) = self.requests.get_mut(&reply.sequence) else { return Ok(()) };
        let time = reply.at.saturating_duration_since(*sent);
        let duplicate = std::mem::replace(answered, true);
        if duplicate {
            self.statistics.duplicates += 1;
        } else {
            self.statistics.reply(time);
        }
        if self.args.quiet {
            return Ok(());
        }
        let Reply { sequence, length, from, ttl, .. } = reply;
        if self.as_json {
            return self.screen.line(json!({
                "sequence": sequence, "from": from, "ttl": ttl, "bytes": length,
                "milliseconds": milliseconds(time), "duplicate": duplicate,
            }));
        }
        let ttl = ttl.map(|ttl| format!(" ttl={ttl}")).unwrap_or_default();
        let note = if duplicate { " (DUP!)" } else { "" };
        let time = milliseconds(time);
        self.screen.line(format_args!(
            "{length} bytes from {from}: icmp_seq={sequence}{ttl} time={time:.3} ms{note}"
        ))
    }

    fn summary(&mut self) -> Result<(), Failure> {
        let statistics = &self.statistics;
        if self.as_json {
            let times = statistics.times().map_or(Value::Null, |Times { min, avg, max, mdev }| {
                json!({ "min": min, "avg": avg, "max": max, "mdev": mdev })
            });
            return self.screen.line(json!({
                "host": self.args.host, "address": self.socket.address(),
                "sent": statistics.sent, "received": statistics.received,
                "duplicates": statistics.duplicates, "errors": statistics.errors,
                "loss_percent": statistics.loss(), "milliseconds": times,
            }));
        }
        self.screen.line(format_args!("\n--- {} ping statistics ---\n{statistics}", self.args.host))
    }
}
