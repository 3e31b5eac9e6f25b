//! Subordinate ids: the format of `subuid(5)` and `subgid(5)`.

use std::ops::RangeInclusive;

/// The user ids of each line, with the name or number of the user who owns them. A line that is not of the format is left
/// out, as other programs do.
pub(super) fn ranges(text: &str) -> impl Iterator<Item = (&str, RangeInclusive<u32>)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let first: u32 = fields.next()?.trim().parse().ok()?;
        let count: u32 = fields.next()?.trim().parse().ok()?;
        let last = first.checked_add(count.checked_sub(1)?)?;
        (first > 0).then_some((name, first..=last))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_another_format_are_left_out() {
        let text = "alice:100000:65536\n970:1000:0\n\nbroken\nbob:0:9\nbob:5\n970: 300000:10 \n\
            x:4294967295:1\nx:4294967295:2\n";
        let found: Vec<_> = ranges(text).collect();
        let expected =
            [("alice", 100_000..=165_535), ("970", 300_000..=300_009), ("x", u32::MAX..=u32::MAX)];
        assert_eq!(found, expected);
    }
}
