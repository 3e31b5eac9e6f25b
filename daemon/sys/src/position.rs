//! How many bytes a TCP connection has sent and received (`TCP_INFO`, `SIOCOUTQ` and `SIOCINQ` of tcp(7)).

use std::io;
use std::os::fd::BorrowedFd;

use crate::ioctl::{self, IntRequest};
use crate::option;

/// The bytes of `struct tcp_info` up to the last field that is read.
const LENGTH: u32 = 136;
/// Where the fields begin (`linux/tcp.h`).
const STATE: usize = 0;
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
/// `TCP_LISTEN`.
const LISTENING: u8 = 10;
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

fn counts(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let unsupported = |_| io::Error::from_raw_os_error(libc::EOPNOTSUPP);
    let info = option::get_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, LENGTH);
    let info = info.map_err(unsupported)?;
    if info.get(STATE) == Some(&LISTENING) {
        return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
    }
    let field = |at: usize| {
        let bytes = info.get(at..).and_then(|rest| rest.first_chunk());
        // Kernels before 4.1 do not count bytes.
        let bytes = bytes.ok_or(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        bytes.map(|bytes| u64::from_ne_bytes(*bytes))
    };
    Ok((field(BYTES_ACKED)?, field(BYTES_RECEIVED)?))
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
