//! `sockbroker agent`: holds the connection to a broker of another machine, and gives programs of this machine
//! descriptors for its sockets.
//!
//! A client of the agent speaks the protocol of the broker. [`relay`] passes its frames on. It changes requests for
//! channels with descriptors: the remote broker returns a token, [`channel`] begins the channel on a further connection,
//! and moves data between it and one end of a pair of sockets, whose other end is the client's. [`socks`] serves programs
//! that cannot use such descriptors.

mod listener;
mod users;
mod open_channels;
mod framed;
mod pair;
mod refusals;
mod channel;
mod asked;
mod own_calls;
mod attempts;
mod watches;
mod connecting;
mod ready;
mod relay;
mod socks;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueHint};
use sockbroker_client::{Dialer, Endpoint};
use sockbroker_sys::process::{effective_uid, raise_open_files};
use sockbroker_sys::{credentials, poll};

use crate::agent::attempts::Attempts;
use crate::agent::listener::{SocketFile, listen};
use crate::agent::pair::Pair;
use crate::agent::ready::Ready;
use crate::agent::relay::Relay;
use crate::agent::socks::Proxy;
use crate::agent::users::Users;
use crate::connection::failure;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::interrupt::Interrupt;
use crate::screen::Screen;

/// How often the agent checks whether it is still used, in milliseconds.
const CHECK: u64 = 100;
/// The most connections of clients and channels at once; a further connection is closed.
const USERS: usize = 256;

/// Hold a connection to a broker of another machine, and give programs of this machine descriptors for its sockets.
///
/// The agent listens on a Unix socket that only this user can reach, and speaks the protocol of the broker. Programs use
/// it like a broker of this machine. It logs in once for ssh://; tls:// needs a certificate. What programs have written
/// before they ended is still sent. The Python package starts the agent in mode `channel`; it ends when it is no longer
/// used.
///
/// With --socks, the agent is also a SOCKS5 proxy for programs that make their sockets themselves: the broker makes their
/// connections and looks up their names. It prints the URL of the proxy when it listens.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The socket to listen on. Its folder is created with mode 0700 if it does not exist.
    #[arg(
        long,
        value_name = "PATH",
        value_hint = ValueHint::FilePath,
        required_unless_present = "socks"
    )]
    pub(crate) listen: Option<PathBuf>,
    /// Serve SOCKS5 on this port of 127.0.0.1, for programs of this user alone; 0: the kernel chooses the port.
    #[arg(long, value_name = "PORT")]
    pub(crate) socks: Option<u16>,
    /// What the descriptors of streams are.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) pair: Pair,
    /// End when no program has used the agent for this time. Default: end by a signal alone.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle: Option<u32>,
}

pub(crate) fn run(global: &Global, args: &AgentArgs) -> Result<Exit, Failure> {
    if global.private || global.session.is_some() || global.persist || global.json {
        let options = "--private, --session, --persist or --json";
        return Err(Failure::usage(format!("agent does not accept {options}")));
    }
    let interrupt = Interrupt::catch()?;
    // Each channel takes two. With fewer, the agent serves fewer.
    raise_open_files().ok();
    let endpoint = match &global.broker {
        Some(text) => text.parse::<Endpoint>().map_err(|error| failure("agent", &error))?,
        None => Endpoint::find().map_err(|error| failure("agent", &error))?,
    };
    let dialer = Arc::new(Dialer::new(&endpoint).map_err(|error| failure("connect", &error))?);
    let ready = Ready::new(dialer.clone(), matches!(endpoint, Endpoint::Tls(_)));
    let listener = args.listen.as_deref().map(Listener::bind).transpose()?;
    let proxy = args.socks.map(|port| start_proxy(port, &ready)).transpose()?;
    let users = Users::new(USERS, args.idle.map(|seconds| Duration::from_secs(seconds.into())));
    let attempts = Attempts::default();
    let system = |error: io::Error| Failure::system("clone", &error);
    // Without the connection, nothing works any more: the next client starts another agent.
    while !interrupt.is_set() && !users.are_gone() && !dialer.has_ended() {
        let waited = listener.iter().map(|listener| listener.socket.as_fd());
        let waited = waited.chain(proxy.iter().map(Proxy::descriptor));
        let waited: Vec<_> = waited.map(|descriptor| (descriptor, libc::POLLIN)).collect();
        poll::poll_for(&waited, Some(Duration::from_millis(CHECK)))
            .map_err(|error| Failure::system("poll", &error))?;
        if let Some(listener) = &listener
            && let Ok((stream, _)) = listener.socket.accept()
            && is_own(&stream)
            && let Some(user) = users.begin()
        {
            let program = credentials::process_of_peer(stream.as_fd()).ok().flatten();
            let program = (program.unwrap_or_default(), attempts.clone());
            let relay = Relay::new(ready.clone(), user, args.pair, program);
            thread::Builder::new().spawn(move || relay.run(&stream)).map_err(system)?;
        }
        if let Some(proxy) = &proxy {
            proxy.accept(|| users.begin()).map_err(system)?;
        }
    }
    Ok(Exit::Done)
}

/// Starts the proxy, and prints its URL.
fn start_proxy(port: u16, ready: &Arc<Ready>) -> Result<Proxy, Failure> {
    let proxy = Proxy::listen(port, ready.clone());
    let proxy =
        proxy.map_err(|error| Failure::system(&format!("listen 127.0.0.1:{port}"), &error))?;
    Screen::new().line(proxy.url())?;
    Ok(proxy)
}

/// The socket of the agent. Its file goes with the value.
struct Listener {
    socket: UnixListener,
    _file: SocketFile,
}

impl Listener {
    fn bind(path: &Path) -> Result<Self, Failure> {
        let (socket, file) = listen(path)
            .map_err(|error| Failure::system(&format!("listen {}", path.display()), &error))?;
        Ok(Self { socket, _file: file })
    }
}

/// Whether the program at the other end is of this user.
fn is_own(stream: &UnixStream) -> bool {
    let usable = stream.set_nonblocking(false).is_ok();
    let uid = credentials::of_peer(stream.as_fd()).map(|peer| peer.uid);
    usable && uid.is_ok_and(|uid| uid == effective_uid())
}
