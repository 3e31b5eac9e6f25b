//! What a client records so that its calls survive the end of the process that serves them.

mod call_facts;
mod position;
mod readers;
mod streams;
mod backoff;

pub(crate) use backoff::Backoff;
pub(crate) use call_facts::{CallFacts, CallKind};
pub(crate) use position::{INFO_BYTES, Position};
pub(crate) use readers::Settling;
pub(crate) use streams::{Observed, Streams, is_tcp, send_result};
