//! Integers of parameters as C's types, with CPython's `OverflowError` outside them.

use sockbroker_proto::constant::Constant;

use crate::error::{OpError, OpResult};

/// An optional constant as C `int`.
pub(super) fn int_or(value: Option<Constant>, default: i32) -> OpResult<i32> {
    value.map_or(Ok(default), int)
}

/// A constant as C `int`.
pub(super) fn int(value: Constant) -> OpResult<i32> {
    c_int(value.0)
}

/// A number as C `int`.
pub(super) fn c_int(value: i64) -> OpResult<i32> {
    i32::try_from(value).map_err(|_error| {
        let side = if value < 0 { "less than minimum" } else { "greater than maximum" };
        OpError::overflow(format!("signed integer is {side}"))
    })
}
