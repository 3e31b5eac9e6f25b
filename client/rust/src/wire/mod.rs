//! What both faces need of a connection: connecting, framing, requests and responses with their
//! attachments and descriptors.

pub(crate) mod unix;
pub(crate) mod framing;
pub(crate) mod preamble;
pub(crate) mod receive_buffer;
pub(crate) mod request_buffer;
pub(crate) mod error_object;
pub(crate) mod response;
pub(crate) mod tls;
pub(crate) mod connect;
pub(crate) mod child;
pub(crate) mod private_folder;
pub(crate) mod ssh;
