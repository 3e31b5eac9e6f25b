//! The user ids of workers: from the configuration, the subordinate ids of the broker's user (`subuid(5)`), or those for
//! a broker that runs as root.

use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;

use sockbroker_sys::capability::{self, Capability};
use sockbroker_sys::process;

use super::error::StartError;
use super::{id_map, subordinate};
use crate::config::WorkerIds;

/// What a process needs to give its children ids, and to end them.
const NEEDED: [Capability; 3] = [Capability::SetUid, Capability::SetGid, Capability::Kill];

/// The ids of the workers of root, whose subordinate ids are for containers. No system assigns them:
/// <https://systemd.io/UIDS-GIDS/> lists 1879048192 to 2147352575 as unused.
const OF_ROOT: RangeInclusive<u32> = 1_879_113_728..=1_879_179_263;

/// The ids of the workers; `None` if they have that of the broker. An error if the configuration demands what cannot be
/// used. `remote` ids are for what serves remote principals.
pub(super) fn find(
    wanted: WorkerIds,
    workers: u64,
    remote: u64,
) -> Result<Option<RangeInclusive<u32>>, StartError> {
    let range = match wanted {
        WorkerIds::Shared => return Ok(None),
        WorkerIds::Auto if process::effective_uid() == 0 => ids_of_root(),
        WorkerIds::Auto | WorkerIds::Subordinate => own_subordinate_ids(),
        WorkerIds::Range { first, last } => Ok(first..=last),
    };
    match range.and_then(|range| check(range, workers, remote)) {
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

fn check(
    range: RangeInclusive<u32>,
    workers: u64,
    remote: u64,
) -> Result<RangeInclusive<u32>, String> {
    if let Some(missing) = NEEDED.iter().find(|one| !capability::has(**one).unwrap_or(false)) {
        let name = missing.name();
        return Err(format!("the broker does not have {name}"));
    }
    let own = process::effective_uid();
    if range.contains(&own) {
        return Err(format!("the range contains {own}, the id of the broker"));
    }
    for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        // A kernel without user namespaces does not have the map, and has all ids.
        if read_if_present(map)?.is_some_and(|text| !id_map::contains(&text, &range)) {
            let (first, last) = (range.start(), range.end());
            return Err(format!("the ids {first} to {last} do not all exist here: see {map}"));
        }
    }
    enough(&range, workers, remote)?;
    Ok(range)
}

fn enough(range: &RangeInclusive<u32>, workers: u64, remote: u64) -> Result<(), String> {
    let count = u64::from(range.end() - range.start()) + 1;
    // One that is ending still has its id.
    let needed = workers.saturating_mul(2).saturating_add(remote);
    if count >= needed {
        return Ok(());
    }
    let remote = if remote == 0 { "" } else { ", those of remote_workers, and 2" };
    Err(format!("{count} ids are fewer than twice the limit workers ({workers}){remote}: {needed}"))
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))
}

fn read_if_present(path: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => text.map(Some).map_err(|error| format!("cannot read {path}: {error}")),
    }
}

/// The fixed ids, unless this machine uses one of them.
fn ids_of_root() -> Result<RangeInclusive<u32>, String> {
    for path in ["/etc/passwd", "/etc/group", "/etc/subuid", "/etc/subgid"] {
        // A container can lack it.
        let Some(text) = read_if_present(path)? else { continue };
        let holder = if path.starts_with("/etc/sub") {
            holder_of_range(&text, &OF_ROOT)
        } else {
            holder_of_id(&text, &OF_ROOT)
        };
        if let Some(name) = holder {
            let (first, last) = (OF_ROOT.start(), OF_ROOT.end());
            return Err(format!("{name} has ids from {first} to {last} in {path}"));
        }
    }
    Ok(OF_ROOT)
}

/// A name in the text of `passwd(5)` or `group(5)` whose id is in a range.
fn holder_of_id<'a>(text: &'a str, range: &RangeInclusive<u32>) -> Option<&'a str> {
    entries(text).find(|(_, number)| range.contains(number)).map(|(name, _)| name)
}

/// A name in the text of `subuid(5)` whose ids overlap with a range.
fn holder_of_range<'a>(text: &'a str, range: &RangeInclusive<u32>) -> Option<&'a str> {
    let mut ranges = subordinate::ranges(text);
    ranges.find(|(_, other)| shared(range, other).is_some()).map(|(name, _)| name)
}

/// The subordinate ids of this user that are both user and group ids.
fn own_subordinate_ids() -> Result<RangeInclusive<u32>, String> {
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
    entries(text).find(|(_, number)| *number == uid).map(|(name, _)| name)
}

/// The names and ids in the text of `passwd(5)` or `group(5)`.
fn entries(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        Some((name, number.parse().ok()?))
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
    fn ids_suffice_for_the_workers_of_local_and_remote_principals() {
        assert!(enough(&(1..=20), 10, 0).is_ok() && enough(&(1..=26), 10, 6).is_ok());
        let error = enough(&(1..=19), 10, 0).unwrap_err();
        assert!(error.contains("19 ids") && error.ends_with("workers (10): 20"), "{error}");
        let error = enough(&(1..=25), 10, 6).unwrap_err();
        assert!(error.contains("25 ids") && error.ends_with("and 2: 26"), "{error}");
    }

    #[test]
    fn holders_of_ids_are_found() {
        let users =
            "root:x:0:0::/root:/bin/sh\n+::::::\nalice:x:1000:7::/:/bin/sh\nbob:x:1004:7::/:/\n";
        assert_eq!(holder_of_id(users, &(1000..=1003)), Some("alice"));
        assert_eq!(holder_of_id(users, &(1001..=1003)), None);
        assert_eq!(holder_of_id("staff:x:50:alice\n", &(50..=50)), Some("staff"));
        let ranges = "alice:100000:65536\n970:300000:10\n";
        assert_eq!(holder_of_range(ranges, &(165_535..=170_000)), Some("alice"));
        assert_eq!(holder_of_range(ranges, &(200_000..=400_000)), Some("970"));
        assert_eq!(holder_of_range(ranges, &(165_536..=299_999)), None);
    }

    #[test]
    fn only_ids_of_users_and_groups_are_shared() {
        assert_eq!(shared(&(10..=20), &(15..=30)), Some(15..=20));
        assert_eq!(shared(&(10..=20), &(21..=30)), None);
    }
}
