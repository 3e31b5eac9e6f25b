//! Creating sockets, binding, connecting, timeouts, descriptors, closing.

use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::Serialize;
use sockbroker_proto::api::values::{Accepted, Created, Netns as Selector};
use sockbroker_proto::handle::Handle;

use super::call::{Call, Operation, json};
use crate::address::Address;
use crate::address::file::PathUse;
use crate::constant::{Domain, Events, Protocol, Type};
use crate::error::Result;
use crate::netns::Netns;
use crate::request::Request;
use crate::values::SocketSpec;
use crate::wire::response::Response;

/// A socket that the broker has just created, with its actual family, type and protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewSocket {
    pub(crate) handle: Handle,
    pub(crate) spec: SocketSpec,
}

impl From<Created> for NewSocket {
    fn from(created: Created) -> Self {
        let spec = SocketSpec::from_numbers(created.family, created.r#type, created.proto);
        Self { handle: created.handle, spec }
    }
}

pub(crate) fn socket(
    domain: Domain,
    ty: Type,
    protocol: Protocol,
) -> impl Operation<Output = NewSocket> {
    Call::new("socket.socket", (domain, ty, protocol), new_socket)
}

pub(crate) fn socket_within(
    domain: Domain,
    ty: Type,
    protocol: Protocol,
    netns: &Netns,
) -> impl Operation<Output = NewSocket> {
    /// By name, because an absent timeout is the default.
    #[derive(Serialize)]
    struct Params {
        family: Domain,
        r#type: Type,
        proto: Protocol,
        netns: Option<Selector>,
    }
    let params = |netns| Params { family: domain, r#type: ty, proto: protocol, netns };
    Call::in_netns("socket.socket", Some(netns), params, new_socket)
}

pub(crate) fn socketpair(
    domain: Domain,
    ty: Type,
    protocol: Protocol,
) -> impl Operation<Output = (NewSocket, NewSocket)> {
    fn read(response: &mut Response<'_>) -> Result<(NewSocket, NewSocket)> {
        let (left, right) = response.value::<(Created, Created)>()?;
        Ok((left.into(), right.into()))
    }
    Call::new("socket.socketpair", (domain, ty, protocol), read)
}

pub(crate) fn create_connection(
    address: Address,
    netns: Option<&Netns>,
) -> impl Operation<Output = NewSocket> {
    /// By name: by position the broker cannot distinguish an absent timeout, which is the default, from
    /// `null`, which means without a timeout.
    #[derive(Serialize)]
    struct Params {
        address: Address,
        netns: Option<Selector>,
    }
    let params = |netns| Params { address, netns };
    Call::in_netns("socket.create_connection", netns, params, new_socket)
}

pub(crate) fn create_server(
    address: Address,
    netns: Option<&Netns>,
) -> impl Operation<Output = NewSocket> {
    #[derive(Serialize)]
    struct Params {
        address: Address,
        family: Domain,
        netns: Option<Selector>,
    }
    let family = match address.to_inet() {
        Some(SocketAddr::V6(_)) => Domain::IPV6,
        // A host name means IPv4.
        Some(SocketAddr::V4(_)) | None => Domain::IPV4,
    };
    let params = |netns| Params { address, family, netns };
    Call::in_netns("socket.create_server", netns, params, new_socket)
}

/// Adopts the only descriptor of the request.
pub(crate) fn adopt<'a>(
    descriptor: &'a [BorrowedFd<'a>; 1],
) -> impl Operation<Output = NewSocket> + 'a {
    #[derive(Serialize)]
    struct Params {
        fd: u32,
    }
    let request = Request::new("socket.fromfd", Params { fd: 0 }).with_descriptors(descriptor);
    Call::of(request, new_socket)
}

/// Binds. With `opens_files` this process opens the folder of a path.
pub(crate) fn bind(
    handle: Handle,
    address: Address,
    opens_files: bool,
) -> impl Operation<Output = ()> {
    let path_use = opens_files.then_some(PathUse::Bind);
    let (address, file) = address.with_opened_file("bind", path_use, 0);
    Call::of(Request::new("socket.bind", (handle, address)).with_file(file), json)
}

/// Connects. With `opens_files` this process opens the file of a path.
pub(crate) fn connect(
    handle: Handle,
    address: Address,
    opens_files: bool,
) -> impl Operation<Output = ()> {
    let path_use = opens_files.then_some(PathUse::Connect);
    let (address, file) = address.with_opened_file("connect", path_use, 0);
    Call::of(Request::new("socket.connect", (handle, address)).with_file(file), json)
}

pub(crate) fn listen(handle: Handle, backlog: i32) -> impl Operation<Output = ()> {
    Call::new("socket.listen", (handle, backlog), json)
}

pub(crate) fn accept(handle: Handle) -> impl Operation<Output = (NewSocket, Address)> {
    fn read(response: &mut Response<'_>) -> Result<(NewSocket, Address)> {
        let accepted: Accepted = response.value()?;
        let spec = SocketSpec::from_numbers(accepted.family, accepted.r#type, accepted.proto);
        Ok((NewSocket { handle: accepted.handle, spec }, accepted.address.into()))
    }
    Call::new("socket.accept", (handle,), read)
}

pub(crate) fn shutdown(handle: Handle, how: Shutdown) -> impl Operation<Output = ()> {
    // `SHUT_RD`, `SHUT_WR` and `SHUT_RDWR` of `shutdown(2)`.
    let how = match how {
        Shutdown::Read => 0,
        Shutdown::Write => 1,
        Shutdown::Both => 2,
    };
    Call::new("socket.shutdown", (handle, how), json)
}

pub(crate) fn close(handle: Handle) -> impl Operation<Output = ()> {
    Call::new("socket.close", (handle,), json)
}

pub(crate) fn dup(handle: Handle) -> impl Operation<Output = NewSocket> {
    Call::new("socket.dup", (handle,), new_socket)
}

pub(crate) fn fileno(handle: Handle) -> impl Operation<Output = OwnedFd> {
    Call::new("socket.fileno", (handle,), descriptor)
}

pub(crate) fn detach(handle: Handle) -> impl Operation<Output = OwnedFd> {
    Call::new("socket.detach", (handle,), descriptor)
}

pub(crate) fn local_addr(handle: Handle) -> impl Operation<Output = Address> {
    Call::new("socket.getsockname", (handle,), json)
}

pub(crate) fn peer_addr(handle: Handle) -> impl Operation<Output = Address> {
    Call::new("socket.getpeername", (handle,), json)
}

pub(crate) fn timeout(handle: Handle) -> impl Operation<Output = Option<Duration>> {
    Call::new("socket.gettimeout", (handle,), duration)
}

pub(crate) fn set_timeout(
    handle: Handle,
    timeout: Option<Duration>,
) -> impl Operation<Output = ()> {
    let seconds = timeout.as_ref().map(Duration::as_secs_f64);
    Call::new("socket.settimeout", (handle, seconds), json)
}

pub(crate) fn poll(
    sockets: Vec<(Handle, Events)>,
    timeout: Option<Duration>,
) -> impl Operation<Output = Vec<(Handle, Events)>> {
    let seconds = timeout.as_ref().map(Duration::as_secs_f64);
    Call::new("socket.poll", (sockets, seconds), json)
}

fn new_socket(response: &mut Response<'_>) -> Result<NewSocket> {
    response.value::<Created>().map(NewSocket::from)
}

pub(super) fn descriptor(response: &mut Response<'_>) -> Result<OwnedFd> {
    response.take_descriptor()
}

/// Reads seconds, or `null` for no limit.
pub(super) fn duration(response: &mut Response<'_>) -> Result<Option<Duration>> {
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Ok(response.value::<Option<f64>>()?.map(duration))
}
