//! Other programs read what the writer writes, and the reader reads what they write.

mod program;
mod python;
mod sample;
mod wireshark;

use sockbroker_pcapng::Block;

use crate::read_each;

/// Time, captured bytes and length on the wire of each packet, by the reader.
fn read_packets(file: &[u8]) -> Vec<(u64, Vec<u8>, u32)> {
    let mut found = Vec::new();
    read_each(file, |block| {
        if let Block::Packet(packet) = block {
            found.push((packet.time.unwrap(), packet.data.to_vec(), packet.length));
        }
    })
    .unwrap();
    found
}

/// The packets of the sample, in the same form.
fn sample_packets() -> Vec<(u64, Vec<u8>, u32)> {
    let joined = sample::packets().into_iter();
    joined.map(|(time, parts, length)| (time, parts.concat(), length)).collect()
}

/// Names and link types of the interfaces, by the reader.
fn read_interfaces(file: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    read_each(file, |block| {
        if let Block::Interface(interface) = block {
            found.push(String::from_utf8_lossy(interface.name.unwrap_or_default()).into_owned());
        }
    })
    .unwrap();
    found
}

#[test]
fn sample_is_read_as_it_was_written() {
    assert_eq!(read_packets(&sample::pcapng()), sample_packets());
    assert_eq!(read_packets(&sample::pcap()), sample_packets());
}
