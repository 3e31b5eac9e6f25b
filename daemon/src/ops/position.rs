//! The position of a TCP connection: how many bytes it has sent and received.

use sockbroker_policy::action::Inspect;
pub use sockbroker_sys::position::Position;

use crate::error::{During as _, OpResult};
use crate::table::permitted::Permitted;

/// `TCP_INFO`, `SIOCOUTQ` and `SIOCINQ` of tcp(7).
pub fn of_tcp(permitted: &Permitted<Inspect>) -> OpResult<Position> {
    sockbroker_sys::position::of_tcp(permitted.socket().fd()).during("getsockopt")
}
