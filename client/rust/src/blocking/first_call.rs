//! New connections, and calls that have a time limit of their own.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::operation::{self, Operation};
use crate::wire::connect::{CONNECT_TIMEOUT, connect};
use crate::wire::framing::Framing;

/// Opens a connection.
pub(super) fn new_connection(endpoint: &Endpoint) -> Result<Connection> {
    Ok(Connection::over(connect(endpoint)?, Framing::of(endpoint)))
}

/// The first call of a connection. It has a time limit, because the peer may not be a broker.
pub(super) fn first_call<T: DeserializeOwned>(
    connection: &Connection,
    method: &str,
    params: impl Serialize,
) -> Result<T> {
    call_within(CONNECT_TIMEOUT, connection, method, params)
}

/// Calls a method within a time limit.
pub(super) fn call_within<T: DeserializeOwned>(
    timeout: Duration,
    connection: &Connection,
    method: &str,
    params: impl Serialize,
) -> Result<T> {
    run_within(timeout, connection, operation::named(method, params))
}

/// Runs an operation within a time limit.
pub(super) fn run_within<O: Operation>(
    timeout: Duration,
    connection: &Connection,
    mut operation: O,
) -> Result<O::Output> {
    let deadline = Some(Instant::now() + timeout);
    let id = connection.next_id();
    connection.begin(id, operation.request(), deadline)?;
    let result = connection.finish(id, deadline, &mut |response| operation.read(response));
    result.unwrap_or_else(|| {
        let call = operation.request().method.to_owned();
        Err(Error::Timeout { call, sent: None })
    })
}
