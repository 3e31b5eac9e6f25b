//! Where the captures of a process lie that outlive it: the socket of each, its journal and its end of the stream.
//!
//! No worker has an end of this lot, so that it never has a packet socket.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sockbroker_sys::lot::{Lot, Parked};

/// The version of the messages that is written, and the newest that is read.
const FORMAT: u8 = 1;

/// The socket, the journal and the stream of a capture.
pub(super) type Parts = [OwnedFd; 3];

/// A lot, and copies of what is in it: a message at its head is copied to its end to reach one behind it.
#[derive(Debug)]
pub struct CaptureLot(Mutex<State>);

#[derive(Debug)]
struct State {
    lot: Lot,
    queue: VecDeque<(u64, Parts)>,
}

/// A capture that an earlier process has left.
#[derive(Debug)]
pub struct Left {
    pub capture: u64,
    pub(super) parts: Parts,
}

fn label(capture: u64) -> Vec<u8> {
    [&[FORMAT][..], &capture.to_le_bytes()].concat()
}

/// The number of the capture of a message, or why it cannot be read.
fn number(bytes: &[u8]) -> Result<u64, String> {
    match bytes {
        [FORMAT, number @ ..] => {
            let number = number.try_into().map_err(|_length| "its length is wrong")?;
            Ok(u64::from_le_bytes(number))
        }
        [version, ..] => {
            Err(format!("it has version {version}, and this broker reads version {FORMAT}"))
        }
        [] => Err("it is empty".to_owned()),
    }
}

fn park(lot: &Lot, capture: u64, parts: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    lot.park(&label(capture), &parts)
}

fn copies(parts: [BorrowedFd<'_>; 3]) -> io::Result<Parts> {
    let [socket, journal, stream] = parts;
    Ok([socket.try_clone_to_owned()?, journal.try_clone_to_owned()?, stream.try_clone_to_owned()?])
}

fn borrowed(parts: &Parts) -> [BorrowedFd<'_>; 3] {
    let [socket, journal, stream] = parts;
    [socket.as_fd(), journal.as_fd(), stream.as_fd()]
}

impl CaptureLot {
    /// The lot of this process, with what an earlier one has left there. What cannot be read is discarded.
    pub fn recover(lot: Lot) -> io::Result<(Self, Vec<Left>)> {
        let messages = lot.messages()?;
        let before = messages.len();
        let (mut left, mut queue, mut known) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        for Parked { bytes, descriptors, lost_descriptors } in messages {
            if lost_descriptors {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            match (number(&bytes), Parts::try_from(descriptors)) {
                // A process that ended while it copied a message has left it twice.
                (Ok(capture), Ok(parts)) if known.insert(capture) => {
                    queue.push_back((capture, copies(borrowed(&parts))?));
                    left.push(Left { capture, parts });
                }
                (Ok(_), Ok(_)) => {}
                (Err(reason), _) => tracing::warn!(reason, "discarded a capture"),
                (Ok(capture), Err(_)) => tracing::warn!(capture, "discarded a part of a capture"),
            }
        }
        // First all copies, so that at no instant there is none.
        for (capture, parts) in &queue {
            park(&lot, *capture, borrowed(parts))?;
        }
        for _ in 0..before {
            lot.drop_head()?;
        }
        Ok((Self(Mutex::new(State { lot, queue })), left))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Lot and copies change together, and nothing between panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a capture.
    pub(super) fn park(&self, capture: u64, parts: [BorrowedFd<'_>; 3]) -> io::Result<()> {
        let copies = copies(parts)?;
        let mut state = self.state();
        park(&state.lot, capture, borrowed(&copies))?;
        state.queue.push_back((capture, copies));
        Ok(())
    }

    /// Drops a capture, if it is here. The caller holds its socket.
    pub(super) fn unpark(&self, capture: u64) {
        let mut guard = self.state();
        let State { lot, queue } = &mut *guard;
        let Some(position) = queue.iter().position(|(known, _)| *known == capture) else { return };
        for place in 0..=position {
            let Some((head, parts)) = queue.pop_front() else { return };
            let copied = if place < position { park(lot, head, borrowed(&parts)) } else { Ok(()) };
            if let Err(error) = lot.drop_head() {
                tracing::error!(%error, "the lot of captures is damaged");
                return;
            }
            // Where there was no room for the copy, there is now.
            let copied = copied.or_else(|_full| park(lot, head, borrowed(&parts)));
            match copied {
                Ok(()) if place < position => queue.push_back((head, parts)),
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(capture = head, %error, "a capture no longer outlives this process");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        let (reader, writer) = io::pipe().unwrap();
        let writer = OwnedFd::from(writer);
        [reader.into(), writer.try_clone().unwrap(), writer]
    }

    fn again(lot: &CaptureLot) -> (CaptureLot, Vec<u64>) {
        let ends = lot.state().lot.ends().map(|end| end.try_clone_to_owned().unwrap());
        let [first, second] = ends;
        let (lot, left) = CaptureLot::recover(Lot::of_ends(first, second).unwrap()).unwrap();
        (lot, left.iter().map(|left| left.capture).collect())
    }

    #[test]
    fn next_process_finds_each_capture_once_until_it_is_dropped() {
        let (lot, left) = CaptureLot::recover(Lot::create().unwrap()).unwrap();
        assert!(left.is_empty());
        for capture in 1..=4 {
            lot.park(capture, borrowed(&parts())).unwrap();
        }
        lot.unpark(3);
        lot.unpark(9);
        let (lot, left) = again(&lot);
        assert_eq!(left, [4, 1, 2]);
        // As if the process had ended between a copy and the end of the original.
        park(&lot.state().lot, 1, borrowed(&parts())).unwrap();
        let (lot, left) = again(&lot);
        assert_eq!(left, [4, 1, 2]);
        assert_eq!(lot.state().lot.messages().unwrap().len(), 3);
        for capture in [1, 2, 4] {
            lot.unpark(capture);
        }
        assert!(again(&lot).1.is_empty());
    }

    #[test]
    fn messages_of_another_version_and_parts_are_discarded() {
        let lot = Lot::create().unwrap();
        let all = parts();
        lot.park(&[2; 9], &borrowed(&all)).unwrap();
        lot.park(&label(5), &borrowed(&all)[..2]).unwrap();
        lot.park(&label(6), &borrowed(&all)).unwrap();
        lot.park(&[1, 7], &borrowed(&all)).unwrap();
        let (lot, left) = CaptureLot::recover(lot).unwrap();
        assert_eq!(left.iter().map(|left| left.capture).collect::<Vec<_>>(), [6]);
        assert_eq!(lot.state().lot.messages().unwrap().len(), 1);
    }
}
