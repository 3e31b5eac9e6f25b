//! The user ids of workers: from the configuration, or the subordinate ids of the broker's user (`subuid(5)`).

use std::fs;
use std::ops::RangeInclusive;

use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::process;

use super::error::StartError;
use super::subordinate;
use crate::config::WorkerIds;

/// What a process needs to give its children ids, and to end them.
const NEEDED: [Capability; 3] = [Capability::SetUid, Capability::SetGid, Capability::Kill];

/// The ids of the workers; `None` if they have that of the broker. An error if the configuration demands what cannot be
/// used.
pub(super) fn find(
    wanted: WorkerIds,
    workers: u64,
) -> Result<Option<RangeInclusive<u32>>, StartError> {
    let range = match wanted {
        WorkerIds::Shared => return Ok(None),
        WorkerIds::Auto if process::effective_uid() == 0 => {
            Err("containers may use the subordinate ids of root".to_owned())
        }
        WorkerIds::Auto | WorkerIds::Subordinate => own_subordinate_ids(),
        WorkerIds::Range { first, last } => Ok(first..=last),
    };
    match range.and_then(|range| check(range, workers)) {
        Ok(range) => {
            let (first, last) = (range.start(), range.end());
            tracing::info!(first, last, "each worker has a user id of its own");
            Ok(Some(range))
        }
        Err(reason) if wanted == WorkerIds::Auto => {
            let uid = process::effective_uid();
            tracing::info!(uid, reason, "all workers have the user id of the broker");
            Ok(None)
        }
        Err(reason) => Err(StartError::System(format!("worker_ids: {reason}"))),
    }
}

fn check(range: RangeInclusive<u32>, workers: u64) -> Result<RangeInclusive<u32>, String> {
    if let Some(missing) = NEEDED.iter().find(|one| !capability::has(**one).unwrap_or(false)) {
        let name = missing.name();
        return Err(format!("the broker does not have {name}"));
    }
    let own = process::effective_uid();
    if range.contains(&own) {
        return Err(format!("the range contains {own}, the id of the broker"));
    }
    let count = u64::from(range.end() - range.start()) + 1;
    // One that is ending still has its id.
    if count < workers.saturating_mul(2) {
        return Err(format!("{count} ids are fewer than twice the limit workers ({workers})"));
    }
    Ok(range)
}

/// The subordinate ids of this user that are both user and group ids.
fn own_subordinate_ids() -> Result<RangeInclusive<u32>, String> {
    let read =
        |path| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    let uid = process::effective_uid();
    let users = read("/etc/passwd")?;
    let names = [Some(uid.to_string()), name_of(&users, uid).map(str::to_owned)];
    let names: Vec<_> = names.into_iter().flatten().collect();
    let (users, groups) = (read("/etc/subuid")?, read("/etc/subgid")?);
    let (users, groups) = (ranges_of(&users, &names), ranges_of(&groups, &names));
    let both = users.iter().find_map(|one| groups.iter().find_map(|other| shared(one, other)));
    both.ok_or_else(|| {
        format!("user {uid} has no subordinate ids in both /etc/subuid and /etc/subgid: see usermod(8), --add-subuids")
    })
}

/// The name of a user in the text of `passwd(5)`.
fn name_of(text: &str, uid: u32) -> Option<&str> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    })
}

/// The ranges of a user, who has these names, in the text of `subuid(5)`.
fn ranges_of(text: &str, names: &[String]) -> Vec<RangeInclusive<u32>> {
    let own = subordinate::ranges(text).filter(|(name, _)| names.iter().any(|known| known == name));
    own.map(|(_, range)| range).collect()
}

fn shared(one: &RangeInclusive<u32>, other: &RangeInclusive<u32>) -> Option<RangeInclusive<u32>> {
    let (first, last) = (*one.start().max(other.start()), *one.end().min(other.end()));
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_the_user_are_found() {
        let users = "root:x:0:0::/root:/bin/sh\nsockbroker:x:970:970::/:/usr/sbin/nologin\n";
        assert_eq!(name_of(users, 970), Some("sockbroker"));
        assert_eq!(name_of(users, 971), None);
        let names = ["970".to_owned(), "sockbroker".to_owned()];
        let text = "alice:100000:65536\nsockbroker:165536:1000\n970:300000:10\n";
        assert_eq!(ranges_of(text, &names), [165_536..=166_535, 300_000..=300_009]);
    }

    #[test]
    fn only_ids_of_users_and_groups_are_shared() {
        assert_eq!(shared(&(10..=20), &(15..=30)), Some(15..=20));
        assert_eq!(shared(&(10..=20), &(21..=30)), None);
    }
}
