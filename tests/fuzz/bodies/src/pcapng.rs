//! Capture files: the reader ends with blocks or an error, however the bytes arrive, and what it has read can be written
//! and read again.

use std::io::{self, Read};

use sockbroker_pcapng::{
    Block, Decoder, Interface, MAX_BLOCK_BYTES, Packet, PacketBlock, Reader, Section, WriteError,
    Writer,
};

/// Returns a few bytes for each read.
struct Slow<'a> {
    rest: &'a [u8],
    at_most: usize,
}

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = buffer.len().min(self.at_most);
        self.rest.read(&mut buffer[..bytes])
    }
}

/// Reads the bytes as a capture, at once and in pieces.
pub fn body(data: &[u8]) {
    let whole = describe(Reader::new(data));
    assert_eq!(describe(Reader::new(Slow { rest: data, at_most: 7 })), whole, "in pieces");
    check_passing(data);
    let mut reader = Reader::new(data);
    while let Ok(Some(block)) = reader.next_block() {
        if let Block::Packet(packet) = block {
            check_round_trip(&packet);
        }
    }
}

/// Checks that blocks are passed like they are decoded.
fn check_passing(mut data: &[u8]) {
    let (mut decoder, mut passing) = (Decoder::new(), Decoder::new());
    loop {
        let passed = passing.pass(data);
        let Ok((block, length)) = decoder.decode(data) else { return };
        assert_eq!(passed, Ok(Some((matches!(block, Block::Packet(_)), length))));
        data = &data[length..];
    }
}

/// Returns a line for each block, and the error.
fn describe<R: Read>(mut reader: Reader<R>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match reader.next_block() {
            Ok(Some(block)) => lines.push(format!("{block:?}")),
            Ok(None) => return lines,
            Err(error) => {
                lines.push(error.to_string());
                assert!(matches!(reader.next_block(), Ok(None)), "reads after an error");
                return lines;
            }
        }
    }
}

/// Checks that a packet with the same facts is read as it was written.
fn check_round_trip(packet: &PacketBlock<'_>) {
    let mut file = Vec::new();
    let Ok(mut writer) = Writer::begin(&Section::default(), &mut file) else { unreachable!() };
    let interface = Interface::new("fuzz", packet.link_type, 0);
    let Ok(0) = writer.interface(&interface, &mut file) else { unreachable!() };
    let comment = packet.comment.and_then(|comment| std::str::from_utf8(comment).ok());
    let data = [packet.data];
    let written = Packet {
        flags: packet.flags,
        dropped: packet.dropped.unwrap_or_default(),
        process: packet.process,
        comment,
        ..Packet::new(0, packet.time.unwrap_or_default(), &data, packet.length)
    };
    match writer.packet(&written, &mut file) {
        Ok(()) => {}
        Err(WriteError::LongerThanPacket { captured, .. }) => {
            assert!(captured > packet.length as usize, "refused: {packet:?}");
            return;
        }
        Err(error) => {
            assert!(written.block_bytes() > MAX_BLOCK_BYTES, "{error}: {packet:?}");
            return;
        }
    }
    let mut reader = Reader::new(&file[..]);
    for _ in 0..2 {
        assert!(matches!(reader.next_block(), Ok(Some(_))), "section and interface");
    }
    let read = reader.next_block();
    let Ok(Some(Block::Packet(again))) = read else { unreachable!("{read:?}: {packet:?}") };
    assert_eq!((again.data, again.length), (packet.data, packet.length));
    assert_eq!((again.flags, again.process), (packet.flags, packet.process));
    assert_eq!(again.time, Some(packet.time.unwrap_or_default()));
    assert_eq!(again.dropped.unwrap_or_default(), packet.dropped.unwrap_or_default());
    assert_eq!(again.comment, comment.map(str::as_bytes));
}
