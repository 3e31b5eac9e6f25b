//! `proto::api::capture`: captures.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sockbroker_monitor::capture::{
    Counts, Direction, Ended, Format, INTERFACES_MAX, Interface, InterfaceFacts, Live, Order,
    TEXT_MAX, joined, restricted,
};
use sockbroker_proto::api::capture::{
    CaptureDirection, CaptureFormat, CaptureInterface, CaptureMode, CaptureOpened, CaptureOptions,
    CapturePart, CaptureServer, CaptureStats, CaptureTime, CloseParams, FilterReplaced, OpenParams,
    ReadParams, ReplayParams, Replayed, SetFilterParams, StatsParams, StopParams,
};
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::handle::Handle;
use tokio::io::Interest;

use crate::descriptor::Descriptor;
use crate::error::{During, OpError, OpResult};
use crate::handlers::{Handlers, audit, replay};
use crate::network::captures::{Capture, Opening};
use crate::rpc::call::Call;
use crate::table::Resource;
use crate::table::readiness::register;
use crate::table::stream::Body;
use sockbroker_bpf::Program;
use sockbroker_policy::action::{OpenCapture, ScopedCapture};
use sockbroker_policy::capture_scope::CaptureScope;

/// What is captured of a packet, and the size of the ring, if the request does not name them.
const SNAPLEN: u32 = 262_144;
const BUFFER_BYTES: u64 = 16 << 20;
/// The bytes of an instruction of classic BPF (`struct sock_filter`).
const INSTRUCTION: usize = 8;
/// The longest time that a capture can be asked to run.
const LONGEST: f64 = 366.0 * 86400.0;

impl CaptureServer for Handlers {
    type Call = Call;
    type Error = OpError;

    async fn open(call: Call, params: OpenParams) -> OpResult<CaptureOpened> {
        let OpenParams { interfaces, filter, options, want_fd, netns } = params;
        let interfaces = distinct(interfaces.unwrap_or_default())?;
        if want_fd == Some(true) {
            call.check_carries_descriptors()?;
        }
        let pass = want_fd.unwrap_or_else(|| call.check_carries_descriptors().is_ok());
        let mut order = order(interfaces, program(&call, filter)?, options.unwrap_or_default())?;
        let selection = call.selection(netns.as_ref())?;
        let permit = call.permit_open_capture(&selection.namespace, wanted(&order))?;
        let instructions = order.program.len() / INSTRUCTION;
        order.program = call.restricted(&order, permit.request())?;
        check_length(&order, permit.request().scopes())?;
        let (handle, interfaces) = (call.reserve_handle()?, order.interfaces.clone());
        let broker = call.broker().clone();
        let limits = (call.connection().user(), &broker.limits);
        let opening = broker.captures.open(permit, order, selection, call.caller(), limits);
        let opening = opening.await.map_err(|error| error.naming_interfaces(&interfaces))?;
        let Opening { mut capture, stream } = opening;
        let stream = Descriptor::of_client(stream, call.connection().user());
        let passed = if pass {
            Some(Arc::new(stream))
        } else {
            capture.keep(register(stream, Interest::READABLE).during("epoll_ctl")?);
            None
        };
        let (live, snaplen) = (capture.live().clone(), capture.order().snaplen);
        let ended = capture.ended();
        let capture = Arc::new(capture);
        let body: Arc<dyn Body> = capture.clone();
        let task = async move {
            ended.await;
        };
        // It ends if the rules let other packets through.
        let (session, granted) = (call.session(), capture.granted());
        let handle = session.start_stream("capture", handle, granted, Some(body), task)?;
        if let Err(error) = session.keep_stream(handle).await {
            drop(session.remove(handle));
            return Err(error);
        }
        // A policy that was put in force meanwhile has not found it.
        if !session.stream(handle)?.is_granted(&call.rights()) {
            if let Resource::Stream(stream) = session.remove(handle)? {
                stream.revoke();
            }
            return Err(OpError::Plain(
                "capture.open: the policy was replaced meanwhile, and grants other packets: try again"
                    .to_owned(),
            ));
        }
        audit::capture(&call, handle, &capture, instructions);
        if let Some(stream) = passed {
            call.attach_descriptor(stream);
        }
        Ok(describe(handle, live, snaplen, pass))
    }

    async fn stats(call: Call, params: StatsParams) -> OpResult<CaptureStats> {
        let StatsParams { handle } = params;
        let capture = capture(&call, handle)?;
        let counts = capture.counts().await?;
        Ok(statistics(counts, capture.outcome()))
    }

    async fn set_filter(call: Call, params: SetFilterParams) -> OpResult<FilterReplaced> {
        let SetFilterParams { handle, filter, filter_text } = params;
        let (capture, text) = (capture(&call, handle)?, stated(filter_text)?);
        let mut order = Order { program: program(&call, filter)?, ..capture.order().clone() };
        let permit = call.permit_open_capture(capture.namespace(), wanted(&order))?;
        let instructions = order.program.len() / INSTRUCTION;
        order.program = call.restricted(&order, permit.request())?;
        check_length(&order, permit.request().scopes())?;
        let limits = &call.broker().limits;
        let replaced = capture.set_filter(permit, order.program, call.caller(), limits);
        let (before, after) = replaced.await?;
        audit::filter(&call, handle, &capture, (text.as_deref(), instructions));
        Ok(FilterReplaced { before: time(before), after: time(after) })
    }

    async fn read(call: Call, params: ReadParams) -> OpResult<CapturePart> {
        let ReadParams { handle, bufsize } = params;
        let capture = capture(&call, handle)?;
        let length = u64::try_from(bufsize)
            .ok()
            .filter(|length| *length > 0)
            .ok_or_else(|| OpError::value("bufsize must be positive"))?;
        let most = call.broker().limits.receive_bytes;
        OpError::within("receive_bytes", length, most)?;
        let bytes = capture.read(usize::try_from(length).unwrap_or(usize::MAX)).await?;
        Ok(CapturePart { bytes: call.encode_bytes(bytes) })
    }

    async fn stop(call: Call, params: StopParams) -> OpResult<CaptureStats> {
        let StopParams { handle, linger } = params;
        let capture = capture(&call, handle)?;
        let ended = capture.stop(seconds("linger", linger.unwrap_or(0.0))?).await?;
        Ok(statistics(ended.counts, Some(ended)))
    }

    async fn close(call: Call, params: CloseParams) -> OpResult<()> {
        let CloseParams { handle } = params;
        let capture = capture(&call, handle)?;
        drop(call.session().remove(handle)?);
        // It counts until it has ended.
        capture.ended().await;
        Ok(())
    }

    async fn replay(call: Call, params: ReplayParams) -> OpResult<Replayed> {
        replay::replay(call, params).await
    }
}

/// The capture of a handle.
fn capture(call: &Call, handle: Handle) -> OpResult<Arc<Capture>> {
    let stream = call.session().stream(handle)?;
    let kind = stream.kind();
    Capture::of(&stream).ok_or(OpError::HandleKind { handle, kind, wanted: "capture" })
}

/// The program of a client; empty for all packets.
fn program(call: &Call, filter: Option<Bytes>) -> OpResult<Vec<u8>> {
    let Some(filter) = filter else { return Ok(Vec::new()) };
    let program = call.bytes(filter)?.to_vec();
    if program.is_empty() {
        return Err(OpError::value("a program has at least one instruction"));
    }
    let decoded = Program::decode(&program).map_err(|error| OpError::value(error.to_string()))?;
    decoded.check().map_err(|error| OpError::value(format!("filter: {error}")))?;
    Ok(program)
}

/// The interfaces that a request names. One that is named twice is one.
fn distinct(mut interfaces: Vec<String>) -> OpResult<Vec<String>> {
    let mut named = BTreeSet::new();
    interfaces.retain(|name| named.insert(name.clone()));
    if interfaces.len() > INTERFACES_MAX {
        return Err(OpError::value(format!("a capture names at most {INTERFACES_MAX} interfaces")));
    }
    Ok(interfaces)
}

/// The expression of a filter as the client states it.
fn stated(text: Option<String>) -> OpResult<Option<String>> {
    if text.as_ref().is_some_and(|text| text.len() > TEXT_MAX) {
        return Err(OpError::value(format!("filter_text has at most {TEXT_MAX} bytes")));
    }
    Ok(text)
}

impl Call {
    /// The program with the restrictions of the session, which the opener does not know.
    fn restricted(&self, order: &Order, scoped: &ScopedCapture) -> OpResult<Vec<u8>> {
        let is_everything = scoped.scopes().iter().all(CaptureScope::is_everything);
        let [first, others @ ..] = scoped.scopes() else { return Ok(order.program.clone()) };
        if is_everything || self.rights().restrictions() == 0 {
            return Ok(order.program.clone());
        }
        if others.iter().any(|scope| scope.lines() != first.lines()) {
            return Err(OpError::value(
                "the session is restricted to different packets of these interfaces: open a capture for each",
            ));
        }
        restricted(order, first).map_err(|error| OpError::value(format!("filter: {error}")))
    }
}

/// What the policy judges of an order.
fn wanted(order: &Order) -> OpenCapture {
    OpenCapture {
        interfaces: order.interfaces.clone(),
        snaplen: order.snaplen,
        promiscuous: order.promiscuous,
    }
}

/// Whether the filter and the rules fit into one program, if the interfaces are those of Ethernet: others need fewer
/// instructions.
fn check_length(order: &Order, scopes: &[CaptureScope]) -> OpResult<()> {
    let ethernet = |_: &String| Interface { index: 1, hardware: libc::ARPHRD_ETHER };
    let interfaces: Vec<_> = order.interfaces.iter().map(ethernet).collect();
    let joined = joined(order, &interfaces, scopes);
    joined.map(drop).map_err(|error| OpError::value(format!("filter: {error}")))
}

fn order(interfaces: Vec<String>, program: Vec<u8>, options: CaptureOptions) -> OpResult<Order> {
    let format = match options.format {
        None | Some(CaptureFormat::Pcapng) => Format::Pcapng,
        Some(CaptureFormat::Pcap) if interfaces.len() == 1 => Format::Pcap,
        Some(CaptureFormat::Pcap) => {
            return Err(OpError::value("the format pcap has one interface: use pcapng"));
        }
    };
    let milliseconds = match options.seconds {
        Some(limit) => {
            Some(u64::try_from(seconds("seconds", limit)?.as_millis()).unwrap_or(u64::MAX))
        }
        None => None,
    };
    let order = Order {
        interfaces,
        program,
        snaplen: options.snaplen.unwrap_or(SNAPLEN).min(SNAPLEN),
        direction: match options.direction {
            None | Some(CaptureDirection::Both) => Direction::Both,
            Some(CaptureDirection::In) => Direction::In,
            Some(CaptureDirection::Out) => Direction::Out,
        },
        promiscuous: options.promiscuous,
        duplicates: options.duplicates,
        bulk: options.mode == Some(CaptureMode::Bulk),
        buffer_bytes: options.buffer_bytes.unwrap_or(BUFFER_BYTES),
        format,
        text: stated(options.filter_text)?,
        packets: options.packets,
        bytes: options.bytes,
        milliseconds,
    };
    if order.snaplen == 0 {
        return Err(OpError::value("snaplen must be positive"));
    }
    if order.geometry(order.snaplen).is_none() {
        return Err(OpError::value(
            "buffer_bytes must be from 65536 (262144 in bulk mode) to 4294967295",
        ));
    }
    Ok(order)
}

fn seconds(name: &str, value: f64) -> OpResult<Duration> {
    let valid = (0.0..=LONGEST).contains(&value);
    let time = valid.then(|| Duration::try_from_secs_f64(value).ok()).flatten();
    time.ok_or_else(|| OpError::value(format!("{name} must be from 0 to 31622400 seconds")))
}

fn time(nanoseconds: u64) -> CaptureTime {
    let rest = nanoseconds % 1_000_000_000;
    CaptureTime {
        seconds: nanoseconds / 1_000_000_000,
        nanoseconds: u32::try_from(rest).unwrap_or_default(),
    }
}

/// A capture that is live.
fn describe(handle: Handle, live: Live, snaplen: u32, fd: bool) -> CaptureOpened {
    let interface = |facts| {
        let InterfaceFacts { index, name, link_type } = facts;
        CaptureInterface { index, name, link_type }
    };
    CaptureOpened {
        handle,
        bind_began: time(live.bind_began),
        started: time(live.started),
        interfaces: live.interfaces.into_iter().map(interface).collect(),
        snaplen,
        buffer_bytes: live.buffer_bytes,
        fd,
    }
}

fn statistics(counts: Counts, ended: Option<Ended>) -> CaptureStats {
    let Counts { seen, captured, dropped, unread, bytes } = counts;
    CaptureStats {
        seen,
        captured,
        dropped,
        unread,
        bytes,
        ended: ended.map(|ended| ended.reason.word().to_owned()),
        complete: ended.map(|ended| ended.complete),
    }
}
