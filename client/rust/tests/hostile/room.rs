//! A client that may open no more files.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use sockbroker_client::{Ancillary, Domain, Flags, Protocol, Type, blocking};
use sockbroker_test_support::bounded;

use crate::alone;
use crate::fake::{Fake, Peer};

/// Takes every number that this process may give to a file, but for a few.
fn exhaust(free: usize) -> (Vec<OwnedFd>, Rlimit) {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: before.maximum }).unwrap();
    let mut taken: Vec<OwnedFd> =
        std::iter::from_fn(|| File::open("/dev/null").ok().map(OwnedFd::from)).collect();
    taken.truncate(taken.len() - free);
    (taken, before)
}

#[test]
fn descriptors_without_room_shorten_one_message_and_no_other() {
    let _alone = alone();
    bounded(30, || {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let fake = Fake::start(move |peer| {
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
        let cut = socket.recv_msg(9, 100, Flags::NONE);
        drop(taken);
        setrlimit(Resource::Nofile, before).unwrap();
        let cut = cut.unwrap();
        let [Ancillary::Descriptors(own)] = cut.ancillary.as_slice() else {
            panic!("{:?}", cut.ancillary)
        };
        assert_eq!((own.len(), cut.data.as_slice()), (2, &b"hi"[..]));
        assert!(cut.flags.contains(Flags::CTRUNC));
        let whole = socket.recv_msg(9, 100, Flags::NONE).unwrap();
        let [Ancillary::Descriptors(own)] = whole.ancillary.as_slice() else {
            panic!("{:?}", whole.ancillary)
        };
        assert_eq!((own.len(), whole.flags.contains(Flags::CTRUNC)), (3, false));
        let (taken, before) = exhaust(0);
        let error = socket.into_owned_fd();
        drop(taken);
        setrlimit(Resource::Nofile, before).unwrap();
        let error = error.unwrap_err();
        assert_eq!(error.errno(), Some(24), "{error:?}");
    });
}
