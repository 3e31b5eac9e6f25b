//! `sockbroker nc`: standard input and output on a socket of the broker.

mod open;
mod copy;
mod progress;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::args::{Global, NcArgs};
use crate::failure::{Exit, Failure};
use crate::link::Link;
use copy::Traffic;
use progress::Progress;

/// Opens the socket and copies until the end.
pub(crate) fn run(global: &Global, args: &NcArgs) -> Result<Exit, Failure> {
    if global.json || global.session.is_some() {
        return Err(Failure::usage("nc takes neither --json nor --session"));
    }
    let link = Link::connect(global)?;
    let wait = args.wait.map(Duration::from_secs_f64).filter(|wait| !wait.is_zero());
    let opened =
        if args.listen { open::listen(&link, args)? } else { open::connect(&link, args, wait)? };
    let traffic = Arc::new(Traffic::default());
    let progress = args.progress.then(|| Progress::begin(&traffic));
    let result = copy::both_ways(opened, wait, &traffic);
    if let Some(progress) = progress {
        progress.end();
    }
    result.map(|()| Exit::Done)
}

/// A line for people, beside the data.
fn say(line: &str) {
    // Data matters, not this.
    drop(writeln!(std::io::stderr(), "{line}"));
}
