//! Both faces against the real broker.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod endpoints;
mod streams;
mod datagrams;
mod options;
mod descriptors;
mod threads;
mod dropping;
mod names;
mod packets;
mod examples;

use sockbroker_client::{Endpoint, asynchronous, blocking};
use sockbroker_test_support::{Daemon, binary};

/// A broker of one's own behind a socket.
fn daemon() -> Daemon {
    Daemon::start(binary::broker())
}

fn endpoint(daemon: &Daemon) -> Endpoint {
    Endpoint::Unix(daemon.socket().to_owned())
}

fn connect(daemon: &Daemon) -> blocking::Broker {
    blocking::Broker::connect_to(&endpoint(daemon)).unwrap()
}

/// As the harness has it, with the broker built before the time begins to run.
fn bounded(seconds: u64, body: impl FnOnce() + Send + 'static) {
    binary::broker();
    sockbroker_test_support::bounded(seconds, body);
}

/// Runs an asynchronous test against a broker of its own.
fn run<F: Future<Output = ()>>(body: impl FnOnce(asynchronous::Broker) -> F + Send + 'static) {
    bounded(20, move || {
        let daemon = daemon();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            body(asynchronous::Broker::connect_to(&endpoint(&daemon)).await.unwrap()).await;
        });
    });
}
