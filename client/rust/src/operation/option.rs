//! Options, `ioctl` requests and filters.

use std::io;

use sockbroker_proto::api::option::IoctlArgument;
use sockbroker_proto::api::values::OptionValue;
use sockbroker_proto::handle::Handle;

use super::call::{Call, Operation, json};
use crate::error::{Error, Result};
use crate::option::{self, OptionType, RawValue, SocketOption};
use crate::request::{PayloadEncoding, Request};
use crate::wire::response::Response;

pub(crate) fn set_option<T: OptionType>(
    handle: Handle,
    option: SocketOption<T>,
    value: T,
) -> impl Operation<Output = ()> {
    set_option_raw(handle, option.level(), option.number(), value.into_raw())
}

pub(crate) fn set_option_raw(
    handle: Handle,
    level: i32,
    number: i32,
    value: RawValue,
) -> impl Operation<Output = ()> {
    Call::new("socket.setsockopt", (handle, level, number, OptionValue::from(value)), json)
}

pub(crate) fn option<T: OptionType>(
    handle: Handle,
    option: SocketOption<T>,
) -> impl Operation<Output = T> {
    GetOption { request: get_option(handle, option.level(), option.number(), T::LENGTH), option }
}

/// Without a length the option is read as a C `int`.
pub(crate) fn option_raw(
    handle: Handle,
    level: i32,
    number: i32,
    length: Option<u32>,
) -> impl Operation<Output = RawValue> {
    Call::of(get_option(handle, level, number, length), raw_value)
}

/// `SO_ERROR`: takes the pending error of the socket.
pub(crate) fn take_error(handle: Handle) -> impl Operation<Output = Option<io::Error>> {
    fn read(response: &mut Response<'_>) -> Result<Option<io::Error>> {
        let number = option::read(option::SO_ERROR, raw_value(response)?)?;
        Ok((number != 0).then(|| io::Error::from_raw_os_error(number)))
    }
    let (level, number) = (option::SO_ERROR.level(), option::SO_ERROR.number());
    Call::of(get_option(handle, level, number, i32::LENGTH), read)
}

pub(crate) fn ioctl(
    handle: Handle,
    request: i64,
    argument: Option<IoctlArgument>,
) -> impl Operation<Output = Option<RawValue>> {
    fn read(response: &mut Response<'_>) -> Result<Option<RawValue>> {
        let value = response.value::<Option<OptionValue>>()?;
        value.map(|value| to_raw_value(response, value)).transpose()
    }
    Call::new("socket.ioctl", (handle, request, argument), read)
}

pub(crate) fn attach_filter(
    encoding: PayloadEncoding,
    handle: Handle,
    program: &[u8],
) -> impl Operation<Output = ()> {
    let (payload, attachments) = encoding.encode(program);
    let request = Request::new("socket.attach_filter", (handle, payload));
    Call::of(request.with_attachments(attachments), json)
}

pub(crate) fn detach_filter(handle: Handle) -> impl Operation<Output = ()> {
    Call::new("socket.detach_filter", (handle,), json)
}

type GetOptionParams = (Handle, i32, i32, Option<u32>);

fn get_option(
    handle: Handle,
    level: i32,
    number: i32,
    length: Option<u32>,
) -> Request<'static, GetOptionParams> {
    Request::new("socket.getsockopt", (handle, level, number, length))
}

/// Reads an option whose type names the option in its error.
struct GetOption<T> {
    request: Request<'static, GetOptionParams>,
    option: SocketOption<T>,
}

impl<T: OptionType> Operation for GetOption<T> {
    type Params = GetOptionParams;
    type Output = T;

    fn request(&self) -> &Request<'_, GetOptionParams> {
        &self.request
    }

    fn read(&mut self, response: &mut Response<'_>) -> Result<T> {
        option::read(self.option, raw_value(response)?)
    }
}

fn raw_value(response: &mut Response<'_>) -> Result<RawValue> {
    let value = response.value()?;
    to_raw_value(response, value)
}

fn to_raw_value(response: &Response<'_>, value: OptionValue) -> Result<RawValue> {
    match value {
        OptionValue::Int(number) => {
            let number = i32::try_from(number);
            let number = number.map_err(|_error| Error::protocol("an option is not a C int"))?;
            Ok(RawValue::Int(number))
        }
        OptionValue::Bytes(bytes) => Ok(RawValue::Bytes(response.bytes(bytes)?)),
    }
}
