//! The processes of the broker. The monitor accepts connections and passes each to the worker of its principal.
//!
//! The modules are listed from the top: each refers only to those below it. Nothing here reads a byte that a
//! client sent, knows JSON-RPC, or asks a name service. `ARCHITECTURE.md` describes the processes.

#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "a comment that repeats a name helps no reader of a program")]

pub mod monitor;
pub mod opener;
pub mod caller;
pub mod reader;
pub mod reaper;
pub mod role;
pub mod request;
pub mod capture;
pub mod socket_facts;
pub mod subject;
pub mod message;
pub mod claim;
pub mod account;
pub mod user_names;
pub mod channel;
