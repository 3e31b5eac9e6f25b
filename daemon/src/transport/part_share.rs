//! What incomplete messages and unread answers take of their user's bytes and descriptors.

use crate::error::LimitExceeded;
use crate::quota::{Reservation, Share};
use crate::session::connection::Connection;

/// Bytes that are not counted: the input buffer of every connection.
const FREE: usize = 64 << 10;

/// The parts that one connection takes.
#[derive(Debug, Default)]
pub(super) struct PartShare {
    bytes: Option<Reservation>,
    descriptors: Option<Reservation>,
}

impl PartShare {
    /// Counts these numbers of bytes and descriptors in place of the ones before.
    pub(super) fn hold(
        &mut self,
        connection: &Connection,
        (bytes, descriptors): (usize, usize),
    ) -> Result<(), LimitExceeded> {
        let bytes = if bytes <= FREE { 0 } else { bytes };
        hold(&mut self.bytes, connection, Share::Bytes, bytes)?;
        hold(&mut self.descriptors, connection, Share::Descriptors, descriptors)
    }

    /// Keeps at most this number of descriptors, and nothing else.
    pub(super) fn keep_descriptors(&mut self, descriptors: usize) {
        self.bytes = None;
        if let Some(taken) = &mut self.descriptors {
            // It becomes less, which no limit refuses.
            taken.resize(taken.amount().min(descriptors as u64)).ok();
        }
    }
}

fn hold(
    part: &mut Option<Reservation>,
    connection: &Connection,
    share: Share,
    amount: usize,
) -> Result<(), LimitExceeded> {
    let held = match part {
        _ if amount == 0 => {
            *part = None;
            Ok(())
        }
        Some(taken) => taken.resize(amount as u64),
        None => connection.user().take(share, amount as u64).map(|taken| *part = Some(taken)),
    };
    held.inspect_err(|exceeded| connection.broker().metrics.limit_exceeded(exceeded.name))
}
