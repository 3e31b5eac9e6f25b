//! A client at its limit of open files.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use sockbroker_client::{Ancillary, Domain, Flags, Protocol, Type, blocking};
use sockbroker_test_support::bounded;

use crate::fake_broker::{FakeBroker, Peer};
use crate::setup::alone;

/// Opens files until only `free` more can be opened. Returns the files and the previous limit.
fn exhaust(free: usize) -> (Vec<OwnedFd>, Rlimit) {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    let mut taken: Vec<OwnedFd> =
        std::iter::from_fn(|| File::open("/dev/null").ok().map(OwnedFd::from)).collect();
    taken.truncate(taken.len() - free);
    (taken, before)
}

#[test]
fn descriptors_beyond_the_limit_are_lost_in_one_message_only() {
    let _alone = alone();
    bounded(30, || {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let fake = FakeBroker::start(move |peer| {
            let result = match peer.calls {
                1 => json!({ "handle": 1, "family": 1, "type": 1, "proto": 0, "timeout": null }),
                2 | 3 => json!({ "data": "aGk=", "n": 2, "eof": false, "flags": 0, "address": null,
                    "ancdata": [[1, 1, { "descriptors": 3 }]] }),
                _ => json!(1),
            };
            let count = match peer.calls {
                1 => 0,
                2 | 3 => 3,
                _ => 1,
            };
            peer.send_with(&Peer::frame(peer.id, &result, count), &vec![file.as_fd(); count]);
        });
        let broker = blocking::Broker::connect_to(fake.endpoint()).unwrap();
        let socket =
            blocking::Socket::new(&broker, Domain::UNIX, Type::STREAM, Protocol::DEFAULT).unwrap();
        let (taken, before) = exhaust(2);
        let truncated = socket.recv_msg(9, 100, Flags::NONE);
        drop(taken);
        setrlimit(Resource::Nofile, before).unwrap();
        let truncated = truncated.unwrap();
        let [Ancillary::Descriptors(descriptors)] = truncated.ancillary.as_slice() else {
            panic!("{:?}", truncated.ancillary)
        };
        assert_eq!((descriptors.len(), truncated.data.as_slice()), (2, &b"hi"[..]));
        assert!(truncated.flags.contains(Flags::CTRUNC));
        let complete = socket.recv_msg(9, 100, Flags::NONE).unwrap();
        let [Ancillary::Descriptors(descriptors)] = complete.ancillary.as_slice() else {
            panic!("{:?}", complete.ancillary)
        };
        assert_eq!((descriptors.len(), complete.flags.contains(Flags::CTRUNC)), (3, false));
        let (taken, before) = exhaust(0);
        let error = socket.into_owned_fd();
        drop(taken);
        setrlimit(Resource::Nofile, before).unwrap();
        let error = error.unwrap_err();
        assert_eq!(error.errno(), Some(24), "{error:?}");
    });
}
