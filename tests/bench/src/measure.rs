//! Rounds, medians, and the CPU use of other processes.

use std::fs;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::Result;

/// The payload byte. It is not zero, because the kernel can share pages of zeros.
pub(crate) const FILLING: u8 = b'x';

/// The distribution of a figure over several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// The median.
    pub(crate) median: f64,
    /// The first quartile.
    pub(crate) low: f64,
    /// The third quartile.
    pub(crate) high: f64,
}

impl Sample {
    /// Computes the sample of some rounds. Without rounds it is NaN.
    pub(crate) fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |placement: usize| sorted.get(placement).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self { median: at(last / 2), low: at(last / 4), high: at(last - last / 4) }
    }

    /// Computes the sample of a figure of each round.
    pub(crate) fn map<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> Self {
        Self::of(&rounds.iter().map(figure).collect::<Vec<_>>())
    }
}

/// Runs a measurement and its reference alternately, so that both see the same load of the machine.
pub(crate) fn in_turn(
    rounds: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut peers: impl FnMut() -> Result<f64>,
) -> Result<Vec<(f64, f64)>> {
    ours()?;
    peers()?;
    (0..rounds).map(|_| Ok((ours()?, peers()?))).collect()
}

/// Returns the first number as a multiple of the second.
pub(crate) fn ratio(pair: &(f64, f64)) -> f64 {
    pair.0 / pair.1
}

/// Returns the median duration of an action, in seconds.
pub(crate) fn median_seconds(count: usize, mut action: impl FnMut() -> Result<()>) -> Result<f64> {
    timed(count, || {
        let start = Instant::now();
        action()?;
        Ok(start.elapsed().as_secs_f64())
    })
}

/// Returns the median of durations in seconds that the action returns.
pub(crate) fn timed(count: usize, action: impl FnMut() -> Result<f64>) -> Result<f64> {
    let seconds: Vec<f64> = std::iter::repeat_with(action).take(count).collect::<Result<_>>()?;
    Ok(Sample::of(&seconds).median)
}

/// Converts a small count.
pub(crate) fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from)
}

/// The CPU use of the machine since a start.
#[derive(Debug)]
pub(crate) struct Load {
    all: f64,
    busy: f64,
    own: f64,
}

/// The ticks per second of `/proc/stat`, the same on every architecture (`USER_HZ`).
const TICKS: f64 = 100.0;

impl Load {
    pub(crate) fn start() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().ok_or("/proc/stat is empty")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; user includes guests.
        let ticks = line.split_whitespace().skip(1).take(8).map(str::parse::<f64>);
        let ticks: Vec<f64> = ticks.collect::<std::result::Result<_, _>>()?;
        let all: f64 = ticks.iter().sum();
        let idle: f64 = ticks.iter().skip(3).take(2).sum();
        let mut own = 0.0;
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who)?;
            own += seconds(usage.user_time()) + seconds(usage.system_time());
        }
        Ok(Self { all: all / TICKS, busy: (all - idle) / TICKS, own })
    }

    /// Returns the CPU use of other processes, in percent of all CPUs. A child counts as own use after wait(2).
    pub(crate) fn percent_of_others(&self) -> Result<f64> {
        let now = Self::start()?;
        let others = (now.busy - self.busy) - (now.own - self.own);
        Ok((100.0 * others / (now.all - self.all)).max(0.0))
    }
}

/// Converts a time of getrusage(2).
pub(crate) fn seconds(time: TimeVal) -> f64 {
    let microseconds = u32::try_from(time.num_microseconds() % 1_000_000).unwrap_or_default();
    let seconds = u32::try_from(time.num_seconds()).unwrap_or(u32::MAX);
    f64::from(seconds) + f64::from(microseconds) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_between_the_quartiles() {
        let sample = Sample::of(&[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(sample, Sample { median: 3.0, low: 2.0, high: 4.0 });
        assert_eq!(Sample::of(&[7.0]), Sample { median: 7.0, low: 7.0, high: 7.0 });
        assert!(Sample::of(&[]).median.is_nan());
    }

    #[test]
    fn measurements_alternate_after_a_warm_up_round() {
        let (mut ours, mut peers) = (0.0, 100.0);
        let count = |number: &mut f64| {
            *number += 1.0;
            Ok(*number)
        };
        let pairs = in_turn(2, || count(&mut ours), || count(&mut peers)).unwrap();
        assert_eq!(pairs, [(2.0, 102.0), (3.0, 103.0)]);
    }
}
