//! What a replay has sent so far.

use serde_json::json;
use sockbroker_client::proto::api::capture::{ReplayFailure, Replayed};
use sockbroker_client::proto::errno;

use crate::failure::{Exit, Failure};
use crate::screen::{Screen, report};

/// How many packets that failed are reported by number.
const REPORTED_MAX: usize = 16;

/// The end of the broker's reason for a packet that the file has only in part.
const TRUNCATED: &str = "truncated packets are not sent";

/// Counts of all calls.
#[derive(Debug, Default)]
pub(super) struct Tally {
    packets: u64,
    bytes: u64,
    failed: u64,
    failures: Vec<ReplayFailure>,
    pub(super) seconds: f64,
}

impl Tally {
    /// Adds the result of a call, and reports the packets that failed.
    pub(super) fn add(&mut self, name: &str, replayed: Replayed) -> Result<(), Failure> {
        self.packets += replayed.packets;
        self.bytes += replayed.bytes;
        self.failed += replayed.failed;
        for failure in replayed.failures {
            if self.failures.len() < REPORTED_MAX {
                report(&format!("{name}: {}", line(&failure)));
                self.failures.push(failure);
            }
        }
        match replayed.stopped {
            None => Ok(()),
            Some(failure) => Err(Failure::new(Exit::Failed, format!("{name}: {}", line(&failure)))),
        }
    }

    /// Whether every packet so far was sent.
    pub(super) fn is_complete(&self) -> bool {
        self.failed == 0
    }

    /// Prints the counts.
    pub(super) fn print(&self, as_json: bool) -> Result<(), Failure> {
        let Self { packets, bytes, failed, failures, seconds } = self;
        if as_json {
            return Screen::new().json(&json!({
                "packets": packets, "bytes": bytes, "failed": failed, "failures": failures,
                "seconds": seconds,
            }));
        }
        Screen::new().line(self.summary())
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn summary(&self) -> String {
        let Self { packets, bytes, failed, seconds, .. } = self;
        let noun = if *packets == 1 { "packet" } else { "packets" };
        let counts = format!("{packets} {noun} sent, {bytes} bytes, {failed} failed");
        if *seconds <= 0.0 {
            return counts;
        }
        let (rate, bits) = (*packets as f64 / seconds, *bytes as f64 * 8.0 / seconds / 1e6);
        format!("{counts}, in {seconds:.3} s: {rate:.0} packets/s, {bits:.2} Mbit/s")
    }
}

fn line(failure: &ReplayFailure) -> String {
    let named = failure.error.errno.and_then(errno::name);
    let named = named.map(|name| format!("{name}: ")).unwrap_or_default();
    // The text of an error of the kernel begins with the name of its call.
    let way = if failure.reason.ends_with(TRUNCATED) {
        "; --truncated sends them as they are"
    } else {
        ""
    };
    format!("packet {}: {named}{}{way}", failure.packet, failure.reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sockbroker_client::proto::error::ErrorData;

    fn failed(packet: u64) -> ReplayFailure {
        let error = ErrorData { errno: Some(90), ..ErrorData::default() };
        ReplayFailure { packet, reason: "too long".to_owned(), error: Box::new(error) }
    }

    #[test]
    fn counts_add_up_and_few_failures_are_kept() {
        let mut tally = Tally { seconds: 2.0, ..Tally::default() };
        let failures: Vec<_> = (1..=10).map(failed).collect();
        for _ in 0..2 {
            let failures = failures.clone();
            let replayed = Replayed {
                packets: 100,
                bytes: 1_000_000,
                failed: 10,
                failures,
                ..Replayed::default()
            };
            tally.add("file", replayed).unwrap();
        }
        assert_eq!(tally.failures.len(), REPORTED_MAX);
        assert!(!tally.is_complete());
        assert_eq!(
            tally.summary(),
            "200 packets sent, 2000000 bytes, 20 failed, in 2.000 s: 100 packets/s, 8.00 Mbit/s"
        );
        assert_eq!(line(&failed(3)), "packet 3: EMSGSIZE: too long");
    }

    #[test]
    fn a_replay_that_stopped_fails_with_the_packet() {
        let mut tally = Tally::default();
        let replayed = Replayed { packets: 1, stopped: Some(failed(2)), ..Replayed::default() };
        let failure = tally.add("file", replayed).unwrap_err();
        assert_eq!(failure.to_string(), "file: packet 2: EMSGSIZE: too long");
        assert_eq!(tally.packets, 1);
    }
}
