//! One connection from its bytes to the broker's bytes, for the fuzzer and the replay of its corpora.
//!
//! Everything is real: detection of the spelling, codecs, dispatch, sockets. Calls that wait are
//! cancelled as at the end of the broker, so that every input comes to an end.

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
use crate::handlers;
use crate::session::broker::Broker;
use crate::transport::peer;
use crate::transport::server::Server;
use crate::transport::shutdown::ShutdownSwitch;
use sockbroker_policy::Policy;

/// How long the broker may take for one input.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What a broker answers to a connection that sends `data` and closes its writing end. The caller is
/// the broker's own user, so that requests reach the kernel.
///
/// # Panics
///
/// If the connection cannot be made, or does not come to its end: both are findings.
#[expect(clippy::expect_used, reason = "a fuzzer reports a finding by a panic")]
pub fn request(data: &[u8]) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let answer = runtime.block_on(async { timeout(LONGEST_WAIT, converse(data)).await });
    // Look-ups may still be running; nobody waits for them.
    runtime.shutdown_background();
    answer.expect("the connection comes to its end").expect("a connection")
}

async fn converse(data: &[u8]) -> io::Result<Vec<u8>> {
    let (mut ours, theirs) = StdStream::pair()?;
    // The whole input fits: what does not is of no more interest.
    ours.set_nonblocking(true)?;
    let written = ours.write(data)?;
    debug_assert!(written <= data.len(), "a write is no longer than its input");
    ours.shutdown(std::net::Shutdown::Write)?;
    theirs.set_nonblocking(true)?;
    let (switch, signal) = ShutdownSwitch::new();
    let policy = Policy::built_in(process::effective_uid());
    let broker = Arc::new(Broker::new(policy, Limits::default()));
    let methods = handlers::methods();
    let serving =
        Server::new(broker, methods, signal).serve(UnixStream::from_std(theirs)?, peer::own()?);
    let reading = async {
        let mut ours = UnixStream::from_std(ours)?;
        let mut answers = Vec::new();
        while stream::unread_by_peer(ours.as_fd())? > 0 {
            // The broker stops reading at broken framing, and then closes.
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

/// Input that the broker left unread makes its close a reset.
fn forgive_reset(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::ConnectionReset { Ok(0) } else { Err(error) }
}
