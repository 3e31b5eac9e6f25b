//! The opener with a fake kernel: whatever a worker sends, no call is made that the policy does not grant.

use std::sync::LazyLock;

use sockbroker_monitor::message::WorkerPeer;
use sockbroker_monitor::opener::fuzzing::{Opener, Outcome};
use sockbroker_monitor::request::{Answer, OpenerRequest, Request};
use sockbroker_policy::Policy;
use sockbroker_policy::file::{Directory, read};
use sockbroker_proto::socket_spec::SocketSpec;
use sockbroker_sys::address::RawAddress;

pub use crate::fake_kernel::Scene;
use crate::fake_kernel::{Call, Named, Recorder, Socket};
use crate::granted::{RULES, is_granted};

const NOTHING: &str = r#"
version = 1

[[rule]]
name = "nothing"
subject = { everyone = true }
deny = ["create", "capture", "bind", "connect", "send", "inject", "spoof", "option", "transparent", "sethostname"]
"#;

/// Reads the bytes as a scene, and serves its request.
pub fn body(data: &[u8]) {
    if let Ok((scene, _)) = postcard::take_from_bytes::<Scene>(data)
        && scene.socket.as_ref().is_none_or(Socket::is_possible)
    {
        serve(&scene);
    }
}

/// Serves the request of the scene under the policy, and again after a policy that denies everything. Returns the calls
/// under the first one.
pub fn serve(scene: &Scene) -> Vec<Call> {
    let (uid, groups) = (scene.uid, Vec::new());
    let peer = WorkerPeer { uid, account: uid, gid: uid, groups, network: None, remote: None };
    let mut opener = Opener::new(POLICIES[0].clone(), peer);
    scene.accepted.iter().for_each(|cookie| opener.accepted(*cookie));
    scene.closed.iter().for_each(|cookie| opener.closed(*cookie));
    let recorder = Recorder::new(scene.fails);
    let serve = |opener: &mut Opener| {
        let (connection, socket) = (&scene.connection, scene.socket.as_ref());
        let Scene { network, request, .. } = scene.clone();
        let outcome =
            opener.serve(&recorder, OpenerRequest { network, request }, connection, socket);
        (outcome, recorder.take())
    };
    let (outcome, calls) = serve(&mut opener);
    check_outcome(scene, &outcome, &calls);
    for call in &calls {
        assert!(is_known(scene), "{call:?} for {scene:?}");
        assert!(is_request(&scene.request, call), "{call:?} for {scene:?}");
        assert!(is_granted(scene, call), "{call:?} for {scene:?}");
    }
    opener.replace(POLICIES[1].clone(), 2);
    let (outcome, refused) = serve(&mut opener);
    assert!(refused.is_empty(), "{refused:?} after the policy was replaced for {scene:?}");
    check_outcome(scene, &outcome, &refused);
    calls
}

static POLICIES: LazyLock<[Policy; 2]> = LazyLock::new(|| {
    [RULES, NOTHING].map(|text| {
        let content = read("policy", text, &NoNames);
        assert!(content.is_ok(), "{content:?}");
        let rules = content.map(|content| content.rules).unwrap_or_default();
        Policy::new(970, rules.into_iter().map(|(rule, _)| rule).collect(), false)
    })
});

/// Rules have numbers.
struct NoNames;

impl Directory for NoNames {
    fn user(&self, _: &str) -> Option<u32> {
        None
    }

    fn group(&self, _: &str) -> Option<u32> {
        None
    }
}

/// Checks that there is at most one call, and that the outcome is that of the call.
fn check_outcome(scene: &Scene, outcome: &Outcome, calls: &[Call]) {
    let fits = match (calls, outcome) {
        ([], Outcome::Answer(Answer::Failed(_) | Answer::NotServed | Answer::Unreachable(_))) => {
            is_known(scene)
        }
        ([], Outcome::Answer(Answer::HungUp)) => !is_known(scene),
        ([], Outcome::Denied(denial)) => {
            is_known(scene) && *denial.caller == format!("uid {}", scene.uid)
        }
        ([], Outcome::Nonsense(reason)) => !reason.is_empty(),
        ([_], Outcome::Answer(Answer::Failed(errno))) => scene.fails == Some(*errno),
        ([Call::Create(_) | Call::CreateIn(..)], Outcome::Socket(..))
        | ([Call::Capture(..)], Outcome::Capture(..))
        | (
            [Call::Bind(_) | Call::Connect(_) | Call::SetOption(..) | Call::SetHostname(_)],
            Outcome::Answer(Answer::Done),
        ) => scene.fails.is_none(),
        ([Call::Interfaces(..)], Outcome::Answer(Answer::Interfaces(found))) => {
            scene.fails.is_none() && !found.is_empty()
        }
        ([Call::Send(sent)], Outcome::Answer(Answer::Sent(length))) => {
            scene.fails.is_none() && usize::try_from(*length) == Ok(sent.data.len())
        }
        _ => false,
    };
    assert!(fits, "{outcome:?} and {calls:?} for {scene:?}");
}

/// Whether the connection is one of the worker's, and its client the principal.
fn is_known(scene: &Scene) -> bool {
    let Named { cookie, is_hung_up, uid, network: _ } = scene.connection;
    let has = |list: &[u64]| cookie.is_some_and(|cookie| list.contains(&cookie));
    has(&scene.accepted) && !has(&scene.closed) && !is_hung_up && uid == Some(scene.uid)
}

/// Whether a call has the operands of the request. An address can lose bytes that it does not contain.
fn is_request(request: &Request, call: &Call) -> bool {
    let is_address = |given: &[u8], used: &[u8]| {
        let decoded = |bytes| RawAddress::from_bytes(bytes).and_then(|raw| raw.decode(0));
        decoded(given).is_some() && decoded(given) == decoded(used)
    };
    match (request, call) {
        (
            &Request::Create { domain, ty, protocol },
            Call::Create(spec) | Call::CreateIn(_, spec),
        ) => *spec == SocketSpec { domain, ty, protocol },
        (Request::Bind { address }, Call::Bind(used))
        | (Request::Connect { address }, Call::Connect(used)) => is_address(address, used),
        (Request::SetOption { level, name, value }, Call::SetOption(option, used)) => {
            (*level, *name) == *option && value == used
        }
        (Request::Send { destination, flags, control, data }, Call::Send(sent)) => {
            let same = match (destination, &sent.destination) {
                (Some(given), Some(used)) => is_address(given, used),
                (None, None) => true,
                _ => false,
            };
            same && sent.flags == flags | libc::MSG_DONTWAIT
                && *control == sent.control
                && *data == sent.data
        }
        (Request::SetHostname { name }, Call::SetHostname(used)) => name == used,
        (Request::Interfaces { query }, Call::Interfaces(_, used)) => query == used,
        (Request::Capture { order, .. }, Call::Capture(_, used)) => *order == **used,
        _ => false,
    }
}
