//! The databases of users and groups (`getpwnam(3)`, `getgrnam(3)`).

use std::ffi::CString;

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The id of a user; `None` if there is no user of this name, or the database is not readable.
pub fn user(name: &str) -> Option<u32> {
    Some(User::from_name(name).ok()??.uid.as_raw())
}

/// The name of a user; `None` as for [`user`].
pub fn name(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

/// The id of a group; `None` as for [`user`].
pub fn group(name: &str) -> Option<u32> {
    Some(Group::from_name(name).ok()??.gid.as_raw())
}

/// The primary group of a user and its supplementary groups (`getgrouplist(3)`); `None` for an id
/// without an account.
pub fn groups_of(uid: u32) -> Option<(u32, Vec<u32>)> {
    let account = User::from_uid(Uid::from_raw(uid)).ok()??;
    let name = CString::new(account.name).ok()?;
    let groups = getgrouplist(&name, account.gid).ok()?;
    Some((account.gid.as_raw(), groups.into_iter().map(Gid::as_raw).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_unknown_names_are_none() {
        assert_eq!((user("root"), group("root")), (Some(0), Some(0)));
        assert_eq!((name(0).as_deref(), name(4_000_000_001)), (Some("root"), None));
        assert_eq!(groups_of(0).map(|(gid, _)| gid), Some(0));
        assert_eq!((user("no such user"), group("no such group")), (None, None));
    }
}
