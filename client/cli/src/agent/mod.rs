//! `sockbroker agent`: holds the connection to a broker of another machine, and gives programs of this machine
//! descriptors for its sockets.
//!
//! A client of the agent speaks the protocol of the broker. [`relay`] passes its frames on. It answers `channel.open`
//! with `want_fd` itself: the remote broker returns a token, [`channel`] begins the channel on a further connection, and
//! moves data between it and one end of a pair of sockets, whose other end is the client's.

mod channel;
mod framed;
mod relay;
mod starting;
mod users;

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::{Args, ValueHint};
use sockbroker_client::{Dialer, Endpoint};
use sockbroker_sys::process::effective_uid;
use sockbroker_sys::{credentials, poll};

use crate::agent::relay::Relay;
use crate::agent::users::Users;
use crate::connection::failure;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::interrupt::Interrupt;

/// How often the agent checks whether it is still used, in milliseconds.
const CHECK: u64 = 100;

/// Hold a connection to a broker of another machine, and give programs of this machine descriptors for its sockets.
///
/// The agent listens on a Unix socket that only this user can reach, and speaks the protocol of the broker. Programs use
/// it like a broker of this machine. It logs in once for ssh://. What programs have written before they ended is still
/// sent. The Python package starts the agent in mode `channel`; it ends when it is no longer used.
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
    let endpoint = match &global.broker {
        Some(text) => text.parse::<Endpoint>().map_err(|error| failure("agent", &error))?,
        None => Endpoint::find().map_err(|error| failure("agent", &error))?,
    };
    let dialer = Arc::new(Dialer::new(&endpoint).map_err(|error| failure("connect", &error))?);
    let listening = |error| Failure::system(&format!("listen {}", args.listen.display()), &error);
    let listener = listen(&args.listen).map_err(listening)?;
    let _file = SocketFile(&args.listen);
    let users = Users::new(args.idle.map(|seconds| Duration::from_secs(seconds.into())));
    while !interrupt.is_set() && !users.are_gone() {
        let ready =
            poll::poll_for(&[(listener.as_fd(), libc::POLLIN)], Some(Duration::from_millis(CHECK)));
        let ready = ready.map_err(|error| Failure::system("poll", &error))?;
        if ready.first().is_some_and(|events| *events != 0)
            && let Ok((stream, _)) = listener.accept()
            && is_own(&stream)
        {
            let (dialer, user) = (dialer.clone(), users.begin());
            thread::spawn(move || {
                Relay::new(dialer, user.clone()).run(stream);
                drop(user);
            });
        }
    }
    Ok(Exit::Done)
}

/// Listens on a path. A file that no process listens on is replaced.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
    }
    if UnixStream::connect(path).is_err() {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether the program at the other end is of this user.
fn is_own(stream: &UnixStream) -> bool {
    let usable = stream.set_nonblocking(false).is_ok();
    let uid = credentials::of_peer(stream.as_fd()).map(|peer| peer.uid);
    usable && uid.is_ok_and(|uid| uid == effective_uid())
}

/// Removes the file of the socket at the end.
struct SocketFile<'a>(&'a Path);

impl Drop for SocketFile<'_> {
    /// Best effort: the next agent replaces it.
    fn drop(&mut self) {
        drop(fs::remove_file(self.0));
    }
}
