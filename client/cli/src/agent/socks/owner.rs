//! The user of a TCP connection of this machine. TCP has no `SO_PEERCRED`: the kernel's table of connections has the user
//! id of each socket.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddrV4;

/// The table of the IPv4 connections of this network namespace, `proc_net_tcp` in `proc_pid_net(5)`.
const TABLE: &str = "/proc/net/tcp";
/// `TCP_ESTABLISHED`. A socket in another state can be without a process, and then shows the user id 0.
const ESTABLISHED: &str = "01";

/// The user of the socket at the other end of a connection, from `peer` to `local`; `None` if it has none any more.
pub(super) fn of_connection(peer: SocketAddrV4, local: SocketAddrV4) -> io::Result<Option<u32>> {
    let (peer, local) = (encode(peer), encode(local));
    for line in BufReader::new(File::open(TABLE)?).lines() {
        if let Some(uid) = owner(&line?, &peer, &local) {
            return Ok(Some(uid));
        }
    }
    Ok(None)
}

/// An address in the form of the table: the four octets as a number of this machine.
fn encode(address: SocketAddrV4) -> String {
    let octets = u32::from_ne_bytes(address.ip().octets());
    format!("{octets:08X}:{:04X}", address.port())
}

/// The user of the socket in a line of the table, if it has these addresses and is connected.
fn owner(line: &str, local: &str, remote: &str) -> Option<u32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let matches = fields.next()? == local && fields.next()? == remote;
    // Queues, timer, retransmissions.
    (matches && fields.next()? == ESTABLISHED).then(|| fields.nth(3)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use sockbroker_sys::process::effective_uid;

    use super::*;

    const LINE: &str = "   3: 0100007F:9C4E 0100007F:0050 01 00000000:00000000 00:00000000 00000000  1000        0 8123 1 0000 20 4 30 10 -1";

    #[test]
    fn user_is_that_of_the_connected_socket_with_both_addresses() {
        let (local, remote) = ("0100007F:9C4E", "0100007F:0050");
        assert_eq!(owner(LINE, local, remote), Some(1000));
        assert_eq!(owner(LINE, remote, local), None);
        assert_eq!(owner(&LINE.replace(" 01 ", " 05 "), local, remote), None);
        assert_eq!(owner("  sl  local_address rem_address", local, remote), None);
        assert_eq!(owner("", local, remote), None);
    }

    #[test]
    fn own_connection_is_that_of_this_user() {
        let v4 = |address: io::Result<SocketAddr>| match address.unwrap() {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => unreachable!("the test uses IPv4"),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let served = listener.accept().unwrap().0;
        let ends = (v4(served.peer_addr()), v4(served.local_addr()));
        assert_eq!(of_connection(ends.0, ends.1).unwrap(), Some(effective_uid()));
        // Nobody owns what is closed.
        drop(client);
        assert_eq!(of_connection(ends.0, ends.1).unwrap(), None);
    }
}
