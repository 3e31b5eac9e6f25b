//! Rings on the loopback of a network namespace.

use std::net::UdpSocket;
use std::thread;

use sockbroker_proto::address::Address;

use super::*;
use crate::address::RawAddress;
use crate::testing::{unless_lacking, wait};
use crate::{filter, interface, namespace, packet, socket};

const ETH_P_ALL: u16 = 3;
const MODES: [Mode; 2] = [Mode::Prompt, Mode::Bulk];

/// Runs a test on a thread in a new network namespace, in which the loopback is up.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        let entered = namespace::enter_network();
        if unless_lacking("a network namespace (CAP_SYS_ADMIN)", entered).is_some() {
            interface::bring_up("lo").unwrap();
            test();
        }
    });
    thread.join().unwrap();
}

fn address() -> RawAddress {
    let ifindex = interface::index_of("lo").unwrap();
    let (protocol, pkttype, hatype, addr) = (ETH_P_ALL, 0, 0, Vec::new());
    RawAddress::encode(&Address::Packet { ifindex, protocol, pkttype, hatype, addr })
}

/// A ring on the loopback. Each packet arrives once.
fn ring(mode: Mode, bytes: u64, longest: u32) -> Ring {
    let socket = socket::create(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0).unwrap();
    packet::ignore_outgoing(socket.as_fd(), true).unwrap();
    let geometry = Geometry::new(mode, bytes, longest).unwrap();
    prepare(socket.as_fd(), &geometry).unwrap();
    let ring = Ring::map(socket, &geometry).unwrap();
    socket::bind(ring.as_fd(), &address()).unwrap();
    ring
}

/// The next packet as its bytes, its length, and its tag.
fn next(ring: &mut Ring) -> (Vec<u8>, u32, Option<Tag>) {
    loop {
        if let Some(taken) = ring.take(|one| (one.data.to_vec(), one.length, one.tag)).unwrap() {
            return taken;
        }
        wait(ring.as_fd(), libc::POLLIN);
    }
}

/// Sends a datagram of this length to itself; its frame is 42 bytes longer.
fn send(length: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.send_to(&vec![7; length], socket.local_addr().unwrap()).unwrap();
}

#[test]
fn packets_arrive_in_order_with_their_facts_and_times() {
    in_namespace(|| {
        for mode in MODES {
            let mut ring = ring(mode, 1 << 20, 1500);
            assert!(ring.take(|_| ()).unwrap().is_none());
            let before = std::time::SystemTime::now();
            for length in 1..400 {
                send(length);
            }
            let lo = interface::index_of("lo").unwrap();
            for length in 1..400 {
                assert_eq!(next(&mut ring).0.len(), length + 42);
            }
            send(1);
            let check = |one: Packet<'_>| {
                let since = before.duration_since(std::time::UNIX_EPOCH).unwrap();
                assert!(u128::from(one.time) >= since.as_nanos());
                assert_eq!((one.interface, one.hardware, one.losing), (lo, 772, false));
                assert_eq!((one.length, one.kind, one.tag), (43, libc::PACKET_HOST, None));
            };
            while ring.take(check).unwrap().is_none() {
                wait(ring.as_fd(), libc::POLLIN);
            }
            let counted = statistics(ring.as_fd()).unwrap();
            assert_eq!(counted, Statistics { packets: 400, drops: 0 });
            assert_eq!(statistics(ring.as_fd()).unwrap(), Statistics::default());
        }
    });
}

#[test]
fn packets_that_are_larger_than_a_slot_arrive_whole() {
    in_namespace(|| {
        let mut ring = ring(Mode::Prompt, 1 << 20, 64);
        for length in [1, 60_000, 2, 9000, 3] {
            send(length);
        }
        for length in [1, 60_000, 2, 9000, 3] {
            let (data, wire, _) = next(&mut ring);
            assert_eq!((data.len(), wire as usize), (length + 42, length + 42));
            assert!(data[42..].iter().all(|byte| *byte == 7));
        }
    });
}

#[test]
fn a_full_ring_drops_and_counts() {
    in_namespace(|| {
        for mode in MODES {
            let mut ring = ring(mode, 256 << 10, 1500);
            for _ in 0..1000 {
                send(1000);
            }
            let (mut sent, mut taken) = (1000, 0);
            // Until the first packet after those that were dropped, which is marked.
            loop {
                if let Some(losing) = ring.take(|one| one.losing).unwrap() {
                    taken += 1;
                    if losing {
                        break;
                    }
                } else {
                    send(1000);
                    sent += 1;
                    wait(ring.as_fd(), libc::POLLIN);
                }
            }
            let counted = statistics(ring.as_fd()).unwrap();
            assert_eq!(counted.packets, sent);
            assert!(counted.drops > 0);
            while taken < sent - counted.drops {
                next(&mut ring);
                taken += 1;
            }
            send(1000);
            assert_eq!(next(&mut ring).1, 1042);
            assert_eq!(statistics(ring.as_fd()).unwrap(), Statistics { packets: 1, drops: 0 });
        }
    });
}

#[test]
fn a_tag_is_reported_apart_from_the_data() {
    in_namespace(|| {
        for mode in MODES {
            let mut ring = ring(mode, 1 << 20, 1500);
            let sender = socket::create(libc::AF_PACKET, libc::SOCK_RAW, 0).unwrap();
            socket::bind(sender.as_fd(), &address()).unwrap();
            let header = [&[0_u8; 12][..], &[0x81, 0, 0x60, 100, 0x88, 0xb5]].concat();
            let frame = [&header[..], &[9; 60]].concat();
            crate::message::send(sender.as_fd(), &frame, 0).unwrap();
            let (data, wire, tag) = next(&mut ring);
            assert_eq!(tag, Some(Tag { protocol: 0x8100, control: 0x6064 }));
            assert_eq!((data.len(), wire), (frame.len() - 4, 74));
            assert_eq!(data[12..14], [0x88, 0xb5]);
        }
    });
}

#[test]
fn a_filter_shortens_packets_and_keeps_their_length() {
    in_namespace(|| {
        for mode in MODES {
            let mut ring = ring(mode, 1 << 20, 1500);
            let keep = [6u16.to_ne_bytes().as_slice(), &[0, 0], &64u32.to_ne_bytes()].concat();
            filter::attach(ring.as_fd(), &keep).unwrap();
            send(500);
            let (data, wire, _) = next(&mut ring);
            assert_eq!((data.len(), wire), (64, 542));
        }
    });
}

#[test]
fn the_ring_of_another_geometry_is_refused() {
    in_namespace(|| {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        let socket = socket::create(libc::AF_PACKET, kind, 0).unwrap();
        let geometry = Geometry::new(Mode::Prompt, 1 << 20, 64).unwrap();
        prepare(socket.as_fd(), &geometry).unwrap();
        let other = Geometry::new(Mode::Prompt, 2 << 20, 64).unwrap();
        let error = Ring::map(socket, &other).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    });
}

/// The packets that a process reads which ends at this call, and those of the next process: by their lengths. It ends
/// before it notes its last packet, or after it, before it gives the memory back.
fn read_in_two_processes(mode: Mode, lengths: &[usize], ends_at: usize, notes: bool) -> Vec<usize> {
    let geometry = Geometry::new(mode, 1 << 20, 64).unwrap();
    let mut first = ring(mode, 1 << 20, 64);
    for length in lengths {
        send(*length);
    }
    // A block without packets comes first: what is noted then is where the next process begins.
    let mut seen: (Vec<usize>, Position) = (Vec::new(), Position::default());
    let mut calls = 0;
    let take = |seen: &mut (Vec<usize>, Position), packet: Packet<'_>| {
        calls += 1;
        assert!(notes || calls < ends_at, "the process ends");
        (packet.data.len(), calls == ends_at, seen.0.len())
    };
    let mut take = take;
    let note = |seen: &mut (Vec<usize>, Position), taken: Option<&(usize, bool, usize)>, at| {
        seen.1 = at;
        if let Some((length, ends, _)) = taken {
            seen.0.push(*length - 42);
            assert!(!ends, "the process ends");
        }
    };
    loop {
        let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            first.take_noted(&mut seen, &mut take, note).unwrap()
        }));
        match taken {
            Ok(Some(_)) => {}
            Ok(None) => wait(first.as_fd(), libc::POLLIN),
            Err(_ended) => break,
        }
    }
    let mut second = Ring::map(first.as_fd().try_clone_to_owned().unwrap(), &geometry).unwrap();
    second.resume(seen.1).unwrap();
    assert_eq!(second.position(), seen.1);
    let mut lengths_seen = seen.0;
    while lengths_seen.len() < lengths.len() {
        lengths_seen.push(next(&mut second).0.len() - 42);
    }
    // Nothing is left, also when the kernel comes to the memory that the first one had not given back.
    assert!(second.take(|_| ()).unwrap().is_none());
    lengths_seen
}

#[test]
fn another_process_continues_after_the_last_packet_that_was_noted() {
    std::panic::set_hook(Box::new(|info| {
        if !info.to_string().contains("the process ends") {
            eprintln!("{info}");
        }
    }));
    in_namespace(|| {
        let small: Vec<_> = (1..40).collect();
        let large = [1, 60_000, 61_000, 2, 9000, 3];
        for notes in [true, false] {
            for ends_at in [1, 2, 39] {
                for mode in MODES {
                    assert_eq!(read_in_two_processes(mode, &small, ends_at, notes), small);
                }
            }
            // Packets that do not fit into a slot, which the kernel queues apart.
            for ends_at in 1..=large.len() {
                let read = read_in_two_processes(Mode::Prompt, &large, ends_at, notes);
                assert_eq!(read, large, "{ends_at} {notes}");
            }
        }
    });
}

#[test]
fn positions_outside_of_the_ring_are_refused() {
    in_namespace(|| {
        for mode in MODES {
            let next = 1 << 20;
            assert!(ring(mode, 1 << 20, 64).resume(Position { next, left: 0, offset: 0 }).is_err());
        }
    });
}
