//! From an accepted connection to a client that has authenticated itself.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::{Authenticated, Authority};
use crate::head::{self, Framing, Head, HeadError};
use crate::live::Shared;
use crate::refusal::Refusal;

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;
/// What is read of a client that is refused. A connection that is closed with unread input is reset, and the client
/// would not read why.
const DRAINED: usize = 64 << 10;
/// The bytes that are read at a time below TLS: the library reads fewer.
const BUFFER: usize = 16 << 10;

/// A connection with TLS.
pub(crate) type Tls = TlsStream<BufReader<TcpStream>>;

/// A client that has authenticated itself.
pub(crate) struct Established {
    pub(crate) tls: Tls,
    pub(crate) framing: Framing,
    pub(crate) client: Authenticated,
    /// What it has sent so far.
    pub(crate) input: Vec<u8>,
}

/// Why there is no client. The log has this; the client knows it, as far as it can.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error("{0}")]
    Refused(String),
    #[error("the handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the client took too long to authenticate itself: handshake_seconds")]
    Late,
}

/// Waits for a client to authenticate itself, until a deadline.
pub(crate) async fn establish(
    shared: &Shared,
    tcp: TcpStream,
    from: SocketAddr,
    deadline: Instant,
) -> Result<Established, Failed> {
    let authority = shared.authority();
    let mut first = [0];
    let late = |_elapsed| Failed::Late;
    if timeout_at(deadline, tcp.peek(&mut first)).await.map_err(late)?? == 0 {
        return Err(Failed::Refused("closed without a byte".to_owned()));
    }
    if first != [HANDSHAKE] {
        return Err(refuse_plain(shared, tcp, first).await);
    }
    let stream = BufReader::with_capacity(BUFFER, tcp);
    let handshake = TlsAcceptor::from(authority.tls.clone()).accept(stream).into_fallible();
    let tls = match timeout_at(deadline, handshake).await.map_err(late)? {
        Ok(tls) => tls,
        Err((error, stream)) => {
            // The alert is sent; the client reads it unless the connection is reset.
            drain(shared, stream).await;
            return Err(Failed::Handshake(error));
        }
    };
    authenticate(shared, &authority, tls, from, deadline).await
}

/// Finds out who the client is, from its certificate or from the head of its first message.
async fn authenticate(
    shared: &Shared,
    authority: &Authority,
    mut tls: Tls,
    from: SocketAddr,
    deadline: Instant,
) -> Result<Established, Failed> {
    let late = |_elapsed| Failed::Late;
    let mut input = Vec::new();
    if timeout_at(deadline, read_more(&mut tls, &mut input)).await.map_err(late)?? == 0 {
        return Err(Failed::Refused("closed before the first byte".to_owned()));
    }
    let Some(framing) = input.first().and_then(|first| Framing::of(*first)) else {
        return Err(Failed::Refused(
            "the first byte belongs to no protocol of the broker".to_owned(),
        ));
    };
    let chain = tls.get_ref().1.peer_certificates().map(<[_]>::to_vec);
    let client = match (chain, framing) {
        (Some(chain), Framing::Ndjson) => authority.of_certificate(&chain),
        (None, Framing::Ndjson) => {
            Err("a client that speaks newline-delimited JSON needs a certificate: use LSP \
             framing or HTTP for a token"
                .to_owned())
        }
        (chain, Framing::Lsp | Framing::Http) => loop {
            match (head::read(&input), &chain) {
                (Ok(Some(Head { token: Some(_), .. })), Some(_)) => {
                    break Err(
                        "both a client certificate and a token came: send one of them".to_owned()
                    );
                }
                // The worker has limits of its own.
                (Ok(Some(_)) | Err(HeadError::TooLong), Some(chain)) => {
                    break authority.of_certificate(chain);
                }
                (Ok(Some(head)), None) => {
                    if framing == Framing::Lsp {
                        input = head.rest;
                    }
                    break match head.token {
                        Some(token) => authority.of_token(&token, from.ip()),
                        None => Err(without_credentials(authority)),
                    };
                }
                (Ok(None), _) => {
                    let read = timeout_at(deadline, read_more(&mut tls, &mut input)).await;
                    if read.map_err(late)?? == 0 {
                        return Err(Failed::Refused("closed within the first head".to_owned()));
                    }
                }
                (Err(reason), _) => break Err(reason.to_string()),
            }
        },
    };
    match client {
        Ok(client) => Ok(Established { tls, framing, client, input }),
        Err(reason) => {
            refuse(shared, tls, framing, &Refusal::denied(reason.clone())).await;
            Err(Failed::Refused(reason))
        }
    }
}

/// Appends what has arrived; 0 at the end.
async fn read_more(tls: &mut Tls, input: &mut Vec<u8>) -> io::Result<usize> {
    input.reserve(4096);
    tls.read_buf(input).await
}

fn without_credentials(authority: &Authority) -> String {
    if authority.has_tokens() {
        "neither a client certificate nor a token came: send the field Authorization: Bearer TOKEN with the first \
         message"
            .to_owned()
    } else {
        "no client certificate came, and this broker has no tokens".to_owned()
    }
}

/// Answers a client that does not speak TLS in its own protocol.
async fn refuse_plain(shared: &Shared, mut tcp: TcpStream, first: [u8; 1]) -> Failed {
    let text = "this port speaks TLS 1.3: use https:// or tls://";
    if let Some(framing) = Framing::of(first[0]) {
        let bytes = Refusal::protocol(text).encode(framing);
        // The client may have gone.
        drop(timeout(shared.settings.last_bytes, tcp.write_all(&bytes)).await);
        drain(shared, BufReader::with_capacity(BUFFER, tcp)).await;
    }
    Failed::Refused(format!("no TLS: the first byte is {:#04x}", first[0]))
}

/// Sends a refusal, and closes the connection so that the client can read it.
pub(crate) async fn refuse(shared: &Shared, mut tls: Tls, framing: Framing, refusal: &Refusal) {
    let bytes = refusal.encode(framing);
    let send = async {
        tls.write_all(&bytes).await?;
        tls.shutdown().await
    };
    // The client may have gone.
    drop(timeout(shared.settings.last_bytes, send).await);
    drain(shared, tls.into_inner().0).await;
}

/// Ends the sending direction, and reads some of what the client sends.
pub(crate) async fn drain(shared: &Shared, mut stream: BufReader<TcpStream>) {
    let read = async {
        stream.flush().await?;
        stream.get_mut().shutdown().await?;
        let (mut left, mut buffer) = (DRAINED, vec![0; 4096]);
        while left > 0 {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            left = left.saturating_sub(read);
        }
        io::Result::Ok(())
    };
    // Best effort: the client may have gone.
    drop(timeout(shared.settings.last_bytes, read).await);
}
