//! Captures: packets of interfaces, which flow to a client as a stream of pcapng.
//!
//! [`open()`] makes the packet socket of a capture, which takes a capability. [`Captures`] reads the sockets, with a thread
//! for each, which takes none. In a broker with an opener, the opener does the first and a process of its own the second.
//! Nothing here parses what a client sent, or what a packet contains. The files are listed from the top.

mod captures;
mod run;
mod moderation;
mod taking;
mod keep;
mod lot;
mod output;
mod count;
mod open;
mod program;
mod interfaces;
mod order;

pub use captures::{Captures, Report};
pub use interfaces::{PRIVATE, link_type};
pub use lot::{CaptureLot, Left};
pub use open::{SOCKET, begin, open};
pub use order::{
    Command, Counts, Direction, Ended, Event, Failure, Format, INTERFACES_MAX, Interface,
    InterfaceFacts, Live, Opened, Order, PROGRAM_MAX, Reason, TEXT_MAX,
};
pub use program::{joined, restricted};

#[cfg(test)]
pub(crate) mod tests;
