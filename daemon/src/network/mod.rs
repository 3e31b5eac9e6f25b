//! Creating sockets, listing interfaces and resolving names, in the network namespace that a permit names.

pub mod open;
pub mod interface;
pub mod resolve;
pub mod host;
pub mod caller_identity;
pub mod caller_process;
pub mod captures;
pub mod opener;
pub mod known;
pub mod other_namespace;
pub mod names;
pub mod stub;
pub mod name_files;
