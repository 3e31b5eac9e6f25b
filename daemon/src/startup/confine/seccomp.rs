//! The system calls that the broker makes (`seccomp(2)`): every other one fails.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use sockbroker_sys::refused;

use super::calls::{
    ALLOWED, ALLOWED_OF_OLD, COMMON, OF_CALLER, OF_CALLER_OF_OLD, OF_GATEWAY, OF_IDENTITY,
    OF_MONITOR, OF_OPENER, OF_OPENER_OF_OLD, OF_READER, OF_READER_OF_OLD,
};
use crate::config::Seccomp;

/// Why the filter cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("{0}")]
    Filter(#[from] seccompiler::Error),
    /// A rule of the filter, or an unknown machine.
    #[error("{0}")]
    Rules(#[from] seccompiler::BackendError),
    /// The signal handler that reports refused calls.
    #[error("{0}")]
    Handler(#[from] std::io::Error),
}

/// Flags of `clone(2)` that create namespaces, which the broker never does.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned() as u64;

/// The list of system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// Of a process that serves all clients.
    Broker,
    /// Of a worker.
    Worker {
        /// Whether it creates files of sockets itself.
        makes_files: bool,
    },
    /// Of a process that acts as a caller.
    Caller,
    /// Of the opener.
    Opener,
    /// Of a process that reads captures.
    Reader,
    /// Of the gateway.
    Gateway,
    /// Of the monitor, and of the processes that it starts.
    Monitor,
}

impl Calls {
    /// The calls that are allowed, some of them only with certain arguments.
    fn lists(self) -> &'static [&'static [i64]] {
        match self {
            Self::Broker | Self::Worker { .. } => &[ALLOWED, ALLOWED_OF_OLD],
            Self::Caller => &[OF_CALLER, OF_CALLER_OF_OLD, COMMON],
            Self::Opener => &[OF_OPENER, OF_OPENER_OF_OLD, COMMON],
            Self::Reader => &[OF_READER, OF_READER_OF_OLD, COMMON],
            Self::Gateway => &[OF_GATEWAY, OF_READER_OF_OLD, COMMON],
            // The opener has started before.
            Self::Monitor => &[
                OF_MONITOR,
                OF_GATEWAY,
                OF_IDENTITY,
                COMMON,
                ALLOWED,
                ALLOWED_OF_OLD,
                OF_CALLER,
                OF_CALLER_OF_OLD,
                OF_READER,
                OF_READER_OF_OLD,
            ],
        }
    }
}

/// Restricts this thread, and threads that it starts, to the list.
pub(super) fn filter(mode: Seccomp, calls: Calls) -> Result<(), FilterError> {
    let others = match mode {
        // A process that is being started has no handler yet, and none for this filter later.
        Seccomp::Errno if calls == Calls::Monitor => {
            SeccompAction::Errno(libc::EPERM.cast_unsigned())
        }
        Seccomp::Errno => {
            refused::report_refused_calls()?;
            SeccompAction::Trap
        }
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Off => return Ok(()),
    };
    let listed = calls.lists().iter().flat_map(|list| list.iter());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        listed.map(|call| (*call, Vec::new())).collect();
    // A thread that creates a socket's file in a folder of a client has its own working folder.
    let own_folder = vec![exactly(0, libc::CLONE_FS.cast_unsigned().into())?];
    let enters_network = vec![exactly(1, libc::CLONE_NEWNET.cast_unsigned().into())?];
    match calls {
        Calls::Broker => {
            // Threads take a client's ids.
            rules.extend(OF_IDENTITY.iter().map(|call| (*call, Vec::new())));
            rules.insert(libc::SYS_unshare, own_folder);
            rules.insert(libc::SYS_setns, enters_network);
        }
        Calls::Caller | Calls::Monitor | Calls::Worker { makes_files: true } => {
            rules.insert(libc::SYS_unshare, own_folder);
        }
        Calls::Opener => {
            rules.insert(libc::SYS_setns, enters_network);
        }
        Calls::Reader | Calls::Gateway | Calls::Worker { makes_files: false } => {}
    }
    let clone = match calls {
        Calls::Broker | Calls::Monitor => without_bits(0, NAMESPACES)?,
        // Threads, and no processes.
        Calls::Worker { .. } | Calls::Caller | Calls::Opener | Calls::Reader | Calls::Gateway => {
            threads()?
        }
    };
    rules.insert(libc::SYS_clone, vec![clone]);
    // Workers may have the same user id: one must not end, stop or limit another.
    let own = std::process::id().into();
    for (call, allowed) in [
        (libc::SYS_tgkill, vec![exactly(0, own)?]),
        (libc::SYS_prlimit64, vec![exactly(0, 0)?, exactly(0, own)?]),
        // Whether a process exists.
        (libc::SYS_pidfd_send_signal, vec![exactly(1, 0)?]),
    ] {
        // The number of the monitor is not that of the processes that it starts.
        if let Some(rule) = rules.get_mut(&call).filter(|_| calls != Calls::Monitor) {
            *rule = allowed;
        }
    }
    // The flags of clone3(2) are in memory, where no filter sees them. After ENOSYS the C library calls
    // clone(2).
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    apply_filter(&compile(clone3, SeccompAction::Allow, no_such_call)?)?;
    // The last filter: it refuses seccomp(2), but that of the monitor.
    Ok(apply_filter(&compile(rules, others, SeccompAction::Allow)?)?)
}

fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, FilterError> {
    let machine = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, others, listed, machine)?.try_into()?)
}

/// Matches a call whose argument has this value.
fn exactly(argument: u8, value: u64) -> Result<SeccompRule, FilterError> {
    let same = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)?;
    Ok(SeccompRule::new(vec![same])?)
}

/// Matches a call of `clone(2)` that makes a thread of this process.
fn threads() -> Result<SeccompRule, FilterError> {
    let thread = libc::CLONE_THREAD.cast_unsigned().into();
    let bits = |bits, value| {
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits), value)
    };
    Ok(SeccompRule::new(vec![bits(NAMESPACES, 0)?, bits(thread, thread)?])?)
}

/// Matches a call whose argument has none of these bits.
fn without_bits(argument: u8, bits: u64) -> Result<SeccompRule, FilterError> {
    let none =
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits), 0)?;
    Ok(SeccompRule::new(vec![none])?)
}
