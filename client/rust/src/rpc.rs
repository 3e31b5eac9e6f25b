//! What both faces need to serve the stubs that the contract generates: errors there and back.

use jsonrpsee::core::client::{self, BatchResponse};
use jsonrpsee::types::ErrorObjectOwned;
use sockbroker_proto::errno;
use sockbroker_proto::error::{ErrorData, ErrorKind};

use crate::error::{Error, Result};

/// An error of this crate as one of the RPC library: with code, message and data if the broker gave
/// it, as a failure of the transport otherwise.
pub(crate) fn into_client(error: Error) -> client::Error {
    match object(&error) {
        Some(object) => client::Error::Call(object),
        None => client::Error::Transport(Box::new(error)),
    }
}

/// The way back.
pub(crate) fn from_client(error: client::Error) -> Error {
    match error {
        client::Error::Call(object) => {
            let text = serde_json::to_string(&object).unwrap_or_default();
            serde_json::from_str::<crate::wire::fault::ErrorObject>(&text)
                .map_or_else(Error::protocol, Error::from)
        }
        client::Error::Transport(inner) => match inner.downcast::<Error>() {
            Ok(error) => *error,
            Err(other) => Error::disconnected(other),
        },
        other => Error::protocol(other),
    }
}

/// The results of a batch, in order.
pub(crate) fn batch_response<'a, R: std::fmt::Debug + 'a>(
    results: impl Iterator<Item = Result<R>>,
) -> std::result::Result<BatchResponse<'a, R>, client::Error> {
    let mut entries = Vec::new();
    let mut failed = 0;
    for result in results {
        entries.push(match result.map_err(into_client) {
            Ok(value) => Ok(value),
            Err(client::Error::Call(object)) => {
                failed += 1;
                Err(object)
            }
            Err(other) => return Err(other),
        });
    }
    Ok(BatchResponse::new(entries.len() - failed, entries, failed))
}

fn object(error: &Error) -> Option<ErrorObjectOwned> {
    let mut data =
        ErrorData { sent: Some(error.sent()).filter(|sent| *sent > 0), ..ErrorData::default() };
    data.errno = error.errno();
    data.name = data.errno.and_then(errno::name).map(str::to_owned);
    let kind = match error {
        Error::Os { name, call, .. } => {
            (data.name, data.call) = (name.clone(), Some(call.clone()));
            ErrorKind::Os
        }
        Error::Resolver { errno, name, call, .. } => {
            (data.errno, data.name) = (Some(*errno), name.clone());
            data.call = Some(call.clone());
            if name.is_some() { ErrorKind::Gai } else { ErrorKind::Host }
        }
        Error::Denied { rule, grant, call, .. } => {
            (data.rule, data.grant) = (Some(rule.clone()), grant.clone());
            data.call = Some(call.clone());
            ErrorKind::Denied
        }
        Error::Limit { limit, call, .. } => {
            (data.limit, data.call) = (Some(limit.clone()), Some(call.clone()));
            ErrorKind::Limit
        }
        Error::Argument { exception, call, .. } => {
            (data.exception, data.call) = (Some(exception.clone()), Some(call.clone()));
            ErrorKind::Argument
        }
        Error::Timeout { call, .. } => of_call(&mut data, call, ErrorKind::Timeout),
        Error::Cancelled { call, .. } => of_call(&mut data, call, ErrorKind::Cancelled),
        Error::Handle { call, .. } => of_call(&mut data, call, ErrorKind::Handle),
        Error::Session { call, .. } => of_call(&mut data, call, ErrorKind::Session),
        Error::Descriptor { call, .. } => of_call(&mut data, call, ErrorKind::Descriptor),
        Error::Method { .. } => ErrorKind::Method,
        Error::Broker { code, message } => {
            return Some(ErrorObjectOwned::owned(*code, message.clone(), None::<()>));
        }
        Error::Protocol { .. }
        | Error::Disconnected { .. }
        | Error::Connect { .. }
        | Error::Endpoint { .. } => return None,
    };
    kind.entry().name.clone_into(&mut data.kind);
    Some(ErrorObjectOwned::owned(kind.code(), error.to_string(), Some(data)))
}

fn of_call(data: &mut ErrorData, call: &str, kind: ErrorKind) -> ErrorKind {
    data.call = Some(call.to_owned());
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_broker_go_there_and_back_unchanged() {
        let (call, message) = ("recv".to_owned(), "m".to_owned());
        for error in [
            Error::Os {
                errno: Some(111),
                name: Some("ECONNREFUSED".to_owned()),
                call: call.clone(),
                message: message.clone(),
                sent: Some(3),
            },
            Error::Resolver {
                errno: -2,
                name: Some("EAI_NONAME".to_owned()),
                call: call.clone(),
                message: message.clone(),
            },
            Error::Resolver { errno: 1, name: None, call: call.clone(), message: message.clone() },
            Error::Timeout { call: call.clone(), sent: None },
            Error::Cancelled { call: call.clone(), sent: Some(1) },
            Error::Handle { call: call.clone(), message: message.clone() },
            Error::Method { message: message.clone() },
            Error::Limit { limit: "handles".to_owned(), call: call.clone(), message, sent: None },
            Error::disconnected("gone"),
        ] {
            assert_eq!(from_client(into_client(error.clone())), error);
        }
    }
}
