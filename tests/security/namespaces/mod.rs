//! Sockets in the network namespaces of callers, and in named ones: a client gets what the policy grants it there, and
//! nothing outside.

mod fixture;
mod own;
mod passed;
mod applied;
mod names;
mod captures;
mod netlink;
