//! Messages between launcher, supervisor and program: `SOCK_SEQPACKET` pairs.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// What the supervisor reports to the launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The program exists. Carries the listener if there is one, and the file with the last number of a call.
    Started { pid: i32 },
    /// A signal has stopped the program.
    Stopped { signal: i32 },
    /// The program continues.
    Continued,
    /// The program has exited.
    Exited { code: i32 },
    /// A signal has ended the program.
    Killed { signal: i32 },
}

impl Report {
    fn encode(self) -> [u8; 5] {
        let (kind, value) = match self {
            Self::Started { pid } => (0, pid),
            Self::Stopped { signal } => (1, signal),
            Self::Continued => (2, 0),
            Self::Exited { code } => (3, code),
            Self::Killed { signal } => (4, signal),
        };
        let [a, b, c, d] = value.to_ne_bytes();
        [kind, a, b, c, d]
    }

    fn decode([kind, value @ ..]: [u8; 5]) -> Option<Self> {
        let value = i32::from_ne_bytes(value);
        match kind {
            0 => Some(Self::Started { pid: value }),
            1 => Some(Self::Stopped { signal: value }),
            2 => Some(Self::Continued),
            3 => Some(Self::Exited { code: value }),
            4 => Some(Self::Killed { signal: value }),
            _ => None,
        }
    }
}

/// An end of a pair.
#[derive(Debug)]
pub(crate) struct End(OwnedFd);

/// Two connected ends.
pub(crate) fn pair() -> io::Result<(End, End)> {
    let (one, other) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((End(one), End(other)))
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What [`End::receive`] returns.
#[derive(Debug)]
pub(crate) enum Received {
    Message {
        data: [u8; 5],
        descriptors: Vec<OwnedFd>,
    },
    /// The other end is closed.
    End,
    /// Nothing has arrived.
    Nothing,
}

/// What [`End::next_report`] returns.
#[derive(Debug)]
pub(crate) enum Next {
    Report(Report, Vec<OwnedFd>),
    /// None has arrived.
    Nothing,
    /// The supervisor has ended.
    End,
}

impl End {
    /// Sends a message of five bytes with descriptors.
    pub(crate) fn send(&self, data: [u8; 5], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        rustix::io::retry_on_intr(|| {
            sendmsg(&self.0, &[IoSlice::new(&data)], &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    pub(crate) fn report(&self, report: Report, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send(report.encode(), descriptors)
    }

    /// Receives a message, and waits for one if `waits`.
    pub(crate) fn receive(&self, waits: bool) -> io::Result<Received> {
        let mut data = [0; 5];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let wait = if waits { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let flags = RecvFlags::CMSG_CLOEXEC | wait;
        let received = rustix::io::retry_on_intr(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(&mut data)], &mut control, flags)
        });
        let bytes = match received {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        if bytes == 0 {
            return Ok(Received::End);
        }
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        Ok(Received::Message { data, descriptors })
    }

    /// Receives a report with its descriptors, without waiting.
    pub(crate) fn next_report(&self) -> io::Result<Next> {
        Ok(match self.receive(false)? {
            Received::Message { data, descriptors } => match Report::decode(data) {
                Some(report) => Next::Report(report, descriptors),
                None => Next::End,
            },
            Received::Nothing => Next::Nothing,
            Received::End => Next::End,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_in_order_with_their_descriptors() {
        let (one, other) = pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let reports = [
            Report::Started { pid: 4711 },
            Report::Stopped { signal: 20 },
            Report::Continued,
            Report::Exited { code: 255 },
            Report::Killed { signal: 9 },
        ];
        for (index, report) in reports.into_iter().enumerate() {
            let descriptors = vec![null.as_fd(); index % 3];
            one.report(report, &descriptors).unwrap();
        }
        for (index, report) in reports.into_iter().enumerate() {
            let Next::Report(found, descriptors) = other.next_report().unwrap() else {
                panic!("no report");
            };
            assert_eq!((found, descriptors.len()), (report, index % 3));
        }
        assert!(matches!(other.next_report().unwrap(), Next::Nothing));
        drop(one);
        assert!(matches!(other.next_report().unwrap(), Next::End));
    }
}
