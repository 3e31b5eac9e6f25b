//! Rings of packet sockets (`packet(7)`): memory that the kernel fills with packets and that a process reads without a
//! system call for each packet.
//!
//! One process can make the ring of a socket ([`prepare`]) and another one can read it ([`Ring::map`]).

mod prompt;
mod bulk;
mod layout;
mod packet;
mod geometry;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::mapping::Mapping;
use crate::option;
use bulk::Bulk;
pub use geometry::{Geometry, Mode};
use packet::malformed;
pub use packet::{Packet, Position, Tag};
use prompt::Prompt;

/// What the kernel counted since the last reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets that the filter accepted, with those that were dropped.
    pub packets: u32,
    /// Packets for which the ring had no room.
    pub drops: u32,
}

/// Makes the ring of a packet socket that has no protocol yet. It takes some ten milliseconds. Packets that do not fit
/// into a slot are kept in the receive buffer of the socket, within its size.
pub fn prepare(socket: BorrowedFd<'_>, geometry: &Geometry) -> io::Result<()> {
    let version = match geometry.mode {
        Mode::Prompt => TPACKET_V2,
        Mode::Bulk => TPACKET_V3,
    };
    option::set_int(socket, libc::SOL_PACKET, libc::PACKET_VERSION, version)?;
    if geometry.mode == Mode::Prompt {
        option::set_int(socket, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, 1)?;
    }
    option::set_bytes(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &geometry.request())
}

const TPACKET_V2: i32 = 1;
const TPACKET_V3: i32 = 2;

/// The statistics of a packet socket (`PACKET_STATISTICS`), which begin again at zero.
pub fn statistics(socket: BorrowedFd<'_>) -> io::Result<Statistics> {
    let bytes = option::get_bytes(socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, 8)?;
    let (packets, drops) = (layout::u32_at(&bytes, 0), layout::u32_at(&bytes, 4));
    packets.zip(drops).map(|(packets, drops)| Statistics { packets, drops }).ok_or_else(malformed)
}

/// The ring of a packet socket.
#[derive(Debug)]
pub struct Ring {
    reader: Reader,
    socket: OwnedFd,
}

/// The type of a function that is not given.
type Nothing<T> = fn(&mut (), Option<&T>, Position);

#[derive(Debug)]
enum Reader {
    Prompt(Prompt),
    Bulk(Bulk),
}

impl Ring {
    /// Maps the ring of a socket, which [`prepare`] made with the same geometry. `EINVAL` if it has another size.
    pub fn map(socket: OwnedFd, geometry: &Geometry) -> io::Result<Self> {
        let mapping = Mapping::new(socket.as_fd(), geometry.bytes())?;
        let reader = match geometry.mode {
            Mode::Prompt => Reader::Prompt(Prompt::new(mapping, geometry)),
            Mode::Bulk => Reader::Bulk(Bulk::new(mapping, geometry)),
        };
        Ok(Self { reader, socket })
    }

    /// Continues where another process has ended, which noted this position last: after what it read, and before what it
    /// had not noted.
    pub fn resume(&mut self, position: Position) -> io::Result<()> {
        match &mut self.reader {
            Reader::Prompt(prompt) => prompt.resume(self.socket.as_fd(), position),
            Reader::Bulk(bulk) => bulk.resume(position),
        }
    }

    /// Where this reader is.
    pub fn position(&self) -> Position {
        match &self.reader {
            Reader::Prompt(prompt) => prompt.position(),
            Reader::Bulk(bulk) => bulk.position(),
        }
    }

    /// Passes the next packet to a function, and then gives its memory back to the kernel. `None` if there is no packet.
    pub fn take<T>(&mut self, function: impl FnOnce(Packet<'_>) -> T) -> io::Result<Option<T>> {
        match &mut self.reader {
            Reader::Prompt(prompt) => prompt.take(
                self.socket.as_fd(),
                &mut (),
                |(), packet| function(packet),
                None::<Nothing<T>>,
            ),
            Reader::Bulk(bulk) => {
                bulk.take(&mut (), |(), packet| function(packet), None::<Nothing<T>>)
            }
        }
    }

    /// Like [`Ring::take`], and calls `note` before the memory is given back, with the result of the function, or without
    /// one for a block that has no packet. What it notes, in one step, is what [`Ring::resume`] continues from: if the
    /// process ends before, the packet is read again, and if it ends afterwards, it is not.
    pub fn take_noted<C, T>(
        &mut self,
        context: &mut C,
        function: impl FnOnce(&mut C, Packet<'_>) -> T,
        note: impl FnMut(&mut C, Option<&T>, Position),
    ) -> io::Result<Option<T>> {
        match &mut self.reader {
            Reader::Prompt(prompt) => {
                prompt.take(self.socket.as_fd(), context, function, Some(note))
            }
            Reader::Bulk(bulk) => bulk.take(context, function, Some(note)),
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
