//! How many bytes a TCP connection has sent and received (`TCP_INFO`, `SIOCOUTQ` and `SIOCINQ` of tcp(7)).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::call::{check, socklen};
use crate::control::ControlMessage;
use crate::ioctl::{self, IntRequest};
use crate::message::receive_message;
use crate::option;

/// The bytes of `struct tcp_info` up to the last field that is read.
const LENGTH: u32 = 136;
/// Where the fields begin (`linux/tcp.h`).
const STATE: usize = 0;
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
/// `TCP_LISTEN`.
const LISTENING: u8 = 10;
/// Room for ancillary data, among which are times of arrival.
const CONTROL: usize = 512;
/// Attempts to read numbers that belong together, while the connection transfers data.
const ATTEMPTS: usize = 1000;

/// Bytes that were passed to the kernel for sending, and bytes that were taken from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub sent: u64,
    pub received: u64,
}

/// The position of a TCP connection. The kernel counts the `SYN` of the connecting side and each `FIN` as one byte: only
/// the difference of two positions is a number of bytes. `EOPNOTSUPP` for another socket, `ENOTCONN` for one that
/// listens, `WouldBlock` if the numbers change too fast.
pub fn of_tcp(fd: BorrowedFd<'_>) -> io::Result<Position> {
    for _ in 0..ATTEMPTS {
        let before = counts(fd)?;
        let unacknowledged = queued(fd, IntRequest::Siocoutq)?;
        let unread = queued(fd, IntRequest::Fionread)?;
        // An acknowledgment or data that came meanwhile would count twice, or not at all.
        if counts(fd)? == before {
            let (acknowledged, arrived) = before;
            return Ok(Position {
                sent: acknowledged.saturating_add(unacknowledged),
                received: arrived.saturating_sub(unread),
            });
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// States of `net/tcp_states.h` in which a `FIN` was received.
const TIME_WAIT: u8 = 6;
const CLOSED: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

/// How many bytes of data receivers have taken from a TCP connection since it began, and how many wait. Errors as those
/// of [`of_tcp`].
pub fn taken(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    for _ in 0..ATTEMPTS {
        let before = info(fd)?;
        // Without the FIN.
        let unread = queued(fd, IntRequest::Fionread)?;
        let fin = u64::from(fin_is_counted(fd, before.0, unread)?);
        if info(fd)? == before && queued(fd, IntRequest::Fionread)? == unread {
            return Ok((before.2.saturating_sub(unread).saturating_sub(fin), unread));
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Whether the count of received bytes contains a `FIN`. The state of a connection that is over does not show it: a reset
/// can follow a `FIN`, and its error is gone when a call has reported it.
fn fin_is_counted(fd: BorrowedFd<'_>, state: u8, unread: u64) -> io::Result<bool> {
    match state {
        TIME_WAIT | CLOSE_WAIT | LAST_ACK | CLOSING => Ok(true),
        CLOSED if unread == 0 => ends_with_fin(fd),
        CLOSED => Ok(queued_with_fin(fd)? > unread),
        _ => Ok(false),
    }
}

/// Whether a `FIN` ends the stream of a connection without unread data. Unlike a receive, `TCP_ZEROCOPY_RECEIVE` does not
/// take the error of a reset: `tcp_zerocopy_receive` of `net/ipv4/tcp.c` fails with `EIO` at a `FIN`.
fn ends_with_fin(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // `struct tcp_zerocopy_receive` of `linux/tcp.h` without `err`: reading the error takes it.
    let mut value = [0_u32; 5];
    let mut length = socklen(size_of_val(&value));
    let start = value.as_mut_ptr().cast();
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_ZEROCOPY_RECEIVE);
    // SAFETY: `start` points to `length` initialised, writable bytes of `value`, and `length` is an initialised integer;
    // both live for the call. The addresses in `value` are null and their lengths 0: the kernel maps and copies nothing.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, start, &raw mut length) };
    match check(result) {
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(true),
        result => result.map(|_zero| false),
    }
}

/// How many bytes wait, with a `FIN` (`TCP_INQ`; `tcp_inq_hint` of `net/ipv4/tcp.c`). It is for connections with
/// unread data: a receive would otherwise take the error of a reset.
fn queued_with_fin(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // TCP has it since Linux 6.9. A peek begins there.
    let (level, name) = (libc::SOL_SOCKET, libc::SO_PEEK_OFF);
    let offset = option::get_int(fd, level, name).ok().filter(|offset| *offset >= 0);
    let reported = option::get_int(fd, libc::IPPROTO_TCP, libc::TCP_INQ)?;
    let set_offset = |value| offset.map_or(Ok(()), |_| option::set_int(fd, level, name, value));
    let set_reported = |value| option::set_int(fd, libc::IPPROTO_TCP, libc::TCP_INQ, value);
    set_offset(-1)?;
    let received = set_reported(1)
        .and_then(|()| receive_message(fd, 1, CONTROL, libc::MSG_PEEK | libc::MSG_DONTWAIT));
    set_reported(reported)?;
    set_offset(offset.unwrap_or(-1))?;
    let number = received?.control.into_iter().find_map(|message| match message {
        ControlMessage::Data { level: libc::IPPROTO_TCP, kind: libc::TCP_CM_INQ, data } => {
            data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
        }
        ControlMessage::Data { .. } | ControlMessage::Descriptors { .. } => None,
    });
    let number = number.ok_or(io::Error::from_raw_os_error(libc::EOPNOTSUPP))?;
    Ok(u64::try_from(number).unwrap_or_default())
}

fn counts(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    info(fd).map(|(_, acknowledged, arrived)| (acknowledged, arrived))
}

/// The state, the acknowledged and the received bytes.
fn info(fd: BorrowedFd<'_>) -> io::Result<(u8, u64, u64)> {
    let unsupported = |_| io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    let info = option::get_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, LENGTH);
    let info = info.map_err(unsupported)?;
    let state = info.get(STATE).copied().unwrap_or_default();
    if state == LISTENING {
        return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
    }
    let field = |at: usize| {
        let bytes = info.get(at..).and_then(|rest| rest.first_chunk());
        // Kernels before 4.1 do not count bytes.
        let bytes = bytes.ok_or(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        bytes.map(|bytes| u64::from_ne_bytes(*bytes))
    };
    Ok((state, field(BYTES_ACKED)?, field(BYTES_RECEIVED)?))
}

fn queued(fd: BorrowedFd<'_>, request: IntRequest) -> io::Result<u64> {
    Ok(u64::try_from(ioctl::get_int(fd, request)?).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::message::discard;
    use crate::poll::poll_now;

    #[test]
    fn positions_count_what_was_passed_to_the_kernel_and_taken_from_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let positions = |client: &TcpStream, server: &TcpStream| {
            (of_tcp(client.as_fd()).unwrap(), of_tcp(server.as_fd()).unwrap())
        };
        let (of_client, of_server) = positions(&client, &server);
        client.write_all(&[7; 1000]).unwrap();
        assert_eq!(of_tcp(client.as_fd()).unwrap().sent - of_client.sent, 1000);
        server.read_exact(&mut [0; 300]).unwrap();
        assert_eq!(of_tcp(server.as_fd()).unwrap().received - of_server.received, 300);
        server.peek(&mut [0; 10]).unwrap();
        let (_, after) = positions(&client, &server);
        assert_eq!((after.sent, after.received), (of_server.sent, of_server.received + 300));
        // More than the buffers hold: some of it waits in the kernel, and counts as sent.
        client.set_nonblocking(true).unwrap();
        let mut sent = 1000;
        while let Ok(written) = client.write(&[7; 8192]) {
            sent += written as u64;
        }
        assert_eq!(of_tcp(client.as_fd()).unwrap().sent - of_client.sent, sent);
    }

    #[test]
    fn peeked_data_is_not_taken_and_discarded_data_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 1000]).unwrap();
        let mut data = [0; 300];
        server.read_exact(&mut data).unwrap();
        while server.peek(&mut [0; 1000]).unwrap() < 700 {}
        assert_eq!(taken(server.as_fd()).unwrap(), (300, 700));
        assert_eq!(discard(server.as_fd(), 200).unwrap(), 200);
        assert_eq!(taken(server.as_fd()).unwrap(), (500, 500));
        // The end of the stream is not data, whichever side closes first.
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut events = [(server.as_fd(), libc::POLLRDHUP)];
        wait_for(&mut events);
        assert_eq!(taken(server.as_fd()).unwrap(), (500, 500));
        server.write_all(&[9; 10]).unwrap();
        server.shutdown(std::net::Shutdown::Write).unwrap();
        let mut events = [(client.as_fd(), libc::POLLRDHUP)];
        wait_for(&mut events);
        assert_eq!(taken(client.as_fd()).unwrap(), (0, 10));
        assert_eq!(discard(server.as_fd(), 1000).unwrap(), 500);
        assert_eq!(server.read(&mut data).unwrap(), 0);
        assert_eq!(taken(server.as_fd()).unwrap(), (1000, 0));
    }

    #[test]
    fn a_reset_connection_has_no_end_in_its_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(&[1; 4]).unwrap();
        client.write_all(&[7; 100]).unwrap();
        server.read_exact(&mut [0; 30]).unwrap();
        // What it has not received makes its close a reset.
        drop(client);
        wait_for(&mut [(server.as_fd(), libc::POLLHUP)]);
        assert_eq!(taken(server.as_fd()).unwrap(), (30, 70));
    }

    /// The end of a connection, with this number of unread bytes, and whether a call has reported the error of its reset.
    fn ended(unread: usize, has_fin: bool, is_reset: bool, is_reported: bool) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&vec![7; 30 + unread]).unwrap();
        server.read_exact(&mut [0; 30]).unwrap();
        if has_fin {
            client.shutdown(std::net::Shutdown::Write).unwrap();
            wait_for(&mut [(server.as_fd(), libc::POLLRDHUP)]);
        }
        if is_reset {
            let linger = Some(std::time::Duration::ZERO);
            socket2::SockRef::from(&client).set_linger(linger).unwrap();
        } else {
            server.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        drop(client);
        wait_for(&mut [(server.as_fd(), libc::POLLHUP)]);
        while info(server.as_fd()).unwrap().0 != CLOSED {
            std::thread::yield_now();
        }
        if is_reported {
            assert!(server.take_error().unwrap().is_some());
        }
        server
    }

    #[test]
    fn fin_is_known_after_the_end_of_a_connection() {
        for unread in [0, 70, 5000, 60_000] {
            for (has_fin, is_reset, is_reported) in [
                (false, true, false),
                (false, true, true),
                (true, true, false),
                (true, true, true),
                (true, false, false),
            ] {
                let mut server = ended(unread, has_fin, is_reset, is_reported);
                let case = format!("{unread} {has_fin} {is_reset} {is_reported}");
                let expected = (30, unread as u64);
                assert_eq!(taken(server.as_fd()).unwrap(), expected, "{case}");
                // The error is still there, and the data.
                let has_error = server.take_error().unwrap().is_some();
                assert_eq!(has_error, is_reset && !is_reported, "{case}");
                assert_eq!(taken(server.as_fd()).unwrap(), expected, "{case}");
                let mut data = Vec::new();
                server.read_to_end(&mut data).unwrap();
                assert_eq!(data.len(), unread, "{case}");
                assert_eq!(taken(server.as_fd()).unwrap(), (30 + unread as u64, 0), "{case}");
            }
        }
    }

    #[test]
    fn options_of_peeking_stay_as_they_are() {
        let server = ended(70, true, true, true);
        let fd = server.as_fd();
        option::set_int(fd, libc::IPPROTO_TCP, libc::TCP_INQ, 1).unwrap();
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEEK_OFF);
        let has_offset = option::set_int(fd, level, name, 50).is_ok();
        assert_eq!(taken(fd).unwrap(), (30, 70));
        assert_eq!(option::get_int(fd, libc::IPPROTO_TCP, libc::TCP_INQ).unwrap(), 1);
        if has_offset {
            assert_eq!(option::get_int(fd, level, name).unwrap(), 50);
        }
    }

    fn wait_for(events: &mut [(BorrowedFd<'_>, i16)]) {
        loop {
            let ready = poll_now(events).unwrap();
            if ready[0] & events[0].1 != 0 {
                return;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn other_sockets_have_no_position() {
        let errno = |result: io::Result<Position>| result.unwrap_err().raw_os_error();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (unix, _other) = UnixStream::pair().unwrap();
        assert_eq!(errno(of_tcp(udp.as_fd())), Some(libc::EOPNOTSUPP));
        assert_eq!(errno(of_tcp(unix.as_fd())), Some(libc::EOPNOTSUPP));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(errno(of_tcp(listener.as_fd())), Some(libc::ENOTCONN));
    }
}
