//! What a capture that outlives its process notes, and how the next process continues it: no packet is captured twice, and
//! none is missing but those that the counts have.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use sockbroker_sys::journal::{Journal, State, WORDS};
use sockbroker_sys::ring::Position;

use super::count::Count;
use super::lot::Left;
use super::order::{Opened, Reason};
use super::output::{Output, Unsent};

/// The version of the facts and of the state that is written and read.
const FORMAT: u8 = 1;

/// What does not change about a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    capture: u64,
    opened: Opened,
}

/// What an earlier process has noted of a capture.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) opened: Opened,
    pub(super) socket: OwnedFd,
    pub(super) stream: OwnedFd,
    pub(super) journal: Journal,
    pub(super) position: Position,
    pub(super) unsent: Unsent,
    pub(super) count: Count,
    /// Why it ends, and whether its last block is written.
    pub(super) ending: Option<(Reason, bool)>,
}

/// A journal for a capture. Nothing is noted yet.
pub(super) fn journal(capture: u64, opened: &Opened) -> io::Result<Journal> {
    let facts = Facts { capture, opened: opened.clone() };
    let facts = postcard::to_stdvec(&facts).map_err(io::Error::other)?;
    Journal::create(&[&[FORMAT], &*facts].concat())
}

/// Notes how far a capture is, in one step.
pub(super) fn note(
    journal: &mut Journal,
    (position, output, count): (Position, &mut Output, &Count),
    ending: Option<(Reason, bool)>,
) -> io::Result<()> {
    let Position { next, left, offset } = position;
    let [before, gathered, sent, packets] = output.note(journal)?;
    let (reason, drained) = match ending {
        Some((reason, drained)) => {
            let place = Reason::ALL.iter().position(|known| *known == reason).unwrap_or_default();
            (place as u64 + 1, drained.into())
        }
        None => (0, 0),
    };
    let mut state: State = [0; WORDS];
    let words = [next.into(), left.into(), offset.into(), before, gathered, sent, packets];
    let words = words.into_iter().chain([reason, drained]).chain(count.words());
    state.iter_mut().zip(words).for_each(|(to, word)| *to = word);
    journal.note(&state)
}

impl Left {
    /// Reads what the earlier process has noted.
    pub(super) fn read(self) -> Result<Found, String> {
        let [socket, memory, stream] = self.parts;
        let text = |error: io::Error| error.to_string();
        let journal = Journal::open(memory).map_err(text)?;
        let facts = journal.facts().map_err(text)?;
        let opened = match facts.split_first() {
            Some((&FORMAT, facts)) => {
                let facts = postcard::from_bytes::<Facts>(facts);
                facts.map_err(|error| error.to_string())?.opened
            }
            Some((version, _)) => {
                return Err(format!(
                    "it has version {version}, and this broker reads version {FORMAT}"
                ));
            }
            None => return Err("it has no facts".to_owned()),
        };
        let [next, left, offset, before, gathered, sent, packets, reason, drained, count @ ..] =
            journal.state().map_err(text)?;
        let small = |word: u64| u32::try_from(word).map_err(|_error| "a number is too large");
        let size = |word: u64| usize::try_from(word).map_err(|_error| "a number is too large");
        let position = Position { next: small(next)?, left: small(left)?, offset: small(offset)? };
        let buffer = journal.pending(size(gathered)?).map_err(text)?;
        let packets = journal.pairs(size(packets)?).map_err(text)?;
        // What the kernel has sent, also if the earlier process did not live to see it.
        let sent = sent.saturating_add(journal.sent(sent).map_err(text)? as u64);
        let sent = sent.checked_sub(before).filter(|sent| *sent <= gathered);
        let sent = size(sent.ok_or("it has sent what it did not gather")?)?;
        let unsent = Unsent { before, buffer, packets, sent };
        let count = count.first_chunk().ok_or("it has no counts")?;
        let count = Count::resume(*count, &journal).map_err(text)?;
        let reason = size(reason)?.checked_sub(1).and_then(|place| Reason::ALL.get(place));
        let ending = reason.map(|reason| (*reason, drained != 0));
        Ok(Found { opened, socket, stream, journal, position, unsent, count, ending })
    }
}
