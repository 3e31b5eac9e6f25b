//! Tests of the lengths, the encoder and the iterator over control bytes.

use std::fs::File;
use std::os::fd::{AsFd, IntoRawFd};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// An item with a length that can be wrong.
fn item(length: usize, level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes
}

fn walk(control: &[u8]) -> Vec<Item> {
    items(control).collect()
}

#[test]
fn lengths_equal_those_of_the_c_macros() {
    for n in [0u32, 1, 4, 7, 8, 9, 1012] {
        // SAFETY: arithmetic only.
        let len = unsafe { libc::CMSG_LEN(n) };
        // SAFETY: arithmetic only.
        let space = unsafe { libc::CMSG_SPACE(n) };
        let n = usize::try_from(n).unwrap();
        assert_eq!(cmsg_len(n), usize::try_from(len).ok());
        assert_eq!(cmsg_space(n), usize::try_from(space).ok());
    }
}

#[test]
fn lengths_have_the_limits_of_cpython() {
    // test_socket: CMSG_LEN(_testcapi.INT_MAX - socket.CMSG_LEN(0)) is the last value that is accepted.
    assert_eq!(cmsg_len(LIMIT - HEADER), Some(LIMIT));
    assert_eq!(cmsg_len(LIMIT - HEADER + 1), None);
    assert_eq!(cmsg_len(usize::MAX), None);
    let padded = cmsg_space(1).unwrap();
    assert!(cmsg_space(LIMIT - padded).is_some());
    assert_eq!(cmsg_space(LIMIT - padded + 1), None);
    assert_eq!(cmsg_space(usize::MAX), None);
}

#[test]
fn encoded_items_are_read_back() {
    let null = File::open("/dev/null").unwrap();
    let descriptors = [null.as_fd(), null.as_fd()];
    let control = encode_control(&[
        OutgoingControl::Data { level: 1, kind: 2, data: b"abc" },
        OutgoingControl::Descriptors { descriptors: &descriptors, rest: b"xy" },
        OutgoingControl::Data { level: 41, kind: 50, data: b"" },
    ]);
    assert_eq!(control.len(), 24 + 32 + 16);
    let found = walk(&control);
    let places: Vec<_> =
        found.iter().map(|item| (item.level, item.kind, item.data.clone())).collect();
    assert_eq!(places, [(1, 2, 16..19), (1, 1, 40..50), (41, 50, 72..72)]);
    let number = null.as_raw_fd().to_ne_bytes();
    assert_eq!(control[40..50], [number.as_slice(), &number, b"xy"].concat());
}

#[test]
fn no_items_are_encoded_as_no_bytes() {
    assert!(encode_control(&[]).is_empty());
    assert!(walk(&[]).is_empty());
}

#[test]
fn header_that_does_not_fit_ends_the_iteration() {
    let control = item(16, 1, 2, b"");
    for length in 0..16 {
        assert!(walk(&control[..length]).is_empty(), "{length} bytes");
    }
    assert_eq!(walk(&control).len(), 1);
    let second_cut = [item(16, 1, 2, b""), item(16, 3, 4, b"")[..15].to_vec()].concat();
    assert_eq!(walk(&second_cut).len(), 1);
}

#[test]
fn impossible_length_ends_the_iteration() {
    for length in 0..16 {
        let control = [item(length, 1, 2, b"12345678"), item(16, 3, 4, b"")].concat();
        assert!(walk(&control).is_empty(), "cmsg_len {length}");
    }
}

#[test]
fn data_beyond_the_end_is_truncated_and_ends_the_iteration() {
    for length in [21, 24, 1000, usize::MAX - 7, usize::MAX] {
        let control = item(length, 1, 2, b"1234");
        assert_eq!(walk(&control), [Item { level: 1, kind: 2, data: 16..20 }], "cmsg_len {length}");
    }
}

#[test]
fn padding_after_the_last_item_may_be_absent() {
    let control = item(19, 1, 2, b"abc");
    assert_eq!(walk(&control), [Item { level: 1, kind: 2, data: 16..19 }]);
}

#[test]
fn sending_raw_descriptor_numbers_is_refused() {
    let raw = |level, kind| [OutgoingControl::Data { level, kind, data: &[0; 4] }];
    assert!(refuse_numbers(&raw(libc::SOL_SOCKET, libc::SCM_RIGHTS)).is_err());
    assert!(refuse_numbers(&raw(libc::SOL_SOCKET, libc::SCM_DEVMEM_DMABUF)).is_err());
    assert!(refuse_numbers(&raw(276, 1)).is_err(), "RDS_CMSG_RDMA_ARGS");
    assert!(refuse_numbers(&raw(libc::SOL_SOCKET, libc::SCM_CREDENTIALS)).is_ok());
    assert!(refuse_numbers(&raw(libc::IPPROTO_IP, libc::IP_PKTINFO)).is_ok());
    assert!(refuse_numbers(&raw(libc::IPPROTO_IP, 1)).is_ok(), "the level matters");
}

/// A descriptor without an owner, for a test to decode.
fn unowned() -> i32 {
    File::open("/dev/null").unwrap().into_raw_fd()
}

#[test]
fn odd_bytes_of_a_descriptor_item_stay_bytes() {
    let data = [unowned().to_ne_bytes().as_slice(), b"xyz"].concat();
    let control = item(16 + data.len(), libc::SOL_SOCKET, libc::SCM_RIGHTS, &data);
    // SAFETY: the descriptor has no owner and is decoded here, once.
    let messages = unsafe { decode(&control, false) }.unwrap();
    let [ControlMessage::Descriptors { descriptors, rest }] = messages.as_slice() else {
        panic!("decoded {messages:?}");
    };
    assert_eq!(rest, b"xyz");
    let flags = fcntl(&descriptors[0], FcntlArg::F_GETFD).unwrap();
    assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
}

#[test]
fn process_descriptor_is_closed_and_its_number_replaced() {
    let (read, write) = io::pipe().unwrap();
    let number = OwnedFd::from(write).into_raw_fd();
    let control = item(20, libc::SOL_SOCKET, SCM_PIDFD, &number.to_ne_bytes());
    // SAFETY: the descriptor has no owner and is decoded here, once.
    let messages = unsafe { decode(&control, true) }.unwrap();
    assert!(matches!(
        messages.as_slice(),
        [ControlMessage::Data { kind: SCM_PIDFD, data, .. }] if *data == (-1i32).to_ne_bytes()
    ));
    assert!(crate::stream::is_hung_up(read.as_fd()).unwrap(), "the descriptor is still open");
}

#[test]
fn negative_number_is_not_a_descriptor() {
    let control = item(20, libc::SOL_SOCKET, SCM_PIDFD, &(-3i32).to_ne_bytes());
    // SAFETY: the number names no descriptor.
    let messages = unsafe { decode(&control, true) }.unwrap();
    assert!(matches!(
        messages.as_slice(),
        [ControlMessage::Data { data, .. }] if *data == (-3i32).to_ne_bytes()
    ));
}

proptest! {
    #[test]
    fn items_accepts_any_bytes(control in vec(any::<u8>(), 0..200)) {
        let mut end = 0;
        for item in items(&control) {
            prop_assert!(item.data.start >= end + HEADER);
            prop_assert!(item.data.start <= item.data.end);
            prop_assert!(item.data.end <= control.len());
            end = item.data.end;
        }
    }

    #[test]
    fn items_accepts_small_wrong_lengths(
        lengths in vec((0usize..60, 0usize..40), 0..5)
    ) {
        let lies = lengths.iter().map(|(length, data)| item(*length, 1, 2, &vec![7; *data]));
        let control: Vec<u8> = lies.flatten().collect();
        for item in items(&control) {
            prop_assert!(control.get(item.data).is_some());
        }
    }

    #[test]
    fn every_item_round_trips(
        sent in vec((any::<i32>(), any::<i32>(), vec(any::<u8>(), 0..40)), 0..6)
    ) {
        let outgoing: Vec<_> = sent.iter().map(|(level, kind, data)| {
            OutgoingControl::Data { level: *level, kind: *kind, data }
        }).collect();
        let control = encode_control(&outgoing);
        let found: Vec<_> = items(&control).map(|item| {
            (item.level, item.kind, control[item.data].to_vec())
        }).collect();
        prop_assert_eq!(found, sent);
    }
}
