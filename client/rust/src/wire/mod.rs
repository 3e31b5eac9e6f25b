//! Bytes to and from a broker, for both faces: descriptors, frames, and what stands in them.

pub(crate) mod link;
pub(crate) mod framing;
pub(crate) mod inbox;
pub(crate) mod outgoing;
pub(crate) mod fault;
pub(crate) mod reply;
pub(crate) mod connect;
pub(crate) mod launch;
