//! Sockets that the client keeps itself: a socket without a handle, and one call on a passed socket.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;
use serde::Serialize;
use sockbroker_proto::api::delegation::{AppliedOption, Program};
use sockbroker_proto::api::values::OptionValue;
use sockbroker_proto::constant::Constant;

use super::call::{Call, Operation, json};
use super::socket::descriptor;
use crate::address::Address;
use crate::address::file::PathUse;
use crate::constant::{Domain, Protocol, Type};
use crate::netns::Netns;
use crate::option::RawValue;
use crate::request::{PayloadEncoding, Request};

pub(crate) fn delegate(
    domain: Domain,
    ty: Type,
    protocol: Protocol,
    program: Option<Program>,
    netns: Option<&Netns>,
) -> impl Operation<Output = OwnedFd> {
    let params = |netns| (domain, ty, protocol, program, netns);
    Call::in_netns("socket.delegate", netns, params, descriptor)
}

/// Binds the only descriptor. This process opens the folder of a path, if the connection can pass descriptors.
pub(crate) fn apply_bind<'a>(
    socket: &'a [BorrowedFd<'a>; 1],
    address: Address,
    encoding: PayloadEncoding,
    program: Option<Program>,
) -> impl Operation<Output = ()> + 'a {
    #[derive(Serialize)]
    struct Params {
        bind: Address,
        program: Option<Program>,
    }
    let is_unix = socket_domain(socket[0]).is_ok_and(|domain| domain == AddressFamily::UNIX);
    let opens_files = is_unix && encoding == PayloadEncoding::Attachments;
    let path_use = opens_files.then_some(PathUse::Bind);
    let (bind, file) = address.with_opened_file("bind", path_use, 1);
    let request = Request::new("socket.apply", Params { bind, program });
    Call::of(request.with_descriptors(socket).with_file(file), json)
}

/// Sets an option of the only descriptor.
pub(crate) fn apply_option<'a>(
    socket: &'a [BorrowedFd<'a>; 1],
    (level, number): (i32, i32),
    value: RawValue,
    program: Option<Program>,
) -> impl Operation<Output = ()> + 'a {
    #[derive(Serialize)]
    struct Params {
        option: AppliedOption,
        program: Option<Program>,
    }
    let option = AppliedOption {
        level: Constant(level.into()),
        optname: Constant(number.into()),
        value: Some(OptionValue::from(value)),
        optlen: None,
    };
    let request = Request::new("socket.apply", Params { option, program });
    Call::of(request.with_descriptors(socket), json)
}
