//! Malformed files: each kind has its error, with the place where the block begins.

use sockbroker_pcapng::{
    ByteOrder, Decoder, FormatError, MAX_BLOCK_BYTES, MAX_INTERFACES, ReadError, Reader,
};

use crate::builder::{self, Part, block, interface, packet, section, u32_bytes};

const LE: ByteOrder = ByteOrder::Little;

/// Reads until the error, and returns it with its place.
fn error_of(file: &[u8]) -> (u64, FormatError) {
    let mut reader = Reader::new(file);
    loop {
        match reader.next_block() {
            Ok(Some(_)) => (),
            Err(ReadError::Format { offset, error }) => {
                // It is reported once.
                assert!(matches!(reader.next_block(), Ok(None)));
                return (offset, error);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The error of a block that follows a section with one interface, in either byte order.
fn error_after_interface(build: impl Fn(ByteOrder) -> Vec<u8>) -> FormatError {
    let errors = [ByteOrder::Little, ByteOrder::Big].map(|order| {
        let start = [section(order), interface(order, &[])].concat();
        let (offset, error) = error_of(&[start.clone(), build(order)].concat());
        assert_eq!(offset, start.len() as u64);
        error
    });
    assert_eq!(errors[0], errors[1]);
    errors[0].clone()
}

/// A block whose lengths are not those of its body.
fn with_lengths(order: ByteOrder, kind: u32, first: u32, body: &[u8], last: u32) -> Vec<u8> {
    [&u32_bytes(order, kind)[..], &u32_bytes(order, first), body, &u32_bytes(order, last)].concat()
}

#[test]
fn other_files_are_not_captures() {
    let not = |magic| (0, FormatError::NotACapture { magic });
    assert_eq!(error_of(b"\x7FELF\x02\x01"), not(0x464C_457F));
    assert_eq!(error_of(&[0; 100]), not(0));
    assert_eq!(error_of(b"<?xml version"), not(0x6D78_3F3C));
    // pcap of a modified libpcap has other records.
    assert_eq!(error_of(&0xA1B2_CD34_u32.to_le_bytes()), not(0xA1B2_CD34));
    assert_eq!(error_of(b"\x0A\x0D"), (0, FormatError::Truncated { missing: 2 }));
    // A block that is not a section header, in either order.
    assert_eq!(error_of(&interface(LE, &[])), not(1));
    assert_eq!(error_of(&interface(ByteOrder::Big, &[])), not(0x0100_0000));
}

#[test]
fn byte_order_and_version_of_a_section_are_checked() {
    let header = |magic, major, minor| {
        let fields = [Part::U32(magic), Part::U16(major), Part::U16(minor), Part::U64(0)];
        block(LE, builder::SECTION, &fields)
    };
    let magic = 0x1A2B_3C4E;
    assert_eq!(error_of(&header(magic, 1, 0)), (0, FormatError::ByteOrder { magic }));
    for (major, minor) in [(0, 0), (2, 0), (1, 1), (1, 3), (256, 0)] {
        let version = FormatError::Version { major, minor };
        assert_eq!(error_of(&header(0x1A2B_3C4D, major, minor)), (0, version));
    }
    let mut reader = Decoder::new();
    assert!(reader.decode(&header(0x1A2B_3C4D, 1, 2)).is_ok());
}

#[test]
fn huge_lengths_are_refused_before_anything_is_read() {
    for length in [u32::MAX, u32::MAX - 3, 1 << 31, 0x1000_0004] {
        let error = error_after_interface(|order| with_lengths(order, 6, length, &[0; 8], length));
        assert_eq!(error, FormatError::BlockTooLong { length });
        let file =
            with_lengths(LE, builder::SECTION, length, &0x1A2B_3C4D_u32.to_le_bytes(), length);
        assert_eq!(error_of(&file), (0, FormatError::BlockTooLong { length }));
    }
    // A block may have as many bytes as the limit, and not more.
    let limit = u32::try_from(MAX_BLOCK_BYTES).unwrap();
    let length = limit + 4;
    let error = error_after_interface(|order| with_lengths(order, 7, length, &[0; 8], length));
    assert_eq!(error, FormatError::BlockTooLong { length });
    let error = error_after_interface(|order| with_lengths(order, 7, limit, &[0; 8], limit));
    assert_eq!(error, FormatError::Truncated { missing: MAX_BLOCK_BYTES - 20 });
}

#[test]
fn lengths_below_a_block_are_refused() {
    for length in [0, 1, 4, 8, 11] {
        let error = error_after_interface(|order| with_lengths(order, 6, length, &[0; 8], length));
        assert_eq!(error, FormatError::BlockTooShort { kind: 6, length, minimum: 12 });
    }
    for length in [0, 12, 24] {
        let file =
            with_lengths(LE, builder::SECTION, length, &0x1A2B_3C4D_u32.to_le_bytes(), length);
        let kind = builder::SECTION;
        assert_eq!(error_of(&file), (0, FormatError::BlockTooShort { kind, length, minimum: 28 }));
    }
}

#[test]
fn lengths_that_are_not_aligned_are_refused() {
    for length in [13, 14, 15, 33] {
        let error = error_after_interface(|order| with_lengths(order, 6, length, &[0; 30], length));
        assert_eq!(error, FormatError::LengthNotAligned { length });
    }
}

#[test]
fn lengths_at_both_ends_must_be_equal() {
    for last in [0, 12, 28, 44, u32::MAX] {
        let error = error_after_interface(|order| with_lengths(order, 5, 32, &[0; 20], last));
        assert_eq!(error, FormatError::LengthMismatch { first: 32, last });
    }
    // The lengths of each block are 12 too large: it ends within the next one.
    let error = error_after_interface(|order| {
        let block = with_lengths(order, 0x0BAD, 32, &[7; 8], 32);
        [block.clone(), block].concat()
    });
    assert!(matches!(error, FormatError::LengthMismatch { first: 32, .. }), "{error}");
}

#[test]
fn file_that_ends_within_a_block_is_truncated() {
    let whole = [section(LE), interface(LE, &[Part::Text(2, b"eth0")])].concat();
    let last = packet(LE, 0, 1, b"abcde", &[]);
    for kept in 1..last.len() {
        let (offset, error) = error_of(&[&whole[..], &last[..kept]].concat());
        assert_eq!(offset, whole.len() as u64);
        let FormatError::Truncated { missing } = error else { panic!("{kept}: {error}") };
        let expected = if kept < 12 { 12 - kept } else { last.len() - kept };
        assert_eq!(missing, expected, "{kept}");
    }
}

#[test]
fn blocks_must_have_the_fields_of_their_type() {
    for (kind, fixed) in [(1, 8), (2, 20), (3, 4), (5, 12), (6, 20)] {
        for bytes in (0..fixed).step_by(4) {
            let error =
                error_after_interface(|order| block(order, kind, &[Part::Bytes(&vec![0; bytes])]));
            let length = u32::try_from(bytes + 12).unwrap();
            assert_eq!(error, FormatError::BlockTooShort { kind, length, minimum: fixed + 12 });
        }
    }
}

#[test]
fn captured_length_must_fit_into_the_block() {
    for captured in [9, 0x7FFF_FFFF, u32::MAX, u32::MAX - 2] {
        let expected = FormatError::DataTooLong { captured, available: 8 };
        let error = error_after_interface(|order| {
            let fields = [Part::U32(0), Part::Time(0), Part::U32(captured), Part::U32(captured)];
            block(order, 6, &[&fields[..], &[Part::Bytes(b"12345678")]].concat())
        });
        assert_eq!(error, expected);
        let error = error_after_interface(|order| {
            block(order, 3, &[Part::U32(captured), Part::Bytes(b"12345678")])
        });
        assert_eq!(error, expected);
    }
}

#[test]
fn options_must_fit_into_their_block() {
    let overflow = |code, length, available| FormatError::OptionTooLong { code, length, available };
    for length in [5, 100, u16::MAX] {
        let option = [Part::U16(2), Part::U16(length), Part::Bytes(b"abcd")];
        let error = error_after_interface(|order| interface(order, &option));
        assert_eq!(error, overflow(2, length, 4));
        let error = error_after_interface(|order| packet(order, 0, 1, b"abc", &option));
        assert_eq!(error, overflow(2, length, 4));
        let header = [Part::U32(0x1A2B_3C4D), Part::U16(1), Part::U16(0), Part::U64(0)];
        for order in [LE, ByteOrder::Big] {
            let file = block(order, builder::SECTION, &[&header[..], &option].concat());
            assert_eq!(error_of(&file), (0, overflow(2, length, 4)));
        }
    }
    // After the first option, 4 bytes announce one that has no place.
    let options = [Part::Text(1, b"abcd"), Part::U16(1), Part::U16(4)];
    let error = error_after_interface(|order| interface(order, &options));
    assert_eq!(error, overflow(1, 4, 0));
}

#[test]
fn options_of_a_fixed_length_must_have_it() {
    let wrong = |code, length, expected| FormatError::OptionLength { code, length, expected };
    let of_interface = [(6, 5, 6), (8, 4, 8), (9, 0, 1), (9, 2, 1), (14, 4, 8)];
    for (code, length, expected) in of_interface {
        let value = vec![0; length];
        let error = error_after_interface(|order| interface(order, &[Part::Text(code, &value)]));
        assert_eq!(error, wrong(code, length, expected));
    }
    for (code, length, expected) in [(2, 3, 4), (2, 0, 4), (4, 4, 8), (8, 16, 8)] {
        let value = vec![0; length];
        let options = [Part::Text(code, &value)];
        let error = error_after_interface(|order| packet(order, 0, 1, b"", &options));
        assert_eq!(error, wrong(code, length, expected));
    }
    for code in 2..=8 {
        let parts = [Part::U32(0), Part::Time(0), Part::Text(code, &[0; 4])];
        let error = error_after_interface(|order| block(order, 5, &parts));
        assert_eq!(error, wrong(code, 4, 8));
    }
}

#[test]
fn interfaces_must_be_described() {
    for interface in [1, 2, u32::MAX] {
        let expected = FormatError::UnknownInterface { interface, interfaces: 1 };
        let error = error_after_interface(|order| packet(order, interface, 1, b"a", &[]));
        assert_eq!(error, expected);
        let parts = [Part::U32(interface), Part::Time(0)];
        assert_eq!(error_after_interface(|order| block(order, 5, &parts)), expected);
    }
    // A simple packet has the first interface, which must exist.
    let file = [section(LE), block(LE, 3, &[Part::U32(0)])].concat();
    assert_eq!(
        error_of(&file),
        (28, FormatError::UnknownInterface { interface: 0, interfaces: 0 })
    );
}

#[test]
fn number_of_interfaces_is_limited() {
    let described = interface(LE, &[]);
    let mut file = section(LE);
    for _ in 0..MAX_INTERFACES {
        file.extend(&described);
    }
    let offset = file.len() as u64;
    file.extend(&described);
    assert_eq!(error_of(&file), (offset, FormatError::TooManyInterfaces));
}

#[test]
fn times_that_do_not_fit_are_refused() {
    let order = LE;
    let file = [
        section(order),
        interface(order, &[Part::Text(9, &[0])]),
        packet(order, 0, u64::MAX, b"a", &[]),
    ];
    let (_, error) = error_of(&file.concat());
    assert_eq!(error, FormatError::TimeOutOfRange { ticks: u64::MAX, resolution: 0, offset: 0 });
}

#[test]
fn malformed_pcap_is_refused() {
    let header = |major, minor| {
        let fields = [Part::U32(0xA1B2_C3D4), Part::U16(major), Part::U16(minor)];
        let rest = [Part::U64(0), Part::U32(65_535), Part::U32(1)];
        builder::body(LE, &[&fields[..], &rest].concat())
    };
    assert_eq!(error_of(&header(2, 3)), (0, FormatError::Version { major: 2, minor: 3 }));
    assert_eq!(error_of(&header(2, 4)[..20]), (0, FormatError::Truncated { missing: 4 }));
    let record = |captured| builder::body(LE, &[0, 0, captured, captured].map(Part::U32));
    let most = u32::try_from(MAX_BLOCK_BYTES - 16).unwrap();
    let file = [header(2, 4), record(most)].concat();
    assert_eq!(error_of(&file), (24, FormatError::Truncated { missing: MAX_BLOCK_BYTES - 16 }));
    for length in [u32::MAX, 1 << 31, 1 << 24, most + 1] {
        let file = [header(2, 4), record(length)].concat();
        assert_eq!(error_of(&file), (24, FormatError::BlockTooLong { length }));
    }
    let file = [header(2, 4), record(100), vec![0; 30]].concat();
    assert_eq!(error_of(&file), (24, FormatError::Truncated { missing: 70 }));
    let file = [header(2, 4), vec![0; 7]].concat();
    assert_eq!(error_of(&file), (24, FormatError::Truncated { missing: 9 }));
}

#[test]
fn error_names_the_place_and_what_is_wrong() {
    let file = [section(LE), packet(LE, 3, 1, b"a", &[])].concat();
    let mut reader = Reader::new(&file[..]);
    assert!(reader.next_block().is_ok());
    let error = reader.next_block().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the capture is malformed at byte 28: interface 3 is not described: the section has 0 interfaces"
    );
}
