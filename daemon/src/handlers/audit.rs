//! Audit records of decisions: which decisions are recorded, and what a record contains.

use sockbroker_proto::handle::Handle;

use crate::network::captures::Capture;
use crate::observe::audit::Record;
use crate::rpc::call::Call;
use sockbroker_policy::Denial;
use sockbroker_policy::option::OptionClass;
use sockbroker_policy::question::Question;
use sockbroker_policy::rights::RuleName;
use sockbroker_policy::verb::Verb;

/// Records an allowed request. Requests that every message would repeat are not recorded.
pub(super) fn allowed(call: &Call, question: &Question<'_>, rule: &RuleName) {
    if !call.broker().audit.is_on() || !is_recorded(question) || moves_data(call.method()) {
        return;
    }
    let principal = call.connection().principal().key();
    call.broker().audit.report(principal, || {
        decision(call, "allowed", question.verb)
            .with("rule", rule.as_str())
            .with("grant", question.grant())
            .with("message", allowance(call, question, rule))
    });
}

/// Records a refused request.
pub(super) fn denied(call: &Call, denial: &Denial) {
    let principal = call.connection().principal().key();
    call.broker().audit.report(principal, || {
        decision(call, "denied", denial.verb)
            .with("rule", denial.rule.as_str())
            .with("grant", denial.grant.as_str())
            .with("message", denial.to_string())
    });
}

/// Records the start of a capture, and its end when that comes.
pub(super) fn capture(call: &Call, handle: Handle, capture: &Capture, instructions: usize) {
    let audit = call.broker().audit.clone();
    if !audit.is_on() {
        return;
    }
    let (subject, key) = (call.connection().subject(), call.connection().principal().key());
    let (uid, session) = (subject.uid, call.session().number());
    let order = capture.order();
    let interfaces = capture.interfaces();
    let about = move |state: &'static str| {
        Record::new("capture")
            .with("state", state)
            .with("uid", uid)
            .with("session", session)
            .with("handle", handle.number())
    };
    audit.report(key, || {
        about("started")
            .with("gid", subject.gid)
            .with_some("pid", subject.pid.map(i32::cast_unsigned))
            .with_some("unit", subject.unit.as_deref())
            .with("connection", call.connection().number())
            .with("interfaces", interfaces.as_str())
            .with_some("netns", capture.namespace().words())
            .with_some("filter", order.text.as_deref())
            .with("filter_instructions", instructions as u64)
            .with("snaplen", order.snaplen)
            .with("promiscuous", if order.promiscuous { "yes" } else { "no" })
            .with("message", format!("uid {uid} captures packets of {interfaces}"))
    });
    let about = (uid, session, handle.number());
    call.broker().report_end(call.connection().principal().key(), about, capture);
}

/// Records that the filter of a capture was replaced: the expression that the client states, and the number of
/// instructions of its program.
pub(super) fn filter(
    call: &Call,
    handle: Handle,
    capture: &Capture,
    (text, instructions): (Option<&str>, usize),
) {
    let (subject, interfaces) = (call.connection().subject(), capture.interfaces());
    let key = call.connection().principal().key();
    call.broker().audit.report(key, || {
        Record::new("capture")
            .with("state", "filtered")
            .with("uid", subject.uid)
            .with("session", call.session().number())
            .with("handle", handle.number())
            .with("connection", call.connection().number())
            .with("interfaces", interfaces.as_str())
            .with_some("filter", text)
            .with("filter_instructions", instructions as u64)
            .with(
                "message",
                format!(
                    "uid {} has replaced the filter of its capture of {interfaces}",
                    subject.uid
                ),
            )
    });
}

/// The message of an allowed request: the user, what it is allowed to do, and the rule.
fn allowance(call: &Call, question: &Question<'_>, rule: &RuleName) -> String {
    let subject = call.connection().subject();
    format!("{subject} may {}: rule {:?} allows it", question.what(), rule.as_str())
}

fn decision(call: &Call, verdict: &'static str, verb: Verb) -> Record {
    let subject = call.connection().subject();
    Record::new("decision")
        .with("verdict", verdict)
        .with("verb", verb.word())
        .with("method", call.method())
        .with("uid", subject.uid)
        .with("gid", subject.gid)
        .with_some("principal", subject.remote.as_ref().map(ToString::to_string))
        .with_some("pid", subject.pid.map(i32::cast_unsigned))
        .with_some("unit", subject.unit.as_deref())
        .with("session", call.session().number())
        .with("connection", call.connection().number())
        .with_some("handle", call.handle().map(Handle::number))
        .with_some("program", call.program().map(|program| program.name.as_str()))
        .with_some("program_pid", call.program().map(|program| program.pid))
}

fn is_recorded(question: &Question<'_>) -> bool {
    match question.verb {
        Verb::Create
        | Verb::Adopt
        | Verb::Bind
        | Verb::Listen
        | Verb::Connect
        | Verb::Capture
        | Verb::Inject
        | Verb::Spoof
        | Verb::Transparent
        | Verb::Handover
        | Verb::Session
        | Verb::Persist
        | Verb::SetHostname
        | Verb::Admin => true,
        Verb::Option => question.option.is_some_and(|class| class != OptionClass::Ordinary),
        Verb::Accept
        | Verb::Send
        | Verb::Receive
        | Verb::Ioctl
        | Verb::Inspect
        | Verb::Resolve
        | Verb::Interfaces
        | Verb::Hostname => false,
    }
}

/// Whether a method receives or sends. The records of the socket's creation and addresses cover these calls.
fn moves_data(method: &str) -> bool {
    let name = method.strip_prefix("socket.").unwrap_or(method);
    name.starts_with("recv") || name.starts_with("send") || method == "capture.replay"
}
