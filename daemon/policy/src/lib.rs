//! The policy: is this subject allowed to do this? Pure: no await, no I/O, no clock.
//!
//! | step | where |
//! |---|---|
//! | a policy file becomes rules | [`file::read`], [`check::check`] |
//! | the rules about a caller are selected once | [`Policy::select`] gives [`rights::Rights`] |
//! | a call becomes a request with its operands | [`action`] |
//! | a request becomes a permit or a denial | [`rights::Rights::authorize`] gives [`Permit`] or [`Denial`] |
//!
//! The folder `language` has the files and rules, `judgement` the requests; `judgement` refers to
//! `language`, never the reverse. [`rights::Rights::authorize`] is the only maker of a [`Permit`], and every
//! operation takes one by value. The permit holds the request that was judged, so that an operation acts
//! on nothing else.
//!
//! A request needs a rule that grants it, and a rule that denies overrides all that grant. Two rules are
//! built in and come last: root and the broker's own user are allowed everything, and anyone who has been
//! granted anything is allowed to keep sessions and to inspect its own sockets.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]
#![expect(missing_docs, reason = "a comment that repeats a name helps no reader of a program")]

#[cfg(test)]
mod fixture;
mod judgement;
mod language;

pub use judgement::denial::Denial;
pub use judgement::permit::Permit;
pub use judgement::policy::Policy;
pub use judgement::{
    ancillary, capture_scope, lowering, membership, namespace, need, netlink, operands, option,
    question, rights, socket_spec, subject, target, within, words,
};
pub use language::{check, fields, file, name, netns, operand, rule, subjects, value, verb};

/// The closed list of requests that can be made to the policy.
pub mod action {
    pub use crate::judgement::action::{
        Administer, Adopt, Capture, Create, GetOption, Handover, Hostname, Inspect, InterfaceIoctl,
        Interfaces, Ioctl, OpenCapture, OpenSession, OptionValue, PersistSession, Request, Resolve,
        ScopedCapture, SetFilter, SetHostname, SetOption, Shutdown,
    };
    pub use crate::judgement::traffic::{
        Accept, AncillaryItem, Bind, Connect, Listen, MessageContents, Receive, Send,
    };
}
