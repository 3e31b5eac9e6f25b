//! What the tests share: calls by both faces, and the count of open descriptors.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sockbroker_client::{Endpoint, Error, asynchronous, blocking};
use sockbroker_test_support::{HANG, bounded, until};

use crate::fake_broker::{FakeBroker, Peer};

/// The time limit of a call that is to expire.
pub(crate) const LIMIT: Duration = Duration::from_millis(200);

/// The face of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Face {
    Blocking,
    Asynchronous,
}

/// Makes two calls with one broker, each with its time limit.
fn two_calls(face: Face, endpoint: &Endpoint, limits: [Duration; 2]) -> [Result<Value, Error>; 2] {
    match face {
        Face::Blocking => match blocking::Broker::connect_to(endpoint) {
            Err(error) => [Err(error.clone()), Err(error)],
            Ok(broker) => limits.map(|limit| {
                broker.set_call_timeout(Some(limit));
                broker.call("socket.gethostname", ())
            }),
        },
        Face::Asynchronous => runtime().block_on(async {
            match asynchronous::Broker::connect_to(endpoint).await {
                Err(error) => [Err(error.clone()), Err(error)],
                Ok(broker) => {
                    broker.set_call_timeout(Some(limits[0]));
                    let first = broker.call("socket.gethostname", ()).await;
                    broker.set_call_timeout(Some(limits[1]));
                    [first, broker.call("socket.gethostname", ()).await]
                }
            }
        }),
    }
}

/// Like [`with_fault_within`], with calls that do not expire.
pub(crate) fn with_fault(
    fault: impl Fn(&mut Peer) + Clone + Send + 'static,
    check: impl Fn(Face, [Result<Value, Error>; 2]) + Send + 'static,
) {
    with_fault_within([HANG; 2], fault, check);
}

/// Makes two calls by each face, with these time limits. `fault` is what the broker does with a call, `check` gets the results of
/// both calls. Then checks that no descriptor has leaked.
pub(crate) fn with_fault_within(
    limits: [Duration; 2],
    fault: impl Fn(&mut Peer) + Clone + Send + 'static,
    check: impl Fn(Face, [Result<Value, Error>; 2]) + Send + 'static,
) {
    let _alone = alone();
    bounded(30, move || {
        // tokio opens a pair of sockets for signals with the first runtime, and keeps it.
        drop(runtime());
        let before = open_files();
        for face in [Face::Blocking, Face::Asynchronous] {
            let fake = FakeBroker::start(fault.clone());
            let results = two_calls(face, fake.endpoint(), limits);
            drop(fake);
            check(face, results);
        }
        until("every descriptor is closed", || open_files() <= before);
    });
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Excludes other tests: open descriptors are counted for the whole process.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
