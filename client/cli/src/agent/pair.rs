//! Pairs of connected sockets of this machine: one end for the client, one for the agent.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use clap::ValueEnum;

/// What the descriptors of streams are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pair {
    /// An end of a pair of Unix sockets. It has exact close and half-close; a reset by the peer is the end of the stream.
    #[default]
    Unix,
    /// An end of a TCP connection on 127.0.0.1, for programs that set options of TCP. It has exact resets; the agent learns
    /// of a close after a half-close when it sends the next data.
    Tcp,
}

/// A TCP connection of this process with itself, on the loopback interface.
pub(super) fn tcp() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let clients = TcpStream::connect(listener.local_addr()?)?;
    let wanted = clients.local_addr()?;
    loop {
        // Another process can connect to the port too.
        let (own, peer) = listener.accept()?;
        if peer == wanted {
            own.set_nodelay(true)?;
            clients.set_nodelay(true)?;
            return Ok((own, clients));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn ends_of_a_tcp_pair_are_connected_with_each_other() {
        let (mut own, mut clients) = tcp().unwrap();
        assert_eq!(own.peer_addr().unwrap(), clients.local_addr().unwrap());
        own.write_all(b"there").unwrap();
        let mut received = [0; 5];
        clients.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"there");
    }
}
