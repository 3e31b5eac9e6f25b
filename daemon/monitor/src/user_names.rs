//! Names of users, for the names of processes.
//!
//! The policy reader takes them from `passwd(5)`; the monitor asks no name service. A user of a directory service has none.

use serde::{Deserialize, Serialize};

/// The users whose names are kept.
const USERS: usize = 4096;
/// The characters of the longest name that is kept, as `useradd(8)` has it.
const NAME: usize = 32;

/// The names of users, by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNames(Vec<(u32, String)>);

impl UserNames {
    /// The names of the first users in the text of `passwd(5)`, without those that could be taken for something else.
    pub fn of_passwd(text: &str) -> Self {
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            is_plain(name).then(|| (uid, name.to_owned()))
        };
        let mut users: Vec<_> = text.lines().filter_map(user).take(USERS).collect();
        // Of several names of one id, the first is the one that programs show.
        users.sort_by_key(|(uid, _)| *uid);
        users.dedup_by_key(|(uid, _)| *uid);
        Self(users)
    }

    fn of(&self, uid: u32) -> Option<&str> {
        let index = self.0.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
        self.0.get(index).map(|(_, name)| name.as_str())
    }

    /// The name of a process that a user causes, as `ps` shows it: `sockbrokerd: worker alice (uid 1000)`.
    pub fn process_name(&self, role: &str, uid: u32) -> String {
        match self.of(uid) {
            Some(name) => format!("sockbrokerd: {role} {name} (uid {uid})"),
            None => format!("sockbrokerd: {role} (uid {uid})"),
        }
    }
}

fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-$".contains(&byte);
    (1..=NAME).contains(&name.len()) && name.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_the_name_of_their_user() {
        let text = "root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n\
                    odd (uid 7):x:1001:1001::/:/bin/sh\nbroken\n:x:1002:1::/:\nx:y:z\n";
        let names = UserNames::of_passwd(text);
        for (uid, expected) in [
            (0, "sockbrokerd: worker root (uid 0)"),
            (1000, "sockbrokerd: worker alice (uid 1000)"),
            (1001, "sockbrokerd: worker (uid 1001)"),
            (1002, "sockbrokerd: worker (uid 1002)"),
        ] {
            assert_eq!(names.process_name("worker", uid), expected);
        }
        assert_eq!(UserNames::default().process_name("reader", 5), "sockbrokerd: reader (uid 5)");
    }

    #[test]
    fn names_are_limited_in_number_and_length() {
        let line = |uid: usize| format!("u{uid}:x:{uid}:0::/:/bin/sh\n");
        let text: String = (0..=USERS).map(line).collect();
        let names = UserNames::of_passwd(&text);
        assert_eq!(names.0.len(), USERS);
        assert_eq!(names.of(u32::try_from(USERS).unwrap()), None);
        for (length, is_kept) in [(NAME, true), (NAME + 1, false)] {
            let text = format!("{}:x:1:1::/:/bin/sh", "n".repeat(length));
            assert_eq!(UserNames::of_passwd(&text).of(1).is_some(), is_kept, "{length}");
        }
    }
}
