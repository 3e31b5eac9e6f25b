//! Descriptors that were sent and that the peer has perhaps not received: they are in flight (`unix(7)`).
//!
//! The kernel counts them for the user of the sending process, which workers can share, so each connection counts its
//! own for its user's limit.

use std::collections::VecDeque;

/// The least memory in bytes that a message takes in the queue of a Unix socket: the kernel's `sk_buff` and
/// `skb_shared_info` with 64-byte pages of data, `SKB_TRUESIZE(1)`. `SIOCOUTQ` reports the sum.
const MESSAGE_MEMORY: usize = 512;

/// The descriptors of the messages that the peer has perhaps not received, oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    messages: VecDeque<usize>,
    descriptors: usize,
}

impl InFlight {
    /// Whether the peer has received everything, as far as it is known.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The number of descriptors that the peer has perhaps not received.
    pub(super) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// Adds a message that was sent with descriptors.
    pub(super) fn sent(&mut self, descriptors: usize) {
        if descriptors > 0 {
            self.messages.push_back(descriptors);
            self.descriptors += descriptors;
        }
    }

    /// Forgets messages that the peer has received, given the memory of the queue (`SIOCOUTQ`). The queue cannot contain
    /// more of the last messages than this memory has room for.
    pub(super) fn received(&mut self, queue_memory: usize) {
        let most = queue_memory / MESSAGE_MEMORY;
        while self.messages.len() > most {
            self.descriptors -= self.messages.pop_front().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use sockbroker_sys::stream;

    use super::*;

    #[test]
    fn no_message_in_the_queue_is_forgotten() {
        let (own, peer) = UnixStream::pair().unwrap();
        let slices = [std::io::IoSlice::new(b"x")];
        let mut in_flight = InFlight::default();
        for _ in 0..40 {
            stream::send_stream(own.as_fd(), &slices, &[own.as_fd(), own.as_fd()]).unwrap();
            in_flight.sent(2);
        }
        in_flight.received(stream::unread_by_peer(own.as_fd()).unwrap());
        assert_eq!(in_flight.descriptors(), 80);
        for received in 1..=40 {
            let mut bytes = bytes::BytesMut::new();
            stream::receive_stream(peer.as_fd(), &mut bytes, 1, &mut VecDeque::new()).unwrap();
            in_flight.received(stream::unread_by_peer(own.as_fd()).unwrap());
            assert!(in_flight.descriptors() >= 80 - 2 * received);
        }
        assert!(in_flight.is_empty() && in_flight.descriptors() == 0);
    }
}
