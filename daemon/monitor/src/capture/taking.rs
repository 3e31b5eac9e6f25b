//! One packet from the ring to the stream.

use std::io;
use std::os::fd::BorrowedFd;

use sockbroker_sys::interface::of_socket;
use sockbroker_sys::journal::Journal;
use sockbroker_sys::ring::{Packet, Position, Ring};

use super::count::Count;
use super::keep;
use super::order::{InterfaceFacts, Reason};
use super::output::Output;

/// The parts of a capture that a packet changes.
pub(super) struct Taking<'a> {
    pub(super) output: &'a mut Output,
    /// The socket on which interfaces are looked up.
    pub(super) names: BorrowedFd<'a>,
    pub(super) count: &'a mut Count,
    pub(super) journal: Option<&'a mut Journal>,
    /// The packets that were dropped before it.
    pub(super) dropped: u64,
    pub(super) ending: Option<(Reason, bool)>,
    /// Why it could not be noted.
    pub(super) failed: Option<io::Error>,
}

/// The captured bytes of a packet, and whether the kernel has dropped others.
type Written = io::Result<(usize, bool)>;

impl Taking<'_> {
    /// Writes the next packet. Returns whether the kernel has dropped others; `None` if there is no packet.
    pub(super) fn take_from(&mut self, ring: &mut Ring) -> io::Result<Option<bool>> {
        let taken = if self.journal.is_some() {
            ring.take_noted(self, Self::write, Self::note)?
        } else {
            let taken = ring.take(|packet| self.write(packet))?;
            self.count_packet(taken.as_ref());
            taken
        };
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        taken.map(|written| written.map(|(_, losing)| losing)).transpose()
    }

    fn write(&mut self, packet: Packet<'_>) -> Written {
        if let Some((index, link_type)) = self.output.lacks(&packet) {
            let name = of_socket::name_of(self.names, index);
            let name = name.unwrap_or_else(|_gone| format!("if{index}"));
            self.output.describe(InterfaceFacts { index, name, link_type })?;
        }
        self.output.packet(&packet, self.dropped).map(|bytes| (bytes, packet.losing))
    }

    fn count_packet(&mut self, written: Option<&Written>) {
        if let Some(Ok((bytes, _))) = written {
            self.count.note_captured(*bytes, self.dropped);
        }
    }

    /// Notes the packet as captured.
    fn note(&mut self, written: Option<&Written>, position: Position) {
        self.count_packet(written);
        let Some(journal) =
            self.journal.as_deref_mut().filter(|_| !matches!(written, Some(Err(_))))
        else {
            return;
        };
        let noted = keep::note(journal, (position, self.output, self.count), self.ending);
        self.failed = noted.err();
    }
}
