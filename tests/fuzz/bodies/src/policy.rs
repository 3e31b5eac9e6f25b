//! Policy files: any text is a list of rules, or an error with a position, and decisions are consistent.

use sockbroker_bpf::{Instruction, Program, opcode};
use sockbroker_policy::Policy;
use sockbroker_policy::action::Request as _;
use sockbroker_policy::capture_scope::CaptureScope;
use sockbroker_policy::check::check;
use sockbroker_policy::file::{Directory, read};
use sockbroker_policy::lowering::{Direction, Forced, LoweringError, PacketStart};
use sockbroker_policy::rule::Effect;
use sockbroker_policy::subject::Subject;
use sockbroker_policy::words::Described;

/// An account database in which every name exists.
struct AllAccounts;

impl Directory for AllAccounts {
    fn user(&self, name: &str) -> Option<u32> {
        u32::try_from(name.len()).ok()
    }

    fn group(&self, name: &str) -> Option<u32> {
        u32::try_from(name.len()).ok()
    }
}

/// The actions to check against the rules.
const ACTIONS: [&str; 9] = [
    "create AF_PACKET SOCK_RAW",
    "create AF_INET6 SOCK_DGRAM IPPROTO_UDP",
    "connect remote=127.0.0.1:80",
    "bind local=[::]:443",
    "send AF_UNIX path=/run/a/../b",
    "capture AF_PACKET interface=lo snaplen=64",
    "option option=unknown",
    "handover AF_INET SOCK_RAW",
    "resolve",
];

/// Parses the bytes as a policy file.
pub fn body(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let content = match read("policy", text, &AllAccounts) {
        Ok(content) => content,
        Err(error) => {
            let lines = text.lines().count() + 1;
            assert!((1..=lines).contains(&error.line), "{error}");
            assert!(error.column >= 1 && !error.message.is_empty(), "{error}");
            assert!(error.excerpt.lines().count() == 3 && error.excerpt.contains('^'), "{error}");
            return;
        }
    };
    let rules: Vec<_> =
        content.rules.into_iter().map(|(rule, line)| (rule, line.to_string())).collect();
    // A warning must have a message. Whether there are warnings does not matter.
    assert!(check(&rules).iter().all(|warning| !warning.message.is_empty()));
    for (rule, _) in &rules {
        assert!(rule.verbs().next().is_some() && rule.line().contains(rule.effect.word()));
    }
    let policy = Policy::new(970, rules.into_iter().map(|(rule, _)| rule).collect(), false);
    for uid in [0, 5] {
        let rights = policy.select(&Subject::new(uid, uid), Vec::new());
        if let Ok((_, scope)) = rights.capture(Some("eth0"), 64) {
            check_capture(&scope);
        }
        for action in ACTIONS {
            let described = action.parse::<Described>();
            assert!(described.is_ok(), "{action}");
            let Ok(action) = described else { continue };
            let question = action.question();
            let denied = |effect| {
                let considered = rights.considered(&question).into_iter();
                considered.filter(|(rule, _)| rule.effect == effect).any(|(rule, mismatch)| {
                    assert_eq!(rule.matches(&question), mismatch.is_none(), "{}", rule.line());
                    mismatch.is_none()
                })
            };
            let refused = denied(Effect::Deny);
            let allowed = denied(Effect::Allow) || uid == 0;
            let granted = rights.judge(&question).is_ok();
            assert_eq!(granted, !refused && allowed, "uid {uid}: {question:?}");
        }
    }
}

/// Checks that the kernel takes the program of a capture, unless it is too long.
fn check_capture(scope: &CaptureScope) {
    for start in [PacketStart::Ethernet, PacketStart::Ip, PacketStart::Other] {
        let forced =
            Forced { start, interface: Some(1), direction: Direction::LoopbackOnce, snaplen: 64 };
        let client = Program(vec![Instruction::new(opcode::RET, 1)]);
        match scope.join(&forced, &client) {
            Ok(program) => assert_eq!(program.check(), Ok(())),
            Err(error) => assert!(matches!(error, LoweringError::TooLong { .. }), "{error}"),
        }
    }
}
