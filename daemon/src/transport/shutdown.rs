//! The shutdown of the broker: first no new calls are taken, then calls in flight are cancelled.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::unconstrained;
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
        let begun = async move {
            match all.wait_for(Option::is_some).await {
                Ok(deadline) => deadline.unwrap_or_else(Instant::now),
                Err(_) => Instant::now(),
            }
        };
        let begun = Some(Awaited::new(&signal, begun));
        let ended = self.own.map(|own| Awaited::new(&own.clone(), reason(own)));
        Shutdown { begun, over: None, ended }
    }
}

/// What follows from a change of a watched value.
struct Awaited<V, T> {
    value: watch::Receiver<V>,
    /// Never ready without a change.
    future: Pin<Box<dyn Future<Output = T> + Send>>,
    /// The waker that a change wakes.
    registered: Option<Waker>,
}

impl<V, T> Awaited<V, T> {
    fn new(value: &watch::Receiver<V>, future: impl Future<Output = T> + Send + 'static) -> Self {
        // Without a budget each poll registers, as `registered` requires.
        Self { value: value.clone(), future: Box::pin(unconstrained(future)), registered: None }
    }

    /// Whether the value has changed, or cannot change any more.
    fn has_changed(&self) -> bool {
        self.value.has_changed().unwrap_or(true)
    }

    /// Registers the task unless a change wakes it already: most of the time something else has woken it.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T> {
        let waker = context.waker();
        if !self.has_changed() && self.registered.as_ref().is_some_and(|own| own.will_wake(waker)) {
            return Poll::Pending;
        }
        self.registered = Some(waker.clone());
        self.future.as_mut().poll(context)
    }
}

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
    begun: Option<Awaited<Option<Instant>, Instant>>,
    over: Option<Pin<Box<Sleep>>>,
    ended: Option<Awaited<Option<String>, String>>,
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
        self.begun.as_ref().is_none_or(Awaited::has_changed)
    }

    /// Ready when no new calls are to be taken.
    pub(super) fn poll_begun(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(begun) = &mut self.begun {
            let Poll::Ready(deadline) = begun.poll(context) else {
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
        let polled = ended.poll(context);
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
