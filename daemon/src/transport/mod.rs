//! Transports: connections, their framings, and who is at the other end.
//!
//! [`server`] accepts connections and detects their framing. `codec` decodes messages and encodes answers,
//! `stream` moves their bytes, and `connection` is the loop around both. `http` serves POST through `hyper` and
//! passes `WebSockets` to the same loop, and channels to `handlers::channel`.

pub mod server;
pub mod shutdown;
pub mod peer;
mod codec;
mod connection;
mod authorization;
mod context;
mod control_socket;
mod deadline;
mod end;
mod http;
mod upgraded_channel;
mod upgrade;
mod in_flight;
mod outgoing;
mod part_share;
mod stalling;
mod stream;
