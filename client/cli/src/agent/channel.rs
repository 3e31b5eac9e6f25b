//! Moves data between a channel of the remote broker and the agent's end of a pair.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use sockbroker_proto::channel::{ChannelFrame, FRAMES, read_frame, write_data_head, write_frame};
use sockbroker_sys::poll;
use socket2::SockRef;

/// The bytes of one read.
const CHUNK: usize = 64 << 10;
/// The longest head of the response that begins a channel.
const HEAD_BYTES_MAX: usize = 8192;

/// A channel that a client has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Whether the client moves frames, and not plain bytes.
    pub(super) frames: bool,
    /// Whether the handle is closed when the last copy of the client's descriptor is.
    pub(super) close: bool,
}

/// The agent's end of a connection to a client: a Unix socket, or a TCP socket of this machine.
pub(super) trait LocalEnd: AsFd + Sync {
    fn shut_down(&self, how: Shutdown) -> io::Result<()>;

    /// Prepares the close after the peer of the remote socket has reset the connection.
    fn reset(&self) -> io::Result<()>;
}

impl LocalEnd for UnixStream {
    fn shut_down(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }

    /// A Unix socket cannot carry an error: both directions end.
    fn reset(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Both)
    }
}

impl LocalEnd for TcpStream {
    fn shut_down(&self, how: Shutdown) -> io::Result<()> {
        self.shutdown(how)
    }

    /// The close resets this connection too.
    fn reset(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }
}

/// Begins a channel on a connection, and moves its data until the broker has ended it, which it does after it has sent
/// everything. The caller closes `own` after that. `early` was read from the client before, and is plain bytes.
pub(super) fn run<E: LocalEnd>(
    path: &str,
    wanted: Wanted,
    remote: &UnixStream,
    own: &E,
    early: &[u8],
) where
    for<'a> &'a E: Read + Write,
{
    let Ok((ended, ends)) = UnixStream::pair() else { return };
    let mut is_reset = false;
    if begin(path, remote).is_ok() {
        thread::scope(|scope| {
            scope.spawn(|| {
                if wanted.frames {
                    drop(io::copy(&mut &*own, &mut &*remote));
                } else {
                    drop(to_broker(own, remote, wanted.close, &ended, early));
                }
                // Of what the broker does not take any more, the client learns by `EPIPE`.
                drop(own.shut_down(Shutdown::Read));
                drop(remote.shutdown(Shutdown::Write));
            });
            let moved = skip_head(remote).and_then(|rest| to_client(rest, wanted, remote, own));
            if moved.is_err() {
                // The client does not read. The broker still sends what the client has written.
                drop(io::copy(&mut &*remote, &mut io::sink()));
            }
            is_reset = moved.is_ok_and(|how| how == Ending::Reset);
            // The thread above stops reading, and waiting for the client to close.
            drop(own.shut_down(if is_reset { Shutdown::Read } else { Shutdown::Both }));
            drop(ends);
        });
    }
    drop(if is_reset { own.reset() } else { own.shut_down(Shutdown::Both) });
}

/// How the broker has ended a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Closed,
    /// The peer of the remote socket has reset the connection, or the broker has ended without the end of the data.
    Reset,
}

/// Sends the request. The response is read later, so that the first data does not wait for it.
fn begin(path: &str, mut remote: &UnixStream) -> io::Result<()> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: {FRAMES}\r\n\r\n"
    );
    remote.write_all(request.as_bytes())
}

/// Reads the head of the response. Returns what follows it.
fn skip_head(mut remote: &UnixStream) -> io::Result<Vec<u8>> {
    const END: &[u8] = b"\r\n\r\n";
    let refused = || io::Error::new(io::ErrorKind::InvalidData, "the broker refused the channel");
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        if let Some(end) = head.windows(END.len()).position(|part| part == END) {
            let rest = head.split_off(end + END.len());
            return if head.starts_with(b"HTTP/1.1 101 ") { Ok(rest) } else { Err(refused()) };
        }
        let count = remote.read(&mut chunk)?;
        if count == 0 || head.len() > HEAD_BYTES_MAX {
            return Err(refused());
        }
        head.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

/// Sends what the client writes, its half-close, and its close. `ended` is hung up when the broker has ended the channel.
fn to_broker<E: LocalEnd>(
    own: &E,
    mut remote: &UnixStream,
    close: bool,
    ended: &UnixStream,
    early: &[u8],
) -> io::Result<()>
where
    for<'a> &'a E: Read,
{
    let mut reader = own;
    let mut chunk = vec![0; CHUNK];
    let mut frame = Vec::with_capacity(CHUNK + 4);
    if !early.is_empty() {
        write_data_head(&mut frame, early.len()).map_err(io::Error::other)?;
        frame.extend_from_slice(early);
        remote.write_all(&frame)?;
    }
    let is_closed = loop {
        let count = match reader.read(&mut chunk) {
            Ok(0) => break is_hung_up(own.as_fd())?,
            Ok(count) => count,
            // The client has closed without reading everything: an error, after what it has written.
            Err(_) => break true,
        };
        frame.clear();
        write_data_head(&mut frame, count).map_err(io::Error::other)?;
        frame.extend_from_slice(chunk.get(..count).unwrap_or_default());
        remote.write_all(&frame)?;
    };
    let mut send = |wanted| {
        let mut frame = Vec::new();
        write_frame(&mut frame, wanted).map_err(io::Error::other)?;
        remote.write_all(&frame)
    };
    if !is_closed {
        send(ChannelFrame::End)?;
        // Until the client closes, or both directions have ended.
        poll::poll_for(&[(own.as_fd(), 0), (ended.as_fd(), 0)], None)?;
    }
    if close { send(ChannelFrame::Close) } else { Ok(()) }
}

/// Whether the other end is closed, not only shut down.
fn is_hung_up(own: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(poll::poll_now(&[(own, 0)])?.first() != Some(&0))
}

/// Gives the client what the broker sends, until the broker ends the channel. `buffer` was read before. The error is that
/// of writing to the client, or of an invalid frame.
fn to_client<E: LocalEnd>(
    mut buffer: Vec<u8>,
    wanted: Wanted,
    mut remote: &UnixStream,
    own: &E,
) -> io::Result<Ending>
where
    for<'a> &'a E: Write,
{
    let mut writer = own;
    if wanted.frames {
        writer.write_all(&buffer)?;
        return io::copy(&mut remote, &mut writer).map(|_bytes| Ending::Closed);
    }
    let mut chunk = vec![0; CHUNK];
    let mut is_complete = false;
    loop {
        let mut done = 0;
        while let Some((frame, length)) =
            read_frame(buffer.get(done..).unwrap_or_default()).map_err(io::Error::other)?
        {
            done += length;
            match frame {
                ChannelFrame::Data(data) => writer.write_all(data)?,
                ChannelFrame::End => {
                    is_complete = true;
                    own.shut_down(Shutdown::Write)?;
                }
                ChannelFrame::Reset { .. } => return Ok(Ending::Reset),
                ChannelFrame::Urgent(_)
                | ChannelFrame::Datagram { .. }
                | ChannelFrame::Dropped(_)
                | ChannelFrame::Close => {}
            }
        }
        buffer.drain(..done);
        let count = remote.read(&mut chunk)?;
        if count == 0 {
            // The process that served it has ended, or the client has closed.
            return Ok(if is_complete { Ending::Closed } else { Ending::Reset });
        }
        buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How these frames and the end of the connection end a channel, and what the client gets.
    fn ending(frames: &[ChannelFrame<'_>]) -> (Ending, Vec<u8>) {
        let (mut broker, remote) = UnixStream::pair().unwrap();
        let (own, mut client) = UnixStream::pair().unwrap();
        let mut sent = Vec::new();
        for frame in frames {
            write_frame(&mut sent, *frame).unwrap();
        }
        broker.write_all(&sent).unwrap();
        drop(broker);
        let wanted = Wanted { frames: false, close: true };
        let how = to_client(Vec::new(), wanted, &remote, &own).unwrap();
        drop(own);
        let mut data = Vec::new();
        client.read_to_end(&mut data).unwrap();
        (how, data)
    }

    #[test]
    fn end_of_the_connection_alone_is_not_the_end_of_the_data() {
        let data = ChannelFrame::Data(b"data");
        assert_eq!(ending(&[data, ChannelFrame::End]), (Ending::Closed, b"data".to_vec()));
        assert_eq!(ending(&[data]), (Ending::Reset, b"data".to_vec()));
        let reset = ChannelFrame::Reset { errno: 104, reason: "reset" };
        assert_eq!(ending(&[data, reset]), (Ending::Reset, b"data".to_vec()));
    }
}
