//! Call queues: the order of the calls on one handle, with a queue for receiving and one for sending.
//!
//! Calls of one connection run in the order of arrival. Calls of different connections do not wait for
//! each other, as calls of different threads on one socket do not.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// The calls of one direction that wait or run.
#[derive(Debug, Default)]
pub struct CallQueue {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    tickets: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    connection: u64,
    waker: Option<Waker>,
}

/// A place in a queue, which ends when it is dropped.
#[derive(Debug)]
#[must_use = "a dropped ticket orders nothing"]
pub struct Ticket<'a> {
    calls: &'a CallQueue,
    number: u64,
    connection: u64,
}

impl CallQueue {
    /// Takes the last place. A call does this before its first await, to keep the order of arrival.
    pub fn join(&self, connection: u64) -> Ticket<'_> {
        let mut queue = self.lock();
        let number = queue.next;
        queue.next += 1;
        queue.tickets.push_back(Waiter { number, connection, waker: None });
        Ticket { calls: self, number, connection }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // The queue is consistent after every statement, so a panic of another call does not spoil it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket<'_> {
    /// Waits until no earlier call of the same connection is in the queue.
    pub async fn acquire(&self) {
        poll_fn(|context| {
            let mut queue = self.calls.lock();
            let first =
                queue.tickets.iter_mut().find(|ticket| ticket.connection == self.connection);
            if first.is_none_or(|ticket| ticket.number == self.number) {
                return Poll::Ready(());
            }
            if let Some(own) = queue.tickets.iter_mut().find(|ticket| ticket.number == self.number)
            {
                own.waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut queue = self.calls.lock();
        queue.tickets.retain(|ticket| ticket.number != self.number);
        let next = queue.tickets.iter_mut().find(|ticket| ticket.connection == self.connection);
        let waker = next.and_then(|ticket| ticket.waker.take());
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn calls_of_one_connection_run_in_the_order_they_joined() {
        let calls = CallQueue::default();
        let (first, second, third) = (calls.join(7), calls.join(7), calls.join(7));
        assert!(first.acquire().now_or_never().is_some());
        assert!(second.acquire().now_or_never().is_none());
        drop(first);
        assert!(third.acquire().now_or_never().is_none());
        assert!(second.acquire().now_or_never().is_some());
        drop(second);
        assert!(third.acquire().now_or_never().is_some());
    }

    #[test]
    fn another_connection_does_not_wait() {
        let calls = CallQueue::default();
        let blocked = calls.join(1);
        let other = calls.join(2);
        assert!(other.acquire().now_or_never().is_some());
        drop(blocked);
    }

    #[test]
    fn a_dropped_ticket_wakes_the_next() {
        let calls = CallQueue::default();
        let (first, second) = (calls.join(1), calls.join(1));
        let mut turn = Box::pin(second.acquire());
        let (waker, count) = futures_util_test_waker();
        assert!(turn.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        drop(first);
        assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(turn.as_mut().now_or_never().is_some());
    }

    fn futures_util_test_waker() -> (Waker, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        struct Count(std::sync::Arc<std::sync::atomic::AtomicUsize>);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        (std::sync::Arc::new(Count(count.clone())).into(), count)
    }
}
