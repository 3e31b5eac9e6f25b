//! `sockbroker agent`: holds the connection to a broker of another machine, and gives programs of this machine
//! descriptors for its sockets.
//!
//! A client of the agent speaks the protocol of the broker. [`relay`] passes its frames on. It changes requests for
//! channels with descriptors: the remote broker returns a token, [`channel`] begins the channel on a further connection,
//! and moves data between it and one end of a pair of sockets, whose other end is the client's.

mod listener;
mod users;
mod open_channels;
mod framed;
mod refusals;
mod channel;
mod asked;
mod relay;

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueHint};
use sockbroker_client::{Dialer, Endpoint};
use sockbroker_sys::process::{effective_uid, raise_open_files};
use sockbroker_sys::{credentials, poll};

use crate::agent::listener::listen;
use crate::agent::relay::Relay;
use crate::agent::users::Users;
use crate::connection::failure;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::interrupt::Interrupt;

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
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The socket to listen on. Its folder is created with mode 0700 if it does not exist.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub(crate) listen: PathBuf,
    /// End when no program has used the agent for this time. Default: end by a signal alone.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle: Option<u32>,
}

pub(crate) fn run(global: &Global, args: &AgentArgs) -> Result<Exit, Failure> {
    if global.private || global.session.is_some() || global.json {
        return Err(Failure::usage("agent does not accept --private, --session or --json"));
    }
    let interrupt = Interrupt::catch()?;
    // Each channel takes two. With fewer, the agent serves fewer.
    raise_open_files().ok();
    let endpoint = match &global.broker {
        Some(text) => text.parse::<Endpoint>().map_err(|error| failure("agent", &error))?,
        None => Endpoint::find().map_err(|error| failure("agent", &error))?,
    };
    let dialer = Arc::new(Dialer::new(&endpoint).map_err(|error| failure("connect", &error))?);
    let listening = |error| Failure::system(&format!("listen {}", args.listen.display()), &error);
    let (listener, _file) = listen(&args.listen).map_err(listening)?;
    let users = Users::new(USERS, args.idle.map(|seconds| Duration::from_secs(seconds.into())));
    // Without the connection, nothing works any more: the next client starts another agent.
    while !interrupt.is_set() && !users.are_gone() && !dialer.has_ended() {
        let ready =
            poll::poll_for(&[(listener.as_fd(), libc::POLLIN)], Some(Duration::from_millis(CHECK)));
        let ready = ready.map_err(|error| Failure::system("poll", &error))?;
        if ready.first().is_some_and(|events| *events != 0)
            && let Ok((stream, _)) = listener.accept()
            && is_own(&stream)
            && let Some(user) = users.begin()
        {
            let relay = Relay::new(dialer.clone(), user);
            let spawned = thread::Builder::new().spawn(move || relay.run(&stream));
            spawned.map_err(|error| Failure::system("clone", &error))?;
        }
    }
    Ok(Exit::Done)
}

/// Whether the program at the other end is of this user.
fn is_own(stream: &UnixStream) -> bool {
    let usable = stream.set_nonblocking(false).is_ok();
    let uid = credentials::of_peer(stream.as_fd()).map(|peer| peer.uid);
    usable && uid.is_ok_and(|uid| uid == effective_uid())
}
