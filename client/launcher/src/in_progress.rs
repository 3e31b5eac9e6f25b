//! The calls that are in progress, by the thread that made them.
//!
//! Without `WAIT_KILLABLE_RECV` any signal interrupts a call that the supervisor works on. The kernel then reports the
//! call again, with another number. Such a report *joins* the work in progress: it replaces the number to answer.
//! Without this a program with frequent signals never gets an answer, and sockets are made that nobody gets.

use std::collections::HashMap;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::decision::RawCall;

/// How long an answer waits for the report of an interrupted call that the kernel restarts.
pub(crate) const REJOIN_TIME: Duration = Duration::from_millis(600);

/// A call of a thread. A thread is in one call at a time.
pub(crate) type Key = (u32, RawCall);

/// The numbers to answer.
#[derive(Debug, Default)]
pub(crate) struct InProgress {
    ids: Mutex<HashMap<Key, u64>>,
    joined: Condvar,
}

impl InProgress {
    fn ids(&self) -> MutexGuard<'_, HashMap<Key, u64>> {
        // Every change is one statement, so that a panic elsewhere leaves the map valid.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a report. Returns whether work on it has to begin: false if it joins work in progress.
    pub(crate) fn begin(&self, key: Key, id: u64) -> bool {
        let is_new = self.ids().insert(key, id).is_none();
        if !is_new {
            self.joined.notify_all();
        }
        is_new
    }

    /// A newer number of a call than `id`. Waits for one for up to `time`.
    pub(crate) fn newer(&self, key: Key, id: u64, time: Duration) -> Option<u64> {
        let deadline = Instant::now() + time;
        let mut ids = self.ids();
        loop {
            let newest = ids.get(&key).copied()?;
            if newest != id {
                return Some(newest);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let woken = self.joined.wait_timeout(ids, left);
            ids = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends a call that has no answer, because nobody waits for it.
    pub(crate) fn forget(&self, key: Key) {
        self.ids().remove(&key);
    }

    /// The newest number of a call.
    pub(crate) fn newest(&self, key: Key) -> Option<u64> {
        self.ids().get(&key).copied()
    }

    /// Ends a call: `answer` gets the number to answer. If the call no longer waits (`ENOENT`), waits for up to `time`
    /// for a report that joins.
    pub(crate) fn finish(
        &self,
        key: Key,
        time: Duration,
        mut answer: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + time;
        let mut ids = self.ids();
        loop {
            let Some(id) = ids.get(&key).copied() else { return Ok(()) };
            // Answered while the map is locked: a new report of the same thread comes after it is removed.
            let answered = answer(id);
            let gone =
                answered.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT));
            if !gone {
                ids.remove(&key);
                return answered;
            }
            while ids.get(&key) == Some(&id) {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    ids.remove(&key);
                    return answered;
                }
                let woken = self.joined.wait_timeout(ids, left);
                ids = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    const KEY: Key = (7, RawCall { arch: 1, number: 41, args: [0; 6] });

    fn gone() -> io::Error {
        io::Error::from_raw_os_error(libc::ENOENT)
    }

    #[test]
    fn a_report_of_the_same_call_joins_and_replaces_the_number() {
        let calls = InProgress::default();
        assert!(calls.begin(KEY, 1));
        assert!(!calls.begin(KEY, 2));
        assert!(calls.begin((8, KEY.1), 3));
        assert_eq!(calls.newest(KEY), Some(2));
        let mut answered = Vec::new();
        calls
            .finish(KEY, Duration::ZERO, |id| {
                answered.push(id);
                Ok(())
            })
            .unwrap();
        assert_eq!(answered, [2]);
        assert_eq!(calls.newest(KEY), None);
        assert!(calls.begin(KEY, 4));
    }

    #[test]
    fn an_answer_to_an_interrupted_call_waits_for_the_next_report() {
        let calls = Arc::new(InProgress::default());
        assert!(calls.begin(KEY, 1));
        let (tried, was_tried) = std::sync::mpsc::channel();
        let finisher = {
            let calls = calls.clone();
            thread::spawn(move || {
                let mut answered = Vec::new();
                let result = calls.finish(KEY, Duration::from_mins(3), |id| {
                    answered.push(id);
                    tried.send(()).unwrap();
                    if id == 1 { Err(gone()) } else { Ok(()) }
                });
                (result.is_ok(), answered)
            })
        };
        was_tried.recv().unwrap();
        assert!(!calls.begin(KEY, 2));
        assert_eq!(finisher.join().unwrap(), (true, vec![1, 2]));
    }

    #[test]
    fn a_call_that_is_not_restarted_is_given_up_after_the_time() {
        let calls = InProgress::default();
        calls.begin(KEY, 1);
        let result = calls.finish(KEY, Duration::from_millis(20), |_| Err(gone()));
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(calls.begin(KEY, 2), "nothing remains of it");
    }

    #[test]
    fn another_error_ends_the_call() {
        let calls = InProgress::default();
        calls.begin(KEY, 1);
        let full = || io::Error::from_raw_os_error(libc::EMFILE);
        let result = calls.finish(KEY, Duration::from_mins(3), |_| Err(full()));
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        assert_eq!(calls.newest(KEY), None);
    }
}
