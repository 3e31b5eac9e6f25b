//! Results as JSON, each encoded once with room for the response around it.

use bytes::Buf;
use jsonrpsee_types::Id;
use serde::Serialize;
use sockbroker_proto::error::ErrorKind;

use crate::error::LimitExceeded;
use crate::rpc::error::RpcError;

/// Bytes that are reserved before an encoded result. The beginning of most responses fits into them, since
/// ids are short.
const HEADROOM: usize = 64;

/// A result as JSON, with reserved space for the response around it.
#[derive(Debug)]
pub struct EncodedResult(Vec<u8>);

/// A writer that fails once it has more bytes than a limit allows.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        if self.bytes.len() + part.len() > self.most {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl EncodedResult {
    /// Encodes a result. It fails if the response would have more than `most` bytes.
    pub(super) fn new<T: Serialize>(result: &T, most: u64) -> Result<Self, RpcError> {
        let too_large = LimitExceeded { name: "frame_bytes", value: most };
        let mut bytes = Vec::with_capacity(2 * HEADROOM);
        bytes.resize(HEADROOM, b' ');
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut to = Bounded { bytes, most };
        match serde_json::to_writer(&mut to, result) {
            Ok(()) => Ok(Self(to.bytes)),
            Err(error) if error.is_io() => Err(RpcError::limit(too_large, 0)),
            Err(error) => {
                let text = format!("the result cannot be encoded: {error}");
                Err(RpcError::plain(ErrorKind::Internal, text))
            }
        }
    }

    /// Puts the result into a response to the request with this id.
    pub(super) fn response(self, id: &Id<'_>) -> bytes::Bytes {
        let mut bytes = self.0;
        bytes.push(b'}');
        let mut short = [0; HEADROOM];
        let mut rest = &mut short[..];
        if write_head(&mut rest, id).is_ok() {
            let start = rest.len();
            let (head, headroom) = (short.get(..HEADROOM - start), bytes.get_mut(start..HEADROOM));
            if let (Some(head), Some(headroom)) = (head, headroom) {
                headroom.copy_from_slice(head);
            }
            let mut response = bytes::Bytes::from(bytes);
            response.advance(start);
            response
        } else {
            let mut head = Vec::new();
            // An id can always be encoded, and a vector accepts all bytes.
            write_head(&mut head, id).ok();
            let result = bytes.get(HEADROOM..).unwrap_or_default();
            [&head, result].concat().into()
        }
    }
}

/// Writes the part of a response before the result.
fn write_head(to: &mut impl std::io::Write, id: &Id<'_>) -> std::io::Result<()> {
    to.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":")?;
    serde_json::to_writer(&mut *to, id)?;
    to.write_all(b",\"result\":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_with_an_id_of_any_length_is_valid_json() {
        let long = "\"\u{1}".repeat(100);
        for id in [Id::Null, Id::Number(u64::MAX), Id::Str("a\"b".into()), Id::Str(long.into())] {
            let response = EncodedResult::new(&[1, 2], 1000).unwrap().response(&id);
            let read: serde_json::Value = serde_json::from_slice(&response).unwrap();
            assert_eq!(read["id"], serde_json::to_value(&id).unwrap());
            assert_eq!((&read["jsonrpc"], &read["result"][1]), (&"2.0".into(), &2.into()));
        }
    }

    #[test]
    fn a_result_beyond_frame_bytes_returns_a_limit_error() {
        assert!(EncodedResult::new(&"x".repeat(500), 600).is_ok());
        let error = EncodedResult::new(&"x".repeat(500), 500).unwrap_err();
        assert_eq!((error.kind, error.limit_name()), (ErrorKind::Limit, Some("frame_bytes")));
    }
}
