//! A request: method, parameters, payload and descriptors.

use std::borrow::Cow;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use serde::{Serialize, Serializer};
use sockbroker_proto::bytes::encode_base64;
use sockbroker_proto::handle::Handle;

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::wire::request_buffer::RequestParts;
use crate::wire::unix::DESCRIPTORS_MAX;

/// A request for one method of the broker.
#[derive(Debug)]
pub(crate) struct Request<'a, P> {
    /// The wire name, such as `socket.recv`.
    pub(crate) method: &'a str,
    /// A tuple passes parameters by position, a structure by name.
    pub(crate) params: P,
    attachments: Attachments<'a>,
    descriptors: &'a [BorrowedFd<'a>],
    /// A file that this process opened for the request, or why it could not. It follows `descriptors`.
    file: Option<Result<OwnedFd>>,
}

impl<'a, P: Serialize> Request<'a, P> {
    /// A request without payload, whose response may have attachments.
    pub(crate) fn new(method: &'a str, params: P) -> Self {
        Self { method, params, attachments: Attachments::Empty, descriptors: &[], file: None }
    }

    pub(crate) fn with_attachments(self, attachments: Attachments<'a>) -> Self {
        Self { attachments, ..self }
    }

    pub(crate) fn with_descriptors(self, descriptors: &'a [BorrowedFd<'a>]) -> Self {
        Self { descriptors, ..self }
    }

    pub(crate) fn with_file(self, file: Option<Result<OwnedFd>>) -> Self {
        Self { file, ..self }
    }

    /// The attachments, in order.
    pub(crate) fn attachments(&self) -> &[&'a [u8]] {
        self.attachments.as_slice().unwrap_or_default()
    }

    /// The descriptors, in order.
    ///
    /// # Errors
    ///
    /// The error of a file that could not be opened. [`Error::Os`] with `EINVAL`, as `sendmsg(2)` has it,
    /// for more descriptors than one message can carry.
    pub(crate) fn descriptors(&self) -> Result<Cow<'_, [BorrowedFd<'_>]>> {
        let descriptors = match &self.file {
            None => Cow::Borrowed(self.descriptors),
            Some(Ok(file)) => {
                let file = [file.as_fd()];
                Cow::Owned(self.descriptors.iter().copied().chain(file).collect())
            }
            Some(Err(error)) => return Err(error.clone()),
        };
        if descriptors.len() <= DESCRIPTORS_MAX {
            return Ok(descriptors);
        }
        Err(Error::Os {
            errno: Some(rustix::io::Errno::INVAL.raw_os_error()),
            name: Some("EINVAL".to_owned()),
            call: "sendmsg".to_owned(),
            message: format!("sendmsg: more than {DESCRIPTORS_MAX} descriptors"),
            sent: None,
        })
    }

    /// What the frame of the request announces.
    pub(crate) fn parts(&self, descriptors: usize) -> RequestParts<'_> {
        RequestParts { attachments: self.attachments.as_slice(), descriptors }
    }
}

impl<'a> Request<'a, (Option<Handle>, Payload<'a>)> {
    /// The rest of a `sendall` whose first part was sent.
    pub(crate) fn of_rest(handle: Option<Handle>, data: &'a [u8]) -> Self {
        let (payload, attachments) = PayloadEncoding::Attachments.encode(data);
        Self::new("socket.sendall", (handle, payload)).with_attachments(attachments)
    }
}

/// The raw payload that follows a request's JSON.
#[derive(Debug)]
pub(crate) enum Attachments<'a> {
    /// None, and the response must not have any either: its reader expects base64.
    Refused,
    /// None in the request.
    Empty,
    One([&'a [u8]; 1]),
    Many(Vec<&'a [u8]>),
}

impl<'a> Attachments<'a> {
    /// `None` if attachments are refused.
    fn as_slice(&self) -> Option<&[&'a [u8]]> {
        match self {
            Self::Refused => None,
            Self::Empty => Some(&[]),
            Self::One(attachment) => Some(attachment),
            Self::Many(attachments) => Some(attachments),
        }
    }
}

/// How a connection carries payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadEncoding {
    /// As raw attachments, which follow the JSON.
    Attachments,
    /// As base64 in the JSON.
    Base64,
}

impl PayloadEncoding {
    /// The encoding of connections to an endpoint.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Unix(_) | Endpoint::Ssh(_) | Endpoint::Tls(_) | Endpoint::Stdio(_) => {
                Self::Attachments
            }
            Endpoint::WebSocket(_) | Endpoint::Http(_) => Self::Base64,
        }
    }

    /// Encodes the only payload of a request: its value in the JSON, and the attachment.
    pub(crate) fn encode(self, bytes: &[u8]) -> (Payload<'_>, Attachments<'_>) {
        match self {
            Self::Attachments => (Payload::Attachment(0), Attachments::One([bytes])),
            Self::Base64 => (Payload::Base64(bytes), Attachments::Refused),
        }
    }
}

/// Payload as a value in the JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// A reference to the attachment with this index.
    Attachment(usize),
    Base64(&'a [u8]),
}

impl Serialize for Payload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Reference {
            attachment: usize,
        }
        match *self {
            Self::Attachment(attachment) => Reference { attachment }.serialize(serializer),
            Self::Base64(bytes) => serializer.serialize_str(&encode_base64(bytes)),
        }
    }
}
