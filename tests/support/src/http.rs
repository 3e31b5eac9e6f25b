//! A minimal HTTP/1.1 client.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::message::Client;
use crate::wire::Wire;

/// A persistent HTTP connection.
#[derive(Debug)]
pub struct HttpClient {
    /// The underlying connection.
    pub wire: Wire,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Header fields, by name in lower case.
    pub fields: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    /// Parses the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl HttpClient {
    pub fn over(stream: UnixStream) -> Self {
        Self { wire: Wire::socket(stream) }
    }

    pub fn send(&mut self, line: &str, fields: &[(&str, &str)], body: &[u8]) {
        let mut head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in fields {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
        self.wire.send(&[head.as_bytes(), body].concat(), &[]).unwrap();
    }

    /// Reads the next response; returns `None` at the end of the connection.
    pub fn read(&mut self) -> Option<Response> {
        let head = self.wire.take_through(b"\r\n\r\n")?;
        let head = String::from_utf8(head.to_vec()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let fields: BTreeMap<_, _> = lines.map(field).collect();
        let length = fields.get("content-length").map_or(0, |value| value.parse().unwrap());
        let body = self.wire.take(length)?.to_vec();
        Some(Response { status, fields, body })
    }

    /// Sends a request and reads its response.
    pub fn request(&mut self, line: &str, fields: &[(&str, &str)], body: &[u8]) -> Response {
        self.send(line, fields, body);
        self.read().unwrap_or_else(|| panic!("the broker closed after {line}"))
    }

    /// Posts a JSON message with further header fields.
    pub fn post(&mut self, message: &Value, further: &[(&str, &str)]) -> Response {
        let fields = [&[("content-type", "application/json")], further].concat();
        self.request("POST /", &fields, message.to_string().as_bytes())
    }
}

impl Client for HttpClient {
    fn send_json(&mut self, message: &Value) {
        let fields = [("content-type", "application/json")];
        self.send("POST /", &fields, message.to_string().as_bytes());
    }

    fn read_json(&mut self) -> Option<Value> {
        let response = self.read()?;
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.field("content-type"), Some("application/json"));
        Some(response.json())
    }
}
