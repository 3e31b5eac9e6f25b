//! Both faces against a broker that breaks every rule: an error within the deadline, never a hang, a
//! panic or a leaked descriptor.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fake;
mod faults;
mod room;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sockbroker_client::{Endpoint, Error, asynchronous, blocking};
use sockbroker_test_support::{bounded, until};

use fake::{Fake, Peer};

/// The time limit of calls.
const LIMIT: Duration = Duration::from_millis(200);

/// The faces, so that every fault is tried on each.
#[derive(Debug, Clone, Copy)]
enum Face {
    Blocking,
    Asynchronous,
}

/// Two calls with one broker, by either face.
fn two_calls(face: Face, endpoint: &Endpoint) -> [Result<Value, Error>; 2] {
    match face {
        Face::Blocking => match blocking::Broker::connect_to(endpoint) {
            Err(error) => [Err(error.clone()), Err(error)],
            Ok(broker) => {
                broker.set_call_timeout(Some(LIMIT));
                [(); 2].map(|()| broker.call("socket.gethostname", ()))
            }
        },
        Face::Asynchronous => runtime().block_on(async {
            match asynchronous::Broker::connect_to(endpoint).await {
                Err(error) => [Err(error.clone()), Err(error)],
                Ok(broker) => {
                    broker.set_call_timeout(Some(LIMIT));
                    let first = broker.call("socket.gethostname", ()).await;
                    [first, broker.call("socket.gethostname", ()).await]
                }
            }
        }),
    }
}

/// Tries a fault on both faces. `judge` sees what became of the call that it hit, and of the next.
fn fault(
    what: impl Fn(&mut Peer) + Clone + Send + 'static,
    judge: impl Fn(Face, [Result<Value, Error>; 2]) + Send + 'static,
) {
    let _alone = alone();
    bounded(30, move || {
        // tokio keeps a pair of sockets for signals, from the first runtime on.
        drop(runtime());
        let before = open_files();
        for face in [Face::Blocking, Face::Asynchronous] {
            let fake = Fake::start(what.clone());
            let results = two_calls(face, fake.endpoint());
            drop(fake);
            judge(face, results);
        }
        until("every descriptor is closed", || open_files() <= before);
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Descriptors are counted for the whole process, so these tests run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
