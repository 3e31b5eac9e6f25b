//! The shutdown of the broker: first no new calls are taken, then calls in flight are cancelled.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

/// Begins the shutdown.
#[derive(Debug)]
pub struct ShutdownSwitch(watch::Sender<Option<Instant>>);

impl ShutdownSwitch {
    /// A switch and its signal.
    pub fn new() -> (Self, ShutdownSignal) {
        let (sender, receiver) = watch::channel(None);
        (Self(sender), ShutdownSignal { all: receiver, own: None })
    }

    /// Begins the shutdown. Calls in flight have this time to end.
    pub fn begin(&self, drain: Duration) {
        self.0.send_replace(Some(Instant::now() + drain));
    }
}

/// The signal of a shutdown. Every connection has a copy.
#[derive(Debug, Clone)]
pub struct ShutdownSignal {
    all: watch::Receiver<Option<Instant>>,
    /// Why this connection alone ends.
    own: Option<watch::Receiver<Option<String>>>,
}

impl ShutdownSignal {
    /// Waits until the shutdown begins.
    pub async fn begun(&mut self) {
        // An error means that the switch was dropped, which is a shutdown too.
        drop(self.all.wait_for(Option::is_some).await);
    }

    /// The signal for a connection that can also end alone.
    #[must_use]
    pub(super) fn with_own(self, own: watch::Receiver<Option<String>>) -> Self {
        Self { own: Some(own), ..self }
    }

    /// Waits until this connection has to end, alone or with the broker.
    pub(super) async fn until_end(&mut self) {
        let own = self.own.clone();
        let ended = async {
            match own {
                Some(own) => drop(reason(own).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.begun() => {}
            () = ended => {}
        }
    }

    /// The signal in a form to be polled.
    pub(super) fn follow(self) -> Shutdown {
        let signal = self.all;
        let mut all = signal.clone();
        let ended = self.own.map(|own| -> Ended { Box::pin(reason(own)) });
        let begun = Box::pin(async move {
            match all.wait_for(Option::is_some).await {
                Ok(deadline) => deadline.unwrap_or_else(Instant::now),
                Err(_) => Instant::now(),
            }
        });
        Shutdown { signal, begun: Some(begun), over: None, ended }
    }
}

/// The reason why one connection ends.
type Ended = Pin<Box<dyn Future<Output = String> + Send>>;

async fn reason(mut own: watch::Receiver<Option<String>>) -> String {
    let found = own.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match found {
        Some(reason) => reason,
        // The sender is gone: nobody ends this connection alone.
        None => std::future::pending().await,
    }
}

/// The signal as one connection polls it.
pub(super) struct Shutdown {
    signal: watch::Receiver<Option<Instant>>,
    begun: Option<Pin<Box<dyn Future<Output = Instant> + Send>>>,
    over: Option<Pin<Box<Sleep>>>,
    ended: Option<Ended>,
}

impl std::fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shutdown(begun: {})", self.begun.is_none())
    }
}

impl Shutdown {
    /// Whether no new calls are to be taken. Unlike [`Shutdown::poll_begun`] it takes no lock, and wakes no task later.
    pub(super) fn has_begun(&self) -> bool {
        // The value changes once. An error means that the switch was dropped.
        self.begun.is_none() || self.signal.has_changed().unwrap_or(true)
    }

    /// Ready when no new calls are to be taken.
    pub(super) fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(begun) = &mut self.begun {
            let Poll::Ready(deadline) = begun.as_mut().poll(context) else {
                return Poll::Pending;
            };
            self.begun = None;
            self.over = Some(Box::pin(sleep_until(deadline)));
        }
        Poll::Ready(())
    }

    /// Ready, once, when this connection alone has to end.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<String> {
        let Some(ended) = &mut self.ended else { return Poll::Pending };
        let polled = ended.as_mut().poll(context);
        if polled.is_ready() {
            self.ended = None;
        }
        polled
    }

    /// Ready when calls in flight are to be cancelled.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.poll_begun(context).is_pending() {
            return Poll::Pending;
        }
        match &mut self.over {
            Some(over) => over.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}
