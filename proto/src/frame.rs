//! The frame codec: the LSP base protocol with two optional header fields, over byte slices.
//!
//! ```text
//! Content-Length: 123\r\n        length of the JSON in bytes
//! Attachments: 1400,1400\r\n     lengths of the raw parts that follow the JSON (may be empty)
//! Fds: 1\r\n                     descriptors of this frame (Unix sockets only)
//! \r\n
//! {json}<1400 bytes><1400 bytes>
//! ```
//!
//! Field names are case-insensitive, unknown fields are ignored (LSP has
//! `Content-Type`), known fields may appear once. `Authorization` is for the TLS port, which removes it from the first
//! header of a connection. A header that violates a rule ends the connection,
//! because the start of the next frame is not known.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// The limits of a frame and its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// The maximum length of a header in bytes, including its blank line.
    pub head_bytes: usize,
    /// The maximum length of a frame in bytes: JSON and attachments.
    pub frame_bytes: usize,
    /// The maximum number of attachments of a frame.
    pub attachments: usize,
    /// The maximum number of descriptors of a frame; `SCM_MAX_FD` is 253.
    pub descriptors: usize,
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self { head_bytes: 1024, frame_bytes: 8 << 20, attachments: 64, descriptors: 253 }
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// The length of the JSON in bytes.
    pub content_length: usize,
    /// The lengths of the attachments; `None` without the field, which means that the sender does
    /// not request attachments in the response.
    pub attachments: Option<Vec<usize>>,
    /// The number of descriptors of the frame.
    pub descriptors: usize,
}

impl Head {
    /// The length of everything that follows the header: JSON and attachments.
    pub fn body_length(&self) -> usize {
        let parts = self.attachments.as_deref().unwrap_or_default();
        parts.iter().fold(self.content_length, |sum, part| sum.saturating_add(*part))
    }
}

/// An invalid header; the connection ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The header is longer than the limit, or does not end within it.
    #[error("the header is longer than {0} bytes")]
    HeadTooLong(usize),
    /// A line is not `Name: value`.
    #[error("a header line is not \"Name: value\" in ASCII, ended by CR LF")]
    BadLine,
    /// A length or count is not a decimal number.
    #[error("{0} is not a decimal number")]
    BadNumber(&'static str),
    /// A field appears twice.
    #[error("{0} appears twice")]
    Duplicate(&'static str),
    /// A token is not in the first header of a connection, or the connection does not need it.
    #[error(
        "Authorization belongs into the first message to a TLS port, of a client without a certificate"
    )]
    Authorization,
    /// There is no `Content-Length`.
    #[error("Content-Length is missing")]
    NoLength,
    /// The frame is longer than the limit.
    #[error("the frame has {length} bytes, more than {limit}")]
    FrameTooLong {
        /// The announced length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The frame has more attachments or descriptors than the limit.
    #[error("{field} announces {count}, more than {limit}")]
    TooMany {
        /// The name of the header field.
        field: &'static str,
        /// The announced number.
        count: usize,
        /// The limit.
        limit: usize,
    },
}

/// Reads the header at the start of `bytes`: the header and its length, or `None` until it is complete.
pub fn read_head(bytes: &[u8], limits: &FrameLimits) -> Result<Option<(Head, usize)>, FrameError> {
    let window = bytes.get(..limits.head_bytes).unwrap_or(bytes);
    let mut fields = Fields::default();
    let mut rest = window;
    loop {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return if bytes.len() >= limits.head_bytes {
                Err(FrameError::HeadTooLong(limits.head_bytes))
            } else {
                Ok(None)
            };
        };
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        let line = line.strip_suffix(b"\r").ok_or(FrameError::BadLine)?;
        if line.is_empty() {
            break;
        }
        fields.read(line)?;
    }
    let head = fields.head()?;
    check(&head, limits)?;
    Ok(Some((head, window.len().saturating_sub(rest.len()))))
}

/// Appends a header. `attachments` is `None` to omit the field.
pub fn write_head(
    out: &mut Vec<u8>,
    content_length: usize,
    attachments: Option<&[usize]>,
    descriptors: usize,
) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(digits.format(content_length).as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(lengths) = attachments {
        out.extend_from_slice(b"Attachments: ");
        for (index, length) in lengths.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(digits.format(*length).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    if descriptors > 0 {
        out.extend_from_slice(b"Fds: ");
        out.extend_from_slice(digits.format(descriptors).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The fields of a header that have been read so far.
#[derive(Default)]
struct Fields {
    content_length: Option<usize>,
    attachments: Option<Vec<usize>>,
    descriptors: Option<usize>,
}

impl Fields {
    /// Reads one line without its line end.
    fn read(&mut self, line: &[u8]) -> Result<(), FrameError> {
        if !line.is_ascii() || line.contains(&b'\r') {
            return Err(FrameError::BadLine);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(FrameError::BadLine)?;
        let (name, value) = line.split_at(colon);
        let value = trim(value.get(1..).unwrap_or_default());
        match name {
            b"" => Err(FrameError::BadLine),
            _ if name.eq_ignore_ascii_case(b"Content-Length") => {
                let length = number(value, "Content-Length")?;
                set_once(&mut self.content_length, length, "Content-Length")
            }
            _ if name.eq_ignore_ascii_case(b"Attachments") => {
                set_once(&mut self.attachments, numbers(value)?, "Attachments")
            }
            _ if name.eq_ignore_ascii_case(b"Fds") => {
                set_once(&mut self.descriptors, number(value, "Fds")?, "Fds")
            }
            // The client expects that the token counts.
            _ if name.eq_ignore_ascii_case(b"Authorization") => Err(FrameError::Authorization),
            _ => Ok(()),
        }
    }

    fn head(self) -> Result<Head, FrameError> {
        Ok(Head {
            content_length: self.content_length.ok_or(FrameError::NoLength)?,
            attachments: self.attachments,
            descriptors: self.descriptors.unwrap_or(0),
        })
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, field: &'static str) -> Result<(), FrameError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(FrameError::Duplicate(field)),
    }
}

/// Removes the spaces around a value.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = value {
        value = rest;
    }
    value
}

fn numbers(value: &[u8]) -> Result<Vec<usize>, FrameError> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    value.split(|byte| *byte == b',').map(|part| number(trim(part), "Attachments")).collect()
}

/// Accepts digits only. The result is `usize::MAX` for a number that does not fit.
fn number(value: &[u8], field: &'static str) -> Result<usize, FrameError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(FrameError::BadNumber(field));
    }
    let digits = value.iter().map(|byte| usize::from(byte.wrapping_sub(b'0')));
    Ok(digits.fold(0, |number: usize, digit| number.saturating_mul(10).saturating_add(digit)))
}

fn check(head: &Head, limits: &FrameLimits) -> Result<(), FrameError> {
    let length = head.body_length();
    if length > limits.frame_bytes {
        return Err(FrameError::FrameTooLong { length, limit: limits.frame_bytes });
    }
    let count = head.attachments.as_deref().unwrap_or_default().len();
    if count > limits.attachments {
        return Err(FrameError::TooMany { field: "Attachments", count, limit: limits.attachments });
    }
    let count = head.descriptors;
    if count > limits.descriptors {
        return Err(FrameError::TooMany { field: "Fds", count, limit: limits.descriptors });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Option<(Head, usize)>, FrameError> {
        read_head(text.as_bytes(), &FrameLimits::default())
    }

    #[test]
    fn plain_lsp_header_is_read() {
        let text = "content-length: 12\r\nContent-Type: application/vscode-jsonrpc\r\n\r\n{";
        let head = Head { content_length: 12, ..Head::default() };
        assert_eq!(read(text), Ok(Some((head, text.len() - 1))));
    }

    #[test]
    fn empty_attachments_field_differs_from_an_absent_one() {
        let (head, _) = read("Content-Length: 2\r\nAttachments:\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.attachments, Some(vec![]));
        let (head, _) = read("Content-Length: 2\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.attachments, None);
    }

    #[test]
    fn header_is_incomplete_until_its_blank_line() {
        let whole = "Content-Length: 2\r\nFds: 3\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), Ok(None), "cut at {cut}");
        }
        assert!(read(whole).unwrap().is_some());
    }

    #[test]
    fn malformed_headers_are_refused() {
        use FrameError::{BadLine, BadNumber, Duplicate, NoLength};
        for (text, error) in [
            ("Content-Length: -1\r\n\r\n", BadNumber("Content-Length")),
            ("Content-Length: +1\r\n\r\n", BadNumber("Content-Length")),
            ("Content-Length: 1x\r\n\r\n", BadNumber("Content-Length")),
            ("Content-Length: \r\n\r\n", BadNumber("Content-Length")),
            ("Content-Length: 1\r\nContent-Length: 1\r\n\r\n", Duplicate("Content-Length")),
            ("Content-Length: 1\r\nFds: 1\r\nfds: 1\r\n\r\n", Duplicate("Fds")),
            ("Content-Length: 1\r\nAttachments: 1,,2\r\n\r\n", BadNumber("Attachments")),
            ("Content-Type: x\r\n\r\n", NoLength),
            ("Content-Length 1\r\n\r\n", BadLine),
            ("Content-Length: 1\n\r\n\r\n", BadLine),
            ("X\u{e9}: 1\r\n\r\n", BadLine),
            ("\r\n\r\n", NoLength),
        ] {
            assert_eq!(read(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn every_limit_is_enforced_exactly() {
        let limits =
            FrameLimits { head_bytes: 64, frame_bytes: 10, attachments: 2, descriptors: 1 };
        let read = |text: &str| read_head(text.as_bytes(), &limits);
        assert!(read("Content-Length: 8\r\nAttachments: 1,1\r\n\r\n").unwrap().is_some());
        assert!(matches!(
            read("Content-Length: 9\r\nAttachments: 1,1\r\n\r\n"),
            Err(FrameError::FrameTooLong { length: 11, limit: 10 })
        ));
        assert!(matches!(
            read("Content-Length: 1\r\nAttachments: 1,1,1\r\n\r\n"),
            Err(FrameError::TooMany { count: 3, limit: 2, .. })
        ));
        assert!(matches!(
            read("Content-Length: 1\r\nFds: 2\r\n\r\n"),
            Err(FrameError::TooMany { count: 2, limit: 1, .. })
        ));
        assert_eq!(read(&format!("X: {}", "y".repeat(61))), Err(FrameError::HeadTooLong(64)));
        assert_eq!(read(&format!("X: {}", "y".repeat(60))), Ok(None));
        let huge = "Content-Length: 99999999999999999999999999\r\n\r\n";
        assert!(matches!(read(huge), Err(FrameError::FrameTooLong { .. })));
    }

    proptest! {
        #[test]
        fn written_header_is_read_back(
            content_length in 0usize..1 << 20,
            attachments in proptest::option::of(proptest::collection::vec(0usize..1000, 0..64)),
            descriptors in 0usize..=253,
        ) {
            let mut out = Vec::new();
            write_head(&mut out, content_length, attachments.as_deref(), descriptors);
            let length = out.len();
            out.extend_from_slice(b"{}");
            let head = Head { content_length, attachments, descriptors };
            prop_assert_eq!(read_head(&out, &FrameLimits::default()), Ok(Some((head, length))));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            drop(read_head(&bytes, &FrameLimits::default()));
        }
    }
}
