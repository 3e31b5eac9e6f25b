//! A packet socket of the broker: returns packets with times, directions, full lengths and VLAN tags.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sockbroker_filter::Program;
use sockbroker_proto::api::values::{Created, OptionValue, ReceivedMessage};
use sockbroker_proto::bytes::Bytes;

use super::args::SniffArgs;
use super::filter;
use super::link::LinkHeader;
use super::packet::{self, ETHERNET, LOOPBACK, Received};
use crate::connection::{Connection, decode};
use crate::failure::Failure;
use crate::interrupt::POLL_INTERVAL;

/// All protocols, `linux/if_ether.h`.
const ETH_P_ALL: i64 = 3;
/// The size of the receive buffer in the kernel, in bytes.
const BUFFER: i64 = 8 << 20;
/// The most packets that one call receives.
const BATCH: u64 = 64;
/// The buffer for ancillary data: a `timespec` and a `struct tpacket_auxdata`.
const CONTROL: i64 = 96;
/// How long the index of an interface is cached: the name can pass to another interface.
const INDEX_AGE: Duration = Duration::from_secs(1);

/// The result of one receive call.
#[derive(Debug)]
pub(crate) enum Batch {
    /// Packets were received.
    Packets {
        /// The packets to write.
        packets: Vec<Received>,
        /// The number of received messages, including copies on the loopback interface.
        messages: u64,
    },
    /// No packet arrived in time.
    Nothing,
    /// The interface went down. The socket continues when it is up again.
    Down,
}

/// Whether a receive call waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Wait for a short time.
    Shortly,
    /// Do not wait.
    No,
}

/// The counters of a capture.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Packets that the interface received.
    pub(crate) received: u64,
    /// Packets that were dropped because the buffer was full.
    pub(crate) dropped: u64,
}

#[derive(Debug)]
pub(crate) struct PacketSocket {
    connection: Arc<Connection>,
    handle: u64,
    /// The link-layer header of packets.
    pub(crate) kind: LinkHeader,
    snaplen: u32,
    batch: u64,
    /// The sum of the kernel's counters, which restart at 0 after each read.
    counted: Mutex<Counts>,
    /// Interface indexes by name, and when each was read.
    indexes: Mutex<HashMap<String, (u32, Instant)>>,
}

impl PacketSocket {
    /// Starts to capture on an interface, or on all interfaces for `any`.
    pub(crate) fn open(connection: Arc<Connection>, args: &SniffArgs) -> Result<Self, Failure> {
        let SniffArgs { interface, snaplen, promiscuous, .. } = args;
        let limit = receive_bytes(&connection)?;
        let snaplen = u64::from(*snaplen).min(limit);
        let batch = (limit / snaplen.max(1)).clamp(1, BATCH);
        let any = interface.as_str() == "any";
        let hardware = if any { None } else { Some(hardware(&connection, interface)?) };
        let kind = match hardware {
            Some(ETHERNET | LOOPBACK) => LinkHeader::Ethernet,
            Some(_) | None => LinkHeader::Cooked,
        };
        let expression = args.expression();
        let filter = expression.map(|text| filter::compile(&text, interface, kind)).transpose()?;
        let socktype = if kind == LinkHeader::Ethernet { "SOCK_RAW" } else { "SOCK_DGRAM" };
        // A socket without a protocol receives nothing until it is bound.
        let handle = make(&connection, socktype)?;
        let snaplen = u32::try_from(snaplen).unwrap_or(u32::MAX);
        let (counted, indexes) = (Mutex::default(), Mutex::default());
        let socket = Self { connection, handle, kind, snaplen, batch, counted, indexes };
        socket.prepare()?;
        if let Some(filter) = filter {
            socket.attach(&filter)?;
        }
        if *promiscuous && !any {
            socket.join(interface)?;
        }
        let address = if any { all_interfaces() } else { json!([interface, ETH_P_ALL]) };
        socket.connection.call("socket.bind", json!({ "handle": handle, "address": address }))?;
        Ok(socket)
    }

    fn prepare(&self) -> Result<(), Failure> {
        self.set("SOL_SOCKET", libc::SO_TIMESTAMPNS, &json!(1))?;
        // The kernel removes VLAN tags from frames and reports them in this ancillary data.
        self.set("SOL_PACKET", libc::PACKET_AUXDATA, &json!(1))?;
        // Only CAP_NET_ADMIN can exceed the system's limit; without it, request the most that is allowed.
        if self.set("SOL_SOCKET", libc::SO_RCVBUFFORCE, &json!(BUFFER)).is_err() {
            self.set("SOL_SOCKET", libc::SO_RCVBUF, &json!(BUFFER))?;
        }
        let timeout = json!({ "handle": self.handle, "value": POLL_INTERVAL });
        self.connection.call("socket.settimeout", timeout).map(drop)
    }

    /// Drops packets that the program does not select, from the first one on: the socket is not bound yet.
    fn attach(&self, filter: &Program) -> Result<(), Failure> {
        let parameters =
            json!({ "handle": self.handle, "program": Bytes::Inline(filter.encode()) });
        self.connection.call("socket.attach_filter", parameters).map(drop)
    }

    /// Enables promiscuous mode until the socket is closed (`packet(7)`, `struct packet_mreq`).
    fn join(&self, interface: &str) -> Result<(), Failure> {
        let index = self
            .connection
            .call_within("socket.if_nametoindex", json!({ "if_name": interface }))?;
        let index = index.as_i64().and_then(|index| i32::try_from(index).ok()).unwrap_or(0);
        let mut membership = index.to_ne_bytes().to_vec();
        membership.extend(PACKET_MR_PROMISC.to_ne_bytes());
        membership.extend([0; 10]);
        let membership = OptionValue::Bytes(Bytes::Inline(membership));
        let membership = serde_json::to_value(membership).unwrap_or_default();
        self.set("SOL_PACKET", libc::PACKET_ADD_MEMBERSHIP, &membership)
    }

    fn set(&self, level: &str, name: i32, value: &Value) -> Result<(), Failure> {
        let level = if level == "SOL_PACKET" { json!(libc::SOL_PACKET) } else { json!(level) };
        let option =
            json!({ "handle": self.handle, "level": level, "optname": name, "value": value });
        self.connection.call("socket.setsockopt", option).map(drop)
    }

    /// Receives at most `most` packets.
    pub(crate) fn receive(&self, most: u64, wait: Wait) -> Result<Batch, Failure> {
        let parameters = json!({
            "handle": self.handle,
            "vlen": most.clamp(1, self.batch),
            "bufsize": self.snaplen,
            "ancbufsize": CONTROL,
            // With MSG_TRUNC the kernel reports the full length of a truncated packet.
            "flags": if wait == Wait::No { "MSG_TRUNC|MSG_DONTWAIT" } else { "MSG_TRUNC" },
        });
        let received = self.connection.call_typed("socket.recvmmsg", parameters);
        let messages: Vec<ReceivedMessage> = match received {
            Ok(messages) => messages,
            Err(failure) if failure.is_timeout() => return Ok(Batch::Nothing),
            Err(failure) => {
                return match failure.errno() {
                    Some(libc::EAGAIN | libc::EINTR) => Ok(Batch::Nothing),
                    Some(libc::ENETDOWN) => Ok(Batch::Down),
                    _ => Err(failure),
                };
            }
        };
        let count = messages.len() as u64;
        let read =
            |message| packet::read(message, self.kind, self.snaplen, |name| self.index(name));
        let packets = messages.into_iter().filter_map(|message| read(message).transpose());
        Ok(Batch::Packets { packets: packets.collect::<Result<_, _>>()?, messages: count })
    }

    /// Returns the index of an interface, or 0 if it does not exist or the policy refuses the call.
    fn index(&self, name: &str) -> u32 {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((index, since)) = indexes.get(name)
            && since.elapsed() < INDEX_AGE
        {
            return *index;
        }
        let index =
            self.connection.call_within("socket.if_nametoindex", json!({ "if_name": name }));
        let index = index.ok().and_then(|index| index.as_u64()).unwrap_or(0);
        let index = u32::try_from(index).unwrap_or(0);
        indexes.insert(name.to_owned(), (index, Instant::now()));
        index
    }

    /// Whether the interface was removed. The kernel then unbinds the socket.
    pub(crate) fn is_gone(&self) -> bool {
        let address = self.connection.call("socket.getsockname", json!({ "handle": self.handle }));
        address.is_ok_and(|address| address.get(0).and_then(Value::as_str) == Some(""))
    }

    /// Returns the kernel's counters since the start of the capture, `PACKET_STATISTICS` of `packet(7)`.
    pub(crate) fn counts(&self) -> Result<Counts, Failure> {
        let parameters = json!({
            "handle": self.handle,
            "level": libc::SOL_PACKET,
            "optname": libc::PACKET_STATISTICS,
            "buflen": 8,
        });
        let value: OptionValue = self.connection.call_typed("socket.getsockopt", parameters)?;
        let OptionValue::Bytes(Bytes::Inline(bytes)) = value else {
            return Err(Failure::protocol(
                "socket.getsockopt: cannot read the broker's answer: the packet statistics are not bytes",
            ));
        };
        let number = |at: usize| {
            let word = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
            u64::from(u32::from_ne_bytes(word.unwrap_or_default()))
        };
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.received += number(0);
        counted.dropped += number(4);
        Ok(*counted)
    }
}

const PACKET_MR_PROMISC: u16 = 1;

/// The address of all interfaces: a `struct sockaddr_ll` with index 0, which has no name.
fn all_interfaces() -> Value {
    let mut address = u16::try_from(ETH_P_ALL).unwrap_or(0).to_be_bytes().to_vec();
    address.extend([0; 16]);
    let base64 = serde_json::to_value(Bytes::Inline(address)).unwrap_or_default();
    json!({ "family": "AF_PACKET", "base64": base64 })
}

fn make(connection: &Connection, socktype: &str) -> Result<u64, Failure> {
    let parameters = json!({ "family": "AF_PACKET", "type": socktype, "proto": 0 });
    let made = connection.call_within("socket.socket", parameters)?;
    let made: Created = decode("socket.socket", made)?;
    Ok(made.handle.number())
}

/// Returns the hardware type of an interface.
fn hardware(connection: &Connection, interface: &str) -> Result<i64, Failure> {
    let handle = make(connection, "SOCK_DGRAM")?;
    connection.call("socket.bind", json!({ "handle": handle, "address": [interface, 0] }))?;
    let address = connection.call("socket.getsockname", json!({ "handle": handle }))?;
    connection.call("socket.close", json!({ "handle": handle }))?;
    let hardware = address.get(3).and_then(Value::as_i64);
    hardware.ok_or_else(|| {
        Failure::protocol(
            "socket.getsockname: cannot read the broker's answer: the address has no hardware type",
        )
    })
}

/// Returns the limit on the bytes that one receive call can request.
fn receive_bytes(connection: &Connection) -> Result<u64, Failure> {
    let limits = connection.call("session.limits", json!({}))?;
    let limit = limits.pointer("/receive_bytes/value").and_then(Value::as_u64);
    limit.ok_or_else(|| {
        Failure::protocol(
            "session.limits: cannot read the broker's answer: it has no receive_bytes",
        )
    })
}
