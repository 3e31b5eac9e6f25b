//! Sends the packets of a capture file on a packet socket, each when it is due.
//!
//! The schedule is absolute, so that delays do not add up. What is due is sent by `sendmmsg(2)`; a descriptor of a timer
//! wakes the task exactly. The task yields after each batch, and no wait is long: before each batch the caller of this
//! module authorizes it again, so a closed handle or a new policy ends the replay soon.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sockbroker_monitor::capture::{PRIVATE, link_type};
use sockbroker_pcapng::LinkType;
use sockbroker_policy::action::Send;
use sockbroker_proto::address::Address;
use sockbroker_sys::message::{self, OutgoingMessage};
use sockbroker_sys::socket;
use sockbroker_sys::timer::Timer;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::error::{During, OpError, OpResult};
use crate::ops::frames::{Frame, Refusal};
use crate::ops::schedule::Schedule;
use crate::ops::send::Progress;
use crate::ops::wait::{Direction, RETRY_PAUSE, WaitPolicy, keep_pace, until_done};
use crate::table::permitted::{Permitted, Socket};
use crate::table::readiness::register;

/// The most packets of one `sendmmsg(2)`, so that a batch does not hold the worker for long.
const BATCH: usize = 64;
/// The longest wait before the next authorization.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// How many packets that failed are described.
const FAILURES_MAX: usize = 16;
/// The name of the call in errors.
const CALL: &str = "sendmmsg";

/// A packet that was not sent: its index and why.
#[derive(Debug)]
pub struct Failure {
    pub index: usize,
    /// What is wrong with the packet; `None` if nothing is.
    pub reason: Option<String>,
    pub error: OpError,
}

/// What was sent.
#[derive(Debug, Default)]
pub struct Outcome {
    pub packets: u64,
    pub bytes: u64,
    pub failed: u64,
    pub failures: Vec<Failure>,
    pub duration: Duration,
    /// Why the packets from this one on were not sent.
    pub stopped: Option<Failure>,
}

/// What packets of the socket begin with; `None` for hardware that the broker does not know. Fails unless the socket is a
/// raw packet socket that is bound to an interface.
pub fn interface_link_type(permitted: &Permitted<Send>) -> OpResult<Option<LinkType>> {
    let socket = permitted.socket();
    let declared = socket.declared();
    if (declared.domain, declared.ty) != (libc::AF_PACKET, libc::SOCK_RAW) {
        return Err(OpError::value("the socket must be one of AF_PACKET and SOCK_RAW"));
    }
    let local = socket::local_address(socket.fd()).during("getsockname")?;
    match local.decode(declared.protocol) {
        Some(Address::Packet { ifindex, hatype, .. }) if ifindex != 0 => {
            let found = link_type(hatype);
            Ok((found != PRIVATE).then_some(found))
        }
        _ => Err(OpError::value("the socket must be bound to an interface: call socket.bind")),
    }
}

/// Sends packets. `authorize` judges the next batch.
pub async fn replay(
    frames: &[Frame<'_>],
    schedule: &Schedule,
    progress: &Progress,
    authorize: &(dyn Fn() -> OpResult<Permitted<Send>> + Sync),
) -> Outcome {
    let began = Instant::now();
    let mut outcome = Outcome::default();
    let mut waits = Waits::default();
    let start = frames.first().map_or(0, |frame| frame.time);
    let mut next = 0;
    while let Some(rest) = frames.get(next..).filter(|rest| !rest.is_empty()) {
        let elapsed = began.elapsed();
        let dues = (next..).zip(rest).map(|(index, frame)| schedule.due(index, start, frame.time));
        let ready = dues.take(BATCH).take_while(|due| *due <= elapsed).count();
        let step = if let Some(batch @ [_, ..]) = rest.get(..ready) {
            send(batch, authorize).await
        } else {
            let due = rest.first().map(|frame| schedule.due(next, start, frame.time));
            let left = due.unwrap_or_default().saturating_sub(elapsed);
            waits.until_due(left, authorize).await
        };
        match step {
            Ok(Step::Waited) => {}
            Ok(Step::Full) => waits.for_room().await,
            Ok(Step::Sent { packets, bytes }) => {
                waits.pause = RETRY_PAUSE.0;
                next += packets;
                outcome.packets += packets as u64;
                outcome.bytes += bytes as u64;
                progress.store(outcome.bytes, Ordering::Relaxed);
            }
            Ok(Step::Failed(reason, error)) => {
                outcome.failed += 1;
                if outcome.failures.len() < FAILURES_MAX {
                    let reason = Some(reason);
                    outcome.failures.push(Failure { index: next, reason, error });
                }
                next += 1;
            }
            Err(error) => {
                outcome.stopped = Some(Failure { index: next, reason: None, error });
                break;
            }
        }
        yield_now().await;
    }
    outcome.duration = began.elapsed();
    outcome
}

/// What happened to the next packets.
enum Step {
    /// Nothing yet.
    Waited,
    /// The queue of the interface has no room.
    Full,
    Sent {
        packets: usize,
        bytes: usize,
    },
    /// The first one cannot be sent, for this reason.
    Failed(String, OpError),
}

/// Sends as many packets of a batch as the kernel takes at once.
async fn send(
    batch: &[Frame<'_>],
    authorize: &(dyn Fn() -> OpResult<Permitted<Send>> + Sync),
) -> OpResult<Step> {
    let permitted = authorize()?;
    let socket = permitted.socket();
    let Some(first) = batch.first() else { return Ok(Step::Waited) };
    if let Some(refusal) = first.refusal {
        return Ok(explain(refusal, first.data));
    }
    let plain = batch.iter().take_while(|frame| frame.refusal.is_none()).count();
    let batch = batch.get(..plain).unwrap_or_default();
    let wait_policy = || WaitPolicy::after(WAIT_MAX);
    let paced = keep_pace(socket, wait_policy, CALL).await;
    if matches!(paced, Err(OpError::Timeout)) {
        return Ok(Step::Waited);
    }
    paced?;
    let attempt = || submit(socket, batch);
    match until_done(socket, Direction::Send, CALL, wait_policy, attempt).await {
        Ok(counts) => {
            let (packets, bytes): (usize, usize) = (counts.len(), counts.iter().sum());
            socket.user().sent(packets, bytes);
            Ok(Step::Sent { packets, bytes })
        }
        Err(OpError::Timeout) => Ok(Step::Waited),
        Err(OpError::Os { errno: libc::ENOBUFS, .. }) => Ok(Step::Full),
        Err(error @ OpError::Os { errno: libc::EMSGSIZE, .. }) => {
            let length = first.data.len();
            Ok(Step::Failed(format!("its {length} bytes are more than the MTU allows"), error))
        }
        // Shorter than the header of the link layer (`packet_snd`).
        Err(error @ OpError::Os { errno: libc::EINVAL, .. }) => {
            let length = first.data.len();
            Ok(Step::Failed(
                format!("its {length} bytes are too few for a frame of the interface"),
                error,
            ))
        }
        Err(error) => Err(error),
    }
}

fn submit(socket: &Socket, batch: &[Frame<'_>]) -> io::Result<Vec<usize>> {
    let slices: Vec<_> = batch.iter().map(|frame| IoSlice::new(frame.data)).collect();
    let outgoing = |buffers| OutgoingMessage { buffers, control: &[], address: None };
    let messages: Vec<_> = slices.chunks(1).map(outgoing).collect();
    message::send_batch(socket.fd(), &messages, libc::MSG_DONTWAIT)
}

fn explain(refusal: Refusal, data: &[u8]) -> Step {
    let reason = match refusal {
        Refusal::Truncated { length } => {
            format!(
                "the file has {} of its {length} bytes: truncated packets are not sent",
                data.len()
            )
        }
        Refusal::LinkType { found: LinkType(found), expected: LinkType(expected) } => {
            format!("its link type {found} is not that of the interface, {expected}")
        }
    };
    Step::Failed(reason.clone(), OpError::value(reason))
}

/// The waits of a replay.
struct Waits {
    /// The first wait makes it.
    timer: Option<AsyncFd<Timer>>,
    /// The next pause while the queue of the interface has no room.
    pause: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { timer: None, pause: RETRY_PAUSE.0 }
    }
}

impl Waits {
    /// Waits until a packet is due, for at most [`WAIT_MAX`].
    async fn until_due(
        &mut self,
        left: Duration,
        authorize: &(dyn Fn() -> OpResult<Permitted<Send>> + Sync),
    ) -> OpResult<Step> {
        // It ends here if it is not granted any more.
        let _permitted = authorize()?;
        let timer = match &mut self.timer {
            Some(timer) => timer,
            none => {
                let timer = Timer::new().during("timerfd_create")?;
                none.insert(register(timer, Interest::READABLE).during("epoll_ctl")?)
            }
        };
        timer.get_ref().set(left.min(WAIT_MAX)).during("timerfd_settime")?;
        timer.readable().await.during("epoll_wait")?.clear_ready();
        Ok(Step::Waited)
    }

    /// Waits for room in the queue of the interface, which no event reports.
    async fn for_room(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(RETRY_PAUSE.1);
    }
}
