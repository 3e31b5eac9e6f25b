//! What an unfinished message takes of its user's share of bytes.

use crate::session::connection::Connection;
use crate::table::quota::{Crossed, Share, Taken};

/// What is not counted: the buffer that every connection has.
const FREE: usize = 64 << 10;

/// The part that one connection takes.
#[derive(Debug, Default)]
pub(super) struct PartShare(Option<Taken>);

impl PartShare {
    /// Counts so many bytes instead of those before.
    pub(super) fn hold(&mut self, connection: &Connection, bytes: usize) -> Result<(), Crossed> {
        let held = match &mut self.0 {
            _ if bytes <= FREE => {
                self.0 = None;
                Ok(())
            }
            Some(taken) => taken.resize(bytes as u64),
            None => connection.user().take(Share::Bytes, bytes as u64).map(|taken| {
                self.0 = Some(taken);
            }),
        };
        held.inspect_err(|crossed| connection.broker().metrics.crossed(crossed.name))
    }
}
