//! The traffic of suite `capture`: a pair of interfaces in two network namespaces, and a thread that sends frames.
//!
//! The kernel receives a frame of such a pair on the CPU time of its sender, which no figure includes.

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Pid, gettid};
use sockbroker_proto::address::Address;
use sockbroker_sys::address::RawAddress;
use sockbroker_sys::message::{OutgoingMessage, send_batch};
use sockbroker_sys::{interface, namespace, socket};

use crate::error::Result;

/// The interface that receives, in the namespace of the thread that made the traffic.
pub(crate) const RECEIVER: &str = "bench1";
const SENDER: &str = "bench0";
/// Two addresses without an owner, and a type of frames for experiments, which the kernel ignores (IEEE 802).
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
/// Where a frame has the time of its sending.
const TIME: usize = 14;
/// The frames of one system call at full rate.
const BATCH: usize = 64;
/// The frames of one system call at a given rate, at most: a burst of this many frames is short for every buffer.
const BURST: u32 = 32;

/// Which frames are sent.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    /// Bytes of each.
    pub(crate) bytes: usize,
    pub(crate) pace: Pace,
    pub(crate) count: u32,
    /// Ends the sending before the count is reached.
    pub(crate) over: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as possible.
    Full,
    /// This many frames each second.
    PerSecond(u32),
    /// About this many frames each second, with gaps of random length.
    Random(u32),
}

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) frames: u32,
    pub(crate) seconds: f64,
}

/// Two interfaces, and the thread that sends on one of them. Dropping it ends the thread, and with it the interfaces.
#[derive(Debug)]
pub(crate) struct Traffic {
    jobs: Option<SyncSender<Frames>>,
    done: Receiver<std::result::Result<Sent, String>>,
    thread: Option<JoinHandle<()>>,
    clock: Clock,
}

impl Traffic {
    /// Moves the calling thread to a network namespace of its own, and makes the interfaces. `EPERM` without
    /// `CAP_SYS_ADMIN`.
    pub(crate) fn start() -> Result<Self> {
        namespace::enter_network()?;
        without_ipv6();
        interface::bring_up("lo")?;
        let since = Instant::now();
        let (jobs, wanted) = sync_channel::<Frames>(1);
        let (result, done) = sync_channel(1);
        let (place, places) = sync_channel(1);
        let (moved, ready) = sync_channel(1);
        let work = move || -> Result<()> {
            namespace::enter_network()?;
            without_ipv6();
            place.send(gettid())?;
            ready.recv()?;
            ip(&["link", "set", SENDER, "up"])?;
            let socket = transmitter()?;
            // The interfaces are ready when both are up.
            result.send(Ok(Sent { frames: 0, seconds: 0.0 }))?;
            for frames in wanted {
                result.send(send(&socket, &frames, since).map_err(|error| error.to_string()))?;
            }
            Ok(())
        };
        let thread = thread::spawn(move || {
            // An error closes the channels.
            drop(work());
        });
        let sender: Pid = places.recv()?;
        ip(&["link", "add", SENDER, "type", "veth", "peer", "name", RECEIVER])?;
        ip(&["link", "set", SENDER, "netns", &sender.to_string()])?;
        ip(&["link", "set", RECEIVER, "up"])?;
        moved.send(())?;
        let traffic = Self { jobs: Some(jobs), done, thread: Some(thread), clock: Clock(since) };
        traffic.wait()?;
        Ok(traffic)
    }

    /// Begins to send.
    pub(crate) fn begin(&self, frames: Frames) -> Result<()> {
        Ok(self.jobs.as_ref().ok_or("the sender has ended")?.send(frames)?)
    }

    /// Waits until everything is sent.
    pub(crate) fn wait(&self) -> Result<Sent> {
        Ok(self.done.recv().map_err(|_closed| "the sender has failed")??)
    }

    /// Sends frames, and waits until they are sent.
    pub(crate) fn send(&self, bytes: usize, pace: Pace, count: u32) -> Result<Sent> {
        self.begin(Frames { bytes, pace, count, over: Arc::default() })?;
        self.wait()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }
}

/// The clock of the times in frames.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// The age of a frame in seconds, by the time that it contains.
    pub(crate) fn age(self, frame: &[u8]) -> Option<f64> {
        let sent = frame.get(TIME..)?.first_chunk().map(|time| u64::from_ne_bytes(*time))?;
        Some(self.0.elapsed().checked_sub(Duration::from_nanos(sent))?.as_secs_f64())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        drop(self.jobs.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// The kernel sends frames of its own on interfaces with IPv6. Without IPv6 the files do not exist.
fn without_ipv6() {
    drop(fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"));
    drop(fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"));
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("ip {}: {status}", arguments.join(" ")).into()),
        Err(error) => Err(format!("cannot run ip (package iproute2): {error}").into()),
    }
}

/// A packet socket that sends on the interface, and receives nothing.
fn transmitter() -> Result<OwnedFd> {
    packet_socket(SENDER, 0)
}

/// A packet socket that receives on the other interface.
pub(crate) fn receiver() -> Result<OwnedFd> {
    const ETH_P_ALL: u16 = 3;
    packet_socket(RECEIVER, ETH_P_ALL)
}

fn packet_socket(name: &str, protocol: u16) -> Result<OwnedFd> {
    let socket = socket::create(nix::libc::AF_PACKET, nix::libc::SOCK_RAW, 0)?;
    let ifindex = interface::index_of(name)?;
    let (pkttype, hatype, addr) = (0, 0, Vec::new());
    let address = Address::Packet { ifindex, protocol, pkttype, hatype, addr };
    socket::bind(socket.as_fd(), &RawAddress::encode(&address))?;
    Ok(socket)
}

/// Sends frames in batches, each at its time of an absolute schedule.
fn send(socket: &OwnedFd, frames: &Frames, since: Instant) -> Result<Sent> {
    let begun = Instant::now();
    let mut frame = vec![0; frames.bytes.max(TIME + 8)];
    if let Some(header) = frame.get_mut(..HEADER.len()) {
        header.copy_from_slice(&HEADER);
    }
    let (mut sent, mut due, mut random) = (0, Duration::ZERO, Random(1));
    while sent < frames.count && !frames.over.load(Ordering::Relaxed) {
        let batch = match frames.pace {
            Pace::Full => u32::try_from(BATCH)?,
            Pace::PerSecond(rate) => {
                let batch = (rate / 1000).clamp(1, BURST);
                due += Duration::from_secs(1) * batch / rate;
                batch
            }
            Pace::Random(rate) => {
                // Between no gap and two gaps.
                due += Duration::from_secs(2).mul_f64(random.fraction()) / rate;
                1
            }
        };
        pause_until(begun + due);
        let batch = batch.min(frames.count - sent);
        let time = u64::try_from(since.elapsed().as_nanos())?.to_ne_bytes();
        if let Some(target) = frame.get_mut(TIME..TIME + 8) {
            target.copy_from_slice(&time);
        }
        let buffers = [IoSlice::new(&frame)];
        let message = || OutgoingMessage { buffers: &buffers, control: &[], address: None };
        let messages: Vec<_> = (0..batch).map(|_| message()).collect();
        sent += u32::try_from(send_batch(socket.as_fd(), &messages, 0)?.len())?;
    }
    Ok(Sent { frames: sent, seconds: begun.elapsed().as_secs_f64() })
}

#[expect(clippy::disallowed_methods, reason = "no event loop here that could be blocked")]
fn pause_until(time: Instant) {
    let rest = time.saturating_duration_since(Instant::now());
    if rest > Duration::ZERO {
        thread::sleep(rest);
    }
}

/// Numbers for gaps, the same in each run (xorshift).
struct Random(u64);

impl Random {
    /// A number between 0 and 1.
    fn fraction(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap_or_default()) / f64::from(u32::MAX)
    }
}
