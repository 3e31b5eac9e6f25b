//! What every connection needs of the broker.

use std::sync::Arc;

use super::shutdown::ShutdownSignal;
use crate::rpc::methods::MethodTable;
use crate::session::broker::Broker;

/// The state that connections share.
#[derive(Debug, Clone)]
pub(super) struct SharedContext {
    pub(super) broker: Arc<Broker>,
    pub(super) methods: MethodTable,
    pub(super) shutdown: ShutdownSignal,
}
