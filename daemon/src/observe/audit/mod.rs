//! The audit: a record of every decision that matters.
//!
//! Whoever tells of a decision never waits: records go through a queue to a thread that writes them.
//! What is too fast, finds the queue full or is not taken by its destination is dropped and counted, and
//! the next record says how many were in its field `dropped`. What one user has too much of is counted for
//! this user, whose next record says how many in `user_dropped`. Payload is never part of a record.

mod file;
mod journal;
mod line;
mod rates;
mod record;
mod sink;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::principal::PrincipalKey;
pub use rates::Limits;
use rates::{About, Rates, Verdict};
pub use record::{Record, Value};
pub use sink::{Destination, Sink};

/// Records that wait to be written.
const QUEUE: usize = 4096;
/// The field of a user's record that says how many of this user's were dropped before it.
const USER_DROPPED: &str = "user_dropped";
/// How long the end of the broker waits for what is still to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// Where decisions are told; it may lead nowhere.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: SyncSender<Record>,
    rates: Mutex<Rates>,
    shared: Arc<Shared>,
}

/// What whoever tells and the thread that writes know of each other.
#[derive(Debug, Default)]
struct Shared {
    /// Records that were dropped since the last one that told of it.
    dropped: AtomicU64,
    /// In all.
    lost: AtomicU64,
    /// Whether the sink is to be opened anew before the next record.
    reopen: AtomicBool,
}

/// The thread that writes; waited for at the end.
#[derive(Debug)]
pub struct Writer(Receiver<()>);

impl Audit {
    /// An audit that writes to a sink, within limits.
    pub fn start(sink: Sink, limits: Limits) -> std::io::Result<(Self, Writer)> {
        let (audit, records) = Self::queued(QUEUE, limits);
        let (ended, end) = mpsc::sync_channel(1);
        let shared = audit.shared.clone();
        let write = move || {
            shared.write(sink, &records);
            // Nobody may be waiting.
            ended.try_send(()).ok();
        };
        thread::Builder::new().name("audit".to_owned()).spawn(write)?;
        Ok((Self(Some(Arc::new(audit))), Writer(end)))
    }

    /// One whose records are for whoever holds the other end of its queue.
    fn queued(length: usize, limits: Limits) -> (Inner, Receiver<Record>) {
        let (queue, records) = mpsc::sync_channel(length);
        let rates = Mutex::new(Rates::new(limits, Instant::now()));
        (Inner { queue, rates, shared: Arc::default() }, records)
    }

    /// Whether anybody listens: a record need not be made otherwise.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Opens a file anew by its path, before the next record is written.
    pub fn reopen(&self) {
        if let Some(inner) = &self.0 {
            inner.shared.reopen.store(true, Ordering::Relaxed);
        }
    }

    /// How many records were dropped.
    pub fn lost(&self) -> u64 {
        self.0.as_ref().map_or(0, |inner| inner.shared.lost.load(Ordering::Relaxed))
    }

    /// Reports a decision about a principal; `make` runs if the limits admit the record.
    pub fn report(&self, principal: PrincipalKey, make: impl FnOnce() -> Record) {
        self.add(Some(principal), make);
    }

    /// Reports an event of the broker itself.
    pub fn report_own(&self, make: impl FnOnce() -> Record) {
        self.add(None, make);
    }

    fn add(&self, about: About, make: impl FnOnce() -> Record) {
        let Some(inner) = &self.0 else { return };
        let dropped = match inner.admit(about) {
            Verdict::Written(dropped) => dropped,
            Verdict::UserDropped => {
                inner.shared.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Verdict::Dropped => return inner.shared.drop_one(),
        };
        let record = make().with_some(USER_DROPPED, (dropped > 0).then_some(dropped));
        // Full, or the thread has failed: in both cases the record is lost.
        if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) =
            inner.queue.try_send(record)
        {
            inner.shared.lose(&lost);
        }
    }
}

impl Inner {
    fn admit(&self, about: About) -> Verdict {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = rates.admit(about, Instant::now());
        let forgotten = rates.take_forgotten();
        self.shared.dropped.fetch_add(forgotten, Ordering::Relaxed);
        verdict
    }
}

impl Shared {
    /// Writes what comes until nobody is left to tell.
    fn write(&self, mut sink: Sink, records: &Receiver<Record>) {
        let mut refused = false;
        for mut record in records {
            if self.reopen.swap(false, Ordering::Relaxed) {
                sink.reopen();
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                record = record.with("dropped", dropped);
            }
            // Logged once, not for each: what fills a disk need not fill the log too.
            match sink.write(&record) {
                Ok(()) if refused => {
                    tracing::warn!(dropped, "the audit's destination takes records again");
                    refused = false;
                }
                Ok(()) => {}
                Err(error) => {
                    self.dropped.fetch_add(dropped, Ordering::Relaxed);
                    self.lose(&record);
                    if !refused {
                        tracing::warn!(%error, "the audit's destination refuses records: they are dropped");
                    }
                    refused = true;
                }
            }
        }
    }

    /// Counts a record that is lost after all, and what it would have said.
    fn lose(&self, record: &Record) {
        if let Some(Value::Number(dropped)) = record.get(USER_DROPPED) {
            self.dropped.fetch_add(*dropped, Ordering::Relaxed);
        }
        self.drop_one();
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Writer {
    /// Waits until everything is written, but not for long: a destination may be stuck. Every
    /// [`Audit`] has to be gone.
    pub fn finish(self) {
        if let Err(RecvTimeoutError::Timeout) = self.0.recv_timeout(FLUSH) {
            tracing::warn!(
                "the last audit records may be missing: their destination does not take them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sockbroker_test_support::folder::Folder;

    use super::*;

    fn record() -> Record {
        Record::new("test").with("n", 1_u64)
    }

    fn user(uid: u32) -> PrincipalKey {
        PrincipalKey::of_uid(uid)
    }

    fn limits(in_all: u64) -> Limits {
        Limits { in_all, per_user: in_all, users: 8 }
    }

    #[test]
    fn what_is_dropped_is_counted_and_told_in_the_next_record() {
        let folder = Folder::new();
        let path = folder.join("audit");
        let (inner, records) = Audit::queued(2, limits(1000));
        let shared = inner.shared.clone();
        let audit = Audit(Some(Arc::new(inner)));
        for _ in 0..5 {
            audit.report(user(7), record);
        }
        assert_eq!(audit.lost(), 3, "the queue holds two");
        drop(audit);
        let sink = |path: &Path| Sink::open(&Destination::File(path.to_owned())).unwrap().unwrap();
        shared.write(sink(&path), &records);
        let text = std::fs::read_to_string(path).unwrap();
        let told: Vec<_> = text.lines().map(|line| line.contains("\"dropped\":3")).collect();
        assert_eq!(told, [true, false]);
    }

    #[test]
    fn what_the_destination_refuses_is_counted_and_told_in_the_next_record() {
        let full = Sink::open(&Destination::File("/dev/full".into())).unwrap().unwrap();
        let (audit, writer) = Audit::start(full, limits(1000)).unwrap();
        for _ in 0..3 {
            audit.report_own(record);
        }
        let shared = audit.0.as_ref().unwrap().shared.clone();
        drop(audit);
        writer.finish();
        let counts = [&shared.lost, &shared.dropped].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [3, 3], "in all, and to be told");
    }

    #[test]
    fn a_rate_is_kept_and_records_beyond_it_are_not_even_made() {
        let (inner, records) = Audit::queued(100, limits(3));
        let audit = Audit(Some(Arc::new(inner)));
        let mut made = 0;
        for _ in 0..10 {
            audit.report_own(|| {
                made += 1;
                record()
            });
        }
        assert_eq!((made, audit.lost(), records.try_iter().count()), (3, 7, 3));
    }

    #[test]
    fn what_one_user_has_too_much_of_is_lost_and_said_in_the_next_record_of_that_user() {
        let (inner, records) = Audit::queued(2, Limits { per_user: 1, ..limits(1000) });
        let audit = Audit(Some(Arc::new(inner)));
        let next_second = || {
            let mut rates = audit.0.as_ref().unwrap().rates.lock().unwrap();
            rates.began_before(Duration::from_secs(1));
        };
        for uid in [7, 7, 7, 8] {
            audit.report(user(uid), record);
        }
        next_second();
        let said = |records: &Receiver<Record>| {
            let said = records.try_iter().map(|record| record.get(USER_DROPPED).cloned());
            said.collect::<Vec<_>>()
        };
        assert_eq!((audit.lost(), said(&records)), (2, vec![None, None]));
        audit.report(user(8), record);
        audit.report(user(7), record);
        assert_eq!(said(&records), [None, Some(Value::Number(2))]);
        // A record that finds the queue full leaves what it would have said to the next of anyone.
        audit.report(user(7), record);
        next_second();
        for uid in [8, 9, 7] {
            audit.report(user(uid), record);
        }
        let shared = &audit.0.as_ref().unwrap().shared;
        assert_eq!((audit.lost(), shared.dropped.load(Ordering::Relaxed)), (4, 2));
    }

    #[test]
    fn without_a_destination_nothing_is_made() {
        let audit = Audit::default();
        audit.report(user(7), || unreachable!("nobody listens"));
        assert_eq!((audit.is_on(), audit.lost()), (false, 0));
    }
}
