//! A framed request: its head and JSON in reused buffers, its attachments in the caller's memory.

use std::io::{IoSlice, Write as _};

use serde::Serialize;

use super::framing::Framing;
use crate::error::{Error, Result};

/// The largest request in bytes: the default of the broker's limit `frame_bytes`.
const FRAME_BYTES_MAX: usize = 8 << 20;

/// The head and the JSON of one message.
#[derive(Debug, Default)]
pub(crate) struct RequestBuffer {
    framing: Framing,
    json: Vec<u8>,
    head: Vec<u8>,
}

/// The attachments and the number of descriptors that a request is sent with.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestParts<'a> {
    /// `None` asks the broker to send no attachments with the response either.
    pub(crate) attachments: Option<&'a [&'a [u8]]>,
    pub(crate) descriptors: usize,
}

impl RequestBuffer {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    /// Writes a request, or a notification if there is no id.
    ///
    /// A request larger than [`FRAME_BYTES_MAX`] fails here, because the broker would close the
    /// connection.
    pub(crate) fn write(
        &mut self,
        id: Option<u64>,
        method: &str,
        params: &(impl Serialize + ?Sized),
        parts: RequestParts<'_>,
    ) -> Result<()> {
        self.json.clear();
        let written = self.write_json(id, method, params);
        written.map_err(|error| Error::Argument {
            exception: "TypeError".to_owned(),
            call: method.to_owned(),
            message: format!("{method}: the parameters are not JSON: {error}"),
        })?;
        let attachments = parts.attachments.unwrap_or_default();
        let attached: usize = attachments.iter().map(|bytes| bytes.len()).sum();
        if self.json.len().saturating_add(attached) > FRAME_BYTES_MAX {
            return Err(Error::Limit {
                limit: "frame_bytes".to_owned(),
                call: method.to_owned(),
                message: format!("{method}: more than {FRAME_BYTES_MAX} bytes for one call"),
                sent: None,
            });
        }
        self.head.clear();
        let lengths: Option<Vec<usize>> = parts
            .attachments
            .map(|attachments| attachments.iter().map(|bytes| bytes.len()).collect());
        let Self { framing, head, json } = self;
        framing.write_head(head, json, lengths.as_deref(), parts.descriptors);
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

    /// The buffers to send, in order: head, JSON, attachments.
    pub(crate) fn buffers<'a>(&'a self, attachments: &'a [&'a [u8]]) -> Vec<IoSlice<'a>> {
        let own = [self.head.as_slice(), self.json.as_slice()];
        own.into_iter().chain(attachments.iter().copied()).map(IoSlice::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_beyond_the_frame_limit_is_refused() {
        let mut buffer = RequestBuffer::new(Framing::Lsp);
        let mut write = |attached: usize| {
            let data = vec![0; attached];
            let attachments = [data.as_slice()];
            let parts = RequestParts { attachments: Some(&attachments), descriptors: 0 };
            buffer.write(Some(1), "socket.send", &(1,), parts)
        };
        assert_eq!(write(FRAME_BYTES_MAX - 100), Ok(()));
        let error = write(FRAME_BYTES_MAX).unwrap_err();
        assert!(
            matches!(&error, Error::Limit { limit, .. } if limit == "frame_bytes"),
            "{error:?}"
        );
    }
}
