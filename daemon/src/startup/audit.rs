//! The start of the audit.

use super::args::Args;
use super::error::StartError;
use crate::observe::audit::{Audit, Destination, Limits, Sink, Writer};

/// Opens the audit's destination. With `--stdio` the only client is the broker's own user, whose decisions are
/// recorded only if the configuration names a destination.
pub(super) fn open(args: &Args, to: &Destination) -> Result<Option<Sink>, StartError> {
    if args.stdio && *to == Destination::Auto {
        return Ok(None);
    }
    Sink::open(to).map_err(|error| StartError::System(format!("cannot open the audit: {error}")))
}

pub(super) fn start(sink: Sink, limits: Limits) -> Result<(Audit, Option<Writer>), StartError> {
    let fail = |error| StartError::System(format!("cannot start the audit: {error}"));
    Audit::start(sink, limits).map(|(audit, writer)| (audit, Some(writer))).map_err(fail)
}
