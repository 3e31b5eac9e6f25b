//! Rounds, medians, and how much of the machine others used meanwhile.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::socket::{setsockopt, sockopt::SndBuf};
use nix::sys::time::{TimeVal, TimeValLike};

/// Why a measurement could not be made.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The size of a transfer.
pub(crate) const BLOCK: usize = 256 << 10;
/// What a socket is asked to hold. The kernel doubles it, and grants this much to everybody
/// (`wmem_max`); a block fits with the kernel's overhead.
const BUFFER: usize = 212_992;
/// What payload consists of: not zeros, which the kernel may keep in one page.
pub(crate) const FILLING: u8 = b'x';

/// A figure of several rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// The middle one.
    pub(crate) median: f64,
    /// A quarter lie below.
    pub(crate) low: f64,
    /// A quarter lie above.
    pub(crate) high: f64,
}

impl Sample {
    /// The sample of some rounds; not a number without any.
    pub(crate) fn of(rounds: &[f64]) -> Self {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Self { median: at(last / 2), low: at(last / 4), high: at(last - last / 4) }
    }

    /// The sample of something that follows from each round.
    pub(crate) fn map<T>(rounds: &[T], figure: impl Fn(&T) -> f64) -> Self {
        Self::of(&rounds.iter().map(figure).collect::<Vec<_>>())
    }
}

/// Runs a measurement and its peer's in turn, so that both meet the same neighbours.
pub(crate) fn in_turn(
    rounds: usize,
    mut ours: impl FnMut() -> Result<f64>,
    mut peers: impl FnMut() -> Result<f64>,
) -> Result<Vec<(f64, f64)>> {
    ours()?;
    peers()?;
    (0..rounds).map(|_| Ok((ours()?, peers()?))).collect()
}

/// The first of a pair as a multiple of the second.
pub(crate) fn ratio(pair: &(f64, f64)) -> f64 {
    pair.0 / pair.1
}

/// The median duration of an action in seconds.
pub(crate) fn median_seconds(count: usize, mut action: impl FnMut() -> Result<()>) -> Result<f64> {
    timed(count, || {
        let start = Instant::now();
        action()?;
        Ok(start.elapsed().as_secs_f64())
    })
}

/// The median of durations in seconds that the action takes itself.
pub(crate) fn timed(count: usize, action: impl FnMut() -> Result<f64>) -> Result<f64> {
    let seconds: Vec<f64> = std::iter::repeat_with(action).take(count).collect::<Result<_>>()?;
    Ok(Sample::of(&seconds).median)
}

/// A small count as a number to divide by.
pub(crate) fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::NAN, f64::from)
}

/// The use of the machine since some moment.
#[derive(Debug)]
pub(crate) struct Load {
    all: f64,
    busy: f64,
    own: f64,
}

/// `/proc/stat` counts in hundredths of a second on every architecture (`USER_HZ`).
const TICKS: f64 = 100.0;

impl Load {
    /// Begins to count.
    pub(crate) fn start() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().ok_or("/proc/stat is empty")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user already.
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

    /// What others used, in percent of all CPUs. Children count as soon as they were waited for.
    pub(crate) fn percent_of_others(&self) -> Result<f64> {
        let now = Self::start()?;
        let others = (now.busy - self.busy) - (now.own - self.own);
        Ok((100.0 * others / (now.all - self.all)).max(0.0))
    }
}

fn seconds(time: TimeVal) -> f64 {
    let microseconds = u32::try_from(time.num_microseconds() % 1_000_000).unwrap_or_default();
    let seconds = u32::try_from(time.num_seconds()).unwrap_or(u32::MAX);
    f64::from(seconds) + f64::from(microseconds) / 1e6
}

/// Lets a socket hold a block that the other end has not read.
pub(crate) fn hold_a_block(stream: &UnixStream) -> std::io::Result<()> {
    Ok(setsockopt(stream, SndBuf, &BUFFER)?)
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
