//! Who asks: what the kernel told of the process at the other end.

/// The caller, fixed when its connection was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The process id when it connected; for logs only, since numbers are used again.
    pub pid: Option<i32>,
}
