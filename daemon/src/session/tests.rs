//! What a session gives up and remembers, within its limits.

use std::net::Ipv4Addr;

use sockbroker_proto::address::Address;

use super::*;

#[test]
fn a_session_gives_rights_up_no_more_often_than_its_limit() {
    let limits = Limits { restrictions: 2, ..Limits::default() };
    let session = Session::new(1, &Subject::new(7, 7), &limits);
    let nothing = || Restriction { filters: Vec::new(), rules: Vec::new() };
    session.restrict(nothing()).unwrap();
    session.restrict(nothing()).unwrap();
    let refused = session.restrict(nothing()).unwrap_err();
    assert!(matches!(refused, OpError::Limit { name: "restrictions", value: 2 }), "{refused:?}");
    assert_eq!(session.restricted(), 2);
}

#[test]
fn a_clone_has_given_up_as_much() {
    let session = Session::new(1, &Subject::new(7, 7), &Limits::default());
    session.restrict(Restriction { filters: Vec::new(), rules: Vec::new() }).unwrap();
    assert_eq!(session.duplicate(2, &Limits::default()).unwrap().restricted(), 1);
}

#[test]
fn a_session_remembers_look_ups_up_to_its_limit() {
    let limits = Limits { lookups_kept: 1, ..Limits::default() };
    let session = Session::new(1, &Subject::new(7, 7), &limits);
    let address = |last| Address::Inet { host: Ipv4Addr::new(10, 0, 0, last), port: 0 };
    session.looked_up("a.example", [address(1)]);
    session.looked_up("b.example", [address(2)]);
    assert_eq!(session.lookup_age(&address(1)), None);
    assert!(session.lookup_age(&address(2)).is_some());
}
