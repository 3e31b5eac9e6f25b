//! The databases of users and groups (`getpwnam(3)`, `getgrnam(3)`).

use nix::unistd::{Group, User};

/// The id of a user; `None` if there is none of this name, or the database cannot be asked.
pub fn user(name: &str) -> Option<u32> {
    Some(User::from_name(name).ok()??.uid.as_raw())
}

/// The id of a group; the same.
pub fn group(name: &str) -> Option<u32> {
    Some(Group::from_name(name).ok()??.gid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_and_others_are_not_made_up() {
        assert_eq!((user("root"), group("root")), (Some(0), Some(0)));
        assert_eq!((user("no such user"), group("no such group")), (None, None));
    }
}
