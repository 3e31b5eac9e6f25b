//! The two ends of a channel, and how a direction between them ends.

use sockbroker_proto::api::channel::ChannelFraming;

use crate::handlers::channel::failure::Failure;
use crate::handlers::channel::socket_end::SocketEnd;
use crate::ops::channel::ClientEnd;
use crate::table::channel::ChannelClaim;

/// The two ends of a channel.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: SocketEnd,
    pub(super) client: ClientEnd,
    pub(super) claim: ChannelClaim,
    pub(super) framing: ChannelFraming,
}

impl Link {
    pub(super) fn has_frames(&self) -> bool {
        self.framing == ChannelFraming::Frames
    }

    pub(super) fn receives(&self) -> bool {
        self.claim.directions().receives
    }

    pub(super) fn sends(&self) -> bool {
        self.claim.directions().sends
    }

    /// Whether a failed send ends the channel. On a datagram socket others may succeed.
    pub(super) fn is_last(&self, failure: &Failure) -> bool {
        self.socket.is_stream() || failure.denied
    }
}

/// How a direction, or the channel, has ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It is complete.
    Complete,
    /// The client has closed the channel.
    ClosedByClient,
    /// The client asks that the handle is closed.
    CloseHandle,
    /// The channel has failed.
    Failed(Failure),
}
