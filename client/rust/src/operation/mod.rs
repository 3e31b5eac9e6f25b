//! Every operation of a socket, once for both faces: parameters, payload, and the reading of results.

mod name;
mod transfer;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use serde::Serialize;
use sockbroker_proto::api::broker::BrokerInfo;
use sockbroker_proto::api::option::IoctlArgument;
use sockbroker_proto::api::session::{Constants, LimitInfo, SessionInfo};
use sockbroker_proto::api::values::{Accepted, Created, OptionValue};
use sockbroker_proto::handle::Handle;

use crate::address::Address;
use crate::address::file::Purpose;
use crate::constant::{Domain, Protocol, Type};
use crate::error::{Error, Result};
use crate::message::Attributes;
use crate::option::{OptionType, RawValue, SocketOption};
use crate::request::Call;
use crate::wire::response::Response;

pub(crate) use name::{
    getaddrinfo, getfqdn, gethostbyaddr, gethostbyname, gethostbyname_ex, gethostname, getnameinfo,
    getprotobyname, getservbyname, getservbyport, if_indextoname, if_nameindex, if_nametoindex,
};
pub(crate) use transfer::{
    MAX_TRANSFER, attach_filter, descriptors, piece, recv, recv_from, recv_msg, send, send_all,
    send_msg, send_to,
};
#[cfg(feature = "tokio")]
pub(crate) use transfer::{data, sender};

/// A new socket, with the attributes that the broker gave it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewSocket {
    pub(crate) handle: Handle,
    pub(crate) attributes: Attributes,
}

impl From<Created> for NewSocket {
    fn from(made: Created) -> Self {
        Self { handle: made.handle, attributes: attributes(made.family, made.r#type, made.proto) }
    }
}

fn attributes(family: i32, kind: i32, proto: i32) -> Attributes {
    Attributes { domain: family.into(), kind: kind.into(), protocol: proto.into() }
}

fn made(response: &mut Response<'_>) -> Result<NewSocket> {
    response.value::<Created>().map(NewSocket::from)
}

fn nothing(response: &mut Response<'_>) -> Result<()> {
    response.value()
}

fn value<T: serde::de::DeserializeOwned>(response: &mut Response<'_>) -> Result<T> {
    response.value()
}

/// Makes an operation: `operation!(name(parameters) -> Result: "method", parameters of the call,
/// reader)`.
macro_rules! operation {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $result:ty: $method:literal, $params:expr, $read:expr) => {
        $(#[$doc])*
        pub(crate) fn $name<'a>(
            $($arg: $type),*
        ) -> Call<'a, impl Serialize + 'a, impl FnMut(&mut Response<'_>) -> Result<$result> + 'a> {
            Call::new($method, $params, $read)
        }
    };
}
use operation;

operation!(socket(domain: Domain, kind: Type, protocol: Protocol) -> NewSocket:
    "socket.socket", (domain, kind, protocol), made);
operation!(socketpair(domain: Domain, kind: Type, protocol: Protocol) -> (NewSocket, NewSocket):
    "socket.socketpair", (domain, kind, protocol), pair);
operation!(create_connection(address: Address) -> NewSocket:
    "socket.create_connection", Connect { address }, made);
operation!(create_server(address: Address) -> NewSocket:
    "socket.create_server", { let domain = family_of(&address); (address, domain) }, made);
operation!(listen(handle: Handle, backlog: i32) -> (): "socket.listen", (handle, backlog), nothing);
operation!(accept(handle: Handle) -> (NewSocket, Address): "socket.accept", (handle,), accepted);
operation!(shutdown(handle: Handle, how: i32) -> (): "socket.shutdown", (handle, how), nothing);
operation!(close(handle: Handle) -> (): "socket.close", (handle,), nothing);
operation!(dup(handle: Handle) -> NewSocket: "socket.dup", (handle,), made);
operation!(local_addr(handle: Handle) -> Address:
    "socket.getsockname", (handle,), value);
operation!(peer_addr(handle: Handle) -> Address:
    "socket.getpeername", (handle,), value);
operation!(set_timeout(handle: Handle, timeout: Option<Duration>) -> ():
    "socket.settimeout", (handle, timeout.map(|time| time.as_secs_f64())), nothing);
operation!(timeout(handle: Handle) -> Option<Duration>:
    "socket.gettimeout", (handle,), |response: &mut Response<'_>| Ok(response.value::<Option<f64>>()?.map(seconds)));
operation!(fileno(handle: Handle) -> std::os::fd::OwnedFd:
    "socket.fileno", (handle,), |response: &mut Response<'_>| response.descriptor());
operation!(detach(handle: Handle) -> std::os::fd::OwnedFd:
    "socket.detach", (handle,), |response: &mut Response<'_>| response.descriptor());
operation!(poll(fds: Vec<(Handle, crate::constant::Events)>, timeout: Option<Duration>) -> Vec<(Handle, i32)>:
    "socket.poll", (fds, timeout.map(|time| time.as_secs_f64())), value);

/// Gives a socket a local address.
pub(crate) fn bind(
    handle: Handle,
    address: Address,
    opens: bool,
) -> Call<'static, impl Serialize, impl FnMut(&mut Response<'_>) -> Result<()>> {
    at("socket.bind", handle, address, opens.then_some(Purpose::Make))
}

/// Connects a socket.
pub(crate) fn connect(
    handle: Handle,
    address: Address,
    opens: bool,
) -> Call<'static, impl Serialize, impl FnMut(&mut Response<'_>) -> Result<()>> {
    at("socket.connect", handle, address, opens.then_some(Purpose::Reach))
}

/// A call with an address, whose file this process opens if there is a purpose.
fn at(
    method: &'static str,
    handle: Handle,
    address: Address,
    purpose: Option<Purpose>,
) -> Call<'static, impl Serialize, impl FnMut(&mut Response<'_>) -> Result<()>> {
    let name = method.strip_prefix("socket.").unwrap_or(method);
    let (address, file) = match purpose {
        Some(purpose) => address.opened(name, purpose, 0),
        None => (address, None),
    };
    Call::new(method, (handle, address), nothing).with_file(file)
}

/// By name, since by position an absent timeout could not be told from none.
#[derive(Serialize)]
struct Connect {
    address: Address,
}

/// The family of a server: a host name means IPv4.
fn family_of(address: &Address) -> Domain {
    match address.to_inet() {
        Some(std::net::SocketAddr::V6(_)) => Domain::IPV6,
        _ => Domain::IPV4,
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

fn pair(response: &mut Response<'_>) -> Result<(NewSocket, NewSocket)> {
    let (left, right) = response.value::<(Created, Created)>()?;
    Ok((left.into(), right.into()))
}

fn accepted(response: &mut Response<'_>) -> Result<(NewSocket, Address)> {
    let accepted: Accepted = response.value()?;
    let attributes = attributes(accepted.family, accepted.r#type, accepted.proto);
    Ok((NewSocket { handle: accepted.handle, attributes }, accepted.address.into()))
}

/// Adopts the one descriptor beside the request.
pub(crate) fn adopt<'a>(
    descriptors: &'a [BorrowedFd<'a>],
) -> Call<'a, impl Serialize + 'a, impl FnMut(&mut Response<'_>) -> Result<NewSocket> + 'a> {
    #[derive(Serialize)]
    struct Params {
        fd: u32,
    }
    Call::new("socket.fromfd", Params { fd: 0 }, made).with_descriptors(descriptors)
}

operation!(
    /// Sets an option.
    set_option(handle: Handle, level: i32, number: i32, value: RawValue) -> ():
    "socket.setsockopt", (handle, level, number, OptionValue::from(value)), nothing);

operation!(
/// Reads an option; `length` `None` asks for an integer.
option(handle: Handle, level: i32, number: i32, length: Option<u32>) -> RawValue:
"socket.getsockopt", (handle, level, number, length), |response: &mut Response<'_>| {
    let value = response.value()?;
    raw(response, value)
});

fn raw(response: &Response<'_>, value: OptionValue) -> Result<RawValue> {
    match value {
        OptionValue::Int(number) => {
            let number = i32::try_from(number);
            Ok(RawValue::Int(number.map_err(|_error| Error::protocol("an option is no C int"))?))
        }
        OptionValue::Bytes(bytes) => Ok(RawValue::Bytes(response.bytes(bytes)?)),
    }
}

/// Reads a typed option.
pub(crate) fn typed_option<'a, T: OptionType + 'a>(
    handle: Handle,
    which: SocketOption<T>,
) -> Call<'a, impl Serialize + 'a, impl FnMut(&mut Response<'_>) -> Result<T> + 'a> {
    let Call { method, params, parts, descriptors, mut read } =
        option(handle, which.level(), which.number(), T::LENGTH);
    let read = move |response: &mut Response<'_>| crate::option::read(which, read(response)?);
    Call { method, params, parts, descriptors, read }
}

/// The number of a direction, `SHUT_*`.
pub(crate) fn how(how: std::net::Shutdown) -> i32 {
    match how {
        std::net::Shutdown::Read => 0,
        std::net::Shutdown::Write => 1,
        std::net::Shutdown::Both => 2,
    }
}

operation!(session() -> SessionInfo: "session.info", (), value);
operation!(broker_info() -> BrokerInfo: "broker.info", (), value);
operation!(limits() -> BTreeMap<String, LimitInfo>: "session.limits", (), value);
operation!(constants() -> BTreeMap<String, i64>:
    "socket.constants", (), |response: &mut Response<'_>| Ok(response.value::<Constants>()?.constants));
operation!(default_timeout() -> Option<Duration>: "socket.getdefaulttimeout", (),
    |response: &mut Response<'_>| Ok(response.value::<Option<f64>>()?.map(seconds)));
operation!(set_default_timeout(limit: Option<Duration>) -> ():
    "socket.setdefaulttimeout", (limit.map(|limit| limit.as_secs_f64()),), nothing);
operation!(ioctl(handle: Handle, control: i64, argument: Option<IoctlArgument>) -> Option<RawValue>:
"socket.ioctl", (handle, control, argument), |response: &mut Response<'_>| {
    response.value::<Option<OptionValue>>()?.map(|value| raw(response, value)).transpose()
});
operation!(detach_filter(handle: Handle) -> (): "socket.detach_filter", (handle,), nothing);

/// Sets a typed option.
pub(crate) fn set<'a, T: OptionType>(
    handle: Handle,
    which: SocketOption<T>,
    value: T,
) -> Call<'a, impl Serialize + 'a, impl FnMut(&mut Response<'_>) -> Result<()> + 'a> {
    set_option(handle, which.level(), which.number(), value.into_raw())
}

/// Reads and clears the pending error.
pub(crate) fn take_error<'a>(
    handle: Handle,
) -> Call<'a, impl Serialize + 'a, impl FnMut(&mut Response<'_>) -> Result<Option<io::Error>> + 'a>
{
    let Call { method, params, parts, descriptors, mut read } =
        typed_option(handle, crate::option::SO_ERROR);
    let read = move |response: &mut Response<'_>| match read(response)? {
        0 => Ok(None),
        number => Ok(Some(io::Error::from_raw_os_error(number))),
    };
    Call { method, params, parts, descriptors, read }
}
