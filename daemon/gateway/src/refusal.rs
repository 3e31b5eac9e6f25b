//! What a client reads that is not served, in the framing that it speaks.

use serde_json::json;
use sockbroker_proto::error::ErrorKind;

use crate::head::Framing;

/// Why a client is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl Refusal {
    /// The client has not authenticated itself, or is not admitted.
    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Denied, message: message.into() }
    }

    /// The client violates the protocol.
    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Request, message: message.into() }
    }

    /// The bytes to send: an error without an id, as JSON-RPC has it for a message that it cannot answer.
    pub(crate) fn encode(&self, framing: Framing) -> Vec<u8> {
        let entry = self.kind.entry();
        let error = json!({
            "jsonrpc": "2.0",
            "id": null,
            "error": {
                "code": entry.code,
                "message": self.message,
                "data": { "kind": entry.name },
            },
        });
        let json = error.to_string();
        let length = json.len();
        match framing {
            Framing::Lsp => format!("Content-Length: {length}\r\n\r\n{json}"),
            Framing::Ndjson => format!("{json}\n"),
            Framing::Http => {
                let status = match self.kind {
                    ErrorKind::Denied => {
                        "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"sockbroker\""
                    }
                    _ => "400 Bad Request",
                };
                format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
                     Connection: close\r\n\r\n{json}"
                )
            }
        }
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_message_of_each_framing() {
        let text = |refusal: &Refusal, framing| String::from_utf8(refusal.encode(framing)).unwrap();
        let denied = Refusal::denied("no \"token\"");
        let line = text(&denied, Framing::Ndjson);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["error"]["message"], "no \"token\"");
        assert_eq!(read["error"]["data"]["kind"], "denied");
        let length = line.trim_end().len();
        let lsp = text(&denied, Framing::Lsp);
        assert_eq!(lsp, format!("Content-Length: {length}\r\n\r\n{}", line.trim_end()));
        let http = text(&denied, Framing::Http);
        assert!(
            http.starts_with("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer"),
            "{http}"
        );
        assert!(http.ends_with(&format!("\r\n\r\n{}", line.trim_end())));
        let http = text(&Refusal::protocol("x"), Framing::Http);
        assert!(http.starts_with("HTTP/1.1 400 "), "{http}");
    }
}
