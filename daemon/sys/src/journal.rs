//! Memory in which a process notes what it has done, so that another one continues exactly there after its end, at whatever
//! instant that came.
//!
//! A state is noted in one step: it is written beside the one in force, and then a number selects it. What the kernel does
//! in a system call is noted by the kernel: it writes the result into this memory before the call returns, and a process
//! that is killed in a system call ends when that returns. Such a result has a number of the caller, by which the next
//! process finds out whether the state contains it.

use std::fs::File;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::call::{check, invalid, retry};
use crate::mapping::Mapping;
use crate::ring::Statistics;

/// The numbers of a state.
pub const WORDS: usize = 24;
/// A state.
pub type State = [u64; WORDS];
/// The most bytes of facts, which do not change.
pub const FACTS_MAX: usize = 128 << 10;
/// The most bytes that wait to be sent.
pub const PENDING_MAX: usize = 1 << 20;
/// The most pairs of numbers.
pub const PAIRS_MAX: usize = 16 << 10;

/// Where the parts are: the number of the last state, the counters that the kernel wrote, the number of that reading, the
/// number of a sending, its header (`struct mmsghdr`) with its length, and two states.
const SELECTED: usize = 0;
const COUNTED: usize = 8;
const READING: usize = 16;
const SENDING: usize = 24;
const HEADER: usize = 64;
const SENT: usize = HEADER + offset_of!(libc::mmsghdr, msg_len);
const STATES: usize = 256;
const STATE: usize = WORDS * size_of::<u64>();
/// Behind them: the length of the facts and the facts, the pairs, and what waits to be sent.
const FACTS_LENGTH: usize = 1024;
const FACTS: usize = 1032;
const PAIRS: usize = 132 << 10;
const PAIR: usize = 8;
const PENDING: usize = PAIRS + PAIRS_MAX * PAIR;
const LENGTH: usize = PENDING + PENDING_MAX;
const _: () = assert!(HEADER + size_of::<libc::mmsghdr>() <= STATES);
const _: () = assert!(STATES + 2 * STATE <= FACTS_LENGTH && FACTS + FACTS_MAX <= PAIRS);
/// Another process cannot change the length, which would end a reader by a signal.
const SEALS: SealFlag =
    SealFlag::F_SEAL_SEAL.union(SealFlag::F_SEAL_SHRINK).union(SealFlag::F_SEAL_GROW);

/// The memory of one stream. Pages that were not written take no memory.
#[derive(Debug)]
pub struct Journal {
    memory: OwnedFd,
    mapping: Mapping,
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the journal is malformed")
}

impl Journal {
    /// New memory with these facts.
    pub fn create(facts: &[u8]) -> io::Result<Self> {
        if facts.len() > FACTS_MAX {
            return Err(invalid("the facts are too long for a journal"));
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("capture", flags)?);
        file.set_len(LENGTH as u64)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SEALS))?;
        let mut journal = Self::map(file.into())?;
        journal.mapping.write(FACTS, facts);
        journal.number(FACTS_LENGTH)?.store(facts.len() as u64, Ordering::Release);
        Ok(journal)
    }

    /// The memory of a process that has ended. `InvalidData` if it is anything else.
    pub fn open(memory: OwnedFd) -> io::Result<Self> {
        let sealed = fcntl(&memory, FcntlArg::F_GET_SEALS).map_err(|_error| malformed())?;
        let file = File::from(memory);
        if !SealFlag::from_bits_retain(sealed).contains(SEALS)
            || file.metadata()?.len() != LENGTH as u64
        {
            return Err(malformed());
        }
        Self::map(file.into())
    }

    fn map(memory: OwnedFd) -> io::Result<Self> {
        let mapping = Mapping::new(memory.as_fd(), LENGTH)?;
        Ok(Self { memory, mapping })
    }

    fn number(&self, offset: usize) -> io::Result<&AtomicU64> {
        self.mapping.number(offset).ok_or_else(malformed)
    }

    /// The facts that it was made with.
    pub fn facts(&self) -> io::Result<Vec<u8>> {
        let length = self.number(FACTS_LENGTH)?.load(Ordering::Acquire);
        let length = usize::try_from(length).ok().filter(|length| *length <= FACTS_MAX);
        self.read(FACTS, length.ok_or_else(malformed)?)
    }

    fn read(&self, offset: usize, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let file = File::from(self.memory.try_clone()?);
        file.read_exact_at(&mut bytes, offset as u64)?;
        Ok(bytes)
    }

    fn state_offset(selected: u64) -> usize {
        STATES + if selected & 1 == 0 { 0 } else { STATE }
    }

    /// The state that was noted last.
    pub fn state(&self) -> io::Result<State> {
        let start = Self::state_offset(self.number(SELECTED)?.load(Ordering::Acquire));
        let mut state = [0; WORDS];
        for (at, word) in state.iter_mut().enumerate() {
            *word = self.number(start + at * size_of::<u64>())?.load(Ordering::Relaxed);
        }
        Ok(state)
    }

    /// Notes a state, in one step.
    pub fn note(&self, state: &State) -> io::Result<()> {
        let selected = self.number(SELECTED)?;
        let next = selected.load(Ordering::Relaxed).wrapping_add(1);
        let start = Self::state_offset(next);
        for (at, word) in state.iter().enumerate() {
            self.number(start + at * size_of::<u64>())?.store(*word, Ordering::Relaxed);
        }
        selected.store(next, Ordering::Release);
        Ok(())
    }

    /// Writes bytes that wait to be sent. A state that is noted afterwards makes them valid.
    pub fn write_pending(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= PENDING_MAX);
        if fits && self.mapping.write(PENDING + offset, bytes) { Ok(()) } else { Err(malformed()) }
    }

    /// The bytes that wait to be sent.
    pub fn pending(&self, length: usize) -> io::Result<Vec<u8>> {
        if length > PENDING_MAX {
            return Err(malformed());
        }
        self.read(PENDING, length)
    }

    /// Writes a pair of numbers. A state that is noted afterwards makes it valid.
    pub fn write_pair(&mut self, index: usize, pair: [u32; 2]) -> io::Result<()> {
        let number = u64::from(pair[0]) << 32 | u64::from(pair[1]);
        let place = if index < PAIRS_MAX { Some(PAIRS + index * PAIR) } else { None };
        self.number(place.ok_or_else(malformed)?)?.store(number, Ordering::Relaxed);
        Ok(())
    }

    /// The first pairs of numbers.
    pub fn pairs(&self, count: usize) -> io::Result<Vec<[u32; 2]>> {
        if count > PAIRS_MAX {
            return Err(malformed());
        }
        let pair = |index| {
            let number = self.number(PAIRS + index * PAIR)?.load(Ordering::Relaxed);
            let low = u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
            Ok([u32::try_from(number >> 32).unwrap_or_default(), low])
        };
        (0..count).map(pair).collect()
    }

    /// Sends bytes on a stream without waiting. [`Self::sent`] returns the number of those that were sent, also to the
    /// next process. `number` MUST be another one than that of the last sending that sent something.
    pub fn send(&mut self, stream: BorrowedFd<'_>, bytes: &[u8], number: u64) -> io::Result<usize> {
        let mut part =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let header = libc::mmsghdr {
            msg_hdr: libc::msghdr {
                msg_name: std::ptr::null_mut(),
                msg_namelen: 0,
                msg_iov: &raw mut part,
                msg_iovlen: 1,
                msg_control: std::ptr::null_mut(),
                msg_controllen: 0,
                msg_flags: 0,
            },
            msg_len: 0,
        };
        let place = self.mapping.at(HEADER, size_of::<libc::mmsghdr>()).ok_or_else(malformed)?;
        let place = place.cast::<libc::mmsghdr>();
        // SAFETY: the place is within the mapping and aligned (the mapping begins with a page), and no reference points
        // to it.
        unsafe { place.write(header) };
        // After the length is 0: if the process ends in between, the state has all that was sent.
        self.number(SENDING)?.store(number, Ordering::Release);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        retry(|| {
            // SAFETY: the place has an initialised header, whose only pointer is to `part`, and that points to `bytes`;
            // all outlive the call. The kernel reads them, and writes only `msg_len`.
            check(unsafe { libc::sendmmsg(stream.as_raw_fd(), place.as_ptr(), 1, flags) })
        })?;
        Ok(self.sent_length()?.load(Ordering::Acquire) as usize)
    }

    fn sent_length(&self) -> io::Result<&AtomicU32> {
        self.mapping.status(SENT).ok_or_else(malformed)
    }

    /// The bytes of the sending with this number that were sent; 0 if there was none.
    pub fn sent(&self, number: u64) -> io::Result<usize> {
        let same = self.number(SENDING)?.load(Ordering::Acquire) == number;
        Ok(if same { self.sent_length()?.load(Ordering::Acquire) as usize } else { 0 })
    }

    /// Reads the statistics of a packet socket, which begin again at zero. `number` MUST be another one than that of the
    /// last reading, and the state that is noted next has to contain it.
    pub fn statistics(&mut self, socket: BorrowedFd<'_>, number: u64) -> io::Result<Statistics> {
        self.number(COUNTED)?.store(0, Ordering::Release);
        self.number(READING)?.store(number, Ordering::Release);
        let place = self.mapping.at(COUNTED, 8).ok_or_else(malformed)?;
        let mut length: libc::socklen_t = 8;
        let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
        // SAFETY: the place has room for `length` bytes, and the kernel writes at most as many, and the length.
        check(unsafe {
            let (fd, value) = (socket.as_raw_fd(), place.as_ptr().cast());
            libc::getsockopt(fd, level, option, value, &raw mut length)
        })?;
        self.counted()
    }

    fn counted(&self) -> io::Result<Statistics> {
        let word = |offset| self.mapping.status(offset).ok_or_else(malformed);
        let packets = word(COUNTED)?.load(Ordering::Acquire);
        Ok(Statistics { packets, drops: word(COUNTED + 4)?.load(Ordering::Acquire) })
    }

    /// What the reading with this number has read; nothing if there was none.
    pub fn read_statistics(&self, number: u64) -> io::Result<Statistics> {
        let same = self.number(READING)?.load(Ordering::Acquire) == number;
        if same { self.counted() } else { Ok(Statistics::default()) }
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn again(journal: &Journal) -> Journal {
        Journal::open(journal.memory.try_clone().unwrap()).unwrap()
    }

    #[test]
    fn next_process_finds_what_was_noted_last() {
        let mut journal = Journal::create(b"facts").unwrap();
        assert_eq!(again(&journal).state().unwrap(), [0; WORDS]);
        for number in 1..4 {
            journal.note(&[number; WORDS]).unwrap();
            assert_eq!(again(&journal).state().unwrap(), [number; WORDS]);
        }
        journal.write_pending(3, b"pending").unwrap();
        journal.write_pair(PAIRS_MAX - 1, [7, 9]).unwrap();
        let next = again(&journal);
        assert_eq!(next.facts().unwrap(), b"facts");
        assert_eq!(next.pending(10).unwrap(), b"\0\0\0pending");
        assert_eq!(next.pairs(PAIRS_MAX).unwrap().last(), Some(&[7, 9]));
    }

    #[test]
    fn sent_bytes_are_known_to_the_next_process_without_a_note() {
        let mut journal = Journal::create(b"").unwrap();
        let (own, mut other) = UnixStream::pair().unwrap();
        assert_eq!(journal.sent(0).unwrap(), 0);
        assert_eq!(journal.send(own.as_fd(), b"hello", 5).unwrap(), 5);
        assert_eq!((again(&journal).sent(5).unwrap(), again(&journal).sent(10).unwrap()), (5, 0));
        let mut bytes = [0; 5];
        other.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        // The stream is full: nothing is sent, and a part before it.
        let large = vec![7; PENDING_MAX];
        let part = journal.send(own.as_fd(), &large, 10).unwrap();
        assert!((1..PENDING_MAX).contains(&part), "{part}");
        assert_eq!(again(&journal).sent(10).unwrap(), part);
        let full = journal.send(own.as_fd(), &large, 11).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(again(&journal).sent(11).unwrap(), 0);
    }

    #[test]
    fn limits_and_other_files_are_refused() {
        assert!(Journal::create(&vec![0; FACTS_MAX + 1]).is_err());
        let mut journal = Journal::create(&vec![1; FACTS_MAX]).unwrap();
        assert_eq!(journal.facts().unwrap(), vec![1; FACTS_MAX]);
        assert!(journal.write_pending(PENDING_MAX - 1, b"ab").is_err());
        assert!(journal.write_pending(PENDING_MAX - 1, b"a").is_ok());
        assert!(journal.write_pair(PAIRS_MAX, [0, 0]).is_err());
        assert!(journal.pending(PENDING_MAX + 1).is_err() && journal.pairs(PAIRS_MAX + 1).is_err());
        let (pipe, _end) = io::pipe().unwrap();
        assert!(Journal::open(pipe.into()).is_err());
        let open = memfd_create("open", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING);
        assert!(Journal::open(open.unwrap()).is_err());
    }
}
