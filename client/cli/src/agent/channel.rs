//! Moves data between a channel of the remote broker and the agent's end of a pair.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread;

use sockbroker_proto::channel::{ChannelFrame, FRAMES, read_frame, write_data_head, write_frame};
use sockbroker_sys::poll;

use crate::agent::starting::Start;

/// The bytes of one read.
const CHUNK: usize = 64 << 10;
/// The longest head of the response that begins a channel.
const HEAD_BYTES_MAX: usize = 8192;

/// Moves plain bytes of the client in frames of the channel, until both ends are closed. With `close`, the handle is
/// closed when the last copy of the client's descriptor is.
pub(super) fn run(path: &str, remote: &UnixStream, own: &UnixStream, start: Start, close: bool) {
    if begin(path, remote).is_ok() {
        thread::scope(|scope| {
            scope.spawn(|| {
                // What the broker does not take any more, the client learns by the end of its stream.
                drop(to_broker(own, remote, close));
                drop(remote.shutdown(Shutdown::Write));
            });
            drop(to_client(remote, own, start));
            drop(own.shutdown(Shutdown::Write));
        });
    }
    drop(own.shutdown(Shutdown::Both));
}

/// Moves frames of the client unchanged.
pub(super) fn copy(path: &str, remote: &UnixStream, own: &UnixStream, start: Start) {
    if begin(path, remote).is_ok() {
        thread::scope(|scope| {
            scope.spawn(|| {
                drop(io::copy(&mut &*own, &mut &*remote));
                drop(remote.shutdown(Shutdown::Write));
            });
            // The head of the response is in front of the frames.
            let head = skip_head(remote);
            drop(start);
            drop(head.and_then(|rest| {
                (&*own).write_all(&rest)?;
                io::copy(&mut &*remote, &mut &*own)
            }));
            drop(own.shutdown(Shutdown::Both));
        });
    }
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

/// Sends what the client writes, its half-close, and its close.
fn to_broker(mut own: &UnixStream, mut remote: &UnixStream, close: bool) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut frame = Vec::with_capacity(CHUNK + 4);
    loop {
        let count = own.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        frame.clear();
        write_data_head(&mut frame, count).map_err(io::Error::other)?;
        frame.extend_from_slice(chunk.get(..count).unwrap_or_default());
        remote.write_all(&frame)?;
    }
    let mut send = |wanted| {
        let mut frame = Vec::new();
        write_frame(&mut frame, wanted).map_err(io::Error::other)?;
        remote.write_all(&frame)
    };
    let is_closed = poll::poll_now(&[(own.as_fd(), 0)])?.first() != Some(&0);
    if !is_closed {
        send(ChannelFrame::End)?;
        // Until the client closes, or both directions have ended.
        poll::wait_for_hang_up(own.as_fd())?;
    }
    if close { send(ChannelFrame::Close) } else { Ok(()) }
}

/// Gives the client what the socket receives, until its end.
fn to_client(mut remote: &UnixStream, mut own: &UnixStream, start: Start) -> io::Result<()> {
    let head = skip_head(remote);
    drop(start);
    let mut buffer = head?;
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut done = 0;
        while let Some((frame, length)) =
            read_frame(buffer.get(done..).unwrap_or_default()).map_err(io::Error::other)?
        {
            done += length;
            match frame {
                ChannelFrame::Data(data) => own.write_all(data)?,
                ChannelFrame::End => return Ok(()),
                // A pair cannot carry an error: both directions end.
                ChannelFrame::Reset { .. } => {
                    drop(own.shutdown(Shutdown::Both));
                    return Ok(());
                }
                ChannelFrame::Urgent(_)
                | ChannelFrame::Datagram { .. }
                | ChannelFrame::Dropped(_)
                | ChannelFrame::Close => {}
            }
        }
        buffer.drain(..done);
        let count = remote.read(&mut chunk)?;
        if count == 0 {
            // The broker has ended the channel: nothing more can be sent.
            return own.shutdown(Shutdown::Both);
        }
        buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}
