//! User and network namespaces (`namespaces(7)`), in which an ordinary user can have network privileges.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fstat, stat};

use crate::call::{check, invalid};
use crate::process::{effective_gid, effective_uid};
use crate::{option, socket};

/// Moves the process into a new user namespace, in which it has every capability, and into a new
/// network namespace that belongs to it; user and group keep their numbers (`user_namespaces(7)`).
///
/// `EINVAL` if the process has more than one thread. `EPERM`, `ENOSPC` or `EUSERS` if the system does not
/// allow it to this user.
pub fn enter_user_and_network() -> io::Result<()> {
    let (uid, gid) = (effective_uid(), effective_gid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    // An ordinary user can map a group only after it has disabled setgroups(2).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// Moves this thread into a new network namespace; `EPERM` without `CAP_SYS_ADMIN`.
pub fn enter_network() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWNET)?)
}

/// Whether a socket belongs to the network namespace of the calling thread (`SO_NETNS_COOKIE`).
/// `ENOPROTOOPT` before Linux 5.14.
pub fn is_own_network(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // This family is never restricted, loaded on demand, or switched off.
    let own = socket::create(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?;
    Ok(cookie(fd)? == cookie(own.as_fd())?)
}

/// The cookie of the network namespace of a socket (`SO_NETNS_COOKIE`), which no other namespace ever has. `ENOPROTOOPT`
/// before Linux 5.14.
pub fn cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let bytes = option::get_bytes(fd, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, 8)?;
    bytes.try_into().map(u64::from_ne_bytes).map_err(|_short| invalid("a cookie has 8 bytes"))
}

/// The cookie of the network namespace of the calling thread.
pub fn own_cookie() -> io::Result<u64> {
    cookie(socket::create(libc::AF_UNIX, libc::SOCK_DGRAM, 0)?.as_fd())
}

/// `linux/sockios.h` and `linux/nsfs.h`.
const SIOCGSKNS: libc::Ioctl = 0x894C;
const NS_GET_USERNS: libc::Ioctl = 0xB701;
const NS_GET_NSTYPE: libc::Ioctl = 0xB703;
const NS_GET_OWNER_UID: libc::Ioctl = 0xB704;

/// Whether a descriptor is a network namespace, wherever its file is mounted. It asks no file system, which would possibly
/// not answer: only files of the kernel's one instance of nsfs have its device number, and they alone get the `ioctl`.
pub fn is_network(fd: BorrowedFd<'_>) -> bool {
    let is_namespace = match (device(fd), stat("/proc/self/ns/net")) {
        (Ok(device), Ok(own)) => device == own.st_dev,
        (Err(_), _) | (_, Err(_)) => false,
    };
    // SAFETY: the request takes no pointer; the descriptor is borrowed for the call.
    let kind = || check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) });
    is_namespace && matches!(kind(), Ok(libc::CLONE_NEWNET))
}

/// The device number of a file, without a request to a file system such as FUSE or NFS (`AT_STATX_DONT_SYNC`).
fn device(fd: BorrowedFd<'_>) -> io::Result<libc::dev_t> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a constant string; the kernel writes one `statx` to `found`, which lives for the call.
    check(unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, 0, found.as_mut_ptr()) })?;
    // SAFETY: all fields are integers, for which zeros are values.
    let found = unsafe { found.assume_init() };
    Ok(libc::makedev(found.stx_dev_major, found.stx_dev_minor))
}

/// Whether both are the same namespace.
pub fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let identity = |fd| fstat(fd).map(|file| (file.st_dev, file.st_ino));
    Ok(identity(one)? == identity(other)?)
}

/// A network namespace that exists at least as long as this.
#[derive(Debug)]
pub struct NetworkNamespace(OwnedFd);

impl NetworkNamespace {
    /// That of the calling thread.
    pub fn own() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"), OFlag::empty())
    }

    /// That of a socket (`SIOCGSKNS`). A connection that `accept(2)` returned for an `AF_UNIX` socket belongs to the
    /// namespace of the socket that connected. `EPERM` without `CAP_NET_ADMIN` in it.
    pub fn of_socket(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: the request takes no pointer; the descriptor is borrowed for the call.
        let number = check(unsafe { libc::ioctl(fd.as_raw_fd(), SIOCGSKNS) })?;
        // SAFETY: the kernel has just created descriptor `number` for this call; it has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// That of a file which a namespace is mounted on, as `ip-netns(8)` does. `ELOOP` for a symbolic link, and `EINVAL`
    /// for any other file.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        // A pipe or a device must not let the caller wait.
        Self::open(path, OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
    }

    /// That of a descriptor; `EINVAL` for any other file.
    pub fn of_descriptor(fd: BorrowedFd<'_>) -> io::Result<Self> {
        if is_network(fd) {
            Ok(Self(fd.try_clone_to_owned()?))
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    /// The user who made the user namespace to which it belongs; `None` if that is the user namespace of this process, or not
    /// one below it.
    pub fn owner(&self) -> io::Result<Option<u32>> {
        // SAFETY: the request takes no pointer; the descriptor is borrowed for the call.
        let users = check(unsafe { libc::ioctl(self.0.as_raw_fd(), NS_GET_USERNS) });
        let users = match users.map_err(|error| error.raw_os_error()) {
            // SAFETY: the kernel has just created this descriptor for the call; it has no other owner.
            Ok(number) => unsafe { OwnedFd::from_raw_fd(number) },
            Err(Some(libc::EPERM)) => return Ok(None),
            Err(errno) => return Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EINVAL))),
        };
        let (own, found) = (stat("/proc/self/ns/user")?, fstat(&users)?);
        if (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino) {
            return Ok(None);
        }
        let mut uid: libc::uid_t = 0;
        // SAFETY: the kernel writes one `uid_t` to `uid`, which lives for the call.
        check(unsafe { libc::ioctl(users.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) })?;
        Ok(Some(uid))
    }

    fn open(path: &Path, flags: OFlag) -> io::Result<Self> {
        let file = open(path, flags | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        if is_network(file.as_fd()) {
            Ok(Self(file))
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    /// Makes a call with the calling thread in this namespace, and moves the thread back to `home`. Ends the process if
    /// that fails. `EPERM` without `CAP_SYS_ADMIN` in both.
    pub fn within<T>(&self, home: &Self, call: impl FnOnce() -> T) -> io::Result<T> {
        setns(&self.0, CloneFlags::CLONE_NEWNET)?;
        // Also if the call panics.
        let _return = Return(home);
        Ok(call())
    }

    /// Moves the calling thread into this namespace for the rest of its life.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Moves the calling thread back.
struct Return<'a>(&'a NetworkNamespace);

impl Drop for Return<'_> {
    fn drop(&mut self) {
        if self.0.enter().is_err() {
            // A thread that is lost would make sockets of others where nobody granted them.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface;
    use crate::testing::skip;

    #[test]
    fn process_with_several_threads_is_refused_and_stays_in_its_namespaces() {
        let before = fs::read_link("/proc/self/ns/net").unwrap();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other_thread = std::thread::spawn(move || ended.recv());
        let error = enter_user_and_network().unwrap_err();
        drop(end);
        assert!(other_thread.join().unwrap().is_err());
        assert!([libc::EINVAL, libc::EPERM, libc::ENOSPC].contains(&error.raw_os_error().unwrap()));
        assert_eq!(fs::read_link("/proc/self/ns/net").unwrap(), before);
    }

    #[test]
    fn a_call_is_made_within_a_namespace_and_the_thread_returns() {
        std::thread::spawn(|| {
            let outer = NetworkNamespace::own().unwrap();
            let before = own_cookie().unwrap();
            if let Err(error) = enter_network() {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                return skip("needs CAP_SYS_ADMIN");
            }
            let (home, here) = (NetworkNamespace::own().unwrap(), own_cookie().unwrap());
            assert_ne!(here, before);
            assert_eq!(outer.within(&home, || own_cookie().unwrap()).unwrap(), before);
            assert_eq!(own_cookie().unwrap(), here);
            let panics = std::panic::AssertUnwindSafe(|| outer.within(&home, || panic!("a test")));
            assert!(std::panic::catch_unwind(panics).is_err());
            assert_eq!(own_cookie().unwrap(), here);
            // The namespace of a socket is that in which it was made.
            let there = outer.within(&home, || socket::create(libc::AF_INET, libc::SOCK_DGRAM, 0));
            let there = there.unwrap().unwrap();
            assert_eq!(cookie(there.as_fd()).unwrap(), before);
            let found = NetworkNamespace::of_socket(there.as_fd()).unwrap();
            assert_eq!(found.within(&home, || own_cookie().unwrap()).unwrap(), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_file_that_is_no_network_namespace_is_refused() {
        let errno =
            |path: &str| NetworkNamespace::of_file(Path::new(path)).unwrap_err().raw_os_error();
        for (path, expected) in [
            ("/proc/self/ns/net", libc::ELOOP),
            ("/proc/self/nothing", libc::ENOENT),
            ("/etc/passwd", libc::EINVAL),
            ("/etc", libc::EINVAL),
            ("/dev/null", libc::EINVAL),
        ] {
            assert_eq!(errno(path), Some(expected), "{path}");
        }
        let mounts = NetworkNamespace::open(Path::new("/proc/self/ns/mnt"), OFlag::empty());
        assert_eq!(mounts.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_namespace_has_the_owner_of_its_user_namespace() {
        let own = NetworkNamespace::own().unwrap();
        assert!(is_network(own.as_fd()) && is_same(own.as_fd(), own.as_fd()).unwrap());
        // That of this process belongs to no user.
        assert_eq!(own.owner().unwrap(), None);
        let copy = NetworkNamespace::of_descriptor(own.as_fd()).unwrap();
        assert!(is_same(copy.as_fd(), own.as_fd()).unwrap());
        let mut child = std::process::Command::new("unshare");
        child.args(["--user", "--net", "sh", "-c", "echo x; read end"]);
        child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut ready = [0; 1];
        let out = child.stdout.as_mut().unwrap();
        if io::Read::read_exact(out, &mut ready).is_ok() {
            let path = format!("/proc/{}/ns/net", child.id());
            let theirs = NetworkNamespace::open(Path::new(&path), OFlag::empty()).unwrap();
            assert!(!is_same(theirs.as_fd(), own.as_fd()).unwrap());
            assert_eq!(theirs.owner().unwrap(), Some(effective_uid()));
        } else {
            skip("no user and network namespaces available");
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn other_descriptors_are_no_network_namespaces() {
        let folder = std::env::temp_dir().join(format!("sockbroker-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("net:[1]");
        fs::write(&path, "").unwrap();
        let users = fs::File::open("/proc/self/ns/user").unwrap();
        let socket = socket::create(libc::AF_UNIX, libc::SOCK_DGRAM, 0).unwrap();
        let (file, null) = (fs::File::open(&path).unwrap(), fs::File::open("/dev/null").unwrap());
        let (pipe, _end) = io::pipe().unwrap();
        let process = crate::peer::process(socket.as_fd());
        let process = process.as_ref().map_or(socket.as_fd(), AsFd::as_fd);
        for fd in [users.as_fd(), socket.as_fd(), file.as_fd(), null.as_fd(), pipe.as_fd(), process]
        {
            assert!(!is_network(fd));
            let refused = NetworkNamespace::of_descriptor(fd).unwrap_err();
            assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_namespace_is_recognised_where_its_file_is_mounted() {
        for (name, is) in [("net", true), ("user", false), ("uts", false)] {
            let folder = "mount -t tmpfs none /mnt && : > /mnt/file";
            let script = format!(
                "{folder} && mount --bind /proc/1/ns/{name} /mnt/file && echo x && read end"
            );
            let mut child = std::process::Command::new("unshare");
            child.args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork"]);
            child.args(["--kill-child", "--mount-proc", "sh", "-c", &script]);
            child.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            let mut child = child.spawn().unwrap();
            let mut ready = [0; 1];
            let made = io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).is_ok();
            // Root can always; where others cannot, tests/security has the same as root.
            assert!(made || !nix::unistd::geteuid().is_root());
            if !made {
                skip("no user and network namespaces available");
            }
            if made {
                let process = Path::new("/proc").join(child.id().to_string());
                let path = process.join("root").join("mnt/file");
                let file = fs::File::open(&path).unwrap();
                assert_eq!(is_network(file.as_fd()), is, "{name}");
                assert_eq!(NetworkNamespace::of_descriptor(file.as_fd()).is_ok(), is, "{name}");
                assert_eq!(NetworkNamespace::of_file(&path).is_ok(), is, "{name}");
            }
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    #[test]
    fn loopback_of_a_new_network_namespace_can_be_brought_up() {
        let thread = std::thread::spawn(|| match enter_network() {
            Ok(()) => {
                interface::bring_up("lo").unwrap();
                std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                assert_eq!(interface::list().unwrap().len(), 1);
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EPERM));
                skip("needs CAP_SYS_ADMIN");
            }
        });
        thread.join().unwrap();
    }
}
