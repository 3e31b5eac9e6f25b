//! A broker with a TLS port, the certificates for it, and TLS connections to it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    version,
};
use serde_json::Value;

use crate::client::{TIMEOUT, call, frame, result};
use crate::error::Result;

/// The grants of the client.
pub(crate) const POLICY: &str = "version = 1\n[[rule]]\nname = \"remote\"\n\
    subject = { certificates = [\"uri:bench:client\"] }\n\
    allow = [\"create\", \"bind\", \"connect\", \"send\", \"receive\", \"session\", \"resolve\"]\n\
    [[rule]]\nname = \"options\"\nsubject = { certificates = [\"uri:bench:client\"] }\n\
    allow = [\"option\"]\noption = [\"ordinary\"]\n\
    [[rule]]\nname = \"local\"\nsubject = { everyone = true }\n\
    allow = [\"create\", \"connect\", \"send\", \"receive\", \"session\", \"resolve\"]\n";

/// An authority, and the certificates of a server and a client, as files.
#[derive(Debug)]
pub(crate) struct Certificates {
    pub(crate) folder: PathBuf,
}

impl Certificates {
    /// Creates them with openssl(1).
    pub(crate) fn create() -> Result<Self> {
        let name = format!("sockbroker-bench-tls-{}", std::process::id());
        let certificates = Self { folder: std::env::temp_dir().join(name) };
        fs::create_dir(&certificates.folder)?;
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=bench";
        let extensions = "-addext basicConstraints=critical,CA:TRUE";
        certificates
            .openssl(&format!("req -x509 {key} {extensions} -days 2 -keyout ca.key -out ca.pem"))?;
        for (name, subject) in
            [("server", "DNS:localhost,IP:127.0.0.1,IP:10.99.0.2"), ("client", "URI:bench:client")]
        {
            certificates.openssl(&format!("req {key} -keyout {name}.key -out {name}.csr"))?;
            fs::write(certificates.path("extensions"), format!("subjectAltName={subject}\n"))?;
            certificates.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out {name}.pem \
                 -extfile extensions"
            ))?;
        }
        for name in ["server.key", "client.key"] {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(certificates.path(name), fs::Permissions::from_mode(0o600))?;
        }
        Ok(certificates)
    }

    fn openssl(&self, arguments: &str) -> Result<()> {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(&self.folder)
            .output()
            .map_err(|error| format!("openssl: {error}"))?;
        let text = String::from_utf8_lossy(&output.stderr);
        output.status.success().then_some(()).ok_or_else(|| format!("openssl: {text}").into())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The configuration of a broker that serves TLS on an address.
    pub(crate) fn section(&self, address: SocketAddr) -> String {
        let path = |name| self.path(name).display().to_string();
        format!(
            "[remote]\nlisten = [\"{address}\"]\ncertificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n",
            path("server.pem"),
            path("server.key"),
            path("ca.pem"),
        )
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A port that was free a moment ago: the broker binds it.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    Ok(CertificateDer::pem_file_iter(path)?.collect::<std::result::Result<_, _>>()?)
}

fn roots(folder: &Path) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for root in chain(&folder.join("ca.pem"))? {
        roots.add(root)?;
    }
    Ok(roots)
}

/// A TLS connection of the client.
pub(crate) struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What was read and not used.
    input: Vec<u8>,
}

impl TlsClient {
    /// Connects with the certificate of the client.
    pub(crate) fn connect(folder: &Path, address: SocketAddr) -> Result<Self> {
        Self::over(folder, TcpStream::connect(address)?, address.ip())
    }

    /// TLS over a TCP connection.
    pub(crate) fn over(folder: &Path, tcp: TcpStream, host: IpAddr) -> Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(TIMEOUT))?;
        let key = PrivateKeyDer::from_pem_file(folder.join("client.key"))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots(folder)?)
            .with_client_auth_cert(chain(&folder.join("client.pem"))?, key)?;
        let session = ClientConnection::new(Arc::new(config), ServerName::from(host))?;
        let mut stream = StreamOwned::new(session, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream, input: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)?;
        Ok(self.stream.flush()?)
    }

    /// Reads a fixed number of bytes.
    pub(crate) fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        Ok(self.stream.read_exact(buffer)?)
    }

    /// Reads some bytes.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.input.is_empty() {
            return Ok(self.stream.read(buffer)?);
        }
        let length = self.input.len().min(buffer.len());
        for (byte, read) in buffer.iter_mut().zip(self.input.drain(..length)) {
            *byte = read;
        }
        Ok(length)
    }

    /// Reads through a blank line, and returns what came before its end.
    pub(crate) fn head(&mut self) -> Result<String> {
        const END: &[u8] = b"\r\n\r\n";
        loop {
            if let Some(at) = self.input.windows(END.len()).position(|bytes| bytes == END) {
                let head: Vec<u8> = self.input.drain(..at + END.len()).collect();
                return Ok(String::from_utf8(head)?);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Err("the connection ended within a head".into()),
                read => self.input.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            }
        }
    }

    /// A call with LSP framing. Returns the length of the answer too.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> Result<(Value, usize)> {
        self.send(&frame(&call(1, method, params), None, 0))?;
        let head = self.head()?;
        let field = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = field.ok_or("an answer without a length")?.trim().parse()?;
        let mut body = vec![0; length];
        let mut done = 0;
        while done < length {
            done += self.read(body.get_mut(done..).unwrap_or_default())?;
        }
        Ok((result(&serde_json::from_slice(&body)?)?, head.len() + length))
    }

    /// Begins the channel of a path.
    pub(crate) fn upgrade(&mut self, path: &str) -> Result<()> {
        let fields = "Host: bench\r\nConnection: upgrade\r\nUpgrade: sockbroker-raw\r\n";
        self.send(format!("GET {path} HTTP/1.1\r\n{fields}\r\n").as_bytes())?;
        let head = self.head()?;
        head.starts_with("HTTP/1.1 101 ").then_some(()).ok_or_else(|| head.into())
    }
}

/// The server of a bare TLS connection: reads and writes for the peer of a measurement.
pub(crate) type TlsServer = StreamOwned<ServerConnection, TcpStream>;

/// Serves TLS over a connection, as the broker does: with a certificate of the client.
pub(crate) fn accept(folder: &Path, tcp: TcpStream) -> Result<TlsServer> {
    tcp.set_nodelay(true)?;
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(folder)?), provider.clone());
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain(&folder.join("server.pem"))?, key)?;
    let session = ServerConnection::new(Arc::new(config))?;
    Ok(StreamOwned::new(session, tcp))
}

/// Waits a little before the next try.
#[expect(clippy::disallowed_methods, reason = "no event loop here that could be blocked")]
pub(crate) fn pause() {
    thread::sleep(Duration::from_millis(5));
}
