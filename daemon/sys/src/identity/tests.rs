//! Credentials and permissions of a thread that has assumed another identity.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use super::*;
use crate::socket::{bind, connect, listen};
use crate::testing::{TempDir, errno, skip, socket, unix_address, unix_pair};

const NOBODY: u32 = 65534;

fn nobody() -> Arc<Identity> {
    Arc::new(Identity { uid: NOBODY, gid: NOBODY, groups: [NOBODY, 4242].into() })
}

fn run<T: Send + 'static>(
    identity: Arc<Identity>,
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, result) = mpsc::channel();
    spawn_as(identity, job, move |result| drop(sender.send(result)))?;
    result.recv_timeout(Duration::from_mins(3)).map_err(io::Error::other)?
}

/// Runs as nobody; without the privilege, reports that the test is skipped.
fn as_nobody<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if !can_change().unwrap() {
        assert_eq!(errno(run(nobody(), || ())), libc::EPERM);
        skip("needs CAP_SETUID and CAP_SETGID");
        return None;
    }
    Some(run(nobody(), job).unwrap())
}

fn status(key: &str) -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn thread_has_the_ids_and_no_capabilities_and_other_threads_are_unchanged() {
    let before = (status("Uid:"), status("Gid:"), status("Groups:"), status("CapEff:"));
    let seen = as_nobody(|| {
        let capabilities = ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"].map(status);
        (status("Uid:"), status("Gid:"), status("Groups:"), capabilities)
    });
    if let Some((uid, gid, groups, capabilities)) = seen {
        // Real, effective, saved, for files.
        let nobody = NOBODY.to_string();
        assert_eq!((&uid[1], &uid[3]), (&nobody, &nobody));
        assert_eq!((&gid[1], &gid[3]), (&nobody, &nobody));
        assert_eq!((&uid[0], &uid[2]), (&before.0[0], &before.0[2]), "a signal could reach it");
        assert_eq!(groups, ["4242", &nobody]);
        assert_eq!(
            capabilities,
            [const { "0000000000000000" }; 4].map(|none| vec![none.to_owned()])
        );
    }
    let after = (status("Uid:"), status("Gid:"), status("Groups:"), status("CapEff:"));
    assert_eq!(before, after);
}

#[test]
fn thread_that_keeps_its_ids_loses_its_capabilities_too() {
    let own = Arc::new(Identity::own().unwrap());
    let seen = run(own, || (status("CapPrm:"), status("CapEff:"), geteuid().as_raw())).unwrap();
    let none = vec!["0000000000000000".to_owned()];
    assert_eq!(seen, (none.clone(), none, geteuid().as_raw()));
}

#[test]
fn bound_socket_belongs_to_the_user_and_closed_directories_stay_closed() {
    let directory = TempDir::new();
    let (closed, open) = (directory.path("closed"), directory.path("open"));
    for (folder, mode) in [(&closed, 0o700), (&open, 0o777)] {
        fs::create_dir(folder).unwrap();
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(closed.parent().unwrap(), fs::Permissions::from_mode(0o711)).unwrap();
    let (inside, outside) = (closed.join("s"), open.join("s"));
    let listener = socket(libc::AF_UNIX, libc::SOCK_STREAM);
    bind(listener.as_fd(), &unix_address(&inside)).unwrap();
    listen(listener.as_fd(), 5).unwrap();
    let (to, at) = (unix_address(&inside), unix_address(&outside));
    let seen = as_nobody(move || {
        let client = socket(libc::AF_UNIX, libc::SOCK_STREAM);
        let refused = errno(connect(client.as_fd(), &to));
        bind(client.as_fd(), &at).unwrap();
        refused
    });
    if let Some(refused) = seen {
        assert_eq!(refused, libc::EACCES);
        assert_eq!(fs::metadata(&outside).unwrap().uid(), NOBODY);
    }
}

#[test]
fn pair_created_as_a_user_has_its_ids_as_peer_credentials() {
    let seen = as_nobody(|| unix_pair(libc::SOCK_STREAM));
    if let Some((a, _b)) = seen {
        let credentials = getsockopt(&a, sockopt::PeerCredentials).unwrap();
        assert_eq!((credentials.uid(), credentials.gid()), (NOBODY, NOBODY));
        assert_eq!(peer::groups(a.as_fd()).unwrap(), [4242, NOBODY]);
    }
}

#[test]
fn id_of_all_ones_is_refused() {
    let none = Identity { uid: u32::MAX, ..Identity::own().unwrap() };
    assert_eq!(errno(run(Arc::new(none), || ())), libc::EINVAL);
}

#[test]
fn is_same_ignores_the_order_of_groups() {
    let with = |gid, groups: &[u32]| Identity { uid: 1, gid, groups: groups.into() };
    assert!(with(5, &[7, 8]).is_same(&with(5, &[8, 5, 7])));
    assert!(with(0, &[]).is_same(&with(0, &[0])));
    assert!(!with(5, &[7]).is_same(&with(5, &[])));
    assert!(!with(5, &[7]).is_same(&with(7, &[5])));
    assert!(!with(5, &[]).is_same(&Identity { uid: 2, ..with(5, &[]) }));
}
