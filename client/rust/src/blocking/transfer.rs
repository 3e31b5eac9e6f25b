//! Sending and receiving, and a socket as a stream of `std::io`.

use std::io::{self, Read, Write};

use super::Socket;
use crate::address::Address;
use crate::constant::Flags;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::message::OutgoingAncillary;
use crate::operation::{self, MAX_TRANSFER};

impl Socket {
    /// Sends all bytes to the peer.
    ///
    /// # Errors
    ///
    /// [`Error::sent`] tells how many bytes of the last MiB had left.
    pub fn send_all(&self, data: &[u8]) -> Result<()> {
        let payload_encoding = self.broker().payload_encoding();
        data.chunks(MAX_TRANSFER).try_for_each(|part| {
            self.broker().run(operation::send_all(payload_encoding, self.handle(), part))
        })
    }

    /// Sends gathered bytes with ancillary data, to the peer or to an address; how many bytes left.
    pub fn send_msg(
        &self,
        data: &[&[u8]],
        ancillary: &[OutgoingAncillary<'_>],
        flags: Flags,
        address: Option<Address>,
    ) -> Result<usize> {
        let (payload_encoding, beside) =
            (self.broker().payload_encoding(), operation::descriptors(ancillary));
        let (handle, to) = (self.handle(), (address, self.opens_files()));
        self.broker().run(operation::send_msg(
            payload_encoding,
            handle,
            data,
            ancillary,
            &beside,
            flags,
            to,
        ))
    }

    /// Receives into a buffer; how many bytes. 0 is the end of a stream, or an empty datagram. Not
    /// more than 1 MiB comes at a time.
    pub fn recv(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_with_flags(buffer, Flags::NONE)
    }

    /// Receives into a buffer with flags; what `recv(2)` returned.
    pub fn recv_with_flags(&self, buffer: &mut [u8], flags: Flags) -> Result<usize> {
        self.broker().run(operation::recv(self.handle(), buffer, flags))
    }

    /// Receives into a buffer, with the address of the sender.
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, Address)> {
        self.recv_from_with_flags(buffer, Flags::NONE)
    }

    /// Receives into a buffer with flags, with the address of the sender.
    pub fn recv_from_with_flags(
        &self,
        buffer: &mut [u8],
        flags: Flags,
    ) -> Result<(usize, Address)> {
        self.broker().run(operation::recv_from(self.handle(), buffer, flags))
    }

    /// Receives into a buffer, and leaves in the queue what was received.
    pub fn peek(&self, buffer: &mut [u8]) -> Result<usize> {
        self.recv_with_flags(buffer, Flags::PEEK)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.recv(buffer)?)
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.recv(buffer)?)
    }
}

impl Write for Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(self.send(data)?)
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for &Socket {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        Ok(self.send(data)?)
    }

    /// Nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
