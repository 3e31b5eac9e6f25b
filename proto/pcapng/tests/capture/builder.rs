//! Builds blocks of pcapng in either byte order, without the writer, also malformed ones.

use sockbroker_pcapng::ByteOrder;

pub(crate) const SECTION: u32 = 0x0A0D_0D0A;
pub(crate) const INTERFACE: u32 = 1;
pub(crate) const PACKET: u32 = 6;
pub(crate) const STATISTICS: u32 = 5;

/// A part of a block.
#[derive(Debug, Clone)]
pub(crate) enum Part<'a> {
    U16(u16),
    U32(u32),
    U64(u64),
    /// The upper half first.
    Time(u64),
    /// Padded to four bytes.
    Bytes(&'a [u8]),
    /// A code and a value, padded to four bytes.
    Text(u16, &'a [u8]),
    Number(u16, u64),
    /// The end of options.
    End,
}

pub(crate) fn u16_bytes(order: ByteOrder, number: u16) -> [u8; 2] {
    match order {
        ByteOrder::Little => number.to_le_bytes(),
        ByteOrder::Big => number.to_be_bytes(),
    }
}

pub(crate) fn u32_bytes(order: ByteOrder, number: u32) -> [u8; 4] {
    match order {
        ByteOrder::Little => number.to_le_bytes(),
        ByteOrder::Big => number.to_be_bytes(),
    }
}

fn u64_bytes(order: ByteOrder, number: u64) -> [u8; 8] {
    match order {
        ByteOrder::Little => number.to_le_bytes(),
        ByteOrder::Big => number.to_be_bytes(),
    }
}

/// Joins parts to a body.
pub(crate) fn body(order: ByteOrder, parts: &[Part<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        match part {
            Part::U16(number) => body.extend(u16_bytes(order, *number)),
            Part::U32(number) => body.extend(u32_bytes(order, *number)),
            Part::U64(number) => body.extend(u64_bytes(order, *number)),
            Part::Time(time) => {
                body.extend(u32_bytes(order, u32::try_from(time >> 32).unwrap()));
                body.extend(u32_bytes(order, u32::try_from(time & 0xFFFF_FFFF).unwrap()));
            }
            Part::Bytes(bytes) => body.extend(*bytes),
            Part::Text(code, value) => {
                body.extend(u16_bytes(order, *code));
                body.extend(u16_bytes(order, u16::try_from(value.len()).unwrap()));
                body.extend(*value);
            }
            Part::Number(code, number) => {
                body.extend(u16_bytes(order, *code));
                body.extend(u16_bytes(order, 8));
                body.extend(u64_bytes(order, *number));
            }
            Part::End => body.extend([0; 4]),
        }
        if matches!(part, Part::Bytes(_) | Part::Text(..)) {
            body.resize(body.len().next_multiple_of(4), 0);
        }
    }
    body
}

/// A block with its true length at both ends.
pub(crate) fn block(order: ByteOrder, kind: u32, parts: &[Part<'_>]) -> Vec<u8> {
    let body = body(order, parts);
    let length = u32_bytes(order, u32::try_from(body.len() + 12).unwrap());
    [&u32_bytes(order, kind)[..], &length, &body, &length].concat()
}

/// A section header without options.
pub(crate) fn section(order: ByteOrder) -> Vec<u8> {
    block(
        order,
        SECTION,
        &[Part::U32(0x1A2B_3C4D), Part::U16(1), Part::U16(0), Part::U64(u64::MAX)],
    )
}

/// An Ethernet interface with the given options.
pub(crate) fn interface(order: ByteOrder, options: &[Part<'_>]) -> Vec<u8> {
    let fixed = [Part::U16(1), Part::U16(0), Part::U32(0)];
    block(order, INTERFACE, &[&fixed, options].concat())
}

/// A packet of an interface, with the given options.
pub(crate) fn packet(
    order: ByteOrder,
    number: u32,
    time: u64,
    data: &[u8],
    options: &[Part<'_>],
) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let fixed = [
        Part::U32(number),
        Part::Time(time),
        Part::U32(length),
        Part::U32(length + 100),
        Part::Bytes(data),
    ];
    block(order, PACKET, &[&fixed, options].concat())
}
