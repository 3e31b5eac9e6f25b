//! One function a Python operation: permit and entry in, value out.
//!
//! Nothing here knows JSON. An operation takes its permit by value and acts on the request inside it.

pub mod wait;
mod as_caller;
pub mod unix_file;
mod mounts;
pub mod control_end;
pub mod connect;
pub mod receive;
pub mod want;
mod wait_all;
pub mod outgoing;
pub mod send;
pub mod file;
pub mod option;
pub mod poll;
pub mod inspect;
pub mod socket_endpoints;
pub mod rcvall;
