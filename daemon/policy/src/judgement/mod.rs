//! Requests to permits, by the rules.

pub(crate) mod action;
pub mod ancillary;
pub mod capture_scope;
pub(crate) mod denial;
mod escapes;
mod contents;
mod grant;
pub mod lowering;
mod matching;
pub mod membership;
pub mod namespace;
pub mod need;
pub mod netlink;
pub mod operands;
pub mod option;
mod outline;
mod paths;
pub(crate) mod permit;
pub(crate) mod policy;
mod privilege;
pub mod question;
pub mod rights;
pub(crate) mod rule_name;
pub mod socket_spec;
pub mod subject;
pub mod target;
pub(crate) mod traffic;
pub mod within;
pub mod words;

#[cfg(test)]
mod tests;
