//! Threads for what may wait. One waiting call never delays another, up to the number of threads.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The most threads. The client has as many connections.
pub(crate) const WORKERS_MAX: usize = 64;
/// The most jobs that wait for a thread. Beyond it a call is made natively.
pub(crate) const QUEUED_MAX: usize = 4096;
/// How long a thread without a job stays.
const IDLE_TIME: Duration = Duration::from_secs(10);
/// The size of a thread's stack in bytes.
const STACK_BYTES: usize = 256 << 10;

/// A queue of jobs, and the threads that take them.
#[derive(Debug)]
pub(crate) struct Jobs<T> {
    shared: Arc<Shared<T>>,
    workers_max: usize,
    queued_max: usize,
    idle_time: Duration,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    added: Condvar,
}

#[derive(Debug)]
struct State<T> {
    queue: VecDeque<T>,
    workers: usize,
    idle: usize,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Counters and queue change together under the lock, and no code of a caller runs there.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Jobs<T> {
    pub(crate) fn new() -> Self {
        Self::with_limits(WORKERS_MAX, QUEUED_MAX, IDLE_TIME)
    }

    fn with_limits(workers_max: usize, queued_max: usize, idle_time: Duration) -> Self {
        let state = State { queue: VecDeque::new(), workers: 0, idle: 0 };
        let shared = Shared { state: Mutex::new(state), added: Condvar::new() };
        Self { shared: Arc::new(shared), workers_max, queued_max, idle_time }
    }

    /// Adds a job, and a thread if none is idle. Returns the job if too many wait.
    pub(crate) fn add(&self, job: T, run: impl Fn(T) + Send + 'static) -> Result<(), T> {
        let mut state = self.shared.state();
        if state.queue.len() >= self.queued_max {
            return Err(job);
        }
        state.queue.push_back(job);
        if state.idle >= state.queue.len() {
            self.shared.added.notify_one();
            return Ok(());
        }
        if state.workers < self.workers_max {
            state.workers += 1;
            drop(state);
            if let Err(error) = self.start(run) {
                return self.without_thread(&error);
            }
        }
        Ok(())
    }

    fn start(&self, run: impl Fn(T) + Send + 'static) -> io::Result<()> {
        let (shared, idle_time) = (self.shared.clone(), self.idle_time);
        let thread = thread::Builder::new().name("worker".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || work(&shared, idle_time, run)).map(drop)
    }

    /// A thread could not be started. The job waits for another one, or comes back if there is none.
    fn without_thread(&self, _error: &io::Error) -> Result<(), T> {
        let mut state = self.shared.state();
        state.workers -= 1;
        match state.queue.pop_back() {
            Some(job) if state.workers == 0 => Err(job),
            Some(job) => {
                state.queue.push_back(job);
                Ok(())
            }
            None => Ok(()),
        }
    }

    #[cfg(test)]
    fn workers(&self) -> usize {
        self.shared.state().workers
    }
}

fn work<T>(shared: &Shared<T>, idle_time: Duration, run: impl Fn(T)) {
    let mut state = shared.state();
    loop {
        if let Some(job) = state.queue.pop_front() {
            drop(state);
            run(job);
            state = shared.state();
            continue;
        }
        state.idle += 1;
        let (woken, waited) = shared
            .added
            .wait_timeout_while(state, idle_time, |state| state.queue.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle -= 1;
        if waited.timed_out() && state.queue.is_empty() {
            state.workers -= 1;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    /// Waits until a condition holds. The bound only ends a failed test.
    fn until(mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_mins(3);
        while !holds() {
            assert!(Instant::now() < deadline, "it never happens");
            thread::yield_now();
        }
    }

    #[test]
    fn a_waiting_job_does_not_delay_another() {
        let jobs = Jobs::with_limits(4, 8, Duration::from_mins(1));
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let (done, is_done) = mpsc::channel();
        for job in 0..3 {
            let (wait, done) = (wait.clone(), done.clone());
            let added = jobs.add(job, move |job| {
                if job == 0 {
                    wait.lock().unwrap().recv().unwrap();
                }
                done.send(job).unwrap();
            });
            added.unwrap();
        }
        let mut first = [is_done.recv().unwrap(), is_done.recv().unwrap()];
        first.sort_unstable();
        assert_eq!(first, [1, 2]);
        release.send(()).unwrap();
        assert_eq!(is_done.recv().unwrap(), 0);
    }

    #[test]
    fn threads_and_waiting_jobs_are_limited_and_idle_threads_end() {
        let jobs = Jobs::with_limits(2, 3, Duration::from_millis(10));
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(Mutex::new(wait));
        let run = {
            let wait = wait.clone();
            move |_job: usize| wait.lock().unwrap().recv().unwrap()
        };
        for job in 0..2 {
            jobs.add(job, run.clone()).unwrap();
            until(|| jobs.shared.state().queue.is_empty());
        }
        for job in 2..5 {
            jobs.add(job, run.clone()).unwrap();
        }
        assert_eq!(jobs.add(5, run.clone()), Err(5));
        assert_eq!(jobs.workers(), 2);
        (0..5).for_each(|_| release.send(()).unwrap());
        until(|| jobs.workers() == 0);
        // The next job gets a new thread.
        jobs.add(6, run).unwrap();
        release.send(()).unwrap();
        until(|| jobs.workers() == 0);
    }
}
