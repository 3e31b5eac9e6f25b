//! An answer: its envelope, and the result with what rides beside it.

use std::ops::Range;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::descriptors::FrameDescriptors;

use super::error_object::ErrorObject;
use crate::error::{Error, Result};

/// The envelope of JSON-RPC, as text within the message.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// `null` is a result too; only an absent one is none.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Envelope<'a> {
    /// Reads a message.
    pub(crate) fn read(json: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| Error::protocol(format!("an answer: {error}")))
    }

    /// The number of the call that is answered; `None` for an id that is not ours, and for what is
    /// no answer at all.
    pub(crate) fn id(&self) -> Option<u64> {
        self.id?.get().parse().ok()
    }

    /// Fails for an error without an id: the broker could not read a message, and nobody can say
    /// whose it was.
    pub(crate) fn check(&self) -> Result<()> {
        match (self.id, self.error) {
            (None, Some(error)) => Err(Error::protocol(format!("it answered {}", error.get()))),
            _ => Ok(()),
        }
    }

    /// The result as text, or the error.
    pub(crate) fn outcome(&self) -> Result<&'a str> {
        match (self.result, self.error) {
            (_, Some(error)) => match serde_json::from_str::<ErrorObject>(error.get()) {
                Ok(object) => Err(object.into()),
                Err(error) => Err(Error::protocol(format!("an error: {error}"))),
            },
            (Some(result), None) => Ok(result.get()),
            (None, None) => Err(Error::protocol("an answer has neither result nor error")),
        }
    }
}

/// A result, with the attachments and descriptors of its frame.
#[derive(Debug)]
pub(crate) struct Response<'a> {
    /// The result as JSON.
    pub(crate) result: &'a str,
    /// The attachments, one after the other.
    pub(crate) tail: &'a [u8],
    /// Their lengths.
    pub(crate) lengths: &'a [usize],
    /// The descriptors. Those nobody takes are closed with the response.
    pub(crate) descriptors: FrameDescriptors<OwnedFd>,
}

impl<'a> Response<'a> {
    /// The result as a type of the contract.
    pub(crate) fn value<T: Deserialize<'a>>(&self) -> Result<T> {
        serde_json::from_str(self.result)
            .map_err(|error| Error::protocol(format!("a result: {error}")))
    }

    /// The attachment at an index.
    pub(crate) fn part(&self, index: u32) -> Result<&'a [u8]> {
        let missing = || Error::protocol(format!("attachment {index} is missing"));
        let index = usize::try_from(index).ok().ok_or_else(missing)?;
        let length = *self.lengths.get(index).ok_or_else(missing)?;
        let before = self.lengths.iter().take(index).sum::<usize>();
        self.tail.get(before..).and_then(|tail| tail.get(..length)).ok_or_else(missing)
    }

    /// Bytes in the result, wherever they are.
    pub(crate) fn bytes(&self, bytes: Bytes) -> Result<Vec<u8>> {
        match bytes {
            Bytes::Inline(bytes) => Ok(bytes),
            Bytes::Attachment(index) => self.part(index).map(<[u8]>::to_vec),
        }
    }

    /// Copies bytes of the result to the front of `buffer`; how many there were.
    pub(crate) fn copy(&self, bytes: &Bytes, buffer: &mut [u8]) -> Result<usize> {
        let bytes = match bytes {
            Bytes::Inline(bytes) => bytes,
            Bytes::Attachment(index) => self.part(*index)?,
        };
        let front = buffer.get_mut(..bytes.len());
        front
            .ok_or_else(|| Error::protocol("more bytes than were asked for"))?
            .copy_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Takes the one descriptor that was asked for.
    pub(crate) fn descriptor(&mut self) -> Result<OwnedFd> {
        match self.descriptors.descriptors.pop() {
            Some(descriptor) => Ok(descriptor),
            None if self.descriptors.lost => Err(Error::Os {
                errno: Some(rustix::io::Errno::MFILE.raw_os_error()),
                name: Some("EMFILE".to_owned()),
                call: "recvmsg".to_owned(),
                message: "this process has no room for the descriptor of the answer".to_owned(),
                sent: None,
            }),
            None => Err(Error::protocol("no descriptor beside the answer")),
        }
    }
}

/// An answer that is read by somebody else than who received it.
#[derive(Debug)]
pub(crate) struct OwnedResponse {
    /// Where everything is.
    pub(crate) buffer: Vec<u8>,
    pub(crate) json: Range<usize>,
    /// The attachments, one after the other.
    pub(crate) tail: Range<usize>,
    pub(crate) lengths: Vec<usize>,
    pub(crate) descriptors: FrameDescriptors<OwnedFd>,
}

impl OwnedResponse {
    /// An answer as a receive of these bytes would have given it.
    #[cfg(feature = "tokio")]
    pub(crate) fn of_data(data: &[u8]) -> Self {
        let json =
            br#"{"id":0,"result":{"data":{"attachment":0},"n":0,"eof":false,"address":null}}"#;
        let buffer = [&json[..], data].concat();
        Self {
            json: 0..json.len(),
            tail: json.len()..buffer.len(),
            buffer,
            lengths: vec![data.len()],
            descriptors: FrameDescriptors::default(),
        }
    }

    /// The error, if it is one.
    #[cfg(feature = "tokio")]
    pub(crate) fn error(&self) -> Option<Error> {
        let json = self.buffer.get(self.json.clone()).unwrap_or_default();
        Envelope::read(json).and_then(|envelope| envelope.outcome().map(drop)).err()
    }

    /// Reads the result as if it had just come.
    pub(crate) fn read<T>(
        &mut self,
        read: &mut dyn FnMut(&mut Response<'_>) -> Result<T>,
    ) -> Result<T> {
        let descriptors = std::mem::take(&mut self.descriptors);
        let json = self.buffer.get(self.json.clone()).unwrap_or_default();
        let tail = self.buffer.get(self.tail.clone()).unwrap_or_default();
        let result = Envelope::read(json)?.outcome()?;
        read(&mut Response { result, tail, lengths: &self.lengths, descriptors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Envelope<'_> {
        Envelope::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_null_result_is_one_and_an_absent_one_is_none() {
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":1,"result":null}"#).outcome(), Ok("null"));
        let error = read(r#"{"jsonrpc":"2.0","id":1}"#).outcome().unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }

    #[test]
    fn only_numbers_are_ids_of_ours() {
        assert_eq!(read(r#"{"id":7,"result":1}"#).id(), Some(7));
        for other in
            [r#"{"id":"7","result":1}"#, r#"{"id":-7}"#, r#"{"id":7.5}"#, r#"{"result":1}"#]
        {
            assert_eq!(read(other).id(), None, "{other}");
        }
        assert!(read(r#"{"id":null,"error":{"code":-32700,"message":"m"}}"#).check().is_err());
        assert_eq!(read(r#"{"id":"other","error":{"code":1,"message":"m"}}"#).check(), Ok(()));
    }

    #[test]
    fn attachments_are_taken_by_index_and_never_beyond_what_came() {
        let response = Response {
            result: "1",
            tail: b"abcde",
            lengths: &[2, 0, 3, 9],
            descriptors: FrameDescriptors::default(),
        };
        assert_eq!(response.part(0), Ok(&b"ab"[..]));
        assert_eq!(response.part(1), Ok(&b""[..]));
        assert_eq!(response.part(2), Ok(&b"cde"[..]));
        assert!(
            response.part(3).is_err()
                && response.part(4).is_err()
                && response.part(u32::MAX).is_err()
        );
        assert!(response.copy(&Bytes::Attachment(2), &mut [0; 2]).is_err());
    }
}
