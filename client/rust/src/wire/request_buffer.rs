//! A request on its way: head and JSON in buffers that are used again, payload where it lies.

use std::io::{IoSlice, Write as _};

use serde::Serialize;

use super::framing::Framing;
use crate::error::{Error, Result};

/// The largest request: what `frame_bytes` is unless an operator changes it.
const FRAME_BYTES: usize = 8 << 20;

/// The bytes of one message, without its attachments.
#[derive(Debug, Default)]
pub(crate) struct RequestBuffer {
    framing: Framing,
    json: Vec<u8>,
    head: Vec<u8>,
}

/// What is beside a request, by number and length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestParts<'a> {
    /// The payload, `None` where the answer shall have no attachments either.
    pub(crate) parts: Option<&'a [&'a [u8]]>,
    /// How many descriptors.
    pub(crate) descriptors: usize,
}

impl RequestBuffer {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    /// Writes a request; without an id it is a notification.
    ///
    /// One that is larger than the broker takes is refused here: there it would end the connection.
    pub(crate) fn write(
        &mut self,
        id: Option<u64>,
        method: &str,
        params: &(impl Serialize + ?Sized),
        beside: RequestParts<'_>,
    ) -> Result<()> {
        self.json.clear();
        let written = self.write_json(id, method, params);
        written.map_err(|error| Error::Argument {
            exception: "TypeError".to_owned(),
            call: method.to_owned(),
            message: format!("{method}: the parameters are not JSON: {error}"),
        })?;
        let payload: usize = beside.parts.unwrap_or_default().iter().map(|part| part.len()).sum();
        if self.json.len().saturating_add(payload) > FRAME_BYTES {
            return Err(Error::Limit {
                limit: "frame_bytes".to_owned(),
                call: method.to_owned(),
                message: format!("{method}: more than {FRAME_BYTES} bytes for one call"),
                sent: None,
            });
        }
        self.head.clear();
        let lengths: Option<Vec<usize>> =
            beside.parts.map(|parts| parts.iter().map(|part| part.len()).collect());
        let Self { framing, head, json } = self;
        framing.write(head, json, lengths.as_deref(), beside.descriptors);
        Ok(())
    }

    fn write_json(
        &mut self,
        id: Option<u64>,
        method: &str,
        params: &(impl Serialize + ?Sized),
    ) -> serde_json::Result<()> {
        let json = &mut self.json;
        json.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"method\":");
        serde_json::to_writer(&mut *json, method)?;
        if let Some(id) = id {
            write!(json, ",\"id\":{id}").map_err(serde_json::Error::io)?;
        }
        json.extend_from_slice(b",\"params\":");
        serde_json::to_writer(&mut *json, params)?;
        json.push(b'}');
        Ok(())
    }

    /// The buffers to send, in order; attachments stay where they are.
    pub(crate) fn buffers<'a>(&'a self, parts: &'a [&'a [u8]]) -> Vec<IoSlice<'a>> {
        let own = [self.head.as_slice(), self.json.as_slice()];
        own.into_iter().chain(parts.iter().copied()).map(IoSlice::new).collect()
    }
}
