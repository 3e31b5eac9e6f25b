//! A process that ends after any system call leaves every handle in the lots, and none that was closed.

use std::collections::BTreeMap;

use super::*;

fn pipe() -> Held {
    Arc::new(io::pipe().unwrap().0)
}

fn key(handle: u64) -> Key {
    Key { session: 7, handle }
}

/// Lots of a new process over the same sockets.
fn successor(ends: &[[OwnedFd; 2]]) -> Lots {
    let lots = Lots::default();
    for [read, write] in ends {
        let (read, write) = (read.try_clone().unwrap(), write.try_clone().unwrap());
        lots.add(Lot::of_ends(write, read).unwrap());
    }
    lots.allow(u64::MAX);
    lots
}

fn ends(count: usize) -> Vec<[OwnedFd; 2]> {
    (0..count).map(|_| Lot::create().unwrap().into_ends()).collect()
}

/// The bodies that a new process finds.
fn bodies(ends: &[[OwnedFd; 2]]) -> BTreeMap<u64, String> {
    let recovered = successor(ends).recover().unwrap();
    let body = |found: Found| String::from_utf8(found.body).unwrap();
    recovered.found.into_iter().map(|(key, found)| (key.handle, body(found))).collect()
}

#[test]
fn successor_finds_what_is_parked_with_the_newest_state() {
    let ends = ends(2);
    let lots = successor(&ends);
    for handle in 1..=9 {
        lots.park(key(handle), b"first", Some(pipe())).unwrap();
    }
    lots.park(key(4), b"second", Some(pipe())).unwrap();
    for handle in [1, 6, 9] {
        lots.unpark(key(handle));
    }
    lots.park(key(0), b"session", None).unwrap();
    let found = bodies(&ends);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 2, 3, 4, 5, 7, 8]);
    assert_eq!((&*found[&4], &*found[&5], &*found[&0]), ("second", "first", "session"));
    lots.unpark_session(7);
    assert_eq!((bodies(&ends).len(), lots.messages()), (0, 0));
}

#[test]
fn successor_can_close_and_change_what_it_found() {
    let ends = ends(1);
    let lots = successor(&ends);
    for handle in 1..=5 {
        lots.park(key(handle), b"first", Some(pipe())).unwrap();
    }
    let next = successor(&ends);
    let mut recovered = next.recover().unwrap();
    let mut kept = HashMap::new();
    for handle in [1, 3, 5] {
        let found = recovered.found.remove(&key(handle)).unwrap();
        kept.insert(key(handle), found.descriptor.map(|fd| Arc::new(fd) as Held));
    }
    next.settle(kept);
    next.park(key(3), b"second", Some(pipe())).unwrap();
    next.unpark(key(1));
    let found = bodies(&ends);
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [(3, "second".to_owned()), (5, "first".to_owned())]
    );
}

/// Every prefix of the system calls of an operation, as a crash leaves the lots.
#[test]
fn crash_between_any_two_system_calls_loses_and_resurrects_nothing() {
    // Copies and drops of a rotation, by hand: park the copy of the head, or drop the head.
    for steps in 0..=6 {
        let ends = ends(1);
        let lots = successor(&ends);
        let held: Vec<_> = (1..=4).map(|_| pipe()).collect();
        for (handle, held) in (1..).zip(&held) {
            lots.park(key(handle), b"first", Some(held.clone())).unwrap();
        }
        let mut state = lots.state();
        let lot = &mut state.lots[0];
        for step in 0..steps {
            if step % 2 == 0 {
                let head = lot.queue.front().unwrap();
                head.send(&lot.lot).unwrap();
            } else {
                lot.lot.drop_head().unwrap();
                let head = lot.queue.pop_front().unwrap();
                lot.queue.push_back(head);
            }
        }
        drop(state);
        assert_eq!(bodies(&ends).len(), 4, "{steps}");
        // The next process removes the second copy.
        let next = successor(&ends);
        let recovered = next.recover().unwrap();
        let kept = recovered.found.into_iter();
        next.settle(
            kept.map(|(key, found)| (key, found.descriptor.map(|fd| Arc::new(fd) as Held)))
                .collect(),
        );
        next.unpark(key(1));
        assert_eq!(bodies(&ends).keys().copied().collect::<Vec<_>>(), [2, 3, 4], "{steps}");
    }
}

#[test]
fn update_that_was_cut_off_leaves_the_newer_state() {
    let ends = ends(1);
    let lots = successor(&ends);
    lots.park(key(1), b"first", Some(pipe())).unwrap();
    let message = Message::new(key(1), 99, b"second", Some(pipe()));
    message.send(&lots.state().lots[0].lot).unwrap();
    assert_eq!(bodies(&ends)[&1], "second");
}

#[test]
fn unreadable_and_newer_messages_are_dropped() {
    let ends = ends(1);
    let lots = successor(&ends);
    lots.park(key(1), b"first", Some(pipe())).unwrap();
    let newer = [&[LOT_FORMAT + 1][..], &[0; 80]].concat();
    for bytes in [&b"x"[..], &newer] {
        lots.state().lots[0].lot.park(bytes, &[ends[0][0].as_fd()]).unwrap();
    }
    let next = successor(&ends);
    let mut recovered = next.recover().unwrap();
    assert_eq!((recovered.found.len(), recovered.dropped.len()), (1, 2));
    let found = recovered.found.remove(&key(1)).unwrap();
    next.settle(HashMap::from([(key(1), found.descriptor.map(|fd| Arc::new(fd) as Held))]));
    next.unpark(key(1));
    assert!(successor(&ends).state().lots[0].lot.head().unwrap().is_none());
}

#[test]
fn handles_are_limited_and_given_back() {
    let ends = ends(1);
    let lots = successor(&ends);
    lots.allow(1);
    lots.park(key(1), b"first", None).unwrap();
    lots.park(key(1), b"again", None).unwrap();
    assert!(matches!(lots.park(key(2), b"first", None), Err(ParkError::Full)));
    lots.unpark(key(1));
    lots.park(key(2), b"first", None).unwrap();
    lots.allow(1000);
    let fits = (3..).take_while(|handle| lots.park(key(*handle), &[7; 1400], Some(pipe())).is_ok());
    assert_eq!(fits.count(), MESSAGES - 1);
}
