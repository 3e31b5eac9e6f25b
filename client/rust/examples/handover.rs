//! The broker creates a listener, for example on a privileged port, and passes its descriptor. The
//! program uses it as an ordinary listener of tokio.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "what an example is for")]

use std::error::Error;

use sockbroker_client::asynchronous::Broker;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = match Broker::connect().await {
        Ok(broker) => broker,
        Err(_) => Broker::spawn().await?,
    };
    let listener = broker.create_server(("127.0.0.1", 0)).await?;
    let listener = std::net::TcpListener::from(listener.into_owned_fd().await?);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    // The broker is not needed any more.
    drop(broker);

    let address = listener.local_addr()?;
    let (client, accepted) = tokio::try_join!(TcpStream::connect(address), listener.accept())?;
    let (mut client, (mut server, peer)) = (client, accepted);
    server.write_all(b"natively").await?;
    let mut buffer = [0; 8];
    client.read_exact(&mut buffer).await?;
    println!("{peer} received {:?}", String::from_utf8_lossy(&buffer));
    Ok(())
}
