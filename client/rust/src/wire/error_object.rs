//! The error object of a JSON-RPC response, and the [`Error`] that it becomes.

use serde::Deserialize;
use sockbroker_proto::error::{ErrorData, ErrorKind};

use crate::error::Error;

/// The number of a denial where the broker sends none.
const EACCES: i32 = 13;

/// The error object of JSON-RPC. Unknown fields, which a newer broker may send, are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorObject {
    code: i32,
    #[serde(default)]
    message: String,
    data: Option<ErrorData>,
}

impl From<ErrorObject> for Error {
    fn from(object: ErrorObject) -> Self {
        let ErrorObject { code, message, data } = object;
        let Some(kind) = ErrorKind::all().find(|kind| kind.code() == code) else {
            return Error::Broker { code, message };
        };
        let data = data.unwrap_or_default();
        let call = data.call.unwrap_or_default();
        let (sent, name) = (data.sent, data.name);
        match kind {
            ErrorKind::Os => Error::Os { errno: data.errno, name, call, message, sent },
            ErrorKind::Gai | ErrorKind::Host => {
                Error::Resolver { errno: data.errno.unwrap_or_default(), name, call, message }
            }
            ErrorKind::Timeout => Error::Timeout { call, sent },
            ErrorKind::Cancelled => Error::Cancelled { call, sent },
            ErrorKind::Denied => Error::Denied {
                rule: data.rule.unwrap_or_default(),
                grant: data.grant,
                errno: data.errno.unwrap_or(EACCES),
                call,
                message,
            },
            ErrorKind::Handle => Error::Handle { call, message },
            ErrorKind::Session => Error::Session { call, message },
            ErrorKind::Limit => {
                Error::Limit { limit: data.limit.unwrap_or_default(), call, message, sent }
            }
            ErrorKind::Argument => {
                Error::Argument { exception: data.exception.unwrap_or_default(), call, message }
            }
            ErrorKind::Descriptor => Error::Descriptor { call, message },
            ErrorKind::Interrupted => Error::Interrupted { call, handle: None, message },
            ErrorKind::Method => Error::Method { message },
            ErrorKind::Parse | ErrorKind::Request | ErrorKind::Internal | ErrorKind::Policy => {
                Error::Broker { code, message }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::json;

    use super::*;

    fn error(value: serde_json::Value) -> Error {
        serde_json::from_value::<ErrorObject>(value).unwrap().into()
    }

    #[test]
    fn system_error_keeps_number_name_and_call() {
        let error = error(json!({ "code": 1000, "message": "connect: connection refused",
            "data": { "kind": "OSError", "errno": 111, "name": "ECONNREFUSED", "call": "connect" } }));
        let Error::Os { errno, name, call, .. } = &error else { panic!("{error:?}") };
        assert_eq!(
            (*errno, name.as_deref(), call.as_str()),
            (Some(111), Some("ECONNREFUSED"), "connect")
        );
        let error = io::Error::from(error);
        assert_eq!(error.raw_os_error(), Some(111));
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn every_error_kind_becomes_its_variant() {
        for kind in ErrorKind::all() {
            let entry = kind.entry();
            let data =
                json!({ "kind": entry.name, "call": "recv", "sent": 3, "unknown_field": true });
            let error = error(json!({ "code": entry.code, "message": "m", "data": data }));
            let without_variant =
                [ErrorKind::Parse, ErrorKind::Request, ErrorKind::Internal, ErrorKind::Policy];
            let has_variant = !without_variant.contains(&kind);
            assert_eq!(has_variant, !matches!(error, Error::Broker { .. }), "{error:?}");
            drop(io::Error::from(error));
        }
        assert!(matches!(
            error(json!({ "code": 5999, "message": "new" })),
            Error::Broker { code: 5999, .. }
        ));
    }

    #[test]
    fn timeout_becomes_an_io_timeout_without_errno() {
        let error = error(json!({ "code": 1001, "message": "timed out",
            "data": { "kind": "timeout", "call": "send", "sent": 7 } }));
        assert_eq!(error.sent(), 7);
        let error = io::Error::from(error);
        assert_eq!((error.kind(), error.raw_os_error()), (io::ErrorKind::TimedOut, None));
        assert!(matches!(error.downcast(), Ok(Error::Timeout { .. })));
    }
}
