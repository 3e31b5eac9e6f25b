//! Connections that are kept ready for channels: a channel that begins on one does not wait for TCP and TLS.
//!
//! Each has made one request already, so that it has passed the handshake, whose number and time the broker limits.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_client::{Dialer, Result};
use sockbroker_sys::poll;

/// The connections that are kept, with those that are being opened.
const KEPT: usize = 2;
/// How long one is kept, then it is closed. The broker would close it after `detect_seconds`, which is 10 by default.
const LONGEST: Duration = Duration::from_secs(5);
/// How long the first request may take.
const FIRST: Duration = Duration::from_secs(10);
/// The request, whose response has no body.
const REQUEST: &[u8] = b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// The longest response.
const RESPONSE_MAX: usize = 8192;

/// What opens connections for channels.
#[derive(Debug)]
pub(super) struct Ready {
    dialer: Arc<Dialer>,
    /// Whether connections are kept.
    keeps: bool,
    longest: Duration,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    connections: VecDeque<(UnixStream, Instant)>,
    opening: usize,
    /// Whether a thread closes those that were kept for the longest time.
    is_closing: bool,
}

impl Ready {
    /// With `keeps`, connections are kept. Otherwise each is opened when it is needed.
    pub(super) fn new(dialer: Arc<Dialer>, keeps: bool) -> Arc<Self> {
        Self::keeping_for(LONGEST, dialer, keeps)
    }

    fn keeping_for(longest: Duration, dialer: Arc<Dialer>, keeps: bool) -> Arc<Self> {
        Arc::new(Self { dialer, keeps, longest, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that waits for nothing else.
    pub(super) fn dial(&self) -> Result<UnixStream> {
        self.dialer.dial()
    }

    /// A connection for a channel.
    pub(super) fn take(self: &Arc<Self>) -> Result<UnixStream> {
        let kept = self.usable();
        self.prepare();
        kept.map_or_else(|| self.dialer.dial(), Ok)
    }

    fn usable(&self) -> Option<UnixStream> {
        let mut kept = self.kept();
        loop {
            let (connection, since) = kept.connections.pop_front()?;
            if since.elapsed() < self.longest && is_quiet(&connection) {
                return Some(connection);
            }
        }
    }

    /// Opens the connections that are missing, in the background.
    pub(super) fn prepare(self: &Arc<Self>) {
        let mut kept = self.kept();
        while self.keeps && kept.connections.len() + kept.opening < KEPT {
            let ready = self.clone();
            // Without a thread, channels open their connections themselves.
            if thread::Builder::new().spawn(move || ready.open()).is_err() {
                return;
            }
            kept.opening += 1;
        }
    }

    fn open(&self) {
        let opened = self.dialer.dial().ok().filter(|connection| begin(connection).is_ok());
        let mut kept = self.kept();
        kept.opening -= 1;
        kept.connections.extend(opened.map(|connection| (connection, Instant::now())));
        let closes = !kept.is_closing;
        kept.is_closing = true;
        drop(kept);
        if closes {
            self.close_old();
        }
    }

    /// Closes each connection when it was kept for the longest time. Returns when none is kept.
    fn close_old(&self) {
        loop {
            let mut kept = self.kept();
            kept.connections.retain(|(_, since)| since.elapsed() < self.longest);
            let Some((_, oldest)) = kept.connections.front() else {
                kept.is_closing = false;
                return;
            };
            let left = self.longest.saturating_sub(oldest.elapsed());
            drop(kept);
            #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
            thread::sleep(left);
        }
    }
}

/// Whether the broker has neither sent anything nor closed.
fn is_quiet(connection: &UnixStream) -> bool {
    poll::poll_now(&[(connection.as_fd(), libc::POLLIN)]).is_ok_and(|events| events == [0])
}

/// Makes the first request, whatever its response says.
fn begin(mut connection: &UnixStream) -> io::Result<()> {
    connection.set_read_timeout(Some(FIRST))?;
    connection.write_all(REQUEST)?;
    let mut response = Vec::new();
    let mut chunk = [0; 1024];
    while !response.ends_with(b"\r\n\r\n") {
        let count = connection.read(&mut chunk)?;
        if count == 0 || response.len() > RESPONSE_MAX {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        response.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    connection.set_read_timeout(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::sync::mpsc;

    use sockbroker_client::Endpoint;
    use sockbroker_test_support::{Folder, HANG, until};

    use super::*;

    /// A broker that answers the first request of each connection, and those connections.
    fn broker(folder: &Folder) -> (Arc<Dialer>, mpsc::Receiver<UnixStream>) {
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, accepted) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.read_exact(&mut vec![0; REQUEST.len()]).unwrap();
                stream.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nallow: GET\r\n\r\n").unwrap();
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        let endpoint: Endpoint = format!("unix:{}", path.display()).parse().unwrap();
        (Arc::new(Dialer::new(&endpoint).unwrap()), accepted)
    }

    #[test]
    fn channels_begin_on_connections_that_have_made_a_request() {
        let folder = Folder::new();
        let (dialer, accepted) = broker(&folder);
        let ready = Ready::keeping_for(HANG, dialer, true);
        ready.prepare();
        until("both are there", || ready.kept().connections.len() == KEPT);
        let mut others: Vec<_> = (0..KEPT).map(|_| accepted.recv().unwrap()).collect();
        let mut taken = ready.take().unwrap();
        taken.write_all(b"GET").unwrap();
        let is_its = |other: &UnixStream| {
            other.set_nonblocking(true).unwrap();
            (&*other).read(&mut [0; 9]).is_ok_and(|count| count == 3)
        };
        assert_eq!(others.iter().filter(|other| is_its(other)).count(), 1);
        // One that the broker has closed is not used, and each that was used is replaced.
        until("both are there again", || ready.kept().connections.len() == KEPT);
        others.push(accepted.recv().unwrap());
        drop(others);
        until("the ends are known", || {
            ready.kept().connections.iter().all(|(connection, _)| !is_quiet(connection))
        });
        assert!(ready.usable().is_none());
        let mut taken = ready.take().unwrap();
        taken.write_all(REQUEST).unwrap();
        accepted.recv().unwrap();
    }

    #[test]
    fn connections_that_no_channel_uses_are_closed() {
        let folder = Folder::new();
        let (dialer, accepted) = broker(&folder);
        let ready = Ready::keeping_for(Duration::from_millis(1), dialer, true);
        for _ in 0..2 {
            ready.prepare();
            for _ in 0..KEPT {
                let mut other = accepted.recv().unwrap();
                other.set_read_timeout(Some(HANG)).unwrap();
                assert_eq!(other.read(&mut [0]).unwrap(), 0);
            }
            until("the thread has ended", || !ready.kept().is_closing);
        }
    }

    #[test]
    fn nothing_is_kept_where_connections_cost_no_round_trip() {
        let folder = Folder::new();
        let (dialer, accepted) = broker(&folder);
        let ready = Ready::new(dialer, false);
        ready.prepare();
        let mut taken = ready.take().unwrap();
        taken.write_all(REQUEST).unwrap();
        accepted.recv().unwrap();
        let kept = ready.kept();
        assert_eq!((kept.connections.len(), kept.opening), (0, 0));
    }
}
