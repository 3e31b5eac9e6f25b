//! A worker that is killed: what becomes of the connections that were on their way to it.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;

use serde_json::json;
use sockbroker_sys::stream::unread_by_peer;
use sockbroker_test_support::daemon::{
    continue_process, kill_process, stop_process, wait_until_ended,
};
use sockbroker_test_support::{bounded, until};

use crate::broker::limited;

/// The beginning of a request whose rest never comes.
const BEGINNING: &[u8] = b"Content-Length: 100\r\n";

#[test]
fn connection_whose_request_a_worker_has_read_ends_with_it() {
    bounded(60, || {
        // A connection without a first byte would not end during the test.
        let mut broker = limited(&[("detect_seconds", 3600)]);
        let worker = broker.worker();
        let monitor = broker.process().number();
        let mut next = broker.lsp();
        let mut read = broker.connect();
        broker.worker_stopped_during(|| {
            let mut other = broker.connect();
            read.write_all(BEGINNING).unwrap();
            // The monitor handles events in their order: it has passed the connection before it closes this one.
            other.shutdown(Shutdown::Write).unwrap();
            assert_eq!(other.read(&mut [0]).unwrap(), 0);
            stop_process(monitor);
        });
        // This event comes before what the worker reports, so that the monitor finds the dead worker when it sends.
        next.send("socket.htons", json!([1]));
        until("the worker has read", || unread_by_peer(read.as_fd()).unwrap() == 0);
        kill_process(worker);
        wait_until_ended(worker);
        continue_process(monitor);
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
        assert!(next.next_answer().is_some());
    });
}
