//! Reads the values of parameters, with the checks and the exceptions of CPython.

use sockbroker_proto::address::{AddressItem, AddressValue};
use sockbroker_proto::constant::Constant;

use crate::error::{OpError, OpResult};

/// An optional constant as a C `int`.
pub(super) fn int_or(value: Option<Constant>, default: i32) -> OpResult<i32> {
    value.map_or(Ok(default), int)
}

/// A constant as a C `int`.
pub(super) fn int(value: Constant) -> OpResult<i32> {
    c_int(value.0)
}

/// A number as a C `int`; `OverflowError` if it does not fit.
pub(super) fn c_int(value: i64) -> OpResult<i32> {
    i32::try_from(value).map_err(|_error| {
        let side = if value < 0 { "less than minimum" } else { "greater than maximum" };
        OpError::overflow(format!("signed integer is {side}"))
    })
}

/// Reads `[host, port]`. The port may be the name of a service.
pub(super) fn host_and_port(address: &AddressValue) -> OpResult<(Option<String>, Option<String>)> {
    let wrong = || OpError::type_error("the address must be [host, port]");
    let AddressValue::Tuple(items) = address else {
        return Err(wrong());
    };
    let [host, port] = items.as_slice() else {
        return Err(OpError::value("the address must be [host, port]"));
    };
    let host = match host {
        AddressItem::Text(host) => Some(host.clone()),
        AddressItem::None(()) => None,
        AddressItem::Number(_) | AddressItem::Bytes(_) | AddressItem::Other(_) => {
            return Err(wrong());
        }
    };
    Ok((host, service(Some(port))?))
}

/// Reads the port of `getaddrinfo`: a number, the name of a service, or null.
pub(super) fn service(port: Option<&AddressItem>) -> OpResult<Option<String>> {
    match port {
        None | Some(AddressItem::None(())) => Ok(None),
        Some(AddressItem::Number(number)) => Ok(Some(number.to_string())),
        Some(AddressItem::Text(text)) => Ok(Some(text.clone())),
        Some(item @ (AddressItem::Bytes(_) | AddressItem::Other(_))) => Err(match item.integer() {
            Some(_) => OpError::overflow("Python int too large to convert to C long"),
            None => OpError::Plain("Int or String expected".to_owned()),
        }),
    }
}

/// Reads the backlog of `listen`. A negative number means 0, as in CPython.
pub(super) fn clip_backlog(backlog: Option<i64>) -> OpResult<Option<i32>> {
    backlog.map(|backlog| Ok(c_int(backlog)?.max(0))).transpose()
}

/// Reads offset and count of `sendfile`, with CPython's checks.
pub(super) fn file_range(offset: Option<i64>, count: Option<i64>) -> OpResult<(u64, Option<u64>)> {
    let offset = u64::try_from(offset.unwrap_or(0))
        .map_err(|_error| OpError::value("offset must not be negative"))?;
    let positive = |count: i64| u64::try_from(count).ok().filter(|count| *count > 0);
    let count = match count {
        None => None,
        Some(count) => {
            let wrong =
                || OpError::value(format!("count must be a positive integer (got {count})"));
            Some(positive(count).ok_or_else(wrong)?)
        }
    };
    Ok((offset, count))
}
