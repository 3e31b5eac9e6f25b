//! TLS over a socket of the broker, which implements `Read` and `Write`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what an example is for")]

use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;
use std::thread;

use rustls::crypto::ring;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, Stream,
};
use sockbroker_client::blocking::{Broker, Socket};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let broker = Broker::connect().or_else(|_| Broker::spawn())?;
    let listener = broker.create_server(("127.0.0.1", 0))?;
    let mut socket = broker.create_connection(listener.local_addr()?)?;

    let (server, client) = configurations()?;
    let serving = thread::spawn(move || serve(&listener, server));
    let mut session = ClientConnection::new(client, ServerName::try_from("localhost")?)?;
    let mut stream = Stream::new(&mut session, &mut socket);
    stream.write_all(b"secret")?;
    let mut response = [0; 12];
    stream.read_exact(&mut response)?;
    println!("over {:?}: {}", session.protocol_version(), String::from_utf8_lossy(&response));
    serving.join().map_err(|_panic| "the server failed")?
}

fn serve(listener: &Socket, configuration: Arc<ServerConfig>) -> Result<()> {
    let (mut socket, _peer) = listener.accept()?;
    let mut session = ServerConnection::new(configuration)?;
    let mut stream = Stream::new(&mut session, &mut socket);
    let mut request = [0; 6];
    stream.read_exact(&mut request)?;
    stream.write_all(b"echo: ")?;
    Ok(stream.write_all(&request)?)
}

/// A server with a self-signed certificate, and a client that trusts it.
fn configurations() -> Result<(Arc<ServerConfig>, Arc<ClientConfig>)> {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = signed.cert.der().clone();
    let key = PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    let provider = Arc::new(ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(server), Arc::new(client)))
}
