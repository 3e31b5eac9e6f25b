//! The time at the beginning of a line, as tcpdump prints it, but in UTC.

use super::rotation::{DAY, date};

/// Nanoseconds in a second.
pub(super) const SECOND: u64 = 1_000_000_000;

/// What is printed of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// The time of day.
    TimeOfDay,
    /// Nothing.
    Nothing,
    /// Seconds since 1970.
    Seconds,
    /// The time since the line before.
    SincePrevious,
    /// The date and the time of day.
    Date,
    /// The time since the first line.
    SinceFirst,
}

impl Style {
    /// The style for as many options `-t`.
    pub(super) fn of(count: u8) -> Self {
        match count {
            0 => Self::TimeOfDay,
            1 => Self::Nothing,
            2 => Self::Seconds,
            3 => Self::SincePrevious,
            4 => Self::Date,
            5.. => Self::SinceFirst,
        }
    }
}

/// Formats the times of lines, one after the other.
#[derive(Debug)]
pub(super) struct Clock {
    style: Style,
    /// The time that the next one is relative to.
    base: Option<u64>,
}

impl Clock {
    pub(super) fn new(style: Style) -> Self {
        Self { style, base: None }
    }

    /// Formats a time in nanoseconds since 1970, with microseconds. Empty if no time is printed.
    pub(super) fn format(&mut self, time: Option<u64>) -> String {
        if self.style == Style::Nothing {
            return String::new();
        }
        let Some(time) = time else { return "-".to_owned() };
        match self.style {
            Style::Nothing => String::new(),
            Style::TimeOfDay => time_of_day(time),
            Style::Seconds => format!("{}.{:06}", time / SECOND, time % SECOND / 1000),
            Style::Date => {
                let (year, month, day) = date(time / SECOND / DAY);
                format!("{year:04}-{month:02}-{day:02} {}", time_of_day(time))
            }
            Style::SincePrevious => {
                let base = self.base.replace(time).unwrap_or(time);
                difference(time, base)
            }
            Style::SinceFirst => difference(time, *self.base.get_or_insert(time)),
        }
    }
}

/// Formats the time of day.
fn time_of_day(time: u64) -> String {
    let seconds = time / SECOND;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, time % SECOND / 1000)
}

/// Formats a time since another one, which can be later.
fn difference(time: u64, base: u64) -> String {
    // Of microseconds, as tcpdump: the lines add up.
    let between = (time / 1000).abs_diff(base / 1000);
    let (seconds, sign) = (between / 1_000_000, if time < base { '-' } else { ' ' });
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{sign}{hours:02}:{minutes:02}:{:02}.{:06}", seconds % 60, between % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_in_every_style() {
        let day = ((23 * 60 + 5) * 60 + 9) * SECOND + 1_234_999;
        // 2024-02-29, and the day after it.
        let first = 1_709_164_800 * SECOND + day;
        let times = [first, first + DAY * SECOND + 2_000_000, first + 1000];
        let printed = |count: u8| {
            let mut clock = Clock::new(Style::of(count));
            times.map(|time| clock.format(Some(time)))
        };
        assert_eq!(printed(0), ["23:05:09.001234", "23:05:09.003234", "23:05:09.001235"]);
        assert_eq!(printed(1), ["", "", ""]);
        assert_eq!(printed(2)[0], "1709247909.001234");
        let since = [" 00:00:00.000000", " 24:00:00.002000", "-24:00:00.001999"];
        assert_eq!(printed(3), since);
        assert_eq!(printed(4)[..2], ["2024-02-29 23:05:09.001234", "2024-03-01 23:05:09.003234"]);
        assert_eq!(printed(5), [since[0], since[1], " 00:00:00.000001"]);
        assert_eq!(Clock::new(Style::of(0)).format(None), "-");
    }
}
