//! Captures: packets of interfaces, as a stream of pcapng.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::values::Netns;
use crate::bytes::Bytes;
use crate::error::ErrorData;
use crate::handle::Handle;

/// Which packets are captured, and how they are written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureOptions {
    /// The text of the filter, for the file.
    pub filter_text: Option<String>,
    /// The most bytes of a packet that are captured; 262144 if absent.
    pub snaplen: Option<u32>,
    /// Whether the interfaces receive packets for other hosts.
    pub promiscuous: bool,
    /// Packets of both directions, if absent.
    pub direction: Option<CaptureDirection>,
    /// Whether packets of a loopback are captured twice: when they are sent, and when they are received.
    pub duplicates: bool,
    /// `live` if absent.
    pub mode: Option<CaptureMode>,
    /// The size of the ring in bytes; 16 MiB if absent.
    pub buffer_bytes: Option<u64>,
    /// `pcapng` if absent.
    pub format: Option<CaptureFormat>,
    /// The capture ends after this many packets.
    pub packets: Option<u64>,
    /// The capture ends after this many captured bytes of packets.
    pub bytes: Option<u64>,
    /// The capture ends after this time.
    pub seconds: Option<f64>,
}

/// A direction of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureDirection {
    /// Received and sent ones.
    Both,
    /// Received ones.
    In,
    /// Sent ones.
    Out,
}

/// How packets reach the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureMode {
    /// Each within a millisecond.
    Live,
    /// In blocks, after at most ten milliseconds. It costs less for each packet.
    Bulk,
}

/// The format of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CaptureFormat {
    /// With interfaces, directions, drops and counters.
    Pcapng,
    /// One interface.
    Pcap,
}

/// A time of the real-time clock, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaptureTime {
    /// Full seconds.
    pub seconds: u64,
    /// Nanoseconds of the next second.
    pub nanoseconds: u32,
}

/// An interface of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaptureInterface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What its packets begin with: `LINKTYPE_` of tcpdump.org.
    pub link_type: u16,
}

/// A new capture. It is live: it captures every packet that the kernel receives after this response was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaptureOpened {
    /// The handle of the stream.
    pub handle: Handle,
    /// When the socket was being bound. Packets between this time and `started` can be in the stream.
    pub bind_began: CaptureTime,
    /// When the capture was live.
    pub started: CaptureTime,
    /// The interfaces that the request names.
    pub interfaces: Vec<CaptureInterface>,
    /// The most bytes of a packet that are captured.
    pub snaplen: u32,
    /// The size of the ring in bytes.
    pub buffer_bytes: u64,
    /// Whether the descriptor of the stream is attached to the response; without it, `capture.read` reads the stream.
    pub fd: bool,
}

/// The packets of a capture: `captured + dropped + unread = seen`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CaptureStats {
    /// Packets that the filter accepted.
    pub seen: u64,
    /// Packets that were written to the stream.
    pub captured: u64,
    /// Packets for which the ring had no room.
    pub dropped: u64,
    /// Packets that are in the ring, or were when the capture ended.
    pub unread: u64,
    /// The captured bytes of the packets that were written.
    pub bytes: u64,
    /// Why the capture has ended: `stopped`, `limit`, `interface` (it is gone), `policy`, `unread` (nobody reads the stream),
    /// `failed`, or `interrupted` (the process that serves its session has ended); `null` while it runs.
    pub ended: Option<String>,
    /// Whether the stream of a capture that has ended is complete; it is cut if it was not read in time.
    pub complete: Option<bool>,
}

/// When a filter was replaced. No packet of the earlier filter has a later time than `after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilterReplaced {
    /// Before the replacement.
    pub before: CaptureTime,
    /// After the replacement.
    pub after: CaptureTime,
}

/// A part of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapturePart {
    /// The bytes; empty at the end of the stream.
    pub bytes: Bytes,
}

/// When packets of a file are sent, and which.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayOptions {
    /// The factor of the file's own timing: 2 sends in half of the time. 1 if absent; 0 sends without waiting.
    pub speed: Option<f64>,
    /// Packets a second, in place of the file's own timing.
    pub packets_per_second: Option<f64>,
    /// When the first packet is due, in seconds after the start of the call; a negative number if it is late already.
    /// It continues the schedule of an earlier call.
    pub delay: f64,
    /// The number of the first packet in results; 1 if absent.
    pub first: Option<u64>,
    /// Whether packets that the file has only in part are sent as they are. Otherwise they fail.
    pub truncated: bool,
}

/// A packet that was not sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayFailure {
    /// The number of the packet.
    pub packet: u64,
    /// Why, as a text for people.
    pub reason: String,
    /// The error.
    pub error: Box<ErrorData>,
}

/// What a replay has sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Replayed {
    /// Packets that were sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that cannot be sent; later ones were sent.
    pub failed: u64,
    /// The first 16 of them.
    pub failures: Vec<ReplayFailure>,
    /// How long it took.
    pub seconds: f64,
    /// Why this packet and all later ones were not sent; `null` if the replay is complete.
    pub stopped: Option<ReplayFailure>,
}

/// Captures.
///
/// A capture is a stream of its session. It ends by itself with a reason in the stream, and its handle stays until it is
/// closed.
#[sockbroker_proto_macros::api(namespace = "capture")]
pub trait Capture {
    /// Opens a capture.
    ///
    /// The client reads the stream from the attached descriptor, or by `capture.read`. A client that does not read loses
    /// packets, which are counted.
    #[method(name = "open")]
    async fn open(
        &self,
        /// The names of the interfaces, at most 16; all interfaces if absent, also those that appear later.
        interfaces: Option<Vec<String>>,
        /// A program of classic BPF, as `SO_ATTACH_FILTER` takes it: at most 4096 instructions of 8 bytes in host order.
        filter: Option<Bytes>,
        /// Which packets are captured, and how they are written.
        options: Option<CaptureOptions>,
        /// Whether to attach the descriptor of the stream; if absent, it is attached where the connection can carry it.
        want_fd: Option<bool>,
        /// The network namespace of the interfaces, as for `socket.socket`.
        netns: Option<Netns>,
    ) -> RpcResult<CaptureOpened>;

    /// The packets of a capture so far, also after it has ended.
    #[method(name = "stats")]
    async fn stats(&self, handle: Handle) -> RpcResult<CaptureStats>;

    /// Replaces the filter of the client. What the policy excludes stays excluded.
    #[method(name = "set_filter")]
    async fn set_filter(
        &self,
        handle: Handle,
        /// A program as for `capture.open`; all packets if absent.
        filter: Option<Bytes>,
        /// The expression of the program, for the audit.
        filter_text: Option<String>,
    ) -> RpcResult<FilterReplaced>;

    /// Reads a part of the stream of a capture whose descriptor was not attached. Waits until there is one.
    #[method(name = "read")]
    async fn read(
        &self,
        handle: Handle,
        /// At most this many bytes.
        bufsize: i64,
    ) -> RpcResult<CapturePart>;

    /// Ends a capture. The response comes when everything that was captured is in the stream, or 0.3 seconds later if
    /// the client does not read it.
    #[method(name = "stop")]
    async fn stop(
        &self,
        handle: Handle,
        /// Seconds to capture before the end; 0 if absent.
        linger: Option<f64>,
    ) -> RpcResult<CaptureStats>;

    /// Ends a capture and closes its handle. The client can read what is in the stream.
    #[method(name = "close")]
    async fn close(&self, handle: Handle) -> RpcResult<()>;

    /// Sends the packets of a capture file on a packet socket, at the times of the file.
    ///
    /// The socket has the type `SOCK_RAW` and is bound to an interface. Each packet is judged as by `socket.send`. The
    /// response comes when all packets are sent. A packet that the interface cannot send is counted, and the next one is
    /// sent. Any other failure before the first packet is an error of the call, and later it ends the replay. A call that is
    /// cancelled sends no further packet.
    #[method(name = "replay")]
    async fn replay(
        &self,
        handle: Handle,
        /// A file of the format pcapng or pcap, with at most 65536 packets and other blocks. A longer one takes several
        /// calls: each with a file of its own.
        bytes: Bytes,
        /// When packets are sent, and which.
        options: Option<ReplayOptions>,
    ) -> RpcResult<Replayed>;
}
