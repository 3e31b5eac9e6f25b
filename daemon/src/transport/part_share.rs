//! What an unfinished message takes of its user's share of bytes.

use std::sync::Arc;

use crate::table::quota::{Crossed, Share, Taken, User};

/// What is not counted: the buffer that every connection has.
const FREE: usize = 64 << 10;

/// The part that one connection takes.
#[derive(Debug, Default)]
pub(super) struct PartShare(Option<Taken>);

impl PartShare {
    /// Counts so many bytes instead of those before.
    pub(super) fn hold(&mut self, user: &Arc<User>, bytes: usize) -> Result<(), Crossed> {
        match &mut self.0 {
            _ if bytes <= FREE => self.0 = None,
            Some(taken) => taken.resize(bytes as u64)?,
            None => self.0 = Some(user.take(Share::Bytes, bytes as u64)?),
        }
        Ok(())
    }
}
