//! The gateway's loop: accepts connections, and follows the monitor.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use sockbroker_monitor::channel::ChannelError;
use sockbroker_monitor::message::Build;
use sockbroker_monitor::message::gateway::{ChannelOfGateway, FromGateway, REASON_MAX, ToGateway};
use sockbroker_sys::events::Events;
use sockbroker_sys::{sealed, socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::authority::Authority;
use crate::connection;
use crate::live::Shared;
use crate::settings::{Credentials, Settings};

/// The bytes of the largest credentials and configuration.
pub const MEMORY: usize = 64 << 20;
/// How long the gateway does not accept when it is out of descriptors or memory.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How often a gateway that stops checks whether a connection is left.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// What the gateway begins with.
#[derive(Debug)]
pub struct Beginning {
    pub listeners: Vec<OwnedFd>,
    /// The text of the configuration.
    pub configuration: Vec<u8>,
    pub credentials: Credentials,
    pub id: Option<u32>,
    pub generation: u64,
}

/// Waits for the first messages of the monitor.
pub fn begin(channel: &ChannelOfGateway) -> io::Result<Beginning> {
    channel.send(&FromGateway::Hello(Build::OWN), &[]).map_err(io::Error::other)?;
    let mut events = Events::new()?;
    events.add(channel.as_fd(), 0)?;
    let (mut greeted, mut listeners) = (false, Vec::new());
    loop {
        match channel.receive() {
            Ok((ToGateway::Hello(build), _)) if build == Build::OWN => greeted = true,
            Ok((ToGateway::Listener, descriptors)) if greeted => listeners.extend(descriptors),
            Ok((ToGateway::Begin { id, generation }, descriptors)) if greeted => {
                let mut contents = descriptors.iter().map(|one| sealed::read(one.as_fd(), MEMORY));
                let mut next = || contents.next().unwrap_or_else(|| Ok(Vec::new()));
                let (configuration, credentials) = (next()?, decode(&next()?)?);
                return Ok(Beginning { listeners, configuration, credentials, id, generation });
            }
            Ok(_) => return Err(io::Error::other("the monitor is of another build")),
            Err(ChannelError::NotReady) => drop(events.wait(None)?),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn decode(bytes: &[u8]) -> io::Result<Credentials> {
    postcard::from_bytes(bytes).map_err(io::Error::other)
}

/// Serves until the monitor ends, or until the last connection after it has said that the broker stops.
pub async fn serve(
    channel: ChannelOfGateway,
    listeners: Vec<OwnedFd>,
    settings: Settings,
    authority: Authority,
    generation: u64,
) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "bounded by the connections")]
    let (to_monitor, outgoing) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::new(settings, authority, to_monitor));
    shared.send(FromGateway::InForce { generation }, None);
    let mut accepting = JoinSet::new();
    let permits = Permits::new(&shared.settings);
    for listener in listeners {
        socket::set_nonblocking(listener.as_fd(), true)?;
        let listener = TcpListener::from_std(listener.into())?;
        accepting.spawn(accept(shared.clone(), listener, permits.clone()));
    }
    let socket = channel.as_fd().try_clone_to_owned()?;
    let both = Interest::READABLE | Interest::WRITABLE;
    let ready = register(socket, both)?;
    let follower = Follower { shared, channel, ready, waiting: VecDeque::new() };
    follower.follow(outgoing, accepting).await
}

/// Registers a descriptor with the event loop.
#[expect(
    deprecated,
    reason = "the replacement is an unsafe fn; this crate has no unsafe code, and the descriptor is owned"
)]
fn register(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, interest)
}

/// What bounds connections before their client is known, and in all.
#[derive(Debug, Clone)]
struct Permits {
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Permits {
    fn new(settings: &Settings) -> Self {
        let size =
            |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            handshakes: Arc::new(Semaphore::new(size(settings.handshakes))),
            connections: Arc::new(Semaphore::new(size(settings.connections))),
        }
    }

    /// Waits for room for one more connection, and for its handshake.
    async fn acquire(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let connection = self.connections.clone().acquire_owned().await.ok()?;
        Some((self.handshakes.clone().acquire_owned().await.ok()?, connection))
    }
}

/// Accepts connections. Beyond the limits one waits, and all others wait in the queue of the kernel.
async fn accept(shared: Arc<Shared>, listener: TcpListener, permits: Permits) {
    loop {
        let (tcp, from) = accept_one(&listener).await;
        let Some((handshake, connection)) = permits.acquire().await else { return };
        let shared = shared.clone();
        let serving = async move {
            connection::serve(shared, tcp, from, handshake).await;
            drop(connection);
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "connections outlive the task that accepts them"
        )]
        drop(tokio::spawn(serving));
    }
}

async fn accept_one(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept remote connections: pausing");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Follows the monitor.
struct Follower {
    shared: Arc<Shared>,
    channel: ChannelOfGateway,
    /// A copy of the socket of the channel, for the event loop.
    ready: AsyncFd<OwnedFd>,
    /// Messages for which the channel has no room yet.
    waiting: VecDeque<(FromGateway, Option<OwnedFd>)>,
}

impl Follower {
    async fn follow(
        mut self,
        mut outgoing: mpsc::UnboundedReceiver<(FromGateway, Option<OwnedFd>)>,
        mut accepting: JoinSet<()>,
    ) -> io::Result<()> {
        let mut stopping = false;
        loop {
            tokio::select! {
                ready = self.ready.readable() => {
                    ready?.clear_ready();
                    stopping |= self.receive_all()?;
                    if stopping {
                        accepting.abort_all();
                        while accepting.join_next().await.is_some() {}
                    }
                }
                ready = self.ready.writable(), if !self.waiting.is_empty() => {
                    ready?.clear_ready();
                    self.flush()?;
                }
                Some(message) = outgoing.recv() => {
                    self.waiting.push_back(message);
                    self.flush()?;
                }
                () = tokio::time::sleep(STOP_CHECK), if stopping => {
                    if self.shared.is_idle() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Handles what the monitor has sent. `true` if the broker stops.
    fn receive_all(&mut self) -> io::Result<bool> {
        let mut stops = false;
        loop {
            match self.channel.receive() {
                Ok((message, descriptors)) => stops |= self.handle(message, &descriptors)?,
                Err(ChannelError::NotReady) => return Ok(stops),
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    fn handle(&self, message: ToGateway, descriptors: &[OwnedFd]) -> io::Result<bool> {
        match message {
            ToGateway::Passed { request, connection } => {
                self.shared.answered(request, Ok(connection));
            }
            ToGateway::Refused { request, reason } => self.shared.answered(request, Err(reason)),
            ToGateway::Credentials { generation } => {
                let memory =
                    descriptors.first().ok_or_else(|| io::Error::other("no credentials"))?;
                let credentials = decode(&sealed::read(memory.as_fd(), MEMORY)?)?;
                let answer = match Authority::new(&credentials, &self.shared.settings) {
                    Ok(authority) => {
                        self.shared.put_in_force(authority);
                        FromGateway::InForce { generation }
                    }
                    Err(mut reason) => {
                        reason.truncate(reason.floor_char_boundary(REASON_MAX));
                        FromGateway::Unusable { generation, reason }
                    }
                };
                self.shared.send(answer, None);
            }
            ToGateway::Stop => return Ok(true),
            ToGateway::Hello(_) | ToGateway::Listener | ToGateway::Begin { .. } => {
                return Err(io::Error::other("the monitor began twice"));
            }
        }
        Ok(false)
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some((message, descriptor)) = self.waiting.front() {
            let borrowed: Vec<_> = descriptor.iter().map(OwnedFd::as_fd).collect();
            match self.channel.send(message, &borrowed) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(ChannelError::NotReady) => break,
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }
}
