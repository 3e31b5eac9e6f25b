//! Bytes that a cancelled `MSG_WAITALL` had received. The next receive on the socket returns them first.

use std::sync::Arc;

use crate::quota::{Reservation, Share, User};

/// The bytes of one socket. Their memory counts as held for the user until the last of them is returned.
#[derive(Debug, Default)]
pub struct Unread {
    data: Vec<u8>,
    memory: Option<Reservation>,
}

impl Unread {
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Returns at most `length` bytes, and keeps them.
    pub fn peek(&self, length: usize) -> Vec<u8> {
        self.data[..length.min(self.data.len())].to_vec()
    }

    /// Removes and returns at most `length` bytes.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let taken = self.data.drain(..length.min(self.data.len())).collect();
        if self.data.is_empty() {
            *self = Self::default();
        }
        taken
    }

    /// Puts bytes back in front of the others. No limit refuses them, because the call that received them has
    /// reserved their memory.
    pub fn put_back(&mut self, user: &Arc<User>, mut data: Vec<u8>) {
        data.append(&mut self.data);
        self.memory = Some(user.take_back(Share::Bytes, data.len() as u64));
        self.data = data;
    }
}
