//! The interfaces of all configured brokers.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use sockbroker_client::{Endpoint, Origin};

use super::interface::Interface;
use super::names::ALL;
use super::resolve::connect;
use crate::connection::{Connection, failure};
use crate::failure::{Exit, Failure};
use crate::screen::report;
use crate::sniff::list;

/// How long all brokers together may take. Wireshark waits for the list when it starts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Returns the interfaces of all brokers that answer in time, and reports why others do not.
pub(super) fn interfaces() -> Result<Vec<Interface>, Failure> {
    let configured = Endpoint::configured().map_err(|error| failure("SOCKBROKER", &error))?;
    let (answers, answered) = mpsc::channel();
    for (number, (_, endpoint)) in configured.iter().enumerate() {
        let (endpoint, answers) = (endpoint.clone(), answers.clone());
        // The receiver is gone after the deadline.
        thread::spawn(move || drop(answers.send((number, names(&endpoint, None)))));
    }
    drop(answers);
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut results: Vec<_> = configured.iter().map(|_| None).collect();
    while let Ok((number, result)) =
        answered.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        if let Some(place) = results.get_mut(number) {
            *place = Some(result);
        }
    }
    let mut found = Vec::new();
    for ((origin, endpoint), result) in configured.into_iter().zip(results) {
        match result {
            Some(Ok(names)) => {
                let named = |name| Interface::Configured(origin.clone(), name);
                found.extend(names.into_iter().map(named));
            }
            // Most users have no broker of their own.
            Some(Err(_)) if origin == Origin::User => {}
            // The machine has no broker for all users.
            Some(Err(failure))
                if origin == Origin::System
                    && failure.exit() == Exit::NoBroker
                    && is_missing(&endpoint) => {}
            Some(Err(failure)) => report(&format!("no interfaces of {endpoint}: {failure}")),
            None => report(&format!(
                "no interfaces of {endpoint}: no answer within {} seconds",
                ANSWER_TIMEOUT.as_secs()
            )),
        }
    }
    Ok(found)
}

/// Whether the socket does not exist.
fn is_missing(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Unix(path) if !path.exists())
}

/// Returns the names of the interfaces of a broker, and the name for all of them.
pub(super) fn names(endpoint: &Endpoint, netns: Option<&String>) -> Result<Vec<String>, Failure> {
    let connection = connect(endpoint)?.within(netns);
    names_of(&connection)
}

/// Returns the names of the interfaces of a connected broker, and the name for all of them.
pub(super) fn names_of(connection: &Connection) -> Result<Vec<String>, Failure> {
    let names = list::interfaces(connection)?.into_iter().map(|(_index, name)| name);
    Ok(names.chain([ALL.to_owned()]).collect())
}
