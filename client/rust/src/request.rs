//! A call: what is asked, and how its answer is read. NewSocket in `operation`, carried out by a face.

use std::borrow::Cow;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Serialize, Serializer};
use sockbroker_proto::bytes::encode_base64;

use crate::address::file::RequestDescriptors;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::wire::response::Response;
use crate::wire::unix::DESCRIPTORS_MAX;

/// A call with what rides beside it, and the function that reads the result.
#[derive(Debug)]
pub(crate) struct Call<'a, P, F> {
    /// The wire name.
    pub(crate) method: &'a str,
    /// The parameters: a tuple by position, or a structure by name.
    pub(crate) params: P,
    /// The payload.
    pub(crate) parts: Attachments<'a>,
    /// Descriptors of the request.
    pub(crate) descriptors: RequestDescriptors<'a>,
    /// Reads the result.
    pub(crate) read: F,
}

impl<'a, P, F> Call<'a, P, F> {
    /// A call whose answer may have attachments.
    pub(crate) fn new<T>(method: &'a str, params: P, read: F) -> Self
    where
        P: Serialize,
        F: FnMut(&mut Response<'_>) -> Result<T>,
    {
        Self {
            method,
            params,
            parts: Attachments::Empty,
            descriptors: RequestDescriptors::default(),
            read,
        }
    }

    /// With this payload.
    pub(crate) fn with_attachments(self, parts: Attachments<'a>) -> Self {
        Self { parts, ..self }
    }

    /// The descriptors of the request. Fails for a file that cannot be opened, and for more descriptors than a
    /// message can carry, as the kernel does.
    pub(crate) fn descriptors(&self) -> Result<Cow<'_, [BorrowedFd<'_>]>> {
        let descriptors = self.descriptors.all()?;
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

    /// With these descriptors.
    pub(crate) fn with_descriptors(mut self, passed: &'a [BorrowedFd<'a>]) -> Self {
        self.descriptors.passed = passed;
        self
    }

    /// With the file that its address names.
    pub(crate) fn with_file(mut self, file: Option<Result<OwnedFd>>) -> Self {
        self.descriptors.file = file;
        self
    }
}

/// The raw parts behind a request.
#[derive(Debug)]
pub(crate) enum Attachments<'a> {
    /// None, and the answer shall have none: whoever reads it takes no attachments.
    Refused,
    /// None in the request.
    Empty,
    /// One.
    One([&'a [u8]; 1]),
    /// Several.
    Many(Vec<&'a [u8]>),
}

impl<'a> Attachments<'a> {
    /// The parts, or `None` where attachments are refused.
    pub(crate) fn as_slice(&self) -> Option<&[&'a [u8]]> {
        match self {
            Self::Refused => None,
            Self::Empty => Some(&[]),
            Self::One(part) => Some(part),
            Self::Many(parts) => Some(parts),
        }
    }
}

/// How a connection carries payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadEncoding {
    /// Raw, behind the JSON.
    Attachments,
    /// As base64 within it.
    Base64,
}

/// Payload as it stands in the JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
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

impl PayloadEncoding {
    /// What the connections to an endpoint carry.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Unix(_) | Endpoint::Stdio(_) => Self::Attachments,
            Endpoint::WebSocket(_) | Endpoint::Http(_) => Self::Base64,
        }
    }

    /// One piece of payload: how it stands in the JSON, and what rides behind.
    pub(crate) fn one(self, bytes: &[u8]) -> (Payload<'_>, Attachments<'_>) {
        match self {
            Self::Attachments => (Payload::Attachment(0), Attachments::One([bytes])),
            Self::Base64 => (Payload::Base64(bytes), Attachments::Refused),
        }
    }
}
