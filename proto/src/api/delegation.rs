//! Help for a program that keeps its sockets itself: a socket that it cannot create, and a call that it cannot make.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Netns, OptionValue};
use crate::address::AddressValue;
use crate::constant::Constant;

/// The most bytes of the name of a [`Program`].
pub const PROGRAM_NAME_BYTES: usize = 64;

/// The program for which a call is made, if that is not the client itself. The client states it, and the broker does
/// not check it: it is written into the audit, and no decision depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Its name: at most 64 bytes.
    pub name: String,
    /// Its process id, as the client sees it.
    pub pid: u32,
}

/// An option to set on a passed socket, as the parameters of `setsockopt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppliedOption {
    /// `SOL_*` or `IPPROTO_*`.
    pub level: Constant,
    /// `SO_*`, `IP_*`, `TCP_*` ...
    pub optname: Constant,
    /// An integer, bytes, or `null` together with `optlen`.
    #[serde(default)]
    pub value: Option<OptionValue>,
    /// The length of a `null` value.
    #[serde(default)]
    pub optlen: Option<i64>,
}

/// Sockets without a handle, each in one call.
#[sockbroker_proto_macros::api(namespace = "socket")]
pub trait Delegation {
    /// Creates a socket, and passes its descriptor without keeping a handle.
    ///
    /// The policy judges it like `socket` followed by `detach`. `SIO_RCVALL` is not emulated: `AF_INET, SOCK_RAW,
    /// IPPROTO_IP` fails with `EPROTONOSUPPORT`, as in the kernel. The result is the number of attached descriptors.
    #[method(name = "delegate")]
    fn delegate(
        &self,
        /// `AF_*`; `AF_INET` if absent or -1.
        family: Option<Constant>,
        /// `SOCK_*`, with `SOCK_NONBLOCK` if wanted; `SOCK_STREAM` if absent or -1.
        #[argument(rename = "type")]
        kind: Option<Constant>,
        /// The protocol; 0 if absent or -1.
        proto: Option<Constant>,
        /// The program for the audit; the client itself if absent.
        program: Option<Program>,
        /// The network namespace of the new socket, as for `socket.socket`.
        netns: Option<Netns>,
    ) -> RpcResult<u32>;

    /// Makes one call on a socket whose descriptor is attached to the frame: `bind`, or `setsockopt`.
    ///
    /// The policy judges it like the call on a socket of the session; the socket does not become one, so that no
    /// grant `adopt` is needed. Rules without `netns` are about sockets in the network namespace of the broker alone. `O_NONBLOCK` stays as it is. The broker closes its
    /// copy of the descriptor before it answers.
    #[method(name = "apply")]
    async fn apply(
        &self,
        /// The index of a descriptor attached to the frame, counted from 0.
        fd: Option<u32>,
        /// The address to bind to, in the form of the socket's family. Excludes `option`.
        bind: Option<AddressValue>,
        /// The option to set. Excludes `bind`.
        option: Option<AppliedOption>,
        /// The program for the audit; the client itself if absent.
        program: Option<Program>,
    ) -> RpcResult<()>;
}
