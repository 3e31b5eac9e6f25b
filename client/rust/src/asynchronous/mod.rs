//! The asynchronous face, on tokio: all calls of a broker share one connection, pipelined.
//!
//! ```
//! use sockbroker_client::asynchronous::Broker;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::spawn().await?;
//! let listener = broker.create_server(("127.0.0.1", 0)).await?;
//! let address = listener.local_addr().await?;
//! let (accepted, connected) =
//!     tokio::join!(listener.accept(), broker.create_connection(address));
//! let ((mut server, _peer), mut client) = (accepted?, connected?);
//!
//! client.write_all(b"hello").await?;
//! let mut buffer = [0; 5];
//! server.read_exact(&mut buffer).await?;
//! assert_eq!(&buffer, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Dropping a future
//!
//! Dropping the future of a call cancels the call: the client sends `$/cancelRequest`. If a receive or an
//! [`Socket::accept`] had already taken something, the next one on the same socket returns it. If a call
//! had already created a socket, the client closes it. Only what [`Socket::recv_msg`] had taken is lost.

mod send_queue;
mod dropped;
mod persistent;
mod connection;
mod reconnect;
mod pending;
mod broker;
mod stream_state;
mod socket;
mod stream;
mod capture;
// The calls that both faces have. tests/mirror.rs keeps these files the same in both.
mod broker_calls;
mod delegation;
mod names;
mod namespace;
mod socket_calls;
mod options;

pub use broker::Broker;
pub use capture::Capture;
pub use namespace::Namespace;
pub use socket::Socket;
