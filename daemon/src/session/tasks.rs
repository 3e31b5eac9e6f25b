//! The tasks that a session owns: what its streams do between calls.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// The tasks of one session that have not ended.
#[derive(Debug, Default)]
pub struct Tasks(Arc<Running>);

#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    none: Notify,
}

/// Counts one task until it is dropped.
#[derive(Debug)]
struct Counted(Arc<Running>);

impl Drop for Counted {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

/// A task that is counted, and whose panics are caught. The task is dropped before its count, so that nothing
/// that it owned exists when it no longer counts.
struct Supervised {
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
    kind: &'static str,
    session: u64,
    _counted: Counted,
}

impl Future for Supervised {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (kind, session) = (self.kind, self.session);
        let task = self.task.as_mut();
        catch_unwind(AssertUnwindSafe(|| task.poll(context))).unwrap_or_else(|panic| {
            let reason = reason(&*panic);
            tracing::error!(task = kind, session, reason, "a task of a session panicked");
            Poll::Ready(())
        })
    }
}

fn reason(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

impl Tasks {
    /// Starts a task of a session. A panic in it is logged, and ends this task alone.
    #[expect(clippy::disallowed_methods, reason = "this is the session's set of tasks")]
    pub(super) fn spawn(
        &self,
        kind: &'static str,
        session: u64,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> AbortHandle {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        let counted = Counted(self.0.clone());
        let task = Supervised { task: Box::pin(task), kind, session, _counted: counted };
        tokio::spawn(task).abort_handle()
    }

    /// How many tasks have not ended.
    pub fn running(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Waits until every task has ended.
    pub(super) async fn ended(&self) {
        loop {
            // Registered before the count is read, so that no end is missed between the two.
            let none = self.0.none.notified();
            if self.running() == 0 {
                return;
            }
            none.await;
        }
    }
}
