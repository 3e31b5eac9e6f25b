//! Reaching a broker by TLS. A thread copies between TLS and one end of a socket pair, whose other end is the connection
//! as everything above knows it. It ends with the connection.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, version};

use crate::host_files;
use crate::recovery::Backoff;
use crate::tls_target::TlsTarget;

/// The environment variable with a token.
const TOKEN: &str = "SOCKBROKER_TOKEN";
/// The bytes that are read at a time, and those that wait for the other side.
const BUFFER: usize = 64 << 10;

/// How many handshakes with a broker this process makes at a time: half of what the broker allows one address by default
/// (`handshakes_per_address`). For the broker a handshake ends when the first request is on its way to a worker, which the
/// client learns by the first response.
const HANDSHAKES: usize = 4;
/// How often it tries to connect to a broker that closes the connection during the handshake, which is how a broker turns
/// those away that are too many. The pauses between them take about half a second.
const ATTEMPTS: usize = 8;

/// The handshakes in progress, by host and port of the broker.
static RUNNING: Mutex<BTreeMap<(String, u16), usize>> = Mutex::new(BTreeMap::new());
static ENDED: Condvar = Condvar::new();

/// A handshake in progress, until this is dropped.
struct Handshake((String, u16));

impl Handshake {
    /// Waits until there are fewer than [`HANDSHAKES`], for this time at most: the first response to a client can be late.
    fn begin(target: &TlsTarget, longest: Duration) -> Self {
        let key = (target.host().to_owned(), target.port());
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |running: &mut BTreeMap<_, _>| running.get(&key) >= Some(&HANDSHAKES);
        let waited = ENDED.wait_timeout_while(running, longest, is_full);
        let (mut running, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *running.entry(key.clone()).or_default() += 1;
        drop(running);
        Self(key)
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.0);
            }
        }
        ENDED.notify_all();
    }
}

/// Connects to a broker. Each step takes at most `timeout`.
pub(crate) fn connect(target: &TlsTarget, timeout: Duration) -> io::Result<UnixStream> {
    let (config, token) = configure(target)?;
    let config = Arc::new(config);
    attempt(|| connect_once(target, &config, token.as_deref(), timeout))
}

/// Tries [`ATTEMPTS`] times at most while the broker turns this client away.
fn attempt<T>(connect: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut backoff = Backoff::default();
    for _ in 1..ATTEMPTS {
        match connect() {
            Err(error) if is_turned_away(&error) => thread::park_timeout(backoff.next()),
            result => return result,
        }
    }
    connect()
}

/// Whether the broker has closed a connection during the handshake.
fn is_turned_away(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe)
}

fn connect_once(
    target: &TlsTarget,
    config: &Arc<ClientConfig>,
    token: Option<&str>,
    timeout: Duration,
) -> io::Result<UnixStream> {
    let handshake = Handshake::begin(target, timeout);
    let mut tcp = connect_tcp(target, timeout)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(timeout))?;
    tcp.set_write_timeout(Some(timeout))?;
    let name = ServerName::try_from(target.host().to_owned()).map_err(io::Error::other)?;
    let mut session = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    session.set_buffer_limit(None);
    if let Some(token) = token {
        // The fields of the first head follow: those of LSP framing have no order.
        session.writer().write_all(format!("Authorization: Bearer {token}\r\n").as_bytes())?;
    }
    while session.is_handshaking() {
        session.complete_io(&mut tcp)?;
    }
    tcp.set_nonblocking(true)?;
    let (local, other) = UnixStream::pair()?;
    other.set_nonblocking(true)?;
    let pump = Pump {
        session,
        tcp,
        local: other,
        to_client: Vec::new(),
        ended: false,
        delivered: false,
        sending: Sending::Open,
        handshake: Some(handshake),
    };
    thread::Builder::new().name("sockbroker-tls".to_owned()).spawn(move || pump.run())?;
    super::unix::with_send_buffer(local)
}

#[expect(clippy::disallowed_methods, reason = "the client looks up the name of its broker")]
fn connect_tcp(target: &TlsTarget, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (target.host(), target.port()).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(tcp) => return Ok(tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the client has a token, which stands in the first message.
pub(crate) fn has_token(target: &TlsTarget) -> io::Result<bool> {
    Ok(configure(target)?.1.is_some())
}

/// The configuration of a client, and its token, from the files of the host.
fn configure(target: &TlsTarget) -> io::Result<(ClientConfig, Option<String>)> {
    let host = target.host();
    let find = |name: &str| host_files::find(host, name);
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
    let ca = find("ca").ok_or_else(|| {
        invalid(format!(
            "the file ~/.config/sockbroker/{host}/ca is missing: copy the certificate of the broker's authority there"
        ))
    })?;
    let unusable = |path: &std::path::Path, error: &dyn std::fmt::Display| {
        invalid(format!("cannot use {}: {error}", path.display()))
    };
    let certificates = |path: &std::path::Path| {
        let pem = fs::read(path).map_err(|error| unusable(path, &error))?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        found.map_err(|error| unusable(path, &error))
    };
    let mut roots = RootCertStore::empty();
    for root in certificates(&ca)? {
        roots.add(root).map_err(|error| unusable(&ca, &error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let given = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
    // The broker refuses a client with both.
    let certificate = find("cert").zip(find("key")).filter(|_| given.is_none());
    let token = match (given, &certificate) {
        (Some(token), _) => Some(token),
        (None, Some(_)) => None,
        (None, None) => find("token").map(fs::read_to_string).transpose()?,
    };
    let config = match certificate {
        Some((cert, key)) => {
            let pem = fs::read(&key).map_err(|error| unusable(&key, &error))?;
            let secret =
                PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(&key, &error))?;
            let chain = certificates(&cert)?;
            let built = builder.with_client_auth_cert(chain, secret);
            built.map_err(|error| unusable(&cert, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    let token = token.map(|token| token.trim().to_owned());
    if token.as_ref().is_some_and(|token| token.chars().any(char::is_whitespace)) {
        return Err(invalid("the token has blanks".to_owned()));
    }
    Ok((config, token))
}

/// The direction to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Open,
    /// The client has ended it, and the alert that ends it is not sent yet.
    Ending,
    Ended,
}

/// Copies both directions.
struct Pump {
    session: ClientConnection,
    tcp: TcpStream,
    local: UnixStream,
    /// Decrypted bytes that the connection has not taken.
    to_client: Vec<u8>,
    /// Whether the broker will send nothing more.
    ended: bool,
    /// Whether the client has received anything.
    delivered: bool,
    sending: Sending,
    /// Until the client has received anything.
    handshake: Option<Handshake>,
}

impl Pump {
    fn run(mut self) {
        // The end of the connection shows every failure.
        while let Ok(true) = self.step() {}
        let Self { tcp, mut local, handshake, .. } = self;
        drop((tcp, handshake));
        // The client may send before it reads the last bytes, and a failure would keep it from reading them.
        let ended = local.shutdown(Shutdown::Write).and_then(|()| local.set_nonblocking(false));
        let mut buffer = vec![0; BUFFER];
        while ended.is_ok() && matches!(local.read(&mut buffer), Ok(read) if read > 0) {}
    }

    /// Waits for what is possible next. `false` at the end.
    ///
    /// The end of one direction leaves the other: a broker whose connection is closed while something from it is unread
    /// gets a reset, and loses what it has not read.
    fn step(&mut self) -> io::Result<bool> {
        if self.sending == Sending::Ending && !self.session.wants_write() {
            self.tcp.shutdown(Shutdown::Write)?;
            self.sending = Sending::Ended;
        }
        let reads = self.sending == Sending::Open && !self.ended;
        let (tcp, local) = self.wait(reads)?;
        let gone = PollFlags::HUP | PollFlags::ERR;
        if tcp.intersects(PollFlags::OUT)
            && would_block(self.session.write_tls(&mut self.tcp)).is_err()
        {
            // The broker has closed the connection. Why can be among what has arrived.
            self.sending = Sending::Ended;
        }
        if tcp.intersects(PollFlags::IN | gone) && self.to_client.is_empty() && !self.ended {
            self.receive()?;
        }
        if local.intersects(PollFlags::OUT | gone) && !self.to_client.is_empty() {
            match would_block(self.local.write(&self.to_client)) {
                Ok(sent) => {
                    drop(self.to_client.drain(..sent.unwrap_or(0)));
                    self.delivered |= sent.is_some();
                    self.handshake = None;
                }
                // The client has closed its end. What it has sent before is still on its way.
                Err(_) => self.to_client.clear(),
            }
        }
        // Nobody takes anything after the end, and the last bytes have to be delivered.
        if reads
            && local.intersects(PollFlags::IN | gone)
            && !self.session.wants_write()
            && !self.ended
        {
            let mut buffer = vec![0; BUFFER];
            match would_block(self.local.read(&mut buffer))? {
                Some(0) => {
                    self.session.send_close_notify();
                    self.sending = Sending::Ending;
                }
                Some(read) => {
                    let bytes = buffer.get(..read).unwrap_or_default();
                    self.session.writer().write_all(bytes)?;
                }
                None => {}
            }
        }
        Ok(!self.ended || !self.to_client.is_empty())
    }

    /// Waits until something is possible. Returns the events of both sides.
    fn wait(&self, reads: bool) -> io::Result<(PollFlags, PollFlags)> {
        let mut of_tcp = PollFlags::empty();
        if self.to_client.is_empty() && !self.ended {
            of_tcp |= PollFlags::IN;
        }
        of_tcp.set(PollFlags::OUT, self.session.wants_write() && self.sending != Sending::Ended);
        let mut of_local = PollFlags::empty();
        of_local.set(PollFlags::IN, reads && !self.session.wants_write());
        of_local.set(PollFlags::OUT, !self.to_client.is_empty());
        // A side that hangs up would wake the thread again and again while nothing is wanted of it.
        let mut sides = Vec::with_capacity(2);
        if !of_tcp.is_empty() {
            sides.push(PollFd::new(&self.tcp, of_tcp));
        }
        if !of_local.is_empty() {
            sides.push(PollFd::new(&self.local, of_local));
        }
        retry_on_intr(|| poll(&mut sides, None))?;
        let mut events = sides.iter().map(PollFd::revents);
        let mut next = |wanted: PollFlags| {
            let found = if wanted.is_empty() { None } else { events.next() };
            found.unwrap_or(PollFlags::empty())
        };
        Ok((next(of_tcp), next(of_local)))
    }

    fn receive(&mut self) -> io::Result<()> {
        let read = would_block(self.session.read_tls(&mut self.tcp))?;
        let state = match self.session.process_new_packets() {
            Ok(state) => state,
            // The broker judges the certificate after the handshake of the client.
            Err(error) if !self.delivered => {
                self.to_client = refusal(&error);
                self.ended = true;
                return Ok(());
            }
            Err(error) => return Err(io::Error::other(error)),
        };
        let mut plain = vec![0; state.plaintext_bytes_to_read()];
        self.session.reader().read_exact(&mut plain)?;
        self.to_client = plain;
        self.ended = read == Some(0) || state.peer_has_closed();
        Ok(())
    }
}

/// What the client reads in place of an answer.
fn refusal(error: &rustls::Error) -> Vec<u8> {
    let message = format!("TLS: {error}");
    let json = serde_json::json!({
        "jsonrpc": "2.0",
        "id": null,
        "error": { "code": 3000, "message": message, "data": { "kind": "denied" } },
    });
    let json = json.to_string();
    format!("Content-Length: {}\r\n\r\n{json}", json.len()).into_bytes()
}

/// `None` if nothing can be done now.
fn would_block<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn target(port: u16) -> TlsTarget {
        TlsTarget::parse(&format!("//localhost:{port}")).unwrap()
    }

    fn without_certificates() -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[&version::TLS13]).unwrap();
        Arc::new(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    }

    #[test]
    fn broker_that_turns_clients_away_is_tried_again_and_only_so_often() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let target = target(listener.local_addr().unwrap().port());
        let counted = thread::spawn(move || listener.incoming().take(ATTEMPTS).map(drop).count());
        let connect = || connect_once(&target, &without_certificates(), None, LONG);
        assert!(is_turned_away(&attempt(connect).unwrap_err()));
        assert_eq!(counted.join().unwrap(), ATTEMPTS);
        // Nobody listens any more.
        assert!(!is_turned_away(&attempt(connect).unwrap_err()));
    }

    #[test]
    fn handshakes_with_a_broker_wait_for_each_other_beyond_the_limit() {
        let (busy, other) = (target(1), target(2));
        let mut running: Vec<_> = (0..HANDSHAKES).map(|_| Handshake::begin(&busy, LONG)).collect();
        drop(Handshake::begin(&other, LONG));
        let waiting = thread::spawn(move || drop(Handshake::begin(&busy, LONG)));
        assert!(!waiting.is_finished());
        running.pop();
        waiting.join().unwrap();
        running.push(Handshake::begin(&target(1), LONG));
        // It does not wait for ever.
        drop(Handshake::begin(&target(1), Duration::ZERO));
        running.pop();
        assert_eq!(
            RUNNING.lock().unwrap().get(&("localhost".to_owned(), 1)),
            Some(&(HANDSHAKES - 1))
        );
    }
}
