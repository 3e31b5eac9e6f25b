//! SIGTERM, SIGINT and SIGHUP.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::StartError;
use super::service;
use crate::session::broker::Broker;

/// The handled signals. Handling begins when this value is made.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    broker: Arc<Broker>,
}

impl Signals {
    pub(super) fn handle(broker: Arc<Broker>) -> Result<Self, StartError> {
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

    /// Waits for a signal that ends the broker, and handles the others meanwhile.
    pub(super) async fn received(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => self.reload().await,
            }
        }
    }

    /// Reopens the audit file and reads the policy. The service manager is notified of start and end.
    async fn reload(&self) {
        service::reloading();
        self.broker.audit.reopen();
        // The error is in the log, and the old policy stays in force.
        match self.broker.reload().await {
            Ok(_) => service::ready("serving"),
            Err(_) => service::ready("serving with the old policy: the new one is not usable"),
        }
    }
}
