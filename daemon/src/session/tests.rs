//! What a session gives up and remembers, within its limits.

use std::net::Ipv4Addr;

use sockbroker_proto::address::Address;

use super::*;
use crate::quota::{Quota, Users};
use sockbroker_policy::rights::Restriction;
use sockbroker_policy::subject::Subject;

fn principal() -> Principal {
    Principal::Local(Subject::new(7, 7))
}

#[test]
fn a_session_gives_rights_up_no_more_often_than_its_limit() {
    let limits = Limits { restrictions: 2, ..Limits::default() };
    let session = Session::new(1, &principal(), &limits);
    session.restrict(nothing(), memory(&user(), 1)).unwrap();
    session.restrict(nothing(), memory(&user(), 1)).unwrap();
    let refused = session.restrict(nothing(), memory(&user(), 1)).unwrap_err();
    assert!(matches!(refused, OpError::Limit { name: "restrictions", value: 2 }), "{refused:?}");
    assert_eq!(session.restricted(), 2);
}

#[test]
fn a_clone_has_given_up_as_much() {
    let session = Session::new(1, &principal(), &Limits::default());
    session.restrict(nothing(), memory(&user(), 1)).unwrap();
    assert_eq!(session.duplicate(2, &Limits::default()).unwrap().restricted(), 1);
}

#[test]
fn memory_of_a_restriction_counts_once_until_the_last_session_that_has_it_ends() {
    let (user, limits) = (user(), Limits::default());
    let session = Session::new(1, &principal(), &limits);
    session.restrict(nothing(), memory(&user, 100)).unwrap();
    let clone = session.duplicate(2, &limits).unwrap();
    assert_eq!(user.used(Share::Restrictions), 100);
    drop(session);
    assert_eq!(user.used(Share::Restrictions), 100);
    drop(clone);
    assert_eq!(user.used(Share::Restrictions), 0);
}

fn nothing() -> Restriction {
    Restriction { filters: Vec::new(), rules: Vec::new() }
}

fn user() -> Arc<User> {
    Users::new(Arc::new(Quota::new(&Limits::default()))).user(&principal().key())
}

fn memory(user: &Arc<User>, bytes: u64) -> Reservation {
    user.take(Share::Restrictions, bytes).unwrap()
}

#[test]
fn a_session_remembers_look_ups_up_to_its_limit() {
    let limits = Limits { lookups_kept: 1, ..Limits::default() };
    let session = Session::new(1, &principal(), &limits);
    let address = |last| Address::Inet { host: Ipv4Addr::new(10, 0, 0, last), port: 0 };
    session.looked_up("a.example", [address(1)]);
    session.looked_up("b.example", [address(2)]);
    assert_eq!(session.lookup_age(&address(1)), None);
    assert!(session.lookup_age(&address(2)).is_some());
}
