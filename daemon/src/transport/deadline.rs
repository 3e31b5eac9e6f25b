//! A deadline that begins when it is first polled.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// A deadline. Its time begins at the first poll, and again at the first poll after it was cleared.
#[derive(Debug)]
pub(super) struct Deadline {
    length: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, timer: None }
    }

    /// Stops the clock.
    pub(super) fn clear(&mut self) {
        self.timer = None;
    }

    /// Ready when the time is over.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let length = self.length;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(length)));
        timer.as_mut().poll(context)
    }
}
