//! A call: what is asked, and how its answer is read. Made in `operation`, carried out by a face.

use std::borrow::Cow;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Serialize, Serializer};
use sockbroker_proto::bytes::encode_base64;

use crate::address::file::Enclosed;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::wire::link::DESCRIPTORS_MAX;
use crate::wire::reply::Reply;

/// A call with what rides beside it, and the function that reads the result.
#[derive(Debug)]
pub(crate) struct Call<'a, P, F> {
    /// The wire name.
    pub(crate) method: &'a str,
    /// The parameters: a tuple by position, or a structure by name.
    pub(crate) params: P,
    /// The payload.
    pub(crate) parts: Parts<'a>,
    /// Descriptors of the request.
    pub(crate) descriptors: Enclosed<'a>,
    /// Reads the result.
    pub(crate) read: F,
}

impl<'a, P, F> Call<'a, P, F> {
    /// A call whose answer may have attachments.
    pub(crate) fn new<T>(method: &'a str, params: P, read: F) -> Self
    where
        P: Serialize,
        F: FnMut(&mut Reply<'_>) -> Result<T>,
    {
        Self { method, params, parts: Parts::Empty, descriptors: Enclosed::default(), read }
    }

    /// With this payload.
    pub(crate) fn with_parts(self, parts: Parts<'a>) -> Self {
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
pub(crate) enum Parts<'a> {
    /// None, and the answer shall have none: whoever reads it takes no attachments.
    Refused,
    /// None in the request.
    Empty,
    /// One.
    One([&'a [u8]; 1]),
    /// Several.
    Many(Vec<&'a [u8]>),
}

impl<'a> Parts<'a> {
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
pub(crate) enum Carriage {
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

impl Carriage {
    /// What the connections to an endpoint carry.
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        match endpoint {
            Endpoint::Unix(_) | Endpoint::Stdio(_) => Self::Attachments,
            Endpoint::WebSocket(_) | Endpoint::Http(_) => Self::Base64,
        }
    }

    /// One piece of payload: how it stands in the JSON, and what rides behind.
    pub(crate) fn one(self, bytes: &[u8]) -> (Payload<'_>, Parts<'_>) {
        match self {
            Self::Attachments => (Payload::Attachment(0), Parts::One([bytes])),
            Self::Base64 => (Payload::Base64(bytes), Parts::Refused),
        }
    }
}
