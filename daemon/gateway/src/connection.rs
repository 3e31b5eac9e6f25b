//! One connection, from its first byte to its end.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sockbroker_monitor::message::gateway::{FromGateway, REASON_MAX};
use sockbroker_sys::{option, stream as sys_stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::authority::{Authenticated, Evidence};
use crate::establish::{Established, Failed, Tls, establish, refuse};
use crate::live::{Judgement, Served, Shared};
use crate::refusal::Refusal;
use crate::worker_end::WorkerEnd;

/// How often a connection whose client sends nothing more is checked.
const HANG_UP_CHECK: Duration = Duration::from_secs(1);
/// The characters of the longest reason; each has at most four bytes.
const REASON_CHARACTERS: usize = REASON_MAX / 4;
/// The buffer of each direction.
const BUFFER: usize = 64 << 10;

/// Serves a connection. `permit` counts its handshake.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    tcp: TcpStream,
    from: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let Some(handshake) = shared.begin_handshake(from.ip()) else {
        return tracing::debug!(%from, "closed a connection: handshakes_per_address");
    };
    let deadline = Instant::now() + shared.settings.handshake;
    let result = async {
        tcp.set_nodelay(true)?;
        keep_alive(&tcp)?;
        let socket = tcp.as_fd().try_clone_to_owned()?;
        Ok::<_, Failed>((establish(&shared, tcp, from, deadline).await?, socket))
    };
    let (established, socket) = match result.await {
        Ok(established) => established,
        Err(error) => return shared.log_refusal(from, &error),
    };
    let client = established.client.identity.to_string();
    match pass(&shared, established, socket, deadline).await {
        Ok((pump, served)) => {
            drop((handshake, permit));
            tracing::debug!(%from, client, connection = served.number, "a remote client is served");
            pump.run(&shared, served).await;
        }
        Err(error) => shared.log_refusal(from, &format!("{client}: {error}")),
    }
}

/// Lets the kernel find out that the machine of a client, or its program, is gone.
fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    for (level, name, value) in [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 15),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 15),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 3),
    ] {
        option::set_int(tcp.as_fd(), level, name, value)?;
    }
    Ok(())
}

/// A connection and the end of the pair that leads to its worker.
struct Pump {
    established: Established,
    /// A copy of the socket below TLS, to ask the kernel about it.
    socket: OwnedFd,
    worker: WorkerEnd,
}

/// Passes a new pair to the worker of the client.
async fn pass(
    shared: &Arc<Shared>,
    established: Established,
    socket: OwnedFd,
    deadline: Instant,
) -> Result<(Pump, Served), Failed> {
    let (own, workers) = sockbroker_sys::socket::pair(libc::AF_UNIX, libc::SOCK_STREAM, 0)?;
    let worker = WorkerEnd::new(own)?;
    let answer = shared.ask(&established.client, workers);
    let answer = timeout_at(deadline, answer).await.map_err(|_elapsed| Failed::Late)?;
    let answer = answer.unwrap_or_else(|_ended| Err("the broker stops".to_owned()));
    match answer {
        Ok(number) => {
            let served = shared.serve(number, &established.client);
            Ok((Pump { established, socket, worker }, served))
        }
        Err(reason) => {
            let Established { tls, framing, .. } = established;
            refuse(shared, tls, framing, &Refusal::denied(reason.clone())).await;
            Err(Failed::Refused(reason))
        }
    }
}

impl Pump {
    /// Copies both directions until they end, or until the client must not be served any longer.
    async fn run(self, shared: &Shared, mut served: Served) {
        let Self { established, socket, worker } = self;
        let Established { tls, client, input, .. } = established;
        let number = served.number;
        let copy = copy(tls, (socket, worker), input, shared.settings.last_bytes);
        tokio::pin!(copy);
        let reason = loop {
            let judgement = served.judgement.borrow_and_update().clone();
            let until = match judgement {
                Judgement::Until(until) => until,
                Judgement::End(reason) => break reason,
            };
            tokio::select! {
                () = &mut copy => {
                    return tracing::debug!(connection = number, "the connection has ended");
                }
                judged = served.judgement.changed() => if judged.is_err() { return },
                () = expiry(until) => break format!("the {} has expired", word(&client)),
            }
        };
        tracing::info!(connection = number, client = %client.identity, reason, "ends a connection");
        let reason = reason.chars().take(REASON_CHARACTERS).collect();
        shared.send(FromGateway::End { connection: number, reason }, None);
        // The worker sends the reason between two messages, and closes.
        drop(timeout(shared.settings.last_bytes, copy).await);
    }
}

/// Waits for the time at which a client is not admitted any longer.
async fn expiry(until: Option<SystemTime>) {
    match until {
        None => std::future::pending().await,
        Some(until) => sleep(until.duration_since(SystemTime::now()).unwrap_or_default()).await,
    }
}

/// How the input of a client ended.
enum Up {
    /// The client sends nothing more, and still reads.
    Ended,
    /// The client is gone.
    ClientGone,
    /// The worker takes nothing more, and may still send.
    WorkerGone,
}

/// Copies both directions. What the worker has sent reaches the client also if the worker takes nothing more.
async fn copy(
    tls: Tls,
    (socket, worker): (OwnedFd, WorkerEnd),
    input: Vec<u8>,
    last_bytes: Duration,
) {
    let (mut from_client, mut to_client) = split(tls);
    {
        let up = copy_up(&mut from_client, &worker, input);
        let down = copy_down(&worker, &mut to_client, last_bytes);
        tokio::pin!(up, down);
        tokio::select! {
            () = &mut down => {}
            end = &mut up => match end {
                Up::ClientGone => return,
                Up::WorkerGone => down.await,
                Up::Ended => tokio::select! {
                    () = &mut down => {}
                    () = hung_up(socket.as_fd()) => return,
                },
            },
        }
    }
    // A connection with unread input would be reset, and the client would not read the last bytes.
    drop(timeout(last_bytes, discard(&mut from_client)).await);
}

/// Waits until the other end has closed both directions. Only the end of its writing shows at once.
async fn hung_up(socket: BorrowedFd<'_>) {
    while !sys_stream::is_hung_up(socket).unwrap_or(true) {
        sleep(HANG_UP_CHECK).await;
    }
}

async fn copy_up(from_client: &mut ReadHalf<Tls>, worker: &WorkerEnd, input: Vec<u8>) -> Up {
    if worker.write_all(&input).await.is_err() {
        return Up::WorkerGone;
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match from_client.read(&mut buffer).await {
            Ok(0) => {
                let closed = worker.end_output();
                return if closed.is_ok() { Up::Ended } else { Up::WorkerGone };
            }
            Ok(read) => read,
            // Also the end of the stream without a closing message of TLS, as of a client that was killed.
            Err(_) => return Up::ClientGone,
        };
        let bytes = buffer.get(..read).unwrap_or_default();
        if worker.write_all(bytes).await.is_err() {
            return Up::WorkerGone;
        }
    }
}

/// Ends with the worker, or with the client. A client that does not read keeps its place only as long as the worker serves
/// it, and `last_bytes` longer.
async fn copy_down(worker: &WorkerEnd, to_client: &mut WriteHalf<Tls>, last_bytes: Duration) {
    let mut buffer = vec![0; BUFFER];
    loop {
        // An error is an end too: the worker has closed with unread input.
        let read = worker.read(&mut buffer).await.unwrap_or(0);
        let bytes = buffer.get(..read).unwrap_or_default();
        if read == 0 {
            // The client may have gone, or not read.
            drop(timeout(last_bytes, to_client.shutdown()).await);
            return;
        }
        let writing = async { to_client.write_all(bytes).await.and(to_client.flush().await) };
        let given_up = async {
            hung_up(worker.as_fd()).await;
            sleep(last_bytes).await;
        };
        tokio::select! {
            biased;
            written = writing => if written.is_err() { return },
            () = given_up => return,
        }
    }
}

/// Reads some of what the client still sends.
async fn discard(from_client: &mut ReadHalf<Tls>) {
    let (mut left, mut buffer) = (BUFFER, vec![0; 4096]);
    while left > 0 {
        match from_client.read(&mut buffer).await {
            Ok(read) if read > 0 => left = left.saturating_sub(read),
            _ => return,
        }
    }
}

fn word(client: &Authenticated) -> &'static str {
    match client.evidence {
        Evidence::Certificate(_) => "client certificate",
        Evidence::Token(..) => "token",
    }
}
