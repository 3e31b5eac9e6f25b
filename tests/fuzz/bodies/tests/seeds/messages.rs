//! Messages between the processes of the broker.

use std::time::Duration;

use sockbroker_fuzz_bodies::messages::seed;
use sockbroker_monitor::caller::message::{
    Bytes, ControlItem, Data, Destination, Examined, FromCaller, Outgoing, ToCaller, UnixAnswer,
    UnixCall,
};
use sockbroker_monitor::capture::{Counts, Ended, InterfaceFacts, Live, Opened, Order, Reason};
use sockbroker_monitor::claim::Claim;
use sockbroker_monitor::message::gateway::{FromGateway, ToGateway};
use sockbroker_monitor::message::{
    Beginning, Caller, CallerRefusal, Description, FromKept, FromOpener, FromPolicyReader,
    FromReaper, MemoryLimit, PersistRefusal, Persisted, Query, SessionLimit, ToKept, ToMonitor,
    ToOpener, ToReaper, ToWorker,
};
use sockbroker_monitor::reader::message::{ReaderAnswer, ReaderOrder, ReaderReport, ToReader};
use sockbroker_monitor::request::{
    Answer, InterfaceQuery, OpenerRequest, Request, SelectedNamespace, Unreachable,
};
use sockbroker_policy::subject::RemoteIdentity;

use crate::Seed;
use crate::opener::{inet, mark, marked, order};

const NUMBER: u64 = 3;
const REQUEST: u64 = 300;

pub(crate) fn of_workers() -> Vec<Seed> {
    let beginning = Beginning {
        generation: 1,
        first_number: 1 << 20,
        epoch: 5,
        activated: true,
        id: Some(2_000_000_000),
        caller: Caller::Other,
        remote: None,
    };
    let description = Description(vec![7; 9]);
    let claim = Claim::Port { protocol: 6, address: Some([127, 0, 0, 1].into()), port: 80 };
    let (number, request) = (NUMBER, REQUEST);
    let refused = ToKept::Persisted { request, result: Err(PersistRefusal::Handles) };
    vec![
        ("worker-begin", seed(0, &ToWorker::Begin(beginning.clone()))),
        ("worker-begin-with-opener", seed(0, &ToWorker::BeginWithOpener(beginning, description))),
        ("worker-connection", seed(0, &ToWorker::Connection { number })),
        ("worker-reloaded", seed(0, &ToWorker::Reloaded { request, result: Ok(2) })),
        (
            "worker-not-reloaded",
            seed(0, &ToWorker::Reloaded { request, result: Err("line 3".to_owned()) }),
        ),
        ("worker-query", seed(0, &ToWorker::Query { number, query: Query::Handles(9) })),
        ("worker-query-end", seed(0, &ToWorker::QueryEnd { request, missing: None })),
        (
            "worker-not-leased",
            seed(0, &ToWorker::Leased { request, sessions: Err(SessionLimit::OfUser) }),
        ),
        (
            "worker-caller-refused",
            seed(0, &ToWorker::CallerRefused { request, refusal: CallerRefusal::Failed(11) }),
        ),
        (
            "worker-recover",
            seed(0, &ToWorker::Kept(ToKept::Recover(Persisted { handles: 4096, service: true }))),
        ),
        ("worker-not-persisted", seed(0, &ToWorker::Kept(refused))),
        (
            "monitor-persist",
            seed(
                1,
                &ToMonitor::Kept(FromKept::Persist {
                    request,
                    session: 9,
                    linger: Duration::from_secs(5),
                }),
            ),
        ),
        ("monitor-received", seed(1, &ToMonitor::Received { number })),
        ("monitor-query-result", seed(1, &ToMonitor::QueryResult { number })),
        (
            "worker-no-memory",
            seed(0, &ToWorker::MemoryLeased { request, leased: Err(MemoryLimit::InAll) }),
        ),
        ("monitor-lease-memory", seed(1, &ToMonitor::LeaseMemory { request, bytes: 4096 })),
        ("monitor-lease", seed(1, &ToMonitor::Lease { request, sessions: 16 })),
        ("monitor-claim", seed(1, &ToMonitor::Claim { request, claim })),
        ("monitor-counters", seed(1, &ToMonitor::Counters)),
        ("monitor-idle", seed(1, &ToMonitor::Idle { taken: u64::MAX })),
    ]
}

/// A request about a socket of a network namespace with a name.
fn all() -> Request {
    Request::Interfaces { query: InterfaceQuery::All }
}

fn within(request: Request) -> OpenerRequest {
    OpenerRequest { network: SelectedNamespace::Named("lab1".to_owned()), request }
}

/// Also of the policy reader and of the reaper.
pub(crate) fn of_the_opener() -> Vec<Seed> {
    let description = Description(vec![7; 9]);
    vec![
        ("opener-begin", seed(2, &ToOpener::Begin { generation: 1 })),
        ("opener-worker", seed(2, &ToOpener::Worker { worker: 16 })),
        ("opener-accepted", seed(2, &ToOpener::Accepted { worker: 16, cookie: 4711 })),
        ("from-opener-ready", seed(3, &FromOpener::Ready(description))),
        ("from-opener-nonsense", seed(3, &FromOpener::Nonsense { worker: 16 })),
        (
            "from-reader-policy",
            seed(4, &FromPolicyReader::Policy { needs_opener: true, reaches_networks: true }),
        ),
        ("from-reader-unusable", seed(4, &FromPolicyReader::Unusable("p:1: no".to_owned()))),
        ("to-reaper-hold", seed(5, &ToReaper::Hold)),
        ("from-reaper-full", seed(6, &FromReaper::Full)),
        ("request-bind", seed(8, &OpenerRequest::from(Request::Bind { address: inet(80) }))),
        (
            "request-interfaces",
            seed(8, &OpenerRequest { network: SelectedNamespace::Passed, request: all() }),
        ),
        (
            "request-option",
            seed(8, &OpenerRequest { network: SelectedNamespace::Caller, request: mark() }),
        ),
        ("request-send", seed(8, &within(marked(Some(10))))),
        ("answer-unreachable", seed(9, &Answer::Unreachable(Unreachable::Failed(1)))),
        ("answer-interfaces", seed(9, &Answer::Interfaces(vec![(1, "lo".to_owned())]))),
        ("answer-sent", seed(9, &Answer::Sent(6))),
        ("answer-socket", seed(9, &Answer::Socket)),
        ("answer-made", seed(9, &Answer::Made)),
    ]
}

pub(crate) fn of_callers() -> Vec<Seed> {
    let send = |attached, destination| {
        let outgoing = Outgoing {
            destination,
            flags: libc::MSG_EOR,
            control: vec![
                ControlItem::Descriptors { count: 2, rest: vec![1] },
                ControlItem::Data { level: 1, kind: 2, data: vec![0; 12] },
            ],
            attached,
        };
        UnixCall::Send(outgoing, Data::Inside(Bytes(b"data".to_vec())))
    };
    let examined = Examined {
        file: (1, 2),
        names: vec![b"/run/a".to_vec()],
        possible: vec!["/run".to_owned()],
        visible: true,
    };
    let call = |call| ToCaller::Call { number: NUMBER, call };
    let answer = |answer| FromCaller::Answer { number: NUMBER, answer };
    vec![
        ("to-caller-begin", seed(10, &ToCaller::Begin { overrides_files: true })),
        ("to-caller-memory", seed(10, &ToCaller::Memory)),
        ("to-caller-attach", seed(10, &ToCaller::Attach { number: NUMBER, count: 250 })),
        ("to-caller-send", seed(10, &call(send(false, Destination::File)))),
        ("to-caller-send-attached", seed(10, &call(send(true, Destination::Peer)))),
        ("to-caller-large", seed(10, &ToCaller::Large { number: NUMBER, descriptors: 4 })),
        ("from-caller-made", seed(11, &FromCaller::Made { number: NUMBER, count: 2 })),
        ("from-caller-pair", seed(11, &answer(UnixAnswer::Pair))),
        ("from-caller-looked-up", seed(11, &answer(UnixAnswer::LookedUp(examined.clone())))),
        (
            "unix-call-bind-file",
            seed(
                12,
                &UnixCall::BindFile { name: b"a".to_vec(), written: Some(b"/run/a".to_vec()) },
            ),
        ),
        ("unix-call-send", seed(12, &send(false, Destination::Address(vec![1, 0, b'/'])))),
        ("unix-answer-examined", seed(13, &UnixAnswer::Examined(examined))),
    ]
}

pub(crate) fn of_readers() -> Vec<Seed> {
    let (capture, request) = (1, REQUEST);
    let opened = Opened {
        order: Order { program: Vec::new(), ..order(&["eth0"]) },
        indexes: vec![2],
        hardware: vec![1],
        longest: 64,
        bind_began: 1_700_000_000_000_000_000,
        started: 1_700_000_000_000_000_001,
    };
    let interface = InterfaceFacts { index: 2, name: "eth0".to_owned(), link_type: 1 };
    let live =
        Live { interfaces: vec![interface], bind_began: 1, started: 2, buffer_bytes: 1 << 20 };
    let counts = Counts { seen: 3, captured: 1, dropped: 1, unread: 1, bytes: 64 };
    let ended = Ended { reason: Reason::Limit, counts, complete: true };
    let program = vec![6, 0, 0, 0, 0, 0, 0, 0];
    vec![
        ("worker-reader", seed(0, &ToWorker::Reader { request })),
        ("monitor-start-reader", seed(1, &ToMonitor::StartReader { request })),
        ("opener-reader", seed(2, &ToOpener::Reader { worker: 16 })),
        ("to-reader-begin", seed(14, &ToReader::Begin { id: Some(2_000_000_000) })),
        ("to-reader-stop", seed(14, &ToReader::Stop { capture, linger: 20 })),
        ("to-reader-close", seed(14, &ToReader::Close { capture, reason: Reason::Policy })),
        ("reader-live", seed(15, &ReaderAnswer::Live { capture, live })),
        ("reader-counts", seed(15, &ReaderAnswer::Counts { request, counts: Some(counts) })),
        ("reader-ended", seed(15, &ReaderAnswer::Ended { capture, ended })),
        ("reader-kept", seed(15, &ReaderAnswer::Kept { request, result: Some(Ok(())) })),
        ("reader-resumed", seed(15, &ReaderAnswer::Resumed { capture, counts })),
        ("to-reader-keep", seed(14, &ToReader::Keep { request, capture })),
        ("reader-order-open", seed(16, &ReaderOrder::Open { capture, opened })),
        ("reader-order-filter", seed(16, &ReaderOrder::SetFilter { request, capture, program })),
        ("reader-report", seed(17, &ReaderReport::Ended { capture })),
    ]
}

/// Of the gateway and to it.
pub(crate) fn of_the_gateway() -> Vec<Seed> {
    let request = NUMBER;
    let certificate = RemoteIdentity::Certificate { names: vec!["uri:a".to_owned()] };
    let rules = Some(vec!["lab".to_owned()]);
    let token = RemoteIdentity::Token { name: "ci".to_owned(), rules };
    let connection = |identity| FromGateway::Connection { request, identity };
    let reason = || "the token has expired".to_owned();
    vec![
        ("to-gateway-begin", seed(18, &ToGateway::Begin { id: Some(7), generation: 1 })),
        ("to-gateway-credentials", seed(18, &ToGateway::Credentials { generation: 2 })),
        ("to-gateway-passed", seed(18, &ToGateway::Passed { request, connection: 9 })),
        ("to-gateway-refused", seed(18, &ToGateway::Refused { request, reason: reason() })),
        ("from-gateway-certificate", seed(19, &connection(certificate))),
        ("from-gateway-token", seed(19, &connection(token.clone()))),
        ("from-gateway-end", seed(19, &FromGateway::End { connection: 9, reason: reason() })),
        ("from-gateway-not-admitted", seed(19, &FromGateway::NotAdmitted { identity: token })),
        ("worker-end", seed(0, &ToWorker::EndConnection { number: 9, reason: reason() })),
    ]
}

/// Records that lost something on their way, or have too much.
pub(crate) fn damaged() -> Vec<Seed> {
    let mut truncated = seed(1, &ToMonitor::Received { number: NUMBER });
    truncated[1] = 1;
    let mut lost = seed(2, &ToOpener::Worker { worker: 16 });
    lost[1..3].copy_from_slice(&[2, 1]);
    let mut too_many = seed(9, &Answer::Made);
    too_many[2] = 2;
    vec![("truncated", truncated), ("lost-descriptors", lost), ("too-many-descriptors", too_many)]
}
