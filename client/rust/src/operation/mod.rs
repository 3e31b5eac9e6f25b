//! The operations: for each call of a face its method, its parameters, its payload, and how its result
//! is read.
//!
//! An operation is a value that implements [`Operation`]. A function makes it, and a face runs it.
//!
//! To add a call: a function here, a method in `src/asynchronous`, and its blocking form by
//! `tests/mirror.rs`.

mod call;
mod broker;
mod delegation;
mod names;
mod socket;
mod option;
mod transfer;
mod capture;
mod recovery;

pub(crate) use broker::*;
pub(crate) use call::{Operation, named};
pub(crate) use capture::*;
pub(crate) use delegation::*;
pub(crate) use names::*;
pub(crate) use option::*;
pub(crate) use recovery::*;
pub(crate) use socket::*;
pub(crate) use transfer::*;
