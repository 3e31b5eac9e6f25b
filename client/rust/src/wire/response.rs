//! A JSON-RPC response: its envelope, its result, its attachments and descriptors.

use std::ops::Range;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::descriptors::FrameDescriptors;

use super::error_object::ErrorObject;
use crate::error::{Error, Result};

/// The members of a JSON-RPC response, as unparsed JSON.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Keeps `"result": null` apart from an absent result.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Envelope<'a> {
    /// Parses a message.
    pub(crate) fn parse(json: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(json)
            .map_err(|error| Error::protocol(format!("a response is not valid: {error}")))
    }

    /// The id of the call that the response belongs to; `None` if no call of this crate has such an
    /// id.
    pub(crate) fn id(&self) -> Option<u64> {
        self.id?.get().parse().ok()
    }

    /// Fails for an error without an id: the broker could not parse a message, and it is unknown which.
    pub(crate) fn check(&self) -> Result<()> {
        match (self.id, self.error) {
            (None, Some(error)) => Err(match refusal(error.get()) {
                Some(message) => Error::Disconnected { message },
                None => {
                    Error::protocol(format!("the broker could not read a request: {}", error.get()))
                }
            }),
            _ => Ok(()),
        }
    }

    /// The result as JSON, or the error.
    pub(crate) fn outcome(&self) -> Result<&'a str> {
        match (self.result, self.error) {
            (_, Some(error)) => match serde_json::from_str::<ErrorObject>(error.get()) {
                Ok(object) => Err(object.into()),
                Err(error) => {
                    Err(Error::protocol(format!("an error object is not valid: {error}")))
                }
            },
            (Some(result), None) => Ok(result.get()),
            (None, None) => Err(Error::protocol("a response has neither result nor error")),
        }
    }
}

/// Why the broker ends a connection, if an error says that.
fn refusal(error: &str) -> Option<String> {
    let error: serde_json::Value = serde_json::from_str(error).ok()?;
    let is_refusal = error.get("data")?.get("kind")? == "denied";
    error.get("message").filter(|_| is_refusal)?.as_str().map(str::to_owned)
}

/// A successful response in the buffer it was received in.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    /// The result as JSON.
    pub(crate) result: &'a str,
    /// The attachments, one after the other.
    pub(crate) attachments: &'a [u8],
    /// The length of each attachment.
    pub(crate) lengths: &'a [usize],
    /// The descriptors. Those that remain are closed with this value.
    pub(crate) descriptors: FrameDescriptors<OwnedFd>,
}

impl<'a> Response<'a> {
    /// Parses the result.
    pub(crate) fn value<T: Deserialize<'a>>(&self) -> Result<T> {
        serde_json::from_str(self.result)
            .map_err(|error| Error::protocol(format!("a result is not valid: {error}")))
    }

    /// The attachment at an index.
    pub(crate) fn attachment(&self, index: u32) -> Result<&'a [u8]> {
        let missing = || Error::protocol(format!("attachment {index} is missing"));
        let index = usize::try_from(index).ok().ok_or_else(missing)?;
        let length = *self.lengths.get(index).ok_or_else(missing)?;
        let before = self.lengths.iter().take(index).sum::<usize>();
        self.attachments.get(before..).and_then(|rest| rest.get(..length)).ok_or_else(missing)
    }

    /// The bytes of a value in the result, inline or attached.
    pub(crate) fn bytes(&self, bytes: Bytes) -> Result<Vec<u8>> {
        match bytes {
            Bytes::Inline(bytes) => Ok(bytes),
            Bytes::Attachment(index) => self.attachment(index).map(<[u8]>::to_vec),
        }
    }

    /// Copies the bytes of a value in the result to the front of `buffer`. Returns how many.
    pub(crate) fn copy_bytes(&self, bytes: &Bytes, buffer: &mut [u8]) -> Result<usize> {
        let bytes = match bytes {
            Bytes::Inline(bytes) => bytes,
            Bytes::Attachment(index) => self.attachment(*index)?,
        };
        let front = buffer.get_mut(..bytes.len());
        front
            .ok_or_else(|| Error::protocol("the broker sent more bytes than were requested"))?
            .copy_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Takes the descriptor of a response that has one.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] with `EMFILE` if this process cannot open more files.
    pub(crate) fn take_descriptor(&mut self) -> Result<OwnedFd> {
        match self.descriptors.descriptors.pop() {
            Some(descriptor) => Ok(descriptor),
            None if self.descriptors.lost => Err(Error::Os {
                errno: Some(rustix::io::Errno::MFILE.raw_os_error()),
                name: Some("EMFILE".to_owned()),
                call: "recvmsg".to_owned(),
                message:
                    "recvmsg: the response carries a descriptor, and this process cannot open more \
                          files"
                        .to_owned(),
                sent: None,
            }),
            None => Err(Error::protocol("a response has no descriptor")),
        }
    }
}

/// A function that reads the result of a response.
pub(crate) type ResultReader<'a, T> = &'a mut dyn FnMut(&mut Response<'_>) -> Result<T>;

/// A response that is read later, or by another thread or task than the one that received it.
#[derive(Debug)]
pub(crate) struct OwnedResponse {
    pub(crate) buffer: Vec<u8>,
    /// The JSON, as a range of `buffer`.
    pub(crate) json: Range<usize>,
    /// The attachments, as a range of `buffer`.
    pub(crate) attachments: Range<usize>,
    pub(crate) lengths: Vec<usize>,
    pub(crate) descriptors: FrameDescriptors<OwnedFd>,
}

impl OwnedResponse {
    /// A response to a receive that returned these bytes.
    #[cfg(feature = "tokio")]
    pub(crate) fn of_data(data: &[u8]) -> Self {
        let json =
            br#"{"id":0,"result":{"data":{"attachment":0},"n":0,"eof":false,"address":null}}"#;
        Self::of_parts(json, data, vec![data.len()], FrameDescriptors::default())
    }

    /// A successful response with this result.
    pub(crate) fn of_result(result: &str) -> Self {
        let json = format!(r#"{{"id":0,"result":{result}}}"#);
        Self::of_parts(json.as_bytes(), &[], Vec::new(), FrameDescriptors::default())
    }

    /// A response with these parts.
    pub(crate) fn of_parts(
        json: &[u8],
        attachments: &[u8],
        lengths: Vec<usize>,
        descriptors: FrameDescriptors<OwnedFd>,
    ) -> Self {
        let buffer = [json, attachments].concat();
        let (json, attachments) = (0..json.len(), json.len()..buffer.len());
        Self { buffer, json, attachments, lengths, descriptors }
    }

    /// The error, if the call failed.
    #[cfg(feature = "tokio")]
    pub(crate) fn error(&self) -> Option<Error> {
        let json = self.buffer.get(self.json.clone()).unwrap_or_default();
        Envelope::parse(json).and_then(|envelope| envelope.outcome().map(drop)).err()
    }

    /// The result as JSON, or the error.
    #[cfg(feature = "tokio")]
    pub(crate) fn result(&self) -> Result<&str> {
        let json = self.buffer.get(self.json.clone()).unwrap_or_default();
        Envelope::parse(json)?.outcome()
    }

    /// Reads the result.
    pub(crate) fn read<T>(&mut self, read: ResultReader<'_, T>) -> Result<T> {
        let descriptors = std::mem::take(&mut self.descriptors);
        let json = self.buffer.get(self.json.clone()).unwrap_or_default();
        let attachments = self.buffer.get(self.attachments.clone()).unwrap_or_default();
        let result = Envelope::parse(json)?.outcome()?;
        read(&mut Response { result, attachments, lengths: &self.lengths, descriptors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Envelope<'_> {
        Envelope::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn null_result_differs_from_absent_result() {
        assert_eq!(parse(r#"{"jsonrpc":"2.0","id":1,"result":null}"#).outcome(), Ok("null"));
        let error = parse(r#"{"jsonrpc":"2.0","id":1}"#).outcome().unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }

    #[test]
    fn only_unsigned_numbers_are_ids_of_calls() {
        assert_eq!(parse(r#"{"id":7,"result":1}"#).id(), Some(7));
        for other in
            [r#"{"id":"7","result":1}"#, r#"{"id":-7}"#, r#"{"id":7.5}"#, r#"{"result":1}"#]
        {
            assert_eq!(parse(other).id(), None, "{other}");
        }
        assert!(parse(r#"{"id":null,"error":{"code":-32700,"message":"m"}}"#).check().is_err());
        let ended =
            r#"{"id":null,"error":{"code":3000,"message":"revoked","data":{"kind":"denied"}}}"#;
        let error = parse(ended).check().unwrap_err();
        assert!(matches!(error, Error::Disconnected { message } if message == "revoked"));
        assert_eq!(parse(r#"{"id":"other","error":{"code":1,"message":"m"}}"#).check(), Ok(()));
    }

    #[test]
    fn attachment_index_and_length_are_checked() {
        let response = Response {
            result: "1",
            attachments: b"abcde",
            lengths: &[2, 0, 3, 9],
            descriptors: FrameDescriptors::default(),
        };
        assert_eq!(response.attachment(0), Ok(&b"ab"[..]));
        assert_eq!(response.attachment(1), Ok(&b""[..]));
        assert_eq!(response.attachment(2), Ok(&b"cde"[..]));
        assert!(
            response.attachment(3).is_err()
                && response.attachment(4).is_err()
                && response.attachment(u32::MAX).is_err()
        );
        assert!(response.copy_bytes(&Bytes::Attachment(2), &mut [0; 2]).is_err());
    }
}
