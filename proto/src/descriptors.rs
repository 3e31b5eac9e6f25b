//! Assigns the descriptors of a stream to its frames, by order and announced counts.
//!
//! The kernel drops descriptors for which the receiver has no room, and reports it (`MSG_CTRUNC`,
//! `recvmsg(2)`) without a count. It keeps the first descriptors of a message, and ends the read after the bytes
//! of the message. A loss therefore belongs to the frames that begin before the end of this read: they
//! get fewer descriptors than they announce, and frames that begin later get all of theirs.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::collections::VecDeque;

/// The result of one read of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The number of bytes; 0 at the end of the stream.
    pub bytes: usize,
    /// Whether the kernel dropped descriptors that came with them.
    pub lost_descriptors: bool,
}

/// Descriptors that arrived and that no frame has taken yet, in the order of arrival.
#[derive(Debug)]
pub struct DescriptorQueue<D> {
    waiting: VecDeque<D>,
    /// The number of descriptors taken so far.
    taken: u64,
    /// The number of bytes received so far.
    received: u64,
    losses: VecDeque<Loss>,
}

/// A position in the queue at which descriptors are missing.
#[derive(Debug, Clone, Copy)]
struct Loss {
    /// The number of descriptors that arrived before it.
    after: u64,
    /// The position in the stream at which the read ended.
    end: u64,
}

/// The descriptors of one frame.
#[derive(Debug)]
pub struct FrameDescriptors<D> {
    /// The descriptors that arrived.
    pub descriptors: Vec<D>,
    /// Whether the kernel dropped the others.
    pub lost: bool,
}

impl<D> Default for FrameDescriptors<D> {
    fn default() -> Self {
        Self { descriptors: Vec::new(), lost: false }
    }
}

/// A frame announces more descriptors than its sender sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooFew {
    /// The number of descriptors that arrived.
    pub came: usize,
}

impl<D> Default for DescriptorQueue<D> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), taken: 0, received: 0, losses: VecDeque::new() }
    }
}

impl<D> DescriptorQueue<D> {
    /// Reads from the stream with `read`, which appends descriptors to the queue. Returns the number of bytes.
    pub fn receive<E>(
        &mut self,
        read: impl FnOnce(&mut VecDeque<D>) -> Result<Received, E>,
    ) -> Result<usize, E> {
        let Received { bytes, lost_descriptors } = read(&mut self.waiting)?;
        self.received = self.received.saturating_add(bytes as u64);
        if lost_descriptors {
            let after = self.taken.saturating_add(self.waiting.len() as u64);
            let end = self.received;
            // Losses at the same place are one loss, so that their number has the limit of the descriptors.
            match self.losses.back_mut() {
                Some(last) if last.after == after => last.end = end,
                _ => self.losses.push_back(Loss { after, end }),
            }
        }
        Ok(bytes)
    }

    /// The number of descriptors that no frame has taken.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether frames have taken all descriptors.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether frames can be without descriptors that they announce, or descriptors without a frame.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.losses.is_empty()
    }

    /// The position in the stream of a frame whose first byte is the first of `unread` received bytes.
    pub fn position(&self, unread: usize) -> u64 {
        self.received.saturating_sub(unread as u64)
    }

    /// Takes the descriptors of a complete frame that begins at `start` (see [`Self::position`]) and announces
    /// `count` of them.
    pub fn take(&mut self, start: u64, count: usize) -> Result<FrameDescriptors<D>, TooFew> {
        while self.losses.front().is_some_and(|loss| loss.end <= start) {
            self.losses.pop_front();
        }
        if count == 0 {
            return Ok(FrameDescriptors::default());
        }
        let before_loss = self.losses.front().map(|loss| loss.after.saturating_sub(self.taken));
        let lost = before_loss.is_some_and(|there| there < count as u64);
        let there = match before_loss {
            Some(there) if lost => usize::try_from(there).unwrap_or(usize::MAX),
            _ if self.waiting.len() < count => return Err(TooFew { came: self.waiting.len() }),
            _ => count,
        };
        let descriptors: Vec<D> = self.waiting.drain(..there.min(self.waiting.len())).collect();
        self.taken = self.taken.saturating_add(descriptors.len() as u64);
        Ok(FrameDescriptors { descriptors, lost })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A queue after reads of 10 bytes, each with these descriptors, and whether descriptors were lost.
    fn queue(reads: &[(&[u32], bool)]) -> DescriptorQueue<u32> {
        let mut queue = DescriptorQueue::default();
        for (came, lost_descriptors) in reads {
            let read = queue.receive(|waiting| {
                waiting.extend(came.iter());
                Ok::<_, Infallible>(Received { bytes: 10, lost_descriptors: *lost_descriptors })
            });
            assert_eq!(read, Ok(10));
        }
        queue
    }

    fn take(queue: &mut DescriptorQueue<u32>, start: u64, count: usize) -> (Vec<u32>, bool) {
        let taken = queue.take(start, count).unwrap();
        (taken.descriptors, taken.lost)
    }

    #[test]
    fn frames_take_what_they_announce_in_order() {
        let mut queue = queue(&[(&[1, 2], false), (&[3], false)]);
        assert_eq!(take(&mut queue, 0, 0), (vec![], false));
        assert_eq!(take(&mut queue, 0, 1), (vec![1], false));
        assert_eq!(take(&mut queue, 5, 2), (vec![2, 3], false));
        assert_eq!(queue.take(10, 1).unwrap_err(), TooFew { came: 0 });
    }

    #[test]
    fn a_loss_shortens_the_frame_it_came_with_and_no_later_one() {
        let mut queue = queue(&[(&[1], false), (&[2], true), (&[4, 5], false)]);
        assert_eq!(take(&mut queue, 0, 1), (vec![1], false));
        assert_eq!(take(&mut queue, 10, 2), (vec![2], true));
        assert_eq!(take(&mut queue, 20, 2), (vec![4, 5], false));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_loss_of_all_descriptors_shortens_every_frame_of_its_read() {
        let mut queue = queue(&[(&[], true), (&[7], false)]);
        assert_eq!(take(&mut queue, 0, 1), (vec![], true));
        assert_eq!(take(&mut queue, 4, 1), (vec![], true));
        assert_eq!(take(&mut queue, 10, 1), (vec![7], false));
    }

    #[test]
    fn a_frame_whose_descriptors_came_before_the_loss_is_whole() {
        let mut queue = queue(&[(&[1, 2], true)]);
        assert_eq!(take(&mut queue, 0, 2), (vec![1, 2], false));
        assert_eq!(take(&mut queue, 5, 1), (vec![], true));
    }

    #[test]
    fn a_loss_that_no_frame_announced_is_forgotten() {
        let mut queue = queue(&[(&[], true), (&[], true), (&[7], false)]);
        assert_eq!(take(&mut queue, 20, 1), (vec![7], false));
    }

    #[test]
    fn losses_are_kept_once_and_until_a_later_frame() {
        let mut queue = queue(&[(&[], true), (&[], true), (&[7], true), (&[], true)]);
        assert_eq!(queue.losses.len(), 2);
        assert_eq!(take(&mut queue, 15, 1), (vec![], true));
        assert_eq!(take(&mut queue, 20, 2), (vec![7], true));
        assert_eq!(take(&mut queue, 30, 0), (vec![], false));
        assert!(!queue.is_idle());
        assert_eq!(take(&mut queue, 40, 0), (vec![], false));
        assert!(queue.is_idle());
    }

    #[test]
    fn positions_count_from_the_first_byte() {
        let queue = queue(&[(&[], false), (&[], false)]);
        assert_eq!((queue.position(20), queue.position(3), queue.position(99)), (0, 17, 0));
    }
}
