//! The system calls that the broker makes (`seccomp(2)`): every other one fails.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};
use sockbroker_sys::refused;

use super::calls::{ALLOWED, ALLOWED_OF_OLD};
use crate::config::confine::Seccomp;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    /// The filter itself.
    #[error("{0}")]
    Filter(#[from] seccompiler::Error),
    /// One of its rules, or the machine it is for.
    #[error("{0}")]
    Rules(#[from] seccompiler::BackendError),
    /// The handler of refusals.
    #[error("{0}")]
    Handler(#[from] std::io::Error),
}

/// The namespaces that a new thread must not make (`clone(2)`): a broker makes threads, nothing else.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned() as u64;

/// Holds this thread, and those it starts, to the list.
pub(super) fn filter(mode: Seccomp) -> Result<(), FilterError> {
    let others = match mode {
        Seccomp::Errno => {
            refused::report_refused_calls()?;
            SeccompAction::Trap
        }
        Seccomp::Log => SeccompAction::Log,
        Seccomp::Off => return Ok(()),
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(ALLOWED_OF_OLD).map(|call| (*call, Vec::new())).collect();
    rules.insert(libc::SYS_clone, vec![without_bits(0, NAMESPACES)?]);
    // A thread that makes a socket's file in a folder of a client has a working folder of its own.
    rules.insert(libc::SYS_unshare, vec![exactly(0, libc::CLONE_FS.cast_unsigned().into())?]);
    // The flags of clone3(2) are in memory, where no filter sees them; told that there is no such
    // call, the C library takes clone(2).
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    apply_filter(&compile(clone3, SeccompAction::Allow, no_such_call)?)?;
    // The last one: seccomp(2) is not on the list.
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

/// A call whose argument is this.
fn exactly(argument: u8, value: u64) -> Result<SeccompRule, FilterError> {
    let same = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)?;
    Ok(SeccompRule::new(vec![same])?)
}

/// A call whose argument has none of these bits.
fn without_bits(argument: u8, bits: u64) -> Result<SeccompRule, FilterError> {
    let none =
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(bits), 0)?;
    Ok(SeccompRule::new(vec![none])?)
}
