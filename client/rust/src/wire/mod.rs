//! Bytes to and from a broker, for both faces: descriptors, frames, and what stands in them.

pub(crate) mod unix;
pub(crate) mod framing;
pub(crate) mod receive_buffer;
pub(crate) mod request_buffer;
pub(crate) mod error_object;
pub(crate) mod response;
pub(crate) mod connect;
pub(crate) mod child;
