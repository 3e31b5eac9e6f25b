//! Runs one connection from the bytes of a client to the bytes of the broker, for the fuzzer and the replay of
//! its corpora.
//!
//! Nothing is replaced: the detection of the framing, codecs, dispatch and sockets are those of the broker.
//! Calls that wait are cancelled as at shutdown, so that every input comes to an end.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use sockbroker_sys::{process, stream};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::config::limits::Limits;
use crate::descriptor::Descriptor;
use crate::handlers;
use crate::session::broker::Broker;
use crate::transport::peer;
use crate::transport::server::Server;
use crate::transport::shutdown::ShutdownSwitch;
use sockbroker_policy::Policy;

/// The longest time for one input.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Returns what a broker sends on a connection that sends `data` and closes its writing end. The caller is the
/// broker's own user, so that requests reach the kernel.
///
/// # Panics
///
/// If the connection cannot be made, or does not end in time. Both are findings of the fuzzer.
#[expect(clippy::expect_used, reason = "a fuzzer reports a finding by a panic")]
pub fn request(data: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let answer = runtime.block_on(async { timeout(LONGEST_WAIT, converse(data)).await });
    // Look-ups may still run. Nothing waits for them.
    runtime.shutdown_background();
    answer.expect("the connection comes to its end").expect("a connection")
}

async fn converse(data: &[u8]) -> io::Result<Vec<u8>> {
    let (mut ours, theirs) = StdStream::pair()?;
    // Input beyond the socket's buffer is cut off.
    ours.set_nonblocking(true)?;
    let written = ours.write(data)?;
    debug_assert!(written <= data.len(), "a write is no longer than its input");
    ours.shutdown(std::net::Shutdown::Write)?;
    let (switch, signal) = ShutdownSwitch::new();
    let policy = Policy::built_in(process::effective_uid());
    let broker = Arc::new(Broker::new(policy, Limits::default()));
    let methods = handlers::methods();
    let principal = peer::own()?;
    let theirs = Descriptor::of_client(theirs.into(), &broker.users.user(&principal.key()));
    let serving = Server::new(broker, methods, signal).serve(theirs, principal);
    let reading = async {
        let mut ours = UnixStream::from_std(ours)?;
        let mut answers = Vec::new();
        while stream::unread_by_peer(ours.as_fd())? > 0 {
            // The broker stops reading at a framing error, and then closes the connection.
            if timeout(Duration::from_millis(1), ours.read_buf(&mut answers)).await.is_ok_and(ended)
            {
                return Ok(answers);
            }
        }
        switch.begin(Duration::ZERO);
        ours.read_to_end(&mut answers).await.or_else(forgive_reset)?;
        Ok(answers)
    };
    let ((), answers) = tokio::join!(serving, reading);
    answers
}

#[expect(clippy::needless_pass_by_value, reason = "reads well in is_ok_and")]
fn ended(read: io::Result<usize>) -> bool {
    !matches!(read, Ok(1..))
}

/// Ignores `ECONNRESET`, which a close with unread input causes.
fn forgive_reset(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::ConnectionReset { Ok(0) } else { Err(error) }
}
