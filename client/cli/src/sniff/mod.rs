//! `sockbroker sniff`: captures packets of interfaces through the broker.

mod dump;
mod rotation;
mod stamp;
pub(crate) mod compatible;
mod expression;
pub(crate) mod args;
mod link;
mod text;
mod dns;
mod dhcp;
mod transport;
pub(crate) mod decode;
mod details;
pub(crate) mod filter;
mod listing;
pub(crate) mod open;
pub(crate) mod blocks;
mod show;
mod files;
mod record;
mod copy;
mod read;
pub(crate) mod list;
mod link_types;
mod counts;
pub(crate) mod end;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::interrupt::{self, Interrupt};
use crate::screen::report;
pub(crate) use args::SniffArgs;
use end::{Event, Running};
use filter::Filter;
use record::{Recording, Tally};

/// Captures until the count is reached or a signal arrives.
pub(crate) fn run(global: &Global, args: &SniffArgs) -> Result<Exit, Failure> {
    if let Some(path) = &args.read {
        return read::run(global, args, path);
    }
    if args.program > 0 {
        return listing::run(args);
    }
    if args.list_interfaces {
        return list::run(global, args);
    }
    args.rotation()?;
    if args.list_link_types {
        return link_types::run(global, args);
    }
    let filter = args.expression()?.map(Filter::compile).transpose()?;
    let connection = Arc::new(Connection::open_shared(global)?);
    let stream = open::open(&connection, args, filter.as_ref())?;
    let (handle, interfaces) = (stream.opened().handle, stream.opened().interfaces.clone());
    let (events, happened) = mpsc::channel();
    // The receiver is gone when the program ends.
    let (signals, progress) = (events.clone(), events.clone());
    let _interrupt = Interrupt::with(move || drop(signals.send(Event::Signal)))?;
    interrupt::on_user_signal(move || drop(progress.send(Event::Progress)))?;
    let tally = Arc::new(Tally::default());
    let (args, counted) = (args.clone(), Arc::clone(&tally));
    let last_period = events.clone();
    let on_last_period: Box<dyn FnOnce() + Send> =
        Box::new(move || drop(last_period.send(Event::LastPeriod)));
    let mut recording = Recording {
        args,
        as_json: global.json,
        stream,
        tally: counted,
        on_last_period: Some(on_last_period),
    };
    // On a thread that the program does not join: a write, or opening a FIFO, can block for ever.
    let recording = thread::spawn(move || {
        let result = recording.run();
        (Some(recording), result)
    });
    let ends = events.clone();
    thread::spawn(move || {
        let broken =
            |_panic| (None, Err(Failure::new(Exit::System, "the capture thread panicked")));
        let (recording, result) = recording.join().unwrap_or_else(broken);
        drop(ends.send(Event::Recorded(recording.map(Box::new), result)));
    });
    let running = Running {
        connection,
        handle,
        interfaces,
        events,
        tally: Arc::clone(&tally),
        is_persistent: global.persist,
    };
    let (stats, result) = running.wait(&happened);
    for line in counts::numbers(tally.captured(), stats.as_ref()) {
        report(&line);
    }
    result.map(|()| Exit::Done)
}
