//! `proto::api::channel`: channels, and how they are opened together with a socket.

mod client_to_socket;
mod failure;
mod link;
mod pump;
mod socket_end;
mod socket_to_client;

use std::sync::Arc;

use sockbroker_proto::api::channel::{
    ChannelDirection, ChannelFraming, ChannelOpened, ChannelServer, OpenParams,
};
use sockbroker_proto::api::values::Created;
use sockbroker_proto::channel;
use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::handlers::Handlers;
use crate::handlers::channel::link::Link;
use crate::handlers::channel::pump::Pump;
use crate::handlers::channel::socket_end::SocketEnd;
use crate::ops;
use crate::ops::channel::ClientEnd;
use crate::rpc::call::{Call, RequestParts};
use crate::session::channel_place::ChannelPlace;
use crate::session::connection::Connection;
use crate::session::pending_channels::{PendingChannel, ReservedToken};
use crate::table::channel::{ChannelEnd, Directions};
use crate::table::entry::Entry;

impl ChannelServer for Handlers {
    type Call = Call;
    type Error = OpError;

    fn open(call: &Call, params: OpenParams) -> OpResult<ChannelOpened> {
        let OpenParams { handle, want_fd, framing, direction, close } = params;
        let (want_fd, close) = (want_fd.unwrap_or(false), close.unwrap_or(false));
        if want_fd {
            call.check_carries_descriptors()?;
        } else if framing.is_some() {
            let text =
                "the field Upgrade of the request selects the framing: framing is for want_fd";
            return Err(OpError::value(text));
        }
        let entry = call.entry(handle)?;
        let directions = match direction {
            None | Some(ChannelDirection::Both) => Directions { receives: true, sends: true },
            Some(ChannelDirection::Receive) => Directions { receives: true, sends: false },
            Some(ChannelDirection::Send) => Directions { receives: false, sends: true },
        };
        if want_fd {
            let place = reserve_place(call)?;
            pass(call, prepare(call, (handle, &entry), place, directions, close)?, framing)
        } else {
            let (place, token) = reserve(call)?;
            let pending = prepare(call, (handle, &entry), place, directions, close)?;
            Ok(offer(call, pending, &entry, token))
        }
    }
}

/// What a channel with a token takes of the limits.
pub(super) type Reserved = (ChannelPlace, ReservedToken);

/// Reserves a channel with a token.
pub(super) fn reserve(call: &Call) -> OpResult<Reserved> {
    let broker = call.broker();
    Ok((reserve_place(call)?, broker.channels.reserve(call.session(), &broker.limits)?))
}

fn reserve_place(call: &Call) -> OpResult<ChannelPlace> {
    call.session().reserve_channel(call.connection().user(), &call.broker().limits)
}

/// Opens a channel, if one was reserved, for a new socket, whose handle is closed if that fails.
pub(super) fn of_new(
    call: &Call,
    created: Created,
    reserved: Option<Reserved>,
) -> OpResult<Created> {
    let Some(reserved) = reserved else { return Ok(created) };
    match for_handle(call, created.handle, reserved) {
        Ok(channel) => Ok(Created { channel: Some(channel), ..created }),
        Err(error) => {
            drop(call.session().remove(created.handle));
            Err(error)
        }
    }
}

fn for_handle(call: &Call, handle: Handle, (place, token): Reserved) -> OpResult<ChannelOpened> {
    let entry = call.entry(handle)?;
    let both = Directions { receives: true, sends: true };
    let pending = prepare(call, (handle, &entry), place, both, false)?;
    Ok(offer(call, pending, &entry, token))
}

fn prepare(
    call: &Call,
    (handle, entry): (Handle, &Arc<Entry>),
    place: ChannelPlace,
    directions: Directions,
    close: bool,
) -> OpResult<PendingChannel> {
    let inspected = call.inspect(entry)?;
    ops::channel::check_not_listening(&inspected)?;
    let dropped = ops::channel::dropped(inspected.socket());
    let session = call.session();
    let busy = OpError::Os { call: "channel.open", errno: libc::EBUSY };
    let claim = entry.channels.claim(directions).ok_or(busy)?;
    if close {
        claim.note_closing();
    }
    // The handle may have been closed before the claim could be ended.
    if !Arc::ptr_eq(&session.entry(handle)?, entry) {
        return Err(OpError::Handle(handle));
    }
    let (session, entry) = (Arc::downgrade(session), Arc::downgrade(entry));
    Ok(PendingChannel { session, handle, entry, claim, place, close, dropped })
}

/// Gives the channel a token.
fn offer(
    call: &Call,
    pending: PendingChannel,
    entry: &Entry,
    reserved: ReservedToken,
) -> ChannelOpened {
    let broker = call.broker();
    let token = broker.channels.add(pending, reserved, &broker.limits).text();
    broker.sweeps.request();
    ChannelOpened {
        fd: false,
        r#type: entry.actual().ty,
        path: Some(format!("{}{token}", channel::PATH)),
        token: Some(token),
        seconds: Some(broker.limits.channel_token_seconds),
    }
}

/// Attaches the client's end of a pair to the answer, and moves the data of the other.
fn pass(
    call: &Call,
    pending: PendingChannel,
    framing: Option<ChannelFraming>,
) -> OpResult<ChannelOpened> {
    let entry = pending.entry.upgrade().ok_or(OpError::Handle(pending.handle))?;
    let r#type = entry.actual().ty;
    let is_stream = r#type == libc::SOCK_STREAM;
    let framing =
        framing.unwrap_or(if is_stream { ChannelFraming::Raw } else { ChannelFraming::Frames });
    if framing == ChannelFraming::Raw && !is_stream {
        return Err(OpError::value("a raw channel is for streams: it has no boundaries"));
    }
    let (own, clients) = ClientEnd::pair(call.connection().user())?;
    let pump = pump(call.clone(), pending, entry, own, framing)?;
    call.session().run("channel", pump.run());
    call.attach_descriptor(clients);
    Ok(ChannelOpened { fd: true, r#type, token: None, path: None, seconds: None })
}

/// Begins a channel. In a persistent session the next process knows of it.
fn pump(
    call: Call,
    pending: PendingChannel,
    entry: Arc<Entry>,
    client: ClientEnd,
    framing: ChannelFraming,
) -> OpResult<Pump> {
    let PendingChannel { handle, mut claim, place, close, dropped, .. } = pending;
    claim.begin();
    call.session().save(handle)?;
    let has_frames = framing == ChannelFraming::Frames;
    let socket = SocketEnd::new(call, entry, has_frames, dropped);
    Ok(Pump { link: Link { socket, client, claim, framing }, handle, place, close })
}

/// Why a token does not begin a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The socket is closed.
    Closed,
    /// The framing has no boundaries, and the socket needs them.
    Boundaries,
}

/// A channel whose token was used.
#[derive(Debug)]
pub struct Accepted {
    pending: PendingChannel,
    entry: Arc<Entry>,
    framing: ChannelFraming,
}

/// Checks the channel of a token before its connection leaves HTTP.
pub fn accept(pending: PendingChannel, framing: ChannelFraming) -> Result<Accepted, Refusal> {
    let entry = pending.entry.upgrade().filter(|_| pending.claim.end().is_none());
    let entry = entry.ok_or(Refusal::Closed)?;
    if framing == ChannelFraming::Raw && entry.actual().ty != libc::SOCK_STREAM {
        return Err(Refusal::Boundaries);
    }
    Ok(Accepted { pending, entry, framing })
}

/// Moves the data of a channel on a connection, which is attached to the session meanwhile, until `stopping` is ready.
/// `input` contains what was read before.
pub async fn serve(
    connection: &Arc<Connection>,
    accepted: Accepted,
    (end, input): (ClientEnd, &[u8]),
    stopping: impl Future<Output = ()>,
) {
    let Accepted { pending, entry, framing } = accepted;
    let Some(session) = pending.session.upgrade() else { return };
    if connection.attach(session).is_err() {
        return;
    }
    let call = Call::new(connection, ("channel.open", None), RequestParts::default(), true);
    let weak = Arc::downgrade(&entry);
    let stop = async {
        stopping.await;
        if let Some(entry) = weak.upgrade() {
            entry.channels.end(ChannelEnd::Stopping);
        }
        std::future::pending::<()>().await;
    };
    // Without room for it in the lots, the connection ends before it has moved anything.
    let Ok(pump) = pump(call, pending, entry, end, framing) else { return };
    tokio::select! {
        () = pump.run_after(input) => {}
        () = stop => {}
    }
}
