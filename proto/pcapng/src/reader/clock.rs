//! Times of an interface.

use crate::reader::error::FormatError;

const NANOSECONDS: i128 = 1_000_000_000;

/// The unit of the times of an interface, and where they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    /// `if_tsresol`: a negative power of ten, or of two with the highest bit set.
    pub(super) resolution: u8,
    /// `if_tsoffset` in seconds.
    pub(super) offset: i64,
}

impl Clock {
    /// The clock of an interface without options: microseconds since 1970.
    pub(super) const DEFAULT: Self = Self { resolution: 6, offset: 0 };

    /// Returns nanoseconds since 1970. Fractions of a nanosecond are cut off.
    pub(super) fn nanoseconds(self, ticks: u64) -> Result<u64, FormatError> {
        let Self { resolution, offset } = self;
        let power = u32::from(resolution & 0x7F);
        // Below 2^64 × 10^9, which fits.
        let scaled = i128::from(ticks).saturating_mul(NANOSECONDS);
        let since_offset = if resolution & 0x80 == 0 {
            // Without a quotient, the divisor does not fit, and the time is below a nanosecond.
            10i128.checked_pow(power).and_then(|divisor| scaled.checked_div(divisor)).unwrap_or(0)
        } else {
            scaled >> power
        };
        let time = since_offset.saturating_add(i128::from(offset).saturating_mul(NANOSECONDS));
        u64::try_from(time).ok().ok_or(FormatError::TimeOutOfRange { ticks, resolution, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(resolution: u8, offset: i64, ticks: u64) -> Option<u64> {
        Clock { resolution, offset }.nanoseconds(ticks).ok()
    }

    #[test]
    fn times_of_every_resolution_become_nanoseconds() {
        assert_eq!(time(0, 0, 5), Some(5_000_000_000));
        assert_eq!(time(3, 0, 1_234), Some(1_234_000_000));
        assert_eq!(time(6, 0, 1_234_567), Some(1_234_567_000));
        assert_eq!(time(9, 0, u64::MAX), Some(u64::MAX));
        assert_eq!(time(12, 0, 1_999), Some(1));
        assert_eq!(time(127, 0, u64::MAX), Some(0));
        assert_eq!(time(0x80, 0, 5), Some(5_000_000_000));
        assert_eq!(time(0x81, 0, 3), Some(1_500_000_000));
        assert_eq!(time(0x80 | 32, 0, 1 << 31), Some(500_000_000));
        assert_eq!(time(0xFF, 0, u64::MAX), Some(0));
    }

    #[test]
    fn offset_moves_times_and_may_be_negative() {
        assert_eq!(time(6, 1_000, 1), Some(1_000_000_001_000));
        assert_eq!(time(0, -5, 7), Some(2_000_000_000));
        assert_eq!(time(0, -7, 7), Some(0));
    }

    #[test]
    fn times_before_1970_and_after_2554_are_refused() {
        assert_eq!(time(0, -8, 7), None);
        assert_eq!(time(6, 0, u64::MAX), None);
        assert_eq!(time(9, 1, u64::MAX), None);
        assert_eq!(time(9, i64::MAX, u64::MAX), None);
        assert_eq!(time(9, i64::MIN, u64::MAX), None);
        let error = FormatError::TimeOutOfRange { ticks: 7, resolution: 0, offset: -8 };
        assert_eq!(Clock { resolution: 0, offset: -8 }.nanoseconds(7), Err(error));
    }
}
