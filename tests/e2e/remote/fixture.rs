//! A broker with a TLS port, the files of its authority, and clients.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::{fs, str};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sockbroker_test_support::daemon::{Daemon, Start};
use sockbroker_test_support::message::{Answer, Client as _};
use sockbroker_test_support::websocket::Opcode;
use sockbroker_test_support::{Folder, HANG, WebSocketClient, until};

use crate::broker::prepare;

pub(crate) const DAY: Duration = Duration::from_hours(24);
const MINUTE: Duration = Duration::from_mins(1);

/// A certificate with its key.
pub(crate) struct Leaf {
    pub(crate) certificate: CertificateDer<'static>,
    key: Vec<u8>,
    serial: u64,
}

/// An authority of certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    serial: std::cell::Cell<u64>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, serial: 1.into() }
    }

    fn leaf(
        &self,
        sans: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
        expires: Option<Duration>,
    ) -> Leaf {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans;
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(SerialNumber::from(serial));
        // Strict clients ask for it.
        params.use_authority_key_identifier_extension = true;
        if let Some(expires) = expires {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            // The clock of certificates has seconds.
            let end =
                if expires.is_zero() { now.checked_sub(MINUTE).unwrap() } else { now + expires };
            params.not_after = date_time_ymd(1970, 1, 1) + end;
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { certificate: certificate.der().clone(), key: key.serialize_der(), serial }
    }

    fn server(&self) -> Leaf {
        let localhost = SanType::DnsName(text("localhost"));
        self.leaf(vec![localhost], ExtendedKeyUsagePurpose::ServerAuth, None)
    }

    /// The certificate of a client with this URI.
    pub(crate) fn client(&self, uri: &str) -> Leaf {
        self.client_until(uri, None)
    }

    /// One that expires after a time; after none, it has expired already.
    pub(crate) fn client_until(&self, uri: &str, expires: Option<Duration>) -> Leaf {
        let uri = SanType::URI(text(uri));
        self.leaf(vec![uri], ExtendedKeyUsagePurpose::ClientAuth, expires)
    }

    /// A revocation list with these certificates, which is valid for this long, less a minute.
    pub(crate) fn revoke(&self, revoked: &[&Leaf], valid: Duration) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let epoch = date_time_ymd(1970, 1, 1);
        let revoked = revoked.iter().map(|leaf| RevokedCertParams {
            serial_number: SerialNumber::from(leaf.serial),
            revocation_time: epoch + now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: epoch + now.checked_sub(DAY).unwrap(),
            next_update: epoch + (now + valid).checked_sub(MINUTE).unwrap(),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        pem("X509 CRL", list.signed_by(&self.issuer).unwrap().der())
    }
}

fn text(text: &str) -> Ia5String {
    Ia5String::try_from(text).unwrap()
}

/// Bytes as PEM.
fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut lines = String::new();
    for part in der.chunks(48) {
        for group in part.chunks(3) {
            let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for place in 0..4 {
                let digit = DIGITS[usize::try_from(bits >> (18 - 6 * place) & 63).unwrap()];
                lines.push(if place <= group.len() { char::from(digit) } else { '=' });
            }
        }
        lines.push('\n');
    }
    format!("-----BEGIN {label}-----\n{lines}-----END {label}-----\n")
}

/// The files of a broker's `[remote]`.
pub(crate) struct Files {
    pub(crate) authority: Authority,
    folder: Folder,
}

impl Files {
    /// An authority, and the certificate of the server.
    pub(crate) fn new() -> Self {
        let (authority, folder) = (Authority::new("lab"), Folder::new());
        let files = Self { authority, folder };
        let server = files.authority.server();
        files.write("server.pem", &pem("CERTIFICATE", &server.certificate));
        files.write("server.key", &pem("PRIVATE KEY", &server.key));
        files.write("clients.pem", &pem("CERTIFICATE", files.authority.issuer.der()));
        files
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.write(name, text);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes the files of a client for the host `localhost`. Returns the folder of its configuration.
    pub(crate) fn client_folder(&self, leaf: Option<&Leaf>) -> PathBuf {
        let folder = self.path("client");
        let host = folder.join("sockbroker/localhost");
        fs::create_dir_all(&host).unwrap();
        fs::write(host.join("ca"), pem("CERTIFICATE", self.authority.issuer.der())).unwrap();
        if let Some(leaf) = leaf {
            fs::write(host.join("cert"), pem("CERTIFICATE", &leaf.certificate)).unwrap();
            fs::write(host.join("key"), pem("PRIVATE KEY", &leaf.key)).unwrap();
        }
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes the file of tokens: each a name, its secret, and further lines.
    pub(crate) fn tokens(&self, tokens: &[(&str, &str, &str)]) {
        let mut text = String::new();
        for (name, secret, more) in tokens {
            let mut hash = String::new();
            for byte in Sha256::digest(secret) {
                write!(hash, "{byte:02x}").unwrap();
            }
            writeln!(text, "[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{more}").unwrap();
        }
        self.write("tokens.toml", &text);
    }

    /// The section of the configuration. `further` are lines of it.
    pub(crate) fn section(&self, further: &str) -> String {
        let path = |name| self.path(name).display().to_string();
        let tokens = if self.path("tokens.toml").exists() {
            format!("tokens = \"{}\"\n", path("tokens.toml"))
        } else {
            String::new()
        };
        format!(
            "[remote]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n{tokens}{further}",
            path("server.pem"),
            path("server.key"),
            path("clients.pem"),
        )
    }
}

/// A moment in the file of tokens, with whole seconds.
pub(crate) fn expires(at: SystemTime) -> String {
    let time = date_time_ymd(1970, 1, 1) + at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let (date, month) = ((time.year(), time.day()), u8::from(time.month()));
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("expires = {:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", date.0, date.1)
}

/// The rules of most tests.
pub(crate) const POLICY: &str = r#"version = 1
[[rule]]
name = "lab"
subject = { certificates = ["uri:spiffe://lab/*"], tokens = ["ci-*"] }
allow = ["create", "bind", "connect", "send", "receive", "listen", "accept", "session", "hostname", "resolve"]

[[rule]]
name = "local"
subject = { everyone = true }
allow = ["interfaces"]
"#;

/// A broker with a TLS port.
pub(crate) struct Lab {
    pub(crate) broker: Daemon,
    pub(crate) files: Files,
    pub(crate) address: SocketAddr,
}

impl Lab {
    /// Starts a broker with these files. `further` are lines of `[remote]`.
    pub(crate) fn start(files: Files, further: &str) -> Self {
        Self::start_with(files, further, |start| start.policy(POLICY))
    }

    pub(crate) fn start_with(
        files: Files,
        further: &str,
        with: impl FnOnce(Start) -> Start,
    ) -> Self {
        let broker = with(prepare().section(&files.section(further))).start();
        let address = address_of(&broker);
        Self { broker, files, address }
    }

    /// Connects with the certificate of a client, or without one.
    pub(crate) fn connect(&self, leaf: Option<&Leaf>) -> Remote {
        self.try_connect(leaf).unwrap()
    }

    /// The error of a handshake, which is complete when the server has judged the certificate.
    pub(crate) fn try_connect(&self, leaf: Option<&Leaf>) -> io::Result<Remote> {
        connect(&self.files.authority, self.address, leaf)
    }

    /// Connects without TLS.
    pub(crate) fn plain(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(HANG)).unwrap();
        tcp
    }

    /// Waits until the log has a text.
    pub(crate) fn wait_for_log(&self, text: &str) {
        until(&format!("the log has {text:?}"), || self.broker.log().contains(text));
    }

    /// Reloads the policy and the credentials, and returns once they are in force, or the error.
    pub(crate) fn reload(&self) -> Answer {
        self.broker.ndjson().call("admin.reload", Value::Null)
    }
}

/// Connects to a TLS port whose certificate is of this authority.
pub(crate) fn connect(
    authority: &Authority,
    address: SocketAddr,
    leaf: Option<&Leaf>,
) -> io::Result<Remote> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(HANG))?;
    let config = config(authority, leaf);
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, tcp);
    stream.flush()?;
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(Remote { stream, input: Vec::new(), next: 0 })
}

/// The address of the TLS port, from the log.
pub(crate) fn address_of(broker: &Daemon) -> SocketAddr {
    let mut found = None;
    until("the log has the address of the TLS port", || {
        let log = broker.log();
        found = log.split("bound=").nth(1).and_then(|rest| {
            let end = rest.find(|c: char| c.is_whitespace() || c == '\u{1b}').unwrap_or(rest.len());
            rest[..end].parse().ok()
        });
        found.is_some()
    });
    found.unwrap()
}

fn config(authority: &Authority, leaf: Option<&Leaf>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    match leaf {
        None => builder.with_no_client_auth(),
        Some(leaf) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf.key.clone()));
            builder.with_client_auth_cert(vec![leaf.certificate.clone()], key).unwrap()
        }
    }
}

/// A TLS connection of a client.
pub(crate) struct Remote {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
    input: Vec<u8>,
    next: u64,
}

impl Remote {
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    /// Reads until the input has the text. `None` at the end of the stream.
    fn read_through(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            let found = self.input.windows(end.len()).position(|bytes| bytes == end);
            if let Some(at) = found {
                return Ok(Some(self.input.drain(..at + end.len()).collect()));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer)?;
        self.input.extend_from_slice(&buffer[..read]);
        Ok(read)
    }

    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        while self.input.len() < length {
            assert_ne!(self.fill().unwrap(), 0, "the stream ends within a message");
        }
        self.input.drain(..length).collect()
    }

    /// The next line; `None` at the end of the stream.
    pub(crate) fn line(&mut self) -> Option<Value> {
        let line = self.read_through(b"\n").unwrap()?;
        Some(serde_json::from_slice(&line).unwrap())
    }

    fn request(&mut self, method: &str, params: Value) -> String {
        self.next += 1;
        let mut request = json!({ "jsonrpc": "2.0", "id": self.next, "method": method });
        request["params"] = params;
        request.to_string()
    }

    /// A call with newline-delimited JSON.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let line = self.request(method, params) + "\n";
        self.send(line.as_bytes());
        self.line().unwrap_or_else(|| panic!("no answer to {method}"))
    }

    /// A call that may fail: `None` at the end of the stream.
    pub(crate) fn try_call(&mut self, method: &str, params: Value) -> io::Result<Option<Value>> {
        let line = self.request(method, params) + "\n";
        self.stream.write_all(line.as_bytes())?;
        self.stream.flush()?;
        let line = self.read_through(b"\n")?;
        Ok(line.map(|line| serde_json::from_slice(&line).unwrap()))
    }

    /// A call with LSP framing and further header fields.
    pub(crate) fn call_lsp(&mut self, fields: &str, method: &str, params: Value) -> Value {
        let json = self.request(method, params);
        self.send(format!("Content-Length: {}\r\n{fields}\r\n{json}", json.len()).as_bytes());
        self.frame().unwrap_or_else(|| panic!("no answer to {method}"))
    }

    /// The next message of LSP framing; `None` at the end of the stream.
    pub(crate) fn frame(&mut self) -> Option<Value> {
        let head = self.read_through(b"\r\n\r\n").unwrap()?;
        let body = self.body(&head);
        Some(serde_json::from_slice(&body).unwrap())
    }

    fn body(&mut self, head: &[u8]) -> Vec<u8> {
        let head = str::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        self.take(length.trim().parse().unwrap())
    }

    /// A call in a message of WebSocket, after the upgrade.
    pub(crate) fn call_websocket(&mut self, method: &str, params: Value) -> Value {
        let json = self.request(method, params);
        self.send(&WebSocketClient::frame(Opcode::Text, true, true, json.as_bytes()));
        let head = self.take(2);
        assert_eq!(head[0], 0x81, "one text message");
        let length = match head[1] {
            0x7e => u16::from_be_bytes(self.take(2).try_into().unwrap()).into(),
            short => usize::from(short),
        };
        serde_json::from_slice(&self.take(length)).unwrap()
    }

    /// A POST request; its status and its body.
    pub(crate) fn post(&mut self, fields: &str, method: &str, params: Value) -> (u16, Value) {
        let json = self.request(method, params);
        let fields = format!(
            "Host: localhost\r\n{fields}Content-Type: application/json\r\nContent-Length: {}\r\n",
            json.len()
        );
        let (status, head) = self.request_head(&format!("POST / HTTP/1.1\r\n{fields}\r\n{json}"));
        let body = self.body(&head);
        let text = String::from_utf8_lossy(&body);
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{status} {text}")))
    }

    /// Sends a request of HTTP. Returns the status and the head of the response.
    pub(crate) fn request_head(&mut self, request: &str) -> (u16, Vec<u8>) {
        self.send(request.as_bytes());
        let head = self.read_through(b"\r\n\r\n").unwrap().expect("there is a response");
        let status = str::from_utf8(&head).unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        (status, head)
    }

    /// Asks for a channel, and sends this with the request. Returns the status.
    pub(crate) fn upgrade(&mut self, path: &str, framing: &str, early: &str) -> u16 {
        self.request_head(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: {framing}\r\n\r\n{early}"
        ))
        .0
    }

    /// Everything up to the end of the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill().unwrap() > 0 {}
        std::mem::take(&mut self.input)
    }

    /// Sends nothing more. The other direction stays open.
    pub(crate) fn end_writing(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().unwrap();
    }
}
