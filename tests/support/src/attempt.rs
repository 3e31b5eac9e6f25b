//! System calls that a confined process must not be able to make.

use std::io;

/// Mounts an empty file system on a folder (`mount(2)`).
pub fn mount_tmpfs(folder: &str) -> io::Result<()> {
    let flags = nix::mount::MsFlags::empty();
    Ok(nix::mount::mount(None::<&str>, folder, Some("tmpfs"), flags, None::<&str>)?)
}

/// Lets the parent trace this process (`PTRACE_TRACEME`, `ptrace(2)`).
pub fn trace_me() -> io::Result<()> {
    Ok(nix::sys::ptrace::traceme()?)
}
