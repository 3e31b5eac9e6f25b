//! `sockbroker nc`: connects standard input and output to a socket of the broker.

mod args;
mod ports;
mod open;
mod input;
mod copy;
mod progress;

use std::sync::Arc;
use std::time::Duration;

use crate::connection::Connection;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::screen::report;
pub(crate) use args::NcArgs;
use copy::Traffic;
use input::Input;
use open::Opened;
use progress::Progress;

/// Opens the socket and copies until the connection ends.
pub(crate) fn run(global: &Global, args: &NcArgs) -> Result<Exit, Failure> {
    if global.json || global.session.is_some() {
        return Err(Failure::usage("nc does not accept --json or --session"));
    }
    // Check the ports before connecting to a broker.
    let ports = ports(args)?;
    args.source_port.as_deref().map(ports::local).transpose()?;
    let connection = Connection::connect(global)?.within(args.netns.as_ref());
    if args.zero {
        return scan(&connection, args, &ports).map(|()| Exit::Done);
    }
    if args.listen && args.keep {
        return serve(&connection, args, ports.first().map(String::as_str)).map(|()| Exit::Done);
    }
    let port = ports.first().map(String::as_str);
    let opened = if args.listen {
        open::bound(&connection, args, port)?.peer()?
    } else {
        open::connect(&connection, args, port, wait(args))?
    };
    let input = Input::begin(opened.is_stream);
    copy(args, opened, &input).map(|()| Exit::Done)
}

/// Returns the ports to connect to, or the port to listen on. Unix and raw sockets have none.
fn ports(args: &NcArgs) -> Result<Vec<String>, Failure> {
    match (&args.port, args.listen) {
        (Some(port), true) => Ok(vec![ports::local(port)?]),
        // `-l PORT` listens on every address.
        (None, true) if !args.unix => Ok(vec![ports::local(&args.host)?]),
        (Some(port), false) => ports::to_connect(port, args.zero),
        (None, _) => Ok(Vec::new()),
    }
}

/// The timeout for connecting and for receiving.
fn wait(args: &NcArgs) -> Option<Duration> {
    args.wait.map(Duration::from_secs_f64).filter(|wait| !wait.is_zero())
}

fn copy(args: &NcArgs, opened: Opened, input: &Arc<Input>) -> Result<(), Failure> {
    let traffic = Arc::new(Traffic::default());
    let progress = args.progress.then(|| Progress::begin(&traffic));
    let result = copy::copy_both_ways(opened, wait(args), &traffic, input);
    if let Some(progress) = progress {
        progress.end();
    }
    result
}

/// Accepts one connection after the other, or receives the datagrams of all senders.
fn serve(connection: &Connection, args: &NcArgs, port: Option<&str>) -> Result<(), Failure> {
    let bound = open::bound(connection, args, port)?;
    if !bound.is_stream {
        return copy::receive_datagrams(&bound.socket, wait(args));
    }
    let input = Input::begin(true);
    loop {
        match bound.accept().and_then(|opened| copy(args, opened, &input)) {
            Ok(()) => {}
            // An error of one connection does not end the server.
            Err(failure) if failure.exit() == Exit::Failed => report(&failure.to_string()),
            Err(failure) => return Err(failure),
        }
    }
}

/// Connects to each port. Fails if no connection succeeds, or if the host cannot be resolved.
fn scan(connection: &Connection, args: &NcArgs, ports: &[String]) -> Result<(), Failure> {
    if args.unix {
        return open::connect(connection, args, None, wait(args)).map(drop);
    }
    let mut found = Err(Failure::usage("cannot scan: there is no port to connect to"));
    for port in ports {
        let candidates = open::candidates(connection, args, Some(port))?;
        match open::connect_to(connection, args, Some(port), wait(args), candidates) {
            Ok(_opened) => found = Ok(()),
            Err(failure) if failure.exit() != Exit::Failed => return Err(failure),
            Err(failure) => {
                if args.verbose {
                    report(&failure.to_string());
                }
                if found.is_err() {
                    found = Err(if args.verbose { failure.without_message() } else { failure });
                }
            }
        }
    }
    found
}
