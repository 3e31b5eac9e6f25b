//! SIGTERM, SIGINT and SIGHUP.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{StartError, service};
use crate::session::broker::Broker;

/// The signals that are minded, from the moment this is made.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    broker: Arc<Broker>,
}

impl Signals {
    pub(super) fn mind(broker: Arc<Broker>) -> Result<Self, StartError> {
        let handler = |kind| {
            let fail = |error| StartError::System(format!("signal handler: {error}"));
            signal(kind).map_err(fail)
        };
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
            reload: handler(SignalKind::hangup())?,
            broker,
        })
    }

    /// Waits for one that ends the broker; those that do not are followed meanwhile.
    pub(super) async fn received(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => self.reload().await,
            }
        }
    }

    /// Opens the audit's file anew and reads the policy; the service manager is told of both ends.
    async fn reload(&self) {
        service::reloading();
        self.broker.audit.reopen();
        // The mistake is in the log, and the old policy stays.
        match self.broker.reload().await {
            Ok(_) => service::ready("serving"),
            Err(_) => service::ready("serving by the old policy: the new one cannot be used"),
        }
    }
}
