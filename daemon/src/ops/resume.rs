//! `resume`: the position of a client in a TCP stream that an earlier process served.

use sockbroker_sys::position::taken;

use crate::error::{During as _, OpError, OpResult};
use crate::table::peeked::discard;
use crate::table::permitted::Permitted;
use sockbroker_policy::action::Receive;

/// Drops the bytes of the queue that the client has received from an earlier process; `received` is how many it has
/// received in all, if it knows. Returns how many bytes receivers have taken since the connection began.
pub fn resume(permitted: &Permitted<Receive>, received: Option<u64>) -> OpResult<u64> {
    let socket = permitted.socket();
    let mut turn = socket.turn();
    let (taken, unread) = taken(socket.fd()).during("getsockopt")?;
    let is_doubtful = turn.take_doubt();
    let Some(received) = received else {
        return if is_doubtful && turn.peeks(socket.actual()) {
            Err(OpError::Interrupted(
                "the process that served the session has ended, and may have sent received bytes that \
                 the next receive returns again",
            ))
        } else {
            Ok(taken)
        };
    };
    if !is_doubtful || taken == received {
        return Ok(taken);
    }
    if taken > received {
        let lost = taken - received;
        return Err(OpError::LostBytes(lost));
    }
    let again = received - taken;
    if again > unread {
        // A mistake of the client, which can correct it.
        turn.doubt();
        return Err(OpError::value(format!(
            "received is {received}, but the connection has received only {} bytes",
            taken + unread
        )));
    }
    // It is not above the size of the queue.
    discard(socket.fd(), usize::try_from(again).unwrap_or(usize::MAX));
    Ok(received)
}
