//! Threads for closes that may wait, limited in all and for each user.
//!
//! `close(2)` waits in several cases: for a TCP socket with `SO_LINGER` as long as the option says, for a packet
//! socket until no processor uses it, for a large file in memory until its pages are free, for a file of a user's own
//! file system as long as that user likes. A thread of the event loop MUST NOT make such a close.
//!
//! Sockets that are known to linger take at most half of the threads of their user, so that other closes of this user
//! do not wait for them. A process that exits does not wait for its closes: `SO_LINGER` has no effect then
//! (`inet_release`).

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::principal::PrincipalKey;

/// How long a thread without work waits for more.
const IDLE: Duration = Duration::from_secs(10);
/// The stack of a thread that makes a few system calls.
const STACK: usize = 128 << 10;

/// How long a close can wait, as far as the broker knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Until a peer has acknowledged data, or the time of `SO_LINGER` is over.
    Lingers,
    Unknown,
}

type Job = Box<dyn FnOnce() + Send>;

/// The closes of all users, and their threads.
#[derive(Debug)]
pub struct Closing {
    most: usize,
    most_per_user: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug, Default)]
struct State {
    users: HashMap<PrincipalKey, Jobs>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    /// How many of them were woken and do not run yet.
    woken: usize,
}

/// The jobs of one user.
#[derive(Default)]
struct Jobs {
    unknown: VecDeque<Job>,
    lingering: VecDeque<Job>,
    running: usize,
    /// How many of the running jobs linger.
    running_lingering: usize,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.unknown.len() + self.lingering.len();
        write!(f, "Jobs {{ waiting: {waiting}, running: {} }}", self.running)
    }
}

impl Jobs {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.unknown.is_empty() && self.lingering.is_empty()
    }

    /// Which queue has a job that may run now.
    fn runnable(&self, most: usize) -> Option<Length> {
        if self.running >= most {
            None
        } else if !self.unknown.is_empty() {
            Some(Length::Unknown)
        } else if !self.lingering.is_empty() && self.running_lingering < most.div_ceil(2) {
            Some(Length::Lingers)
        } else {
            None
        }
    }

    fn begin(&mut self, length: Length) -> Option<Job> {
        let job = match length {
            Length::Unknown => self.unknown.pop_front(),
            Length::Lingers => self.lingering.pop_front(),
        }?;
        self.running += 1;
        self.running_lingering += usize::from(length == Length::Lingers);
        Some(job)
    }

    fn end(&mut self, length: Length) {
        self.running -= 1;
        self.running_lingering -= usize::from(length == Length::Lingers);
    }
}

impl Closing {
    /// With at most `most` threads, and at most `most_per_user` closes of one user at a time.
    pub fn new(most: usize, most_per_user: usize) -> Self {
        Self { most, most_per_user, state: Mutex::default(), work: Condvar::new() }
    }

    /// Runs a job that closes descriptors of a user, on a thread.
    pub(super) fn run(self: &Arc<Self>, user: &PrincipalKey, length: Length, job: Job) {
        let mut state = self.state();
        let jobs = state.users.entry(user.clone()).or_default();
        match length {
            Length::Unknown => jobs.unknown.push_back(job),
            Length::Lingers => jobs.lingering.push_back(job),
        }
        if jobs.runnable(self.most_per_user).is_none() {
            // The end of a running job takes it.
            return;
        }
        if state.idle > state.woken {
            state.woken += 1;
            drop(state);
            self.work.notify_one();
        } else if state.threads < self.most {
            state.threads += 1;
            drop(state);
            self.start();
        }
    }

    fn start(self: &Arc<Self>) {
        let own = self.clone();
        let thread = thread::Builder::new().name("closing".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(move || own.work()) {
            // The job stays in its queue, for the next thread.
            tracing::warn!(%error, "cannot start a thread that closes descriptors");
            self.state().threads -= 1;
        }
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            while let Some((user, length, job)) = state.next(self.most_per_user) {
                drop(state);
                job();
                state = self.state();
                state.end(&user, length);
            }
            state.idle += 1;
            let waits = |state: &mut State| state.woken == 0;
            let (after, _) = self
                .work
                .wait_timeout_while(state, IDLE, waits)
                .unwrap_or_else(PoisonError::into_inner);
            state = after;
            state.idle -= 1;
            if state.woken == 0 {
                state.threads -= 1;
                return;
            }
            state.woken -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No job runs under the lock, and nothing else panics under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Begins a job of the user with the fewest running jobs.
    fn next(&mut self, most_per_user: usize) -> Option<(PrincipalKey, Length, Job)> {
        let runnable = |(key, jobs): (&PrincipalKey, &Jobs)| {
            Some((jobs.running, key.clone(), jobs.runnable(most_per_user)?))
        };
        let (_, user, length) =
            self.users.iter().filter_map(runnable).min_by_key(|(running, ..)| *running)?;
        let job = self.users.get_mut(&user)?.begin(length)?;
        Some((user, length, job))
    }

    fn end(&mut self, user: &PrincipalKey, length: Length) {
        if let Some(jobs) = self.users.get_mut(user) {
            jobs.end(length);
            if jobs.is_idle() {
                self.users.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    const LONG: Duration = Duration::from_mins(1);

    fn uid(uid: u32) -> PrincipalKey {
        PrincipalKey::of_uid(uid)
    }

    /// Runs a job that reports its name and then waits for the end of the returned sender.
    fn hang(
        closing: &Arc<Closing>,
        user: u32,
        length: Length,
        began: &Sender<&'static str>,
        name: &'static str,
    ) -> Sender<()> {
        let (release, held) = channel();
        let began = began.clone();
        let job = move || {
            began.send(name).unwrap();
            held.recv().ok();
        };
        closing.run(&uid(user), length, Box::new(job));
        release
    }

    fn next(began: &Receiver<&'static str>) -> &'static str {
        began.recv_timeout(LONG).unwrap()
    }

    #[test]
    fn a_user_whose_closes_wait_delays_no_other_user() {
        let closing = Arc::new(Closing::new(4, 2));
        let (sender, began) = channel();
        let held: Vec<_> =
            (0..4).map(|_| hang(&closing, 1, Length::Unknown, &sender, "slow")).collect();
        assert_eq!((next(&began), next(&began)), ("slow", "slow"));
        let other = hang(&closing, 2, Length::Unknown, &sender, "other");
        assert_eq!(next(&began), "other");
        drop((held, other));
        assert_eq!((next(&began), next(&began)), ("slow", "slow"));
    }

    #[test]
    fn lingering_sockets_delay_no_other_close_of_their_user() {
        let closing = Arc::new(Closing::new(9, 4));
        let (sender, began) = channel();
        let held: Vec<_> =
            (0..3).map(|_| hang(&closing, 1, Length::Lingers, &sender, "lingers")).collect();
        assert_eq!((next(&began), next(&began)), ("lingers", "lingers"));
        for _ in 0..5 {
            drop(hang(&closing, 1, Length::Unknown, &sender, "other"));
            assert_eq!(next(&began), "other");
        }
        drop(held);
        assert_eq!(next(&began), "lingers");
    }

    #[test]
    fn every_job_runs_although_threads_are_few() {
        let closing = Arc::new(Closing::new(1, 1));
        let (sender, began) = channel();
        let first = hang(&closing, 1, Length::Lingers, &sender, "first");
        assert_eq!(next(&began), "first");
        drop(hang(&closing, 1, Length::Lingers, &sender, "second"));
        drop(hang(&closing, 2, Length::Unknown, &sender, "other"));
        drop(first);
        let mut rest = [next(&began), next(&began)];
        rest.sort_unstable();
        assert_eq!(rest, ["other", "second"]);
        let idle = || closing.state().idle == 1;
        while !idle() {
            thread::yield_now();
        }
        assert!(closing.state().users.is_empty());
        drop(hang(&closing, 3, Length::Unknown, &sender, "later"));
        assert_eq!(next(&began), "later");
    }
}
