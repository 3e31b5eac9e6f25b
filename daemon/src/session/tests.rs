//! Restrictions, look-ups and streams of a session, within their limits.

use std::future::pending;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use sockbroker_policy::Policy;
use sockbroker_policy::file::read;
use sockbroker_policy::namespace::{Namespace, Other};
use sockbroker_policy::rights::Rights;
use sockbroker_policy::subject::Subject;
use sockbroker_policy::verb::Verb;
use sockbroker_proto::address::Address;
use sockbroker_proto::api::session::Persistence as Reach;
use sockbroker_proto::handle::Handle;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::lot::Lot;

use crate::config::limits::Limits;
use crate::config::policy::Accounts;
use crate::error::OpError;
use crate::principal::Principal;
use crate::quota::{Quota, Share, User, Users};
use crate::session::Session;
use crate::session::broker::Broker;
use crate::session::lots::{Key, Lots};
use crate::session::monitor_link::MonitorLink;
use crate::session::policy::NextPolicy;
use crate::session::record::{SessionState, decode};
use crate::session::restriction::{RestrictionText, SessionRestriction};
use crate::table::entry::Entry;
use crate::table::generation;
use crate::table::timeout::Timeout;
use sockbroker_policy::question::Question;

fn principal() -> Principal {
    Principal::Local(Subject::new(7, 7))
}

fn session(limits: &Limits) -> Session {
    Session::new(1, &principal(), limits)
}

fn user() -> Arc<User> {
    Users::new(Arc::new(Quota::new(&Limits::default()))).user(&principal().key())
}

fn restriction(user: &Arc<User>) -> SessionRestriction {
    let text = RestrictionText { rules: vec!["a".to_owned()], filters: Vec::new() };
    SessionRestriction::new(text, user).unwrap()
}

#[test]
fn restrictions_beyond_the_limit_are_refused() {
    let session = session(&Limits { restrictions: 2, ..Limits::default() });
    session.restrict(restriction(&user())).unwrap();
    session.restrict(restriction(&user())).unwrap();
    let refused = session.restrict(restriction(&user())).unwrap_err();
    assert!(matches!(refused, OpError::Limit { name: "restrictions", value: 2 }), "{refused:?}");
    assert_eq!(session.restricted(), 2);
}

#[test]
fn a_clone_keeps_the_restrictions() {
    let session = session(&Limits::default());
    session.restrict(restriction(&user())).unwrap();
    assert_eq!(session.duplicate(2, &Limits::default()).unwrap().restricted(), 1);
}

#[test]
fn memory_of_a_restriction_counts_once_until_the_last_session_that_shares_it_ends() {
    let (user, limits) = (user(), Limits::default());
    let session = session(&limits);
    session.restrict(restriction(&user)).unwrap();
    let used = user.used(Share::Restrictions);
    assert!(used > 0);
    let clone = session.duplicate(2, &limits).unwrap();
    assert_eq!(user.used(Share::Restrictions), used);
    drop(session);
    assert_eq!(user.used(Share::Restrictions), used);
    drop(clone);
    assert_eq!(user.used(Share::Restrictions), 0);
}

#[test]
fn look_ups_beyond_the_limit_replace_the_oldest() {
    let session = session(&Limits { lookups_kept: 1, ..Limits::default() });
    let address = |last| Address::Inet { host: Ipv4Addr::new(10, 0, 0, last), port: 0 };
    session.lookups.record(&Namespace::Broker, "a.example", [address(1)]);
    session.lookups.record(&Namespace::Broker, "b.example", [address(2)]);
    assert_eq!(session.lookups.age(&Namespace::Broker, &address(1)), None);
    assert!(session.lookups.age(&Namespace::Broker, &address(2)).is_some());
}

const RAW: SocketSpec = SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_RAW, protocol: 1 };

/// A stream of the only kind that there is so far: its task holds something and waits for ever. Granted to
/// those who may make a raw socket.
fn start(session: &Session, user: &Arc<User>, held: &Arc<()>) -> Handle {
    let held = held.clone();
    let task = async move {
        pending::<()>().await;
        drop(held);
    };
    let granted = |rights: &Rights| rights.decide(&Question::about(Verb::Create, RAW)).is_ok();
    let handle = session.reserve_handle(user).unwrap();
    session.start_stream("test stream", handle, Box::new(granted), None, task).unwrap()
}

/// Whether nothing is left of streams: no task, no part of the user's handles, nothing that a task held.
fn is_clean(session: &Session, user: &User, held: &Arc<()>) -> bool {
    let counts = (session.tasks().running(), user.used(Share::Handles), Arc::strong_count(held));
    counts == (0, 0, 1)
}

#[tokio::test]
async fn closing_its_handle_ends_a_stream() {
    let (session, user, held) = (session(&Limits::default()), user(), Arc::new(()));
    let handle = start(&session, &user, &held);
    tokio::task::yield_now().await;
    assert!(!session.stream(handle).unwrap().is_ended());
    assert_eq!((session.handles(), user.used(Share::Handles)), (1, 1));
    drop(session.remove(handle).unwrap());
    assert!(matches!(session.stream(handle), Err(OpError::Handle(_))));
    session.tasks_ended().await;
    assert!(is_clean(&session, &user, &held));
}

#[tokio::test]
async fn a_stream_that_is_closed_before_its_task_runs_leaves_nothing() {
    let (session, user, held) = (session(&Limits::default()), user(), Arc::new(()));
    drop(session.remove(start(&session, &user, &held)).unwrap());
    session.tasks_ended().await;
    assert!(is_clean(&session, &user, &held));
}

fn policy(rules: &str) -> Policy {
    let text = format!("version = 1\nrevoke_on_reload = true\n{rules}");
    let content = read("p", &text, &Accounts).unwrap();
    Policy::new(1, content.rules.into_iter().map(|(rule, _)| rule).collect(), content.revokes)
}

const GRANT: &str = "[[rule]]\nname = \"raw\"\nallow = [\"create\"]\nsubject = { uids = [7] }\n";

#[tokio::test]
async fn a_reload_of_the_policy_ends_streams_that_it_does_not_grant() {
    let broker = Broker::new(policy(GRANT), Limits::default());
    let (sender, loaded) = std::sync::mpsc::channel();
    let loaded = Mutex::new(loaded);
    let broker = Arc::new(broker.reloading(
        NextPolicy::Loader(Box::new(move || Ok(loaded.lock().unwrap().recv().unwrap()))),
        1,
    ));
    let (user, held) = (broker.users.user(&principal().key()), Arc::new(()));
    let session = broker.begin(&principal());
    let handle = start(&session, &user, &held);
    sender.send(policy(GRANT)).unwrap();
    broker.reload().await.unwrap();
    tokio::task::yield_now().await;
    assert!(!session.stream(handle).unwrap().is_ended());
    sender.send(policy("")).unwrap();
    broker.reload().await.unwrap();
    assert!(matches!(session.stream(handle), Err(OpError::Handle(_))));
    session.tasks_ended().await;
    assert!(is_clean(&session, &user, &held));
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_streams_and_the_broker_waits_for_them() {
    let broker = Broker::new(policy(GRANT), Limits::default());
    let (user, held) = (broker.users.user(&principal().key()), Arc::new(()));
    let [closed, left] = [broker.begin(&principal()), broker.begin(&principal())];
    for session in [&closed, &left] {
        start(session, &user, &held);
    }
    tokio::task::yield_now().await;
    broker.close(&closed);
    let room = closed.reserve_handle(&user).unwrap();
    let refused = closed.start_stream("test stream", room, Box::new(|_| true), None, async {});
    assert!(matches!(refused, Err(OpError::Session(_))), "{refused:?}");
    assert_eq!((left.handles(), user.used(Share::Handles)), (1, 2 + 1), "until the tasks end");
    broker.close_all().await;
    assert!(is_clean(&closed, &user, &held) && is_clean(&left, &user, &held));
}

#[tokio::test]
async fn a_panic_ends_one_task_and_its_handle_stays_until_it_is_closed() {
    let (session, user, held) = (session(&Limits::default()), user(), Arc::new(()));
    let other = start(&session, &user, &held);
    let room = session.reserve_handle(&user).unwrap();
    let failing = async { panic!("a mistake in a task") };
    let handle =
        session.start_stream("test stream", room, Box::new(|_| true), None, failing).unwrap();
    while session.tasks().running() > 1 {
        tokio::task::yield_now().await;
    }
    assert!(session.stream(handle).unwrap().is_ended());
    assert!(!session.stream(other).unwrap().is_ended());
    assert_eq!(user.used(Share::Handles), 2);
    session.close();
    session.tasks_ended().await;
    assert!(is_clean(&session, &user, &held));
}

#[tokio::test]
async fn streams_count_as_handles_of_the_session_and_of_the_user() {
    let session = session(&Limits { handles: 1, ..Limits::default() });
    let (user, held) = (user(), Arc::new(()));
    start(&session, &user, &held);
    let refused = session.reserve_handle(&user).unwrap_err();
    assert!(matches!(refused, OpError::Limit { name: "handles", value: 1 }), "{refused:?}");
    let few = Limits { handles_per_user: 1, ..Limits::default() };
    let user = Users::new(Arc::new(Quota::new(&few))).user(&principal().key());
    let session = self::session(&Limits::default());
    start(&session, &user, &held);
    let refused = session.reserve_handle(&user).unwrap_err();
    assert!(matches!(refused, OpError::Limit { name: "handles_per_user", .. }), "{refused:?}");
}

#[tokio::test]
async fn a_handle_of_the_wrong_kind_is_an_error_that_names_both() {
    let (session, user, held) = (session(&Limits::default()), user(), Arc::new(()));
    let stream = start(&session, &user, &held);
    let descriptor = sockbroker_sys::socket::create(libc::AF_UNIX, libc::SOCK_STREAM, 0).unwrap();
    let spec = SocketSpec { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };
    let room = session.reserve_handle(&user).unwrap();
    let entry = Entry::new(descriptor, spec, Timeout::Blocking, room).unwrap();
    let socket = session.insert(Arc::new(entry)).unwrap();
    let error = session.entry(stream).unwrap_err();
    let OpError::HandleKind { handle, kind: "test stream", wanted: "socket" } = error else {
        panic!("{error:?}");
    };
    assert_eq!(handle, stream);
    let error = session.stream(socket).unwrap_err();
    assert!(matches!(error, OpError::HandleKind { kind: "socket", wanted: "stream", .. }));
    assert_eq!(session.entries().len(), 1, "sockets alone");
}

#[tokio::test]
async fn a_clone_has_the_sockets_and_not_the_streams() {
    let (session, user, held) = (session(&Limits::default()), user(), Arc::new(()));
    let stream = start(&session, &user, &held);
    let clone = session.duplicate(2, &Limits::default()).unwrap();
    assert!(matches!(clone.stream(stream), Err(OpError::Handle(_))));
    assert_eq!((clone.handles(), session.handles(), user.used(Share::Handles)), (0, 1, 1));
    assert_ne!(start(&clone, &user, &held), stream, "a void handle is not given out again");
}

/// Makes a session persistent in lots of its own, and returns copies of these for a next process.
fn park(session: &Session) -> [OwnedFd; 2] {
    let lots = Lots::default();
    let ends = Lot::create().unwrap().into_ends();
    let copies = [ends[0].try_clone().unwrap(), ends[1].try_clone().unwrap()];
    let [read, write] = ends;
    lots.add(Lot::of_ends(read, write).unwrap());
    lots.allow(2);
    let (monitor, _requests) = MonitorLink::new(None);
    let generation = session.table().numbers().generation;
    session.stay_parked((Arc::new(lots), Reach::Worker), monitor, generation);
    copies
}

/// The first generation that the next process gives, and the handles that it finds.
fn found([read, write]: &[OwnedFd; 2]) -> (u64, usize) {
    let next = Lots::default();
    next.add(Lot::of_ends(read.try_clone().unwrap(), write.try_clone().unwrap()).unwrap());
    let mut found = next.recover().unwrap().found;
    let state = found.remove(&Key { session: 1, handle: 0 });
    let state = state.map(|state| decode::<SessionState>(&state.body).unwrap().generation);
    (state.unwrap_or_default(), found.len())
}

#[tokio::test]
async fn number_of_a_stream_is_not_given_again_by_the_next_process() {
    let (session, user, held) = (session(&Limits::default()), user(), Arc::new(()));
    let lots = park(&session);
    let stream = start(&session, &user, &held);
    let (next, handles) = found(&lots);
    assert!(next > generation(stream), "{next}");
    assert_eq!(handles, 0);
}

fn udp(session: &Session, user: &Arc<User>) -> Entry {
    let room = session.reserve_handle(user).unwrap();
    let spec = SocketSpec { domain: libc::AF_INET, ty: libc::SOCK_DGRAM, protocol: 0 };
    let descriptor = sockbroker_sys::socket::create(spec.domain, spec.ty, 0).unwrap();
    Entry::new(descriptor, spec, Timeout::Blocking, room).unwrap()
}

#[tokio::test]
async fn sockets_of_another_network_namespace_do_not_outlive_the_process() {
    let (session, user) = (session(&Limits::default()), user());
    let lots = park(&session);
    let other = Namespace::Other(Other { is_callers: true, is_owned: false, name: None });
    let elsewhere = udp(&session, &user).of_namespace(other);
    let elsewhere = session.insert(Arc::new(elsewhere)).unwrap();
    session.save(elsewhere).unwrap();
    assert_eq!(found(&lots).1, 0);
    session.insert(Arc::new(udp(&session, &user))).unwrap();
    assert_eq!(found(&lots).1, 1);
    session.remove(elsewhere).unwrap();
}

#[tokio::test]
async fn no_handle_is_reserved_that_cannot_be_parked() {
    let (session, user) = (session(&Limits::default()), user());
    park(&session);
    // One place is the session's own.
    let first = session.insert(Arc::new(udp(&session, &user))).unwrap();
    let refused = session.reserve_handle(&user).unwrap_err();
    let OpError::Limit { name: "persistent_handles_per_user", value: 2 } = refused else {
        panic!("{refused:?}");
    };
    session.remove(first).unwrap();
    assert!(session.reserve_handle(&user).is_ok());
}
