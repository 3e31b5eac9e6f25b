//! Calls with the identity of the client that may wait, and messages of a client.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use sockbroker_monitor::caller::message::{
    Bytes, ControlItem, DESCRIPTORS_MAX, Data, Destination as SentTo, Outgoing, SHARED_MAX,
    UnixAnswer, UnixCall,
};
use tokio::time::{sleep, timeout_at};

use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::Client;
use crate::network::caller_process::{Descriptors, Failure, Link, Reply};
use crate::ops::outgoing::{Addressed, Destination};
use crate::ops::wait::{Direction, RETRY_PAUSE, WaitPolicy, until_done};
use crate::table::permitted::Socket;
use sockbroker_policy::action::{AncillaryItem, MessageContents};

/// The most descriptors of one message: `SCM_MAX_FD`.
const SCM_MAX_FD: usize = 253;

impl Client {
    /// Adds the client's ids to a message (`SCM_CREDENTIALS`, `unix(7)`): without them the receiver would get
    /// the broker's. They replace credentials from the client, which were checked to be its own. The process
    /// id is that of the broker, which sends the message: the client's id may belong to another process when
    /// the message is read.
    pub(super) fn sign(&self, control: &mut Vec<AncillaryItem>) {
        control.retain(|item| !is_credentials(item));
        let (uid, gid) = self.ids();
        let data = [std::process::id(), uid, gid].map(u32::to_ne_bytes).concat();
        let (level, kind) = CREDENTIALS;
        control.push(AncillaryItem::Data { level, kind, data });
    }

    /// Makes a call with the identity of the client, and repeats it while it fails with `EAGAIN`: no event
    /// reports that another socket's queue has space. With [`WaitPolicy::None`] the call is made once.
    pub(super) async fn until_done(
        &self,
        name: &'static str,
        wait_policy: WaitPolicy,
        call: impl Fn() -> io::Result<(UnixCall, Descriptors)> + Send + Sync,
    ) -> OpResult<Reply> {
        let attempts = async {
            let (mut pause, longest) = RETRY_PAUSE;
            loop {
                let (call, descriptors) = call().during(name)?;
                match self.attempt(name, call, descriptors).await? {
                    Err(error)
                        if error.kind() == io::ErrorKind::WouldBlock
                            && !matches!(wait_policy, WaitPolicy::None) => {}
                    result => return result.during(name),
                }
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        };
        match wait_policy {
            WaitPolicy::None | WaitPolicy::Endless => attempts.await,
            WaitPolicy::Until(deadline) => {
                timeout_at(deadline, attempts).await.unwrap_or(Err(OpError::Timeout))
            }
            WaitPolicy::KernelUntil(deadline) => timeout_at(deadline, attempts)
                .await
                .unwrap_or(Err(OpError::Os { call: name, errno: libc::EAGAIN })),
        }
    }

    /// Sends a message to its destination with the identity of the client.
    pub(super) async fn send_to(
        &self,
        name: &'static str,
        socket: &Socket,
        message: &Addressed,
        wait_policy: WaitPolicy,
    ) -> OpResult<usize> {
        let (outgoing, mut others) = outgoing(message, true).during(name)?;
        let call = UnixCall::Send(outgoing, Data::Inside(Bytes(message.1.buffers.concat())));
        let mut descriptors: Descriptors = vec![Arc::new(socket.shared())];
        descriptors.append(&mut others);
        let call = || Ok((call.clone(), descriptors.clone()));
        match self.until_done(name, wait_policy, call).await? {
            (UnixAnswer::Sent(sent), _) => Ok(usize::try_from(sent).unwrap_or(usize::MAX)),
            _ => Err(OpError::Plain(format!("{name}: the answer is of another call"))),
        }
    }

    /// Sends a message to the peer of a socket by the process that acts as the client. It is sent within one poll, so
    /// that cancelling cannot separate the effect from the result.
    pub(super) async fn send_to_peer(
        &self,
        name: &'static str,
        socket: &Socket,
        message: &Addressed,
        wait_policy: &(dyn Fn() -> WaitPolicy + Sync),
    ) -> OpResult<usize> {
        let is_stream = socket.actual().ty == libc::SOCK_STREAM;
        let mut is_repeated = false;
        loop {
            let link = self.link().await.map_err(|failure| self.describe(name, failure))?;
            let mut failure = None;
            let send = || {
                send_parts(&link, socket.fd(), message, is_stream).map_err(|error| match error {
                    Failure::Failed(errno) => io::Error::from_raw_os_error(errno),
                    other => {
                        failure = Some(other);
                        io::Error::other("no answer")
                    }
                })
            };
            let sent = until_done(socket, Direction::Send, name, wait_policy, send).await;
            match failure {
                None => return sent,
                // The process had ended before the call.
                Some(Failure::NotSent) if !is_repeated => is_repeated = true,
                Some(failure) => return Err(self.describe(name, failure)),
            }
        }
    }
}

/// Sends a message in parts that fit into a message to the process, if it is of a stream. Returns the bytes that the
/// kernel accepted.
fn send_parts(
    link: &Link,
    fd: BorrowedFd<'_>,
    message: &Addressed,
    is_stream: bool,
) -> Result<usize, Failure> {
    let joined;
    let data: &[u8] = match &message.1.buffers[..] {
        [data] => data,
        parts => {
            joined = parts.concat();
            &joined
        }
    };
    // Only the last byte of the whole is out of band.
    let whole = !is_stream || message.1.flags & libc::MSG_OOB != 0 || data.is_empty();
    let length = if whole { data.len().max(1) } else { SHARED_MAX };
    let mut parts = data.chunks(length).peekable();
    let first = parts.next().unwrap_or_default();
    let mut sent = send_part(link, fd, message, first, true)?;
    let mut is_full = sent < first.len();
    while let Some(part) = parts.next().filter(|_| !is_full) {
        match send_part(link, fd, message, part, false) {
            Ok(accepted) => {
                sent += accepted;
                is_full = accepted < part.len();
            }
            // As in the kernel: after an error the result is the number of bytes that were sent.
            Err(_) => is_full = true,
        }
    }
    Ok(sent)
}

fn send_part(
    link: &Link,
    fd: BorrowedFd<'_>,
    message: &Addressed,
    part: &[u8],
    is_first: bool,
) -> Result<usize, Failure> {
    let failed = |error: io::Error| Failure::Failed(error.raw_os_error().unwrap_or(libc::EINVAL));
    let (outgoing, others) = outgoing(message, is_first).map_err(failed)?;
    let others = others.iter().map(|one| one.as_fd());
    let descriptors: Vec<_> = [fd].into_iter().chain(others).collect();
    match link.send_now(outgoing, part, &descriptors)? {
        UnixAnswer::Sent(sent) => Ok(usize::try_from(sent).unwrap_or(usize::MAX)),
        UnixAnswer::Failed(errno) => Err(Failure::Failed(errno)),
        _ => Err(Failure::Ended),
    }
}

/// A message without its data, and its descriptors but for the socket.
fn outgoing(
    (address, contents): &Addressed,
    with_ancillary: bool,
) -> io::Result<(Outgoing, Descriptors)> {
    let mut descriptors: Descriptors = Vec::new();
    let destination = match address {
        None => SentTo::Peer,
        Some(Destination::Address(raw)) => SentTo::Address(raw.as_bytes().to_vec()),
        Some(Destination::File(file)) => {
            descriptors.push(file.clone());
            SentTo::File
        }
    };
    let MessageContents { ancillary, flags, .. } = contents;
    let mut control = Vec::new();
    for item in ancillary.iter().filter(|item| with_ancillary && !is_credentials(item)) {
        control.push(match item {
            &AncillaryItem::Data { level, kind, ref data } => {
                ControlItem::Data { level, kind, data: data.clone() }
            }
            AncillaryItem::Descriptors { descriptors: passed, rest } => {
                descriptors.extend(passed.iter().cloned());
                // As the kernel answers if one item has too many.
                let count = passed.len().try_into().map_err(|_error| too_many())?;
                ControlItem::Descriptors { count, rest: rest.clone() }
            }
        });
    }
    let mut outgoing = Outgoing { destination, flags: *flags, control, attached: false };
    if outgoing.passed() > SCM_MAX_FD {
        return Err(too_many());
    }
    // The socket comes first.
    outgoing.attached = descriptors.len() + 1 > DESCRIPTORS_MAX;
    Ok((outgoing, descriptors))
}

fn too_many() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

const CREDENTIALS: (i32, i32) = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);

fn is_credentials(item: &AncillaryItem) -> bool {
    matches!(item, AncillaryItem::Data { level, kind, .. } if (*level, *kind) == CREDENTIALS)
}
