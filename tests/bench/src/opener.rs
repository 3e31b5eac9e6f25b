//! The opener alone: the exchange of a worker with it, without JSON-RPC, policy files and audit of the worker.
//!
//! The benchmark takes the parts of the monitor, which announces a worker and a connection, and of the worker.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::libc;
use nix::unistd::Pid;
use sockbroker_monitor::channel::Channel;
use sockbroker_monitor::message::{Build, FromOpener, ToOpener, WorkerPeer};
use sockbroker_monitor::request::{
    Answer, OpenerChannel, OpenerRequest, Request, SelectedNamespace,
};
use sockbroker_sys::credentials::{self, Credentials};
use sockbroker_sys::stream::send_stream;
use sockbroker_sys::{record, sealed, socket};

use crate::client::TIMEOUT;
use crate::error::Result;
use crate::peers::{Peer, Role};

/// The only worker.
const WORKER: u64 = 1;

/// A running opener, and the parts of the other processes.
pub(crate) struct BareOpener {
    peer: Peer,
    _monitor: Channel<ToOpener, FromOpener>,
    worker: OpenerChannel,
    connection: UnixStream,
    _client: UnixStream,
}

impl BareOpener {
    /// Starts an opener for a worker that has this connection of a client.
    pub(crate) fn start((connection, client): (UnixStream, UnixStream)) -> Result<Self> {
        let (peer, stream) = Peer::start(Role::BareOpener)?;
        let (monitor, other) = Channel::pair()?;
        send_stream(stream.as_fd(), &[IoSlice::new(&[0])], &[other.as_fd()])?;
        monitor.wait_at_most(TIMEOUT)?;
        monitor.send(&ToOpener::Hello(Build::OWN), &[])?;
        let [configuration, policy] = [sealed::create("c", &[])?, sealed::create("p", &[])?];
        let begin = ToOpener::Begin { generation: 1 };
        monitor.send(&begin, &[configuration.as_fd(), policy.as_fd()])?;
        while !matches!(monitor.receive_within(), Ok((FromOpener::Ready(_), _))) {}
        let worker = introduce(&monitor, &connection)?;
        Ok(Self { peer, _monitor: monitor, worker, connection, _client: client })
    }

    pub(crate) fn process(&self) -> Pid {
        self.peer.process()
    }

    /// A raw socket in a network namespace.
    pub(crate) fn raw_socket(&self, network: SelectedNamespace) -> Result<OwnedFd> {
        let (domain, ty) = (libc::AF_INET, libc::SOCK_RAW);
        let request = Request::Create { domain, ty, protocol: libc::IPPROTO_ICMP };
        let request = OpenerRequest { network, request };
        let failed = |error| io::Error::other(format!("the opener: {error}"));
        let asked = self.worker.ask(&request, &[self.connection.as_fd()]);
        let (answer, made) = asked.map_err(|error| failed(error.to_string()))?;
        if answer != Answer::Made {
            return Err(format!("the opener makes no socket: {answer:?}").into());
        }
        self.worker.answer().map_err(|error| failed(error.to_string()))?;
        made.into_iter().next().ok_or_else(|| "no socket came".into())
    }
}

/// Announces the worker and its connection, as the monitor does.
fn introduce(
    monitor: &Channel<ToOpener, FromOpener>,
    connection: &UnixStream,
) -> Result<OpenerChannel> {
    let Credentials { uid, gid, groups, network } = credentials::of_peer(connection.as_fd())?;
    let peer = WorkerPeer { uid, account: uid, gid, groups, network, remote: None };
    let peer = sealed::create("peer", &postcard::to_stdvec(&peer)?)?;
    let ((prompt, of_prompt), (_slow, of_slow)) = (record::pair()?, record::pair()?);
    let descriptors = [of_prompt.as_fd(), of_slow.as_fd(), peer.as_fd()];
    monitor.send(&ToOpener::Worker { worker: WORKER }, &descriptors)?;
    let cookie = socket::cookie(connection.as_fd())?;
    monitor.send(&ToOpener::Accepted { worker: WORKER, cookie }, &[])?;
    Ok(OpenerChannel::over(prompt, Duration::from_secs(5))?)
}
