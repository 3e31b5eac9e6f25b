//! The asynchronous face, on tokio: every call of a broker goes over one connection, pipelined.
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
//! cancels its call: the broker is told by `$/cancelRequest`. What a receive or an `accept` had
//! already taken is not lost: the next one on the same socket gives it. A socket that was made for
//! nobody is closed. What [`Socket::recv_msg`] had taken is lost.

mod send_queue;
mod connection;
mod pending;
mod dropped;
mod broker;
mod open;
mod socket;
mod stream;

pub use broker::Broker;
pub use socket::Socket;
