//! The audit: records of the policy's decisions, of sessions and of policy reloads.
//!
//! Reporting never waits: records go through a queue to a thread that writes them. A worker writes a record to the pipe of
//! the monitor at once if it has room, which saves waking the thread. A record beyond the rate in all, for a full queue, or that the destination refuses is dropped, and the field `dropped` of the next
//! record has the number. Records beyond a user's rate are dropped too, and the field `user_dropped` of this
//! user's next record has their number. Records contain no payload.

mod file;
mod intake;
mod journal;
mod line;
mod pipe;
mod rates;
mod record;
mod sink;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::principal::PrincipalKey;
pub use intake::Intake;
use pipe::RecordWriter;
pub use rates::Limits;
use rates::{About, Rates, Verdict};
pub use record::{Record, Value};
pub use sink::{Destination, Sink};

/// The length of the queue in records.
const QUEUE: usize = 4096;
/// The field with the number of the user's records that were dropped before this one.
const USER_DROPPED: &str = "user_dropped";
/// How long the broker waits at its end until the queue is written.
const FLUSH: Duration = Duration::from_secs(1);

/// The place to report to. Without a destination it does nothing.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: SyncSender<Record>,
    /// What takes records at once while the queue is empty.
    pipe: Option<Arc<Mutex<RecordWriter>>>,
    rates: Mutex<Rates>,
    shared: Arc<Shared>,
}

/// The state that reporters share with the thread that writes.
#[derive(Debug, Default)]
struct Shared {
    /// Records dropped since the last record with a `dropped` field.
    dropped: AtomicU64,
    /// Records dropped in all.
    lost: AtomicU64,
    /// Records in the queue, and the one that the thread writes.
    queued: AtomicU64,
    /// Whether to reopen the sink before the next record.
    reopen: AtomicBool,
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer(Receiver<()>);

impl Audit {
    /// Starts an audit that writes to a sink, within limits.
    pub fn start(sink: Sink, limits: Limits) -> std::io::Result<(Self, Writer)> {
        let (mut audit, records) = Self::queued(QUEUE, limits);
        audit.pipe = sink.pipe();
        let (ended, end) = mpsc::sync_channel(1);
        let shared = audit.shared.clone();
        let write = move || {
            shared.write(sink, &records);
            // The receiver may be gone.
            ended.try_send(()).ok();
        };
        thread::Builder::new().name("audit".to_owned()).spawn(write)?;
        Ok((Self(Some(Arc::new(audit))), Writer(end)))
    }

    /// An audit whose records go to the receiver that is returned.
    fn queued(length: usize, limits: Limits) -> (Inner, Receiver<Record>) {
        let (queue, records) = mpsc::sync_channel(length);
        let rates = Mutex::new(Rates::new(limits, Instant::now()));
        (Inner { queue, pipe: None, rates, shared: Arc::default() }, records)
    }

    /// Whether there is a destination.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Reopens an audit file at its path before the next record is written.
    pub fn reopen(&self) {
        if let Some(inner) = &self.0 {
            inner.shared.reopen.store(true, Ordering::Relaxed);
        }
    }

    /// The number of dropped records.
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
        if inner.write_now(&record) {
            return;
        }
        inner.shared.queued.fetch_add(1, Ordering::Relaxed);
        // The queue is full or the thread has failed; in both cases the record is lost.
        if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) =
            inner.queue.try_send(record)
        {
            inner.shared.queued.fetch_sub(1, Ordering::Relaxed);
            inner.shared.lose(&lost);
        }
    }
}

impl Inner {
    /// Writes a record past the queue. `false` if it has to wait for others, or for the monitor.
    fn write_now(&self, record: &Record) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        self.shared.is_idle() && pipe.try_lock().is_ok_and(|mut pipe| pipe.write_now(record))
    }

    fn admit(&self, about: About) -> Verdict {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = rates.admit(about, Instant::now());
        let forgotten = rates.take_forgotten();
        self.shared.dropped.fetch_add(forgotten, Ordering::Relaxed);
        verdict
    }
}

impl Shared {
    /// Whether the thread has nothing to write and nothing to report.
    fn is_idle(&self) -> bool {
        self.queued.load(Ordering::Relaxed) == 0 && self.dropped.load(Ordering::Relaxed) == 0
    }

    /// Writes records until every [`Audit`] is dropped.
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
            // Logged once and not for each record, so that a full disk does not fill the log.
            match sink.write(&record) {
                Ok(()) if refused => {
                    tracing::warn!(dropped, "the audit destination accepts records again");
                    refused = false;
                }
                Ok(()) => {}
                Err(error) => {
                    self.dropped.fetch_add(dropped, Ordering::Relaxed);
                    self.lose(&record);
                    if !refused {
                        tracing::warn!(%error, "the audit destination refuses records: they are dropped");
                    }
                    refused = true;
                }
            }
            self.queued.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Counts a lost record, and the dropped ones that it would have reported.
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
    /// Waits until everything is written, for at most one second. Every [`Audit`] must be dropped before.
    pub fn finish(self) {
        if let Err(RecvTimeoutError::Timeout) = self.0.recv_timeout(FLUSH) {
            tracing::warn!(
                "the last audit records may be missing: the destination does not accept them"
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
    fn dropped_records_are_reported_in_the_next_record() {
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
        let reported: Vec<_> = text.lines().map(|line| line.contains("\"dropped\":3")).collect();
        assert_eq!(reported, [true, false]);
    }

    #[test]
    fn records_that_the_destination_refuses_are_counted() {
        let full = Sink::open(&Destination::File("/dev/full".into())).unwrap().unwrap();
        let (audit, writer) = Audit::start(full, limits(1000)).unwrap();
        for _ in 0..3 {
            audit.report_own(record);
        }
        let shared = audit.0.as_ref().unwrap().shared.clone();
        drop(audit);
        writer.finish();
        let counts = [&shared.lost, &shared.dropped].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts, [3, 3], "in all, and to be reported");
    }

    #[test]
    fn records_beyond_the_rate_are_not_made() {
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
    fn records_beyond_a_users_rate_are_reported_in_the_next_record_of_that_user() {
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
        let reported = |records: &Receiver<Record>| {
            let found = records.try_iter().map(|record| record.get(USER_DROPPED).cloned());
            found.collect::<Vec<_>>()
        };
        assert_eq!((audit.lost(), reported(&records)), (2, vec![None, None]));
        audit.report(user(8), record);
        audit.report(user(7), record);
        assert_eq!(reported(&records), [None, Some(Value::Number(2))]);
        // What a record for the full queue would have reported, the next record of any user reports.
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
        audit.report(user(7), || unreachable!("there is no destination"));
        assert_eq!((audit.is_on(), audit.lost()), (false, 0));
    }
}
