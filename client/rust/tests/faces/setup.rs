//! What the tests share: a private broker, and time limits.

use sockbroker_client::{Endpoint, asynchronous, blocking};
use sockbroker_test_support::{Daemon, binary};

/// Starts a broker with a socket.
pub(crate) fn daemon() -> Daemon {
    Daemon::start(binary::broker())
}

pub(crate) fn endpoint(daemon: &Daemon) -> Endpoint {
    Endpoint::Unix(daemon.socket().to_owned())
}

pub(crate) fn connect(daemon: &Daemon) -> blocking::Broker {
    blocking::Broker::connect_to(&endpoint(daemon)).unwrap()
}

/// `bounded` of the test support. Builds the broker before the time starts.
pub(crate) fn bounded(seconds: u64, body: impl FnOnce() + Send + 'static) {
    binary::broker();
    sockbroker_test_support::bounded(seconds, body);
}

/// Runs an asynchronous test with a new broker.
pub(crate) fn run<F: Future<Output = ()>>(
    body: impl FnOnce(asynchronous::Broker) -> F + Send + 'static,
) {
    bounded(20, move || {
        let daemon = daemon();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            body(asynchronous::Broker::connect_to(&endpoint(&daemon)).await.unwrap()).await;
        });
    });
}
