//! Records of sessions that opened, changed and closed sockets: written, read and restored.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::principal::Principal;
use crate::quota::Share;
use crate::session::record::*;
use crate::session::restriction::RestrictionText;
use crate::table::Numbers;
use crate::table::ends::Bound;
use crate::table::ends::Choices;
use crate::table::timeout::Timeout;
use sockbroker_policy::Policy;
use sockbroker_policy::action::Inspect;
use sockbroker_policy::subject::Subject;
use sockbroker_policy::target::SocketName;
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::socket;
use std::time::Duration;

use crate::quota::{Quota, Users};
use crate::table::permitted::Permitted;

const STREAM: SocketSpec = SocketSpec { domain: libc::AF_UNIX, ty: libc::SOCK_STREAM, protocol: 0 };

/// What a client does to its session.
#[derive(Debug, Clone)]
enum Step {
    Open(Timeout),
    Duplicate(usize),
    Close(usize),
    Change(usize, bool, Choices),
    Restrict(String),
    Default(Timeout),
    Token(Duration),
}

fn timeouts() -> impl Strategy<Value = Timeout> {
    prop_oneof![
        Just(Timeout::Blocking),
        Just(Timeout::NonBlocking),
        (1..u64::MAX / 2).prop_map(|nanoseconds| Timeout::After(Duration::from_nanos(nanoseconds))),
    ]
}

fn choices() -> impl Strategy<Value = Choices> {
    let source = proptest::option::of(any::<u32>().prop_map(Ipv4Addr::from));
    (any::<u32>(), any::<u32>(), source).prop_map(|(packet, multicast, source)| Choices {
        packet_interface: packet,
        multicast_interface: multicast,
        multicast_source: source,
        packet_source: source.map(|source| source.to_ipv6_mapped()),
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => timeouts().prop_map(Step::Open),
        1 => any::<usize>().prop_map(Step::Duplicate),
        3 => any::<usize>().prop_map(Step::Close),
        2 => (any::<usize>(), any::<bool>(), choices())
            .prop_map(|(namespace, inheritable, choices)| Step::Change(namespace, inheritable, choices)),
        1 => "[a-z\"\\\\é ]{1,9}".prop_map(Step::Restrict),
        1 => timeouts().prop_map(Step::Default),
        1 => (0..1u64 << 40).prop_map(|nanoseconds| Step::Token(Duration::from_nanos(nanoseconds))),
    ];
    proptest::collection::vec(step, 0..40)
}

struct Fixture {
    limits: Limits,
    user: Arc<User>,
    claims: Claims,
    session: Session,
    /// Every handle that was given out, and those that are still open.
    given: BTreeSet<Handle>,
    open: Vec<Handle>,
}

/// The socket with a permit to inspect it, of root.
fn inspected(entry: &Arc<Entry>) -> Permitted<Inspect> {
    let policy = Policy::built_in(0);
    let rights = policy.select(&Subject::new(0, 0), Vec::new());
    Permitted::authorize(entry, &rights, |socket| Inspect { socket }).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let subject = Subject::new(7, 8).in_groups(vec![9]);
        let principal = Principal::Local(subject.in_cgroup(Some("/x.slice/a.service".to_owned())));
        let limits = Limits::default();
        let user = user(&limits, &principal);
        let session = Session::new(3, &principal, &limits);
        let (given, open) = (BTreeSet::new(), Vec::new());
        Self { limits, user, claims: Claims::default(), session, given, open }
    }

    fn insert(&mut self, entry: Entry) {
        let handle = self.session.insert(Arc::new(entry)).unwrap();
        assert!(self.given.insert(handle), "{handle} was given out before");
        self.open.push(handle);
    }

    fn some_open(&self, namespace: usize) -> Option<Handle> {
        self.open.get(namespace.checked_rem(self.open.len())?).copied()
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Open(timeout) => {
                let descriptor = socket::create(STREAM.domain, STREAM.ty, 0).unwrap();
                let room = self.session.reserve_handle(&self.user).unwrap();
                self.insert(Entry::new(descriptor, STREAM, timeout, room).unwrap());
            }
            Step::Duplicate(namespace) => {
                let Some(handle) = self.some_open(namespace) else { return };
                let entry = self.session.entry(handle).unwrap();
                self.insert(
                    inspected(&entry)
                        .duplicate(self.session.reserve_handle(&self.user).unwrap())
                        .unwrap(),
                );
            }
            Step::Close(namespace) => {
                let Some(handle) = self.some_open(namespace) else { return };
                drop(self.session.remove(handle).unwrap());
                self.open.retain(|open| *open != handle);
            }
            Step::Change(namespace, inheritable, choices) => {
                let Some(handle) = self.some_open(namespace) else { return };
                let entry = self.session.entry(handle).unwrap();
                entry.set_inheritable(inheritable);
                entry.ends.known().choices = choices;
                entry.ends.known().peer = Some(SocketName::Unknown);
            }
            Step::Restrict(rule) => {
                let filters = vec![r#"{"allow":["create"]}"#.to_owned()];
                let text = RestrictionText { rules: vec![rule], filters };
                let restriction = SessionRestriction::new(text, &self.user).unwrap();
                // There may be as many as the limit allows.
                drop(self.session.restrict(restriction));
            }
            Step::Default(timeout) => self.session.default_timeout.set(timeout),
            Step::Token(linger) => drop(self.session.open(Some(linger)).unwrap()),
        }
    }

    fn descriptors(&self) -> HashMap<u64, OwnedFd> {
        let copy = |(handle, entry): (Handle, Arc<Entry>)| {
            (handle.number(), inspected(&entry).socket().fd().try_clone_to_owned().unwrap())
        };
        self.session.entries().into_iter().map(copy).collect()
    }

    fn restore(&self, record: SessionRecord) -> Result<Session, RecordError> {
        let Self { limits, user, claims, .. } = self;
        Session::restore(
            record,
            self.descriptors(),
            BTreeMap::new(),
            Restored { limits, user, claims },
        )
    }
}

fn user(limits: &Limits, principal: &Principal) -> Arc<User> {
    Users::new(Arc::new(Quota::new(limits))).user(&principal.key())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_restored_session_has_the_same_record_and_gives_out_no_handle_again(steps in steps()) {
        let mut fixture = Fixture::new();
        for step in steps {
            fixture.take(step);
        }
        let record = fixture.session.record();
        let bytes = record.to_bytes().unwrap();
        let read = SessionRecord::from_bytes(&bytes).unwrap();
        prop_assert_eq!(&read, &record);
        let restored = fixture.restore(read).unwrap();
        prop_assert_eq!(restored.record(), record);
        prop_assert_eq!(restored.restricted(), fixture.session.restricted());
        prop_assert_eq!(restored.is_open(), fixture.session.is_open());
        for handle in &fixture.given {
            let is_open = fixture.open.contains(handle);
            prop_assert_eq!(restored.entry(*handle).is_ok(), is_open, "{}", handle);
        }
        for _ in 0..fixture.given.len() + 2 {
            let descriptor = socket::create(STREAM.domain, STREAM.ty, 0).unwrap();
            let room = restored.reserve_handle(&fixture.user).unwrap();
            let entry = Entry::new(descriptor, STREAM, Timeout::Blocking, room).unwrap();
            let handle = restored.insert(Arc::new(entry)).unwrap();
            prop_assert!(fixture.given.insert(handle), "{} was given out before", handle);
        }
    }
}

#[test]
fn the_token_of_a_restored_session_is_accepted_and_no_other() {
    let fixture = Fixture::new();
    let token = fixture.session.open(None).unwrap();
    let bytes = fixture.session.record().to_bytes().unwrap();
    let secret = token.text();
    let secret = secret.split_once('.').unwrap().1;
    assert!(!String::from_utf8_lossy(&bytes).contains(secret), "the record has no secret");
    let restored = fixture.restore(SessionRecord::from_bytes(&bytes).unwrap()).unwrap();
    let other = crate::session::token::Token::new(restored.number()).unwrap();
    assert!(!restored.accepts(&other) && restored.token().is_none());
    assert!(restored.accepts(&token));
    assert!(restored.open(None).unwrap().matches(&token), "the same token each time");
}

#[test]
fn duplicates_share_what_options_chose_and_quotas_count_beyond_their_limits() {
    let mut fixture = Fixture::new();
    fixture.take(Step::Open(Timeout::Blocking));
    fixture.take(Step::Duplicate(0));
    let record = fixture.session.record();
    let (original, duplicate) = (fixture.open[0], fixture.open[1]);
    assert_eq!(record.sockets[&duplicate.number()].duplicate_of, Some(original.number()));
    let none = Limits { handles_per_user: 0, ..Limits::default() };
    let user = user(&none, fixture.session.principal());
    let (limits, claims) = (&none, &fixture.claims);
    let restored = Restored { limits, user: &user, claims };
    let restored =
        Session::restore(record, fixture.descriptors(), BTreeMap::new(), restored).unwrap();
    assert_eq!(user.used(Share::Handles), 2);
    let [original, duplicate] = [original, duplicate].map(|one| restored.entry(one).unwrap());
    original.ends.known().choices.packet_interface = 5;
    assert_eq!(duplicate.ends.known().choices.packet_interface, 5);
    assert!(socket::is_nonblocking(inspected(&original).socket().fd()).is_ok_and(|set| !set));
}

#[test]
fn a_socket_without_its_descriptor_is_closed() {
    let mut fixture = Fixture::new();
    fixture.take(Step::Open(Timeout::Blocking));
    fixture.take(Step::Open(Timeout::Blocking));
    let record = fixture.session.record();
    let mut descriptors = fixture.descriptors();
    descriptors.remove(&fixture.open[0].number());
    let (limits, user, claims) = (&fixture.limits, &fixture.user, &fixture.claims);
    let restored =
        Session::restore(record, descriptors, BTreeMap::new(), Restored { limits, user, claims })
            .unwrap();
    assert!(matches!(restored.entry(fixture.open[0]), Err(OpError::Handle(_))));
    assert!(restored.entry(fixture.open[1]).is_ok());
    assert_eq!(restored.handles(), 1);
    let descriptor = socket::create(STREAM.domain, STREAM.ty, 0).unwrap();
    let room = restored.reserve_handle(user).unwrap();
    let entry = Entry::new(descriptor, STREAM, Timeout::Blocking, room).unwrap();
    assert_ne!(restored.insert(Arc::new(entry)).unwrap(), fixture.open[0]);
}

#[test]
fn what_no_rule_can_judge_any_more_stays_unknown() {
    let mut fixture = Fixture::new();
    fixture.take(Step::Open(Timeout::Blocking));
    let handle = fixture.open[0];
    fixture.session.entry(handle).unwrap().ends.known().bound = Some(Bound::Elsewhere);
    let restored = fixture.restore(fixture.session.record()).unwrap();
    let entry = restored.entry(handle).unwrap();
    let known = entry.ends.known();
    assert!(matches!(known.bound, Some(Bound::Elsewhere)));
    assert!(matches!(known.peer, Some(SocketName::Unknown)));
}

#[test]
fn records_of_a_newer_broker_are_refused_by_version() {
    for bytes in [&br#"{"version":2,"session":{"new":1}}"#[..], br#"{"other":[],"version":2}"#] {
        let error = SessionRecord::from_bytes(bytes).unwrap_err();
        assert!(matches!(error, RecordError::Newer { found: 2 }));
        let text = "the session record has version 2, and this broker reads up to version 1";
        assert_eq!(error.to_string(), text);
    }
}

#[test]
fn damaged_records_are_refused() {
    let mut fixture = Fixture::new();
    fixture.take(Step::Open(Timeout::Blocking));
    let record = fixture.session.record();
    let whole = record.to_bytes().unwrap();
    for bytes in [&b""[..], b"{}", br#"{"version":1,"session":{}}"#, &whole[..whole.len() - 1]] {
        let error = SessionRecord::from_bytes(bytes).unwrap_err();
        assert!(matches!(error, RecordError::Malformed(_)), "{error}");
    }
    let handle = fixture.open[0].number();
    let damaged = [
        SessionRecord { numbers: Numbers { slots: 0, ..record.numbers }, ..record.clone() },
        SessionRecord { numbers: Numbers { generation: 0, ..record.numbers }, ..record.clone() },
    ];
    for record in damaged {
        let error = fixture.restore(record).unwrap_err();
        assert!(matches!(error, RecordError::Handle(found) if found == handle), "{error}");
    }
    let restrictions =
        vec![RestrictionText { rules: Vec::new(), filters: vec!["{\"allow\":[]}".to_owned()] }];
    let error = fixture.restore(SessionRecord { restrictions, ..record }).unwrap_err();
    assert!(matches!(error, RecordError::Restriction(_)), "{error}");
}
