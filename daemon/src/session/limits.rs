//! Every limit by name: its value, its unit, and what happens beyond it.

use std::collections::BTreeMap;

use serde::Deserialize;
use sockbroker_proto::api::session::LimitInfo;
use sockbroker_proto::frame::FrameLimits;

/// Declares the limits once: fields, defaults, and what `session.limits` tells of them.
macro_rules! limits {
    ($($name:ident = $default:expr, $unit:literal, $meaning:literal;)*) => {
        /// The limits in force. In the configuration file they stand under `[limits]`.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Limits {
            $(#[doc = $meaning] pub $name: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            /// Every limit, as `session.limits` answers.
            pub fn describe(&self) -> BTreeMap<String, LimitInfo> {
                BTreeMap::from([$((
                    stringify!($name).to_owned(),
                    LimitInfo {
                        value: self.$name,
                        unit: $unit.to_owned(),
                        meaning: $meaning.to_owned(),
                    },
                ),)*])
            }
        }
    };
}

limits! {
    head_bytes = 1024, "bytes",
        "the longest head of a frame; beyond it the connection ends";
    frame_bytes = 8 << 20, "bytes",
        "the largest frame (JSON and attachments), line, HTTP body or WebSocket message, and the largest answer; a larger one from the peer ends the connection";
    attachments = 64, "count",
        "attachments of one frame; further bytes of an answer are base64, a request with more ends the connection";
    descriptors = 253, "count",
        "descriptors beside one frame (`SCM_MAX_FD`); a request with more ends the connection";
    batch_calls = 64, "count",
        "calls of one batch; a larger batch is refused whole";
    calls_in_flight = 256, "count",
        "calls of one connection that wait; a further one that would wait is refused, others are served";
    buffered_bytes = 16 << 20, "bytes",
        "request bytes held by waiting calls of one connection; a call that would exceed it is refused";
    buffered_descriptors = 1024, "count",
        "descriptors held by waiting calls of one connection; a call that would exceed it is refused";
    output_bytes = 1 << 20, "bytes",
        "answer bytes waiting for the peer to read; beyond it the connection is not read until it does";
    stall_seconds = 10, "seconds",
        "how long the peer may leave answers unread; then the connection ends";
    detect_seconds = 10, "seconds",
        "how long a new connection may take to send its first byte, and an HTTP connection to send a whole request head; then it ends";
    partial_seconds = 60, "seconds",
        "how long a message that has begun may go without a further byte; then the connection ends";
    connections = 1024, "count",
        "connections in all; further ones are closed at once";
    connections_per_user = 512, "count",
        "connections of one user; further ones are closed at once";
    sessions = 1024, "count",
        "opened sessions in all; a further `session.open` or `session.clone` is refused";
    sessions_per_user = 512, "count",
        "opened sessions of one user; a further `session.open` or `session.clone` is refused";
    handles = 16384, "count",
        "open handles of one session; a further socket is refused";
    lookups_kept = 1024, "count",
        "looked-up addresses that a session remembers for rules with `lookup`; the oldest is forgotten";
    restrictions = 16, "count",
        "times that a session may give rights up; a further `session.restrict` is refused";
    receive_bytes = 4 << 20, "bytes",
        "what one receiving call may ask for; more is refused";
    ancillary_bytes = 1 << 20, "bytes",
        "room for ancillary data that one receiving call may ask for; more is refused";
    batch_messages = 1024, "count",
        "messages of one recvmmsg or sendmmsg (`UIO_MAXIOV`); more are refused";
    poll_handles = 16384, "count",
        "handles of one socket.poll; more are refused";
    resolver_jobs = 16, "count",
        "look-ups at a time; further ones wait in order";
    linger_seconds = 3600, "seconds",
        "the longest linger a session may ask for; more is refused";
    clone_seconds = 30, "seconds",
        "how long a cloned session waits for its first connection; then its handles close";
    resolve_seconds = 10, "seconds",
        "how long `call.resolve` waits for the end of a connection; then it is refused";
    resolve_kept = 64, "count",
        "ended connections a session remembers for `call.resolve`; the oldest is forgotten";
    resolve_kept_bytes = 16 << 20, "bytes",
        "answers a session keeps for `call.resolve`; beyond it the oldest is forgotten";
    resolve_kept_seconds = 60, "seconds",
        "how long an ended connection is remembered for `call.resolve`";
    drain_seconds = 5, "seconds",
        "how long calls in flight may take to end after SIGTERM; then they are cancelled";
}

impl Limits {
    /// The limits of the frame codec.
    pub fn frame(&self) -> FrameLimits {
        FrameLimits {
            head_bytes: size(self.head_bytes),
            frame_bytes: size(self.frame_bytes),
            attachments: size(self.attachments),
            descriptors: size(self.descriptors),
        }
    }
}

/// A limit as a size of this machine; one that does not fit is no limit here.
pub fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_limit_is_refused_with_the_names_that_exist() {
        let error = toml::from_str::<Limits>("handels = 3").unwrap_err().to_string();
        assert!(error.contains("handels") && error.contains("handles"), "{error}");
    }

    #[test]
    fn what_is_configured_is_told() {
        let limits: Limits = toml::from_str("handles = 3").unwrap();
        assert_eq!(limits.describe()["handles"].value, 3);
        assert_eq!(limits.describe()["batch_calls"].value, 64);
    }
}
