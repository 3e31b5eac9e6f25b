//! The operations on sockets, one function for each operation of Python's `socket`.
//!
//! An operation takes a request that the policy allowed, together with its socket (`table::permitted`), and acts
//! on nothing else. The operations do not use JSON.

pub mod wait;
mod as_caller;
pub mod unix_file;
pub mod control_end;
pub mod connect;
pub mod descriptor;
pub mod receive;
pub mod kept;
pub mod resume;
pub mod incoming;
mod wait_all;
pub mod outgoing;
pub mod send;
pub mod file;
pub mod schedule;
pub mod frames;
pub mod replay;
pub mod channel;
pub mod option;
pub mod poll;
pub mod port;
pub mod inspect;
pub mod position;
pub mod rcvall;
