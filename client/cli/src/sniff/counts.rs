//! The numbers of packets, as tcpdump prints them.

use sockbroker_proto::api::capture::CaptureStats;

/// The numbers, for a line each. `stats` are those of the broker, if it still answered.
pub(super) fn numbers(captured: u64, stats: Option<&CaptureStats>) -> Vec<String> {
    let mut numbers = vec![format!("{} captured", packets(captured))];
    match stats {
        Some(CaptureStats { seen, dropped, .. }) => {
            numbers.push(format!("{} received by filter", packets(*seen)));
            numbers.push(format!("{} dropped by kernel", packets(*dropped)));
        }
        None => numbers.push(
            "the broker did not report how many were received by the filter and dropped by the kernel"
                .to_owned(),
        ),
    }
    numbers
}

fn packets(number: u64) -> String {
    format!("{number} packet{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_program_and_of_the_broker() {
        let stats = CaptureStats {
            seen: 9,
            captured: 5,
            dropped: 1,
            unread: 3,
            bytes: 0,
            ended: None,
            complete: None,
        };
        assert_eq!(
            numbers(2, Some(&stats)),
            ["2 packets captured", "9 packets received by filter", "1 packet dropped by kernel"]
        );
        assert_eq!(numbers(0, None)[0], "0 packets captured");
        assert!(numbers(0, None)[1].contains("did not report"));
    }
}
