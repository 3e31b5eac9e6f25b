//! The head of a client's first message, in which a token stands.

/// How the first message is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Lsp,
    Ndjson,
    Http,
}

impl Framing {
    /// The framing that the first byte selects.
    pub(crate) fn of(first: u8) -> Option<Self> {
        match first {
            // The field with the token can be the first one.
            b'C' | b'c' | b'A' | b'a' => Some(Self::Lsp),
            b'{' | b'[' | b' ' | b'\t' | b'\r' | b'\n' => Some(Self::Ndjson),
            first if first.is_ascii_uppercase() => Some(Self::Http),
            _ => None,
        }
    }
}

/// The bytes of the longest head with a token.
pub(crate) const HEAD_MAX: usize = 16 << 10;

/// The name of the field with the token, in LSP framing and in HTTP.
const FIELD: &str = "authorization";

/// A head that is complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The token; `None` if the field is absent.
    pub(crate) token: Option<String>,
    /// The input without the field.
    pub(crate) rest: Vec<u8>,
}

/// A head that is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("the first head is too long")]
    TooLong,
    #[error("the field Authorization is not: Bearer TOKEN")]
    NoToken,
    #[error("the field Authorization is there twice")]
    Twice,
}

/// Reads the head at the beginning of the input; `None` if it is not complete.
pub(crate) fn read(input: &[u8]) -> Result<Option<Head>, HeadError> {
    let end = input.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(end) = end else {
        return if input.len() > HEAD_MAX { Err(HeadError::TooLong) } else { Ok(None) };
    };
    let (head, body) = input.split_at(end + 2);
    let (mut token, mut rest) = (None, Vec::with_capacity(input.len()));
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(line).unwrap_or_default();
        match text.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case(FIELD) => {
                let bearer = bearer(value).ok_or(HeadError::NoToken)?;
                if token.replace(bearer.to_owned()).is_some() {
                    return Err(HeadError::Twice);
                }
            }
            _ => rest.extend_from_slice(line),
        }
    }
    rest.extend_from_slice(body);
    Ok(Some(Head { token, rest }))
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token, and the input without it.
    type Found = Option<(Option<String>, String)>;

    fn found(input: &str) -> Result<Found, HeadError> {
        let head = read(input.as_bytes())?;
        Ok(head.map(|head| (head.token, String::from_utf8(head.rest).unwrap())))
    }

    #[test]
    fn the_token_is_taken_out_of_the_first_head() {
        let token = Some("sbk_x".to_owned());
        let lsp = "Content-Length: 2\r\nAuthorization: Bearer sbk_x\r\n\r\n{}";
        let without = "Content-Length: 2\r\n\r\n{}".to_owned();
        assert_eq!(found(lsp), Ok(Some((token.clone(), without.clone()))));
        let first = "authorization:bearer  sbk_x \r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(found(first), Ok(Some((token.clone(), without.clone()))));
        assert_eq!(found(&without), Ok(Some((None, without))));
        // What follows the head belongs to a message.
        let http = "POST / HTTP/1.1\r\nHost: a\r\n\r\nAuthorization: Bearer sbk_x\r\n\r\n";
        assert_eq!(found(http), Ok(Some((None, http.to_owned()))));
    }

    #[test]
    fn an_incomplete_head_is_waited_for_up_to_a_limit() {
        assert_eq!(found("POST / HTTP/1.1\r\nAuthorization: Bearer sbk_x\r\n"), Ok(None));
        assert_eq!(found(&"x".repeat(HEAD_MAX + 1)), Err(HeadError::TooLong));
    }

    #[test]
    fn a_field_that_is_not_one_token_is_refused() {
        for field in ["Basic abc", "Bearer", "Bearer ", "sbk_x"] {
            assert!(
                found(&format!("Content-Length: 2\r\nAuthorization: {field}\r\n\r\n{{}}")).is_err()
            );
        }
        let twice = "Authorization: Bearer a\r\nAUTHORIZATION: Bearer b\r\n\r\n";
        assert_eq!(found(twice), Err(HeadError::Twice));
    }
}
