//! The ids that exist in a user namespace: the format of `/proc/self/uid_map` and `gid_map` (`user_namespaces(7)`).

use std::ops::RangeInclusive;

/// The ranges of the lines, in ascending order. A line that is not of the format is left out.
fn ranges(text: &str) -> Vec<RangeInclusive<u32>> {
    let mut ranges: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (first, _outside) = (fields.next()?.parse::<u32>().ok()?, fields.next()?);
            let count: u32 = fields.next()?.parse().ok()?;
            Some(first..=first.checked_add(count.checked_sub(1)?)?)
        })
        .collect();
    ranges.sort_unstable_by_key(|range| *range.start());
    ranges
}

/// Whether all ids of a range exist, by the text of the map. The kernel refuses maps whose lines overlap.
pub(super) fn contains(text: &str, ids: &RangeInclusive<u32>) -> bool {
    let mut next = *ids.start();
    for range in ranges(text) {
        if !range.contains(&next) {
            continue;
        }
        if range.contains(ids.end()) {
            return true;
        }
        // No overflow: the end of `ids` is greater.
        next = range.end() + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_initial_namespace_has_all_ids_but_the_last() {
        let text = "         0          0 4294967295\n";
        assert!(contains(text, &(0..=u32::MAX - 1)) && contains(text, &(100_000..=165_535)));
        assert!(!contains(text, &(5..=u32::MAX)));
    }

    #[test]
    fn a_namespace_of_one_user_has_no_other_ids() {
        let text = "         0       1000          1\n";
        assert!(contains(text, &(0..=0)) && !contains(text, &(0..=1)));
        assert!(!contains(text, &(100_000..=165_535)));
    }

    #[test]
    fn lines_of_another_format_are_left_out() {
        let text = "\n7\n7 0\n7 0 0\n7 0 x\n-1 0 9\n4294967295 0 2\n";
        assert_eq!(ranges(text), []);
        assert!(!contains("", &(7..=7)));
    }

    proptest! {
        #[test]
        fn a_range_exists_if_each_of_its_ids_does(
            gaps in proptest::collection::vec((0u32..3, 1u32..4), 0..5),
            reversed: bool,
            (first, length) in (0u32..20, 0u32..8),
        ) {
            let (mut next, mut lines, mut ids) = (0, Vec::new(), Vec::new());
            for (gap, count) in gaps {
                next += gap;
                lines.push(format!("{next} {} {count}\n", next + 100_000));
                ids.extend(next..next + count);
                next += count;
            }
            if reversed {
                lines.reverse();
            }
            let range = first..=first + length;
            let all = range.clone().all(|id| ids.contains(&id));
            prop_assert_eq!(contains(&lines.concat(), &range), all);
        }
    }
}
