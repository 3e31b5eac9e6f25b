//! The namespaces of a program whose sockets are in a named network namespace. The program runs in an empty network, so
//! that a socket that the broker does not make reaches no network.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};

use crate::kernel::process::{Namespaces, enter};

/// The files of namespaces with a name, as `ip netns exec` uses them (`ip-netns(8)`).
const FILES: &str = "/etc/netns";
/// The sockets of name services of this machine, which answer for its own network.
const NAME_SERVICES: [&str; 3] =
    ["/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve", "/run/avahi-daemon/socket"];

/// Enters a user namespace that maps only the user and the group of this process: to root, or to their own ids.
pub(crate) fn enter_user_namespace(kinds: Namespaces, as_root: bool) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let within = |id: u32| if as_root { 0 } else { id };
    enter(kinds).map_err(|error| {
        io::Error::new(error.kind(), format!("this system refuses user namespaces: {error}"))
    })?;
    // Without this the kernel refuses the map of a group (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{} {uid} 1", within(uid)))?;
    fs::write("/proc/self/gid_map", format!("{} {gid} 1", within(gid)))
}

/// Enters an empty network, and shows the files of the namespace with this name in `/etc`. Fails if the system refuses
/// it, possibly after a part of it.
pub(crate) fn enter_empty_network(name: &str, as_root: bool) -> io::Result<()> {
    // Root needs no user namespace.
    if as_root || enter(Namespaces::NetworkAndMounts).is_err() {
        enter_user_namespace(Namespaces::UserNetworkAndMounts, as_root)?;
    }
    // No mount below reaches the rest of the system.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for service in NAME_SERVICES.iter().filter(|service| Path::new(service).exists()) {
        mount_bind("/dev/null", *service)?;
    }
    let Ok(files) = fs::read_dir(Path::new(FILES).join(name)) else { return Ok(()) };
    for file in files {
        let file = file?;
        let target = Path::new("/etc").join(file.file_name());
        if target.exists() {
            mount_bind(file.path(), target)?;
        }
    }
    Ok(())
}
