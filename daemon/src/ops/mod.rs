//! One function a Python operation: a permitted request in, value out.
//!
//! Nothing here knows JSON. An operation takes a request that the
//! policy allowed, joined with its socket (`table::permitted`), and acts on nothing else.

pub mod wait;
mod as_caller;
pub mod unix_file;
mod mounts;
pub mod control_end;
pub mod connect;
pub mod descriptor;
pub mod receive;
pub mod want;
mod wait_all;
pub mod outgoing;
pub mod send;
pub mod file;
pub mod option;
pub mod poll;
pub mod inspect;
pub mod rcvall;
