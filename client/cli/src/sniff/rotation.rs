//! When a file of packets is followed by the next one, and their names.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Seconds of a day.
pub(super) const DAY: u64 = 86_400;

/// When a file is followed by the next one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rotation {
    /// Before a packet that would follow this many bytes.
    pub(super) bytes: Option<u64>,
    /// After this time.
    pub(super) time: Option<Duration>,
    /// How many files there are: by size, the first is then overwritten; by time, the capture ends.
    pub(super) files: Option<u64>,
}

impl Rotation {
    /// Whether there is one file.
    pub(super) fn is_none(&self) -> bool {
        self.bytes.is_none() && self.time.is_none()
    }

    /// The path of a file: the time in place of its conversions, and the number behind it.
    pub(super) fn path(&self, path: &Path, number: u64, seconds: u64) -> PathBuf {
        let mut text = path.as_os_str().to_owned();
        if self.time.is_some()
            && let Some(pattern) = path.to_str()
        {
            text = with_time(pattern, seconds).into();
        }
        if self.bytes.is_some() {
            match self.files {
                Some(files) => {
                    let width = files.saturating_sub(1).max(1).to_string().len();
                    text.push(format!("{:0width$}", number % files.max(1)));
                }
                None if number > 0 => text.push(number.to_string()),
                None => {}
            }
        }
        text.into()
    }
}

/// Replaces the conversions `%Y %m %d %H %M %S %s %F %T %%` of `strftime(3)`, in UTC.
fn with_time(pattern: &str, seconds: u64) -> String {
    let (year, month, day) = date(seconds / DAY);
    let (hours, minutes, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let part = match letters.next() {
            Some('Y') => year.to_string(),
            Some('m') => format!("{month:02}"),
            Some('d') => format!("{day:02}"),
            Some('H') => format!("{hours:02}"),
            Some('M') => format!("{minutes:02}"),
            Some('S') => format!("{second:02}"),
            Some('s') => seconds.to_string(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hours:02}:{minutes:02}:{second:02}"),
            Some('%') | None => "%".to_owned(),
            Some(other) => format!("%{other}"),
        };
        text.push_str(&part);
    }
    text
}

/// The year, month and day of a day since 1970.
pub(super) fn date(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_time_and_the_number() {
        let name = |rotation: Rotation, number, seconds| {
            let path = Path::new("/x/%Y%m%d-%H%M%S.%%%q");
            rotation.path(path, number, seconds).to_str().unwrap().to_owned()
        };
        let time = Some(Duration::from_secs(1));
        let by_time = Rotation { time, ..Rotation::default() };
        assert_eq!(name(by_time, 0, 0), "/x/19700101-000000.%%q");
        // 29 February 2024, 23:59:59, and the second after it.
        assert_eq!(name(by_time, 7, 1_709_251_199), "/x/20240229-235959.%%q");
        assert_eq!(name(by_time, 7, 1_709_251_200), "/x/20240301-000000.%%q");
        assert_eq!(name(by_time, 7, 4_102_444_799), "/x/20991231-235959.%%q");
        let by_size = Rotation { bytes: Some(1), ..Rotation::default() };
        assert_eq!(name(by_size, 0, 0), "/x/%Y%m%d-%H%M%S.%%%q");
        assert_eq!(name(by_size, 12, 0), "/x/%Y%m%d-%H%M%S.%%%q12");
        let ring = Rotation { files: Some(11), ..by_size };
        assert_eq!(name(ring, 0, 0), "/x/%Y%m%d-%H%M%S.%%%q00");
        assert_eq!(name(ring, 12, 0), "/x/%Y%m%d-%H%M%S.%%%q01");
        let ring = Rotation { files: Some(10), ..by_size };
        assert_eq!(name(ring, 9, 0), "/x/%Y%m%d-%H%M%S.%%%q9");
    }
}
