//! The connections that are served, and those in a handshake.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sockbroker_monitor::message::gateway::FromGateway;
use tokio::sync::{mpsc, oneshot, watch};

use crate::authority::{Authenticated, Authority};
use crate::known::Known;
use crate::settings::Settings;

const MINUTE: Duration = Duration::from_mins(1);

/// What the connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    authority: Mutex<Arc<Authority>>,
    to_monitor: mpsc::UnboundedSender<(FromGateway, Option<OwnedFd>)>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// Those whose answer of the monitor is awaited, by request.
    asked: HashMap<u64, oneshot::Sender<Result<u64, String>>>,
    /// Those that are served, by the number of the monitor.
    served: HashMap<u64, (Authenticated, watch::Sender<Judgement>)>,
    /// Those whose sessions can linger.
    known: Known,
    /// Handshakes by address.
    handshakes: HashMap<IpAddr, u64>,
    /// Since when refusals are counted, and how many there were.
    refused: Option<(Instant, u64)>,
}

/// Whether a connection is served.
#[derive(Debug, Clone)]
pub(crate) enum Judgement {
    /// Until its certificate or token expires.
    Until(Option<SystemTime>),
    /// It has to end for this reason.
    End(String),
}

impl Judgement {
    fn of(result: Result<Option<SystemTime>, String>) -> Self {
        result.map_or_else(Self::End, Self::Until)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        authority: Authority,
        to_monitor: mpsc::UnboundedSender<(FromGateway, Option<OwnedFd>)>,
    ) -> Self {
        let authority = Mutex::new(Arc::new(authority));
        Self { settings, authority, to_monitor, state: Mutex::default() }
    }

    /// The credentials in force.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        lock(&self.authority).clone()
    }

    /// Puts new credentials in force. They end the connections of clients that they do not admit, and change when others
    /// expire.
    pub(crate) fn put_in_force(&self, authority: Authority) {
        let authority = Arc::new(authority);
        *lock(&self.authority) = authority.clone();
        let mut state = lock(&self.state);
        for (client, judgement) in state.served.values() {
            judgement.send_replace(Judgement::of(authority.judge_again(client)));
        }
        for identity in state.known.take_not_admitted(&authority) {
            self.send(FromGateway::NotAdmitted { identity }, None);
        }
    }

    pub(crate) fn send(&self, message: FromGateway, descriptor: Option<OwnedFd>) {
        // Without the task that sends, the gateway is about to end.
        drop(self.to_monitor.send((message, descriptor)));
    }

    /// Asks the monitor to pass a connection.
    pub(crate) fn ask(
        &self,
        client: &Authenticated,
        connection: OwnedFd,
    ) -> oneshot::Receiver<Result<u64, String>> {
        let (sender, answer) = oneshot::channel();
        let request = {
            let mut state = lock(&self.state);
            state.next += 1;
            let request = state.next;
            state.asked.insert(request, sender);
            state.known.add(client);
            request
        };
        let identity = client.identity.clone();
        self.send(FromGateway::Connection { request, identity }, Some(connection));
        answer
    }

    /// Takes the answer of the monitor.
    pub(crate) fn answered(&self, request: u64, answer: Result<u64, String>) {
        if let Some(sender) = lock(&self.state).asked.remove(&request) {
            // The client may have closed the connection.
            sender.send(answer).ok();
        }
    }

    /// Notes that a connection is served. The result gets how it is judged later.
    pub(crate) fn serve(self: &Arc<Self>, number: u64, client: &Authenticated) -> Served {
        let mut state = lock(&self.state);
        // New credentials may have come into force since the handshake.
        let authority = lock(&self.authority).clone();
        let judgement = Judgement::of(authority.judge_again(client));
        let (sender, judgement) = watch::channel(judgement);
        state.served.insert(number, (client.clone(), sender));
        drop(state);
        Served { shared: self.clone(), number, judgement }
    }

    /// Whether no connection is served.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.state).served.is_empty()
    }

    /// Logs that a client is refused, unless too many were: strangers can be refused as often as they like.
    pub(crate) fn log_refusal(&self, from: SocketAddr, reason: &dyn fmt::Display) {
        let (most, now) = (self.settings.refusal_lines, Instant::now());
        let mut state = lock(&self.state);
        let (began, count) = state.refused.get_or_insert((now, 0));
        if now.duration_since(*began) >= MINUTE {
            let missing = count.saturating_sub(most);
            if missing > 0 {
                tracing::info!(missing, "refused further remote clients");
            }
            (*began, *count) = (now, 0);
        }
        *count += 1;
        if *count <= most {
            tracing::info!(%from, %reason, "refused a remote client");
        }
    }

    /// Counts a handshake of an address, unless it has too many.
    pub(crate) fn begin_handshake(self: &Arc<Self>, address: IpAddr) -> Option<Handshake> {
        let mut state = lock(&self.state);
        let own = state.handshakes.entry(address).or_default();
        if *own >= self.settings.handshakes_per_address {
            return None;
        }
        *own += 1;
        Some(Handshake { shared: self.clone(), address })
    }
}

/// A connection that is served, until this is dropped.
#[derive(Debug)]
pub(crate) struct Served {
    shared: Arc<Shared>,
    pub(crate) number: u64,
    /// How it is judged.
    pub(crate) judgement: watch::Receiver<Judgement>,
}

impl Drop for Served {
    fn drop(&mut self) {
        lock(&self.shared.state).served.remove(&self.number);
    }
}

/// A handshake, until this is dropped.
#[derive(Debug)]
pub(crate) struct Handshake {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        if let Some(own) = state.handshakes.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                state.handshakes.remove(&self.address);
            }
        }
    }
}
