//! Every limit by name: its value, its unit, and what happens beyond it.

use std::collections::BTreeMap;

use serde::Deserialize;
use sockbroker_proto::api::session::LimitInfo;
use sockbroker_proto::frame::FrameLimits;

use crate::observe::audit;

/// Declares the limits once: fields, defaults, and the result of `session.limits`.
macro_rules! limits {
    ($($name:ident = $default:expr, $unit:literal, $meaning:literal;)*) => {
        /// The limits in force. The configuration file sets them in the section `[limits]`.
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
            /// Every limit, as `session.limits` returns them.
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

/// The handles of one user for which the lots have room: it bounds `persistent_handles_per_user`.
pub const PARKED_MAX: u64 = 7680;

limits! {
    head_bytes = 1024, "bytes",
        "the longest header of a frame; a longer one ends the connection";
    frame_bytes = 8 << 20, "bytes",
        "the largest frame (JSON and attachments), line, HTTP body or WebSocket message, and the largest response; a larger one from the peer ends the connection";
    attachments = 64, "count",
        "attachments of one frame; the broker sends further bytes of a response as base64, a request with more ends the connection";
    descriptors = 253, "count",
        "descriptors passed with one frame (`SCM_MAX_FD`); a request with more ends the connection";
    batch_calls = 64, "count",
        "calls of one batch; a larger batch is refused as a whole";
    calls_in_flight = 256, "count",
        "calls of one connection that wait; a further one that would wait is refused, others are served";
    buffered_bytes = 16 << 20, "bytes",
        "request bytes held by waiting calls of one connection; a call that would exceed it is refused";
    buffered_descriptors = 1024, "count",
        "descriptors held by waiting calls of one connection; a call that would exceed it is refused";
    output_bytes = 1 << 20, "bytes",
        "response bytes that the peer has not read; beyond it the broker does not read from the connection until the peer has read some";
    stall_seconds = 10, "seconds",
        "how long the peer may leave responses unread; then the broker closes the connection";
    detect_seconds = 10, "seconds",
        "how long a new connection may take to send its first byte, and an HTTP connection to send a complete request header; then the broker closes it";
    partial_seconds = 60, "seconds",
        "how long an incomplete message may receive no further byte; then the broker closes the connection";
    connections = 2048, "count",
        "connections in all; further ones are closed immediately";
    connections_reserved = 16, "count",
        "connections of root and the broker's own user in addition to `connections`, for the inspection of a full broker";
    connections_per_user = 1024, "count",
        "connections of one user; further ones are closed immediately";
    sessions = 2048, "count",
        "opened sessions in all; a further `session.open` or `session.clone` is refused";
    sessions_reserved = 16, "count",
        "opened sessions of root and the broker's own user in addition to `sessions`, for the inspection of a full broker";
    sessions_per_user = 1024, "count",
        "opened sessions of one user; a further `session.open` or `session.clone` is refused";
    workers = 128, "count",
        "workers in all, if each principal has its own; one of them is kept for root, and a connection that needs a further one is closed immediately";
    workers_per_user = 8, "count",
        "workers of one user, whose principals differ in groups or network namespace; a connection that needs a further one is closed immediately";
    worker_starts_per_second = 5, "count",
        "starts of workers a second for one user; a connection that needs a further one is closed immediately";
    worker_idle_seconds = 60, "seconds",
        "how long a worker without connections and sessions waits for the next connection; then it ends";
    remote_connections = 256, "count",
        "connections of all clients on other machines, apart from those in `connections`; further ones are refused";
    remote_workers = 32, "count",
        "workers of principals on other machines, apart from those in `workers`; a connection that needs a further one is refused";
    remote_sessions = 256, "count",
        "opened sessions of all principals on other machines, apart from those in `sessions`; a further `session.open` or `session.clone` is refused";
    handshakes = 32, "count",
        "clients on other machines that have not authenticated themselves; further ones wait until they are accepted";
    handshakes_per_address = 8, "count",
        "such clients of one address; further ones are closed immediately";
    handshake_seconds = 10, "seconds",
        "how long a client on another machine may take for the TLS handshake and its first bytes together; then the broker closes the connection";
    handles = 16384, "count",
        "open handles of one session; a further socket is refused";
    lookups_kept = 1024, "count",
        "looked-up addresses that a session remembers for rules with `lookup`; the broker discards the oldest";
    restriction_items = 64, "count",
        "rules and filters of one `session.restrict`; more are refused";
    restriction_bytes_per_user = 1 << 20, "bytes",
        "memory of the rules and filters that all sessions of one user keep by `session.restrict` and `session.open`; more are refused";
    restriction_bytes_in_all = 64 << 20, "bytes",
        "the same memory for all users, as with `restriction_bytes_per_user`";
    restrictions = 16, "count",
        "times that a session may restrict its rights; a further `session.restrict` is refused";
    handles_per_user = 65_536, "count",
        "open handles of one user, over all of its sessions; a further socket is refused";
    handles_in_all = 262_144, "count",
        "open handles in all; a further socket is refused";
    calls_in_flight_per_user = 8192, "count",
        "calls of one user that wait; a further one that would wait is refused, others are served";
    calls_in_flight_in_all = 65_536, "count",
        "calls in all that wait; a further one that would wait is refused, others are served";
    buffered_bytes_per_user = 256 << 20, "bytes",
        "bytes held for one user: requests of waiting calls, what `MSG_WAITALL` gathers, incomplete messages, unread responses, and responses of incomplete batches; a call that would exceed it is refused, a response of a batch is replaced by an error, an incomplete message or an unread response ends its connection";
    buffered_bytes_in_all = 1 << 30, "bytes",
        "bytes held for all users, as with `buffered_bytes_per_user`";
    buffered_descriptors_per_user = 4096, "count",
        "descriptors held for one user: with waiting calls, incomplete messages, responses that the client has not read and responses kept for `call.resolve`, one for each waiting `socket.poll`, and those that are being closed; a call that would exceed it is refused, also one whose response would pass descriptors, an incomplete message ends its connection, a response is not kept, and beyond it the broker does not read from the connections of this user";
    buffered_descriptors_in_all = 16_384, "count",
        "descriptors held for all users, as with `buffered_descriptors_per_user`";
    kernel_bytes_per_user = 256 << 20, "bytes",
        "kernel memory that options of one user's sockets allocate in advance or allow beyond the host's limits: rings, reserved memory, forced buffers; an option that would exceed it is refused";
    kernel_bytes_in_all = 1 << 30, "bytes",
        "the same memory for all users of this machine, as with `kernel_bytes_per_user`, and once more for all principals on other machines";
    captures_per_user = 8, "count",
        "captures of one user, in all network namespaces; a further `capture.open` is refused";
    captures_in_all = 32, "count",
        "captures in all; a further `capture.open` is refused";
    capture_bytes_per_user = 64 << 20, "bytes",
        "kernel memory of the rings of one user's captures; a `capture.open` that would exceed it is refused";
    capture_bytes_in_all = 256 << 20, "bytes",
        "the same memory for all users, as with `capture_bytes_per_user`";
    replays_per_user = 16, "count",
        "calls of `capture.replay` of one user that send; a further one is refused";
    replays_in_all = 64, "count",
        "calls of `capture.replay` in all that send; a further one is refused";
    replay_blocks = 65_536, "count",
        "packets and other blocks of the file of one `capture.replay`; a file with more is refused";
    channels = 512, "count",
        "channels of one session, with those whose token is not used yet; a further one is refused";
    channels_per_user = 1024, "count",
        "the same of one user, over all of its sessions; a further one is refused";
    channels_in_all = 4096, "count",
        "the same in all; a further one is refused";
    channel_tokens = 256, "count",
        "tokens of channels of one user that are not used yet; a further one is refused";
    channel_token_seconds = 30, "seconds",
        "how long the token of a channel is valid";
    channel_bytes = 65_536, "bytes",
        "bytes of one message of a channel, and the memory that it takes for each direction; at most 65536";
    channel_drain_seconds = 60, "seconds",
        "how long a channel goes on sending what the client has sent when its socket or its session is closed";
    packets_per_second = 0, "count",
        "messages a second that one user sends and receives, 0 for no limit; a further one waits as long as the timeout of its socket allows; on a socket that does not wait it is refused";
    bytes_per_second = 0, "bytes",
        "bytes a second that one user sends and receives, 0 for no limit; the consequence is that of `packets_per_second`";
    receive_bytes = 4 << 20, "bytes",
        "the size that one receiving call may request; a larger one is refused";
    ancillary_bytes = 1 << 20, "bytes",
        "space for ancillary data that one receiving call may request; more is refused";
    batch_messages = 1024, "count",
        "messages of one recvmmsg or sendmmsg (`UIO_MAXIOV`); more are refused";
    poll_handles = 16384, "count",
        "handles of one socket.poll; more are refused";
    message_values = 65_536, "count",
        "JSON values of one message, counted by its commas and opening brackets outside of strings; a message with more is refused before it is decoded";
    message_buffers = 16384, "count",
        "buffers of one sending or receiving call, all of its messages together; more are refused";
    ancillary_items = 4096, "count",
        "items of ancillary data of one sending call, all of its messages together; more are refused";
    message_routes = 4096, "count",
        "combinations of destination, hop, source and interface that the ancillary data and headers of one sent message name, if rules depend on them; more are refused";
    address_items = 64, "count",
        "values within one address; more are refused";
    resolver_jobs = 16, "count",
        "concurrent look-ups; further ones wait in order";
    resolver_jobs_per_user = 8, "count",
        "concurrent look-ups of one user; further ones wait in order";
    identity_jobs = 64, "count",
        "concurrent calls on `AF_UNIX` sockets under another identity than the broker's; further ones wait in order";
    identity_jobs_per_user = 8, "count",
        "concurrent calls on `AF_UNIX` sockets under the identity of one such user; further ones wait in order";
    closing_jobs = 64, "count",
        "concurrent closes that may wait, such as those of sockets with `SO_LINGER` and of descriptors that clients passed; further ones wait in order";
    closing_jobs_per_user = 8, "count",
        "the same of one user; sockets with `SO_LINGER` take at most half of them; further ones wait in order";
    linger_seconds = 3600, "seconds",
        "the longest linger that a session may request; more is refused";
    persistent_sessions_per_user = 64, "count",
        "sessions of one user opened with `persist`; a further one is refused";
    persistent_sessions_in_all = 1024, "count",
        "sessions opened with `persist` in all; a further one is refused";
    persistent_handles_per_user = 4096, "count",
        "open handles of one user in sessions opened with `persist`; a further socket there is refused";
    persistent_handles_in_all = 16_384, "count",
        "open handles in sessions opened with `persist` in all; each worker gets a part of what is left, and a session that leaves none is refused";
    persistent_bytes_per_user = 4 << 20, "bytes",
        "what is kept of the sessions of one user opened with `persist` besides their sockets: restrictions, unit and control group; a further session or restriction is refused";
    reattach_seconds = 30, "seconds",
        "how long a session opened with `persist` waits for a connection after the end of the process that served it, unless its linger is longer; then its handles close";
    clone_seconds = 30, "seconds",
        "how long a cloned session waits for its first connection; then its handles close";
    resolve_seconds = 10, "seconds",
        "how long `call.resolve` waits for the end of a connection; then it is refused";
    resolve_kept = 64, "count",
        "ended connections that a session remembers for `call.resolve`; the broker discards the oldest";
    resolve_kept_bytes = 16 << 20, "bytes",
        "responses that a session keeps for `call.resolve`; beyond it the broker discards the oldest";
    resolve_kept_bytes_per_user = 64 << 20, "bytes",
        "memory of the responses and the ids of cancelled calls that are kept for `call.resolve`, of all connections and sessions of one user; what exceeds it is not kept";
    resolve_kept_bytes_in_all = 256 << 20, "bytes",
        "the same memory for all users, as with `resolve_kept_bytes_per_user`";
    resolve_kept_seconds = 60, "seconds",
        "how long the broker remembers an ended connection for `call.resolve`";
    audit_records_per_second = 1000, "count",
        "audit records a second; further ones are dropped, and the next one reports how many were dropped";
    audit_records_per_user = 250, "count",
        "audit records a second of one user; further ones are dropped, and the next one of this user reports how many were dropped";
    audit_users = 1024, "count",
        "users whose audit records are counted separately; further ones share one count";
    refusal_lines_per_minute = 5, "count",
        "log lines a minute about refused connections of one user for one reason; one more line reports how many were omitted";
    drain_seconds = 5, "seconds",
        "how long calls in flight may take to end after SIGTERM; then they are cancelled";
}

impl Limits {
    /// Lowers the limits on what takes descriptors to fit this number of open files. No user can take all of
    /// them, and some are left for the broker's own files and for the connections of root.
    pub fn fit(&mut self, open_files: u64) {
        /// Event loop, listening socket, log, audit, and files that are read again.
        const OWN: u64 = 64;
        self.connections = self.connections.min((open_files / 4).max(1));
        self.connections_per_user = self.connections_per_user.min((open_files / 8).max(1));
        self.connections_reserved = self.connections_reserved.min((open_files / 16).max(1));
        // One of the two descriptors of each stays here, unless the channel is a connection.
        self.channels_in_all = self.channels_in_all.min(open_files / 16);
        self.channels_per_user = self.channels_per_user.min((open_files / 32).max(1));
        let kept = OWN.min(open_files / 4) + self.connections + self.connections_reserved;
        let shared = open_files.saturating_sub(kept);
        let rest = shared.saturating_sub(self.channels_in_all);
        let in_all = rest.saturating_mul(9) / 10;
        self.handles_in_all = self.handles_in_all.min(in_all);
        // Channels take from what is left for others.
        let of_user = (shared.saturating_mul(4) / 5).min(in_all.saturating_mul(19) / 20);
        self.handles_per_user = self.handles_per_user.min(of_user);
        // A parked handle is a descriptor in flight (`unix(7)`); those of connections and answers count too.
        let parked = self.handles_per_user / 2;
        self.persistent_handles_per_user = self.persistent_handles_per_user.min(parked);
        // The ends of the lots are in flight too: about two for each of these handles at most.
        self.persistent_handles_in_all = self.persistent_handles_in_all.min(open_files / 4);
        // The rest is for descriptors in transit.
        let in_all = (rest - in_all).max(2);
        self.buffered_descriptors_in_all = self.buffered_descriptors_in_all.min(in_all);
        self.buffered_descriptors_per_user = self.buffered_descriptors_per_user.min(in_all / 2);
    }

    /// The memory of one worker, in bytes: what the limits allow its user, a quarter more, and what it needs itself.
    pub fn worker_memory(&self) -> u64 {
        /// Threads, look-ups, and results that are being encoded.
        const OWN: u64 = 256 << 20;
        let counted = self
            .buffered_bytes_per_user
            .saturating_add(self.resolve_kept_bytes_per_user)
            .saturating_add(self.restriction_bytes_per_user);
        counted.saturating_add(counted / 4).saturating_add(OWN)
    }

    /// The threads of one worker: those that the limits allow, a quarter more.
    pub fn worker_threads(&self) -> u64 {
        /// The event loop, the threads on which it decodes (tokio's `max_blocking_threads`), the audit, files.
        const OWN: u64 = 640;
        let jobs = self.resolver_jobs.saturating_add(self.identity_jobs);
        let counted = jobs.saturating_add(self.closing_jobs).saturating_add(OWN);
        counted.saturating_add(counted / 4)
    }

    /// The limits of the audit.
    pub fn audit(&self) -> audit::Limits {
        audit::Limits {
            in_all: self.audit_records_per_second,
            per_user: self.audit_records_per_user,
            users: size(self.audit_users),
        }
    }

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

/// A limit as a `usize`; one that does not fit means no limit.
pub fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_limit_error_lists_known_names() {
        let error = toml::from_str::<Limits>("handels = 3").unwrap_err().to_string();
        assert!(error.contains("handels") && error.contains("handles"), "{error}");
    }

    #[test]
    fn no_user_can_take_all_open_files() {
        let mut limits = Limits::default();
        limits.fit(20_000);
        assert_eq!((limits.handles_per_user, limits.handles_in_all), (14_211, 14_959));
        assert_eq!((limits.connections, limits.connections_per_user), (2048, 1024));
        let mut limits: Limits = toml::from_str("handles_per_user = 3").unwrap();
        limits.fit(1 << 20);
        assert_eq!((limits.handles_per_user, limits.handles_in_all), (3, 262_144));
    }

    #[test]
    fn fit_reserves_descriptors_for_every_open_file_limit() {
        for open_files in (32..5000).chain([65_536, 1 << 20]) {
            let mut limits = Limits::default();
            limits.fit(open_files);
            let connections = limits.connections + limits.connections_reserved;
            let taken = limits.handles_in_all + limits.buffered_descriptors_in_all + connections;
            assert!(taken + open_files.min(256) / 4 <= open_files + 2, "{open_files}: {limits:?}");
            let own = [limits.handles_per_user, limits.buffered_descriptors_per_user];
            let all = [limits.handles_in_all, limits.buffered_descriptors_in_all];
            assert!(own[0] <= all[0] && own[1] < all[1], "{open_files}: {limits:?}");
            assert!(limits.connections_per_user <= limits.connections, "{open_files}");
        }
    }

    #[test]
    fn configured_limits_are_reported() {
        let limits: Limits = toml::from_str("handles = 3").unwrap();
        assert_eq!(limits.describe()["handles"].value, 3);
        assert_eq!(limits.describe()["batch_calls"].value, 64);
    }
}
