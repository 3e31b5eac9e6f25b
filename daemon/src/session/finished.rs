//! The outcomes of calls of ended connections, kept for `call.resolve`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sockbroker_proto::api::session::RequestId;
use tokio::time::Instant;

use crate::descriptor::Descriptor;
use crate::quota::{Reservation, Share, User};

/// An answer with its attachments and descriptors.
#[derive(Debug)]
pub struct KeptAnswer {
    pub json: bytes::Bytes,
    pub attachments: Vec<bytes::Bytes>,
    pub descriptors: Vec<Arc<Descriptor>>,
    /// The memory it takes of its user's share.
    pub share: Reservation,
    /// The descriptors it takes of its user's share.
    pub descriptor_share: Reservation,
}

/// How the calls of one connection ended.
#[derive(Debug, Default)]
pub struct LastCalls {
    /// Calls that the end of the connection cancelled, and the number of bytes that each had sent.
    pub cancelled: Vec<(RequestId, u64)>,
    /// The latest answer.
    pub answered: Option<(RequestId, KeptAnswer)>,
    /// The memory that the ids of cancelled calls take of their user's share.
    share: Option<Reservation>,
}

impl LastCalls {
    /// How the calls of a user's connection ended. Ids beyond the user's limit are not kept.
    pub fn new(
        cancelled: Vec<(RequestId, u64)>,
        answered: Option<(RequestId, KeptAnswer)>,
        user: &Arc<User>,
    ) -> Self {
        let mut last = Self { cancelled, answered, share: None };
        let places = last.cancelled.len() * size_of::<(RequestId, u64)>();
        let memory = places + last.id_bytes();
        if memory > 0 {
            last.share = user.take(Share::Resolvable, memory as u64).ok();
            if last.share.is_none() {
                last.cancelled = Vec::new();
            }
        }
        last
    }

    fn bytes(&self) -> usize {
        let answer = self.answered.as_ref().map_or(0, |(_, answer)| {
            answer.json.len() + answer.attachments.iter().map(bytes::Bytes::len).sum::<usize>()
        });
        answer + self.id_bytes()
    }

    fn id_bytes(&self) -> usize {
        let length = |id: &RequestId| match id {
            RequestId::Number(_) => 0,
            RequestId::Text(text) => text.len(),
        };
        self.cancelled.iter().map(|(id, _)| length(id)).sum()
    }
}

#[derive(Debug)]
pub enum CallOutcome {
    /// It never arrived, or is no longer kept.
    Unknown,
    /// Cancelled while it waited, after this number of bytes was sent.
    Cancelled(u64),
    Answered(KeptAnswer),
}

/// The ended connections of a session, oldest first, with limits on number, bytes and age.
#[derive(Debug)]
pub struct Finished {
    kept: VecDeque<(u64, Instant, LastCalls)>,
    most: usize,
    most_bytes: usize,
    longest: Duration,
}

impl Finished {
    /// Keeps `most` connections, with `most_bytes` of answers in all, for `longest` each.
    pub fn new(most: usize, most_bytes: usize, longest: Duration) -> Self {
        Self { kept: VecDeque::new(), most, most_bytes, longest }
    }

    /// Keeps how the calls of a connection ended.
    pub fn record(&mut self, connection: u64, calls: LastCalls) {
        self.forget_old();
        self.kept.push_back((connection, Instant::now(), calls));
        while self.kept.len() > self.most || self.bytes() > self.most_bytes {
            self.kept.pop_front();
        }
    }

    fn bytes(&self) -> usize {
        self.kept.iter().map(|(_, _, calls)| calls.bytes()).sum()
    }

    /// Removes what is older than the limit.
    pub fn forget_old(&mut self) {
        let longest = self.longest;
        self.kept.retain(|(_, at, _)| at.elapsed() < longest);
    }

    /// When the oldest is as old as the limit.
    pub fn oldest_ends(&self) -> Option<Instant> {
        let (_, at, _) = self.kept.front()?;
        at.checked_add(self.longest)
    }

    /// Removes and returns how a call ended: an answer is returned once. If `check` refuses the answer, it
    /// stays.
    pub fn take<E>(
        &mut self,
        connection: u64,
        request: &RequestId,
        check: impl FnOnce(&KeptAnswer) -> Result<(), E>,
    ) -> Result<CallOutcome, E> {
        self.forget_old();
        let Some((_, _, calls)) = self.kept.iter_mut().find(|(number, ..)| *number == connection)
        else {
            return Ok(CallOutcome::Unknown);
        };
        if let Some((_, sent)) = calls.cancelled.iter().find(|(id, _)| id == request) {
            return Ok(CallOutcome::Cancelled(*sent));
        }
        if let Some((id, answer)) = &calls.answered
            && id == request
        {
            check(answer)?;
        }
        Ok(match calls.answered.take_if(|(id, _)| id == request) {
            Some((_, answer)) => CallOutcome::Answered(answer),
            None => CallOutcome::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::Limits;
    use crate::principal::PrincipalKey;
    use crate::quota::{Quota, Users};

    fn calls(id: u64) -> LastCalls {
        let user = user(u64::MAX);
        let share = user.take(Share::Resolvable, 1).unwrap();
        let (json, attachments, descriptors) = ("1".into(), vec![], vec![]);
        let descriptor_share = user.take(Share::Descriptors, 0).unwrap();
        let answer = KeptAnswer { json, attachments, descriptors, share, descriptor_share };
        let cancelled = vec![(RequestId::Number(100), 9)];
        LastCalls::new(cancelled, Some((RequestId::Number(id), answer)), &user)
    }

    fn user(bytes: u64) -> Arc<User> {
        let limits = Limits { resolve_kept_bytes_per_user: bytes, ..Limits::default() };
        Users::new(Arc::new(Quota::new(&limits))).user(&PrincipalKey::of_uid(7))
    }

    #[test]
    fn ids_of_cancelled_calls_count_for_the_user_and_are_dropped_beyond_the_limit() {
        let user = user(10_000);
        let cancelled = |length| vec![(RequestId::Text("x".repeat(length)), 0); 2];
        let kept = LastCalls::new(cancelled(4000), None, &user);
        let used = user.used(Share::Resolvable);
        assert!((8000..9000).contains(&used), "{used}");
        let forgotten = LastCalls::new(cancelled(1000), None, &user);
        assert_eq!((kept.cancelled.len(), forgotten.cancelled.len()), (2, 0));
        drop(kept);
        assert_eq!(user.used(Share::Resolvable), 0);
    }

    fn take(finished: &mut Finished, connection: u64, id: u64) -> CallOutcome {
        finished.take(connection, &RequestId::Number(id), |_| Ok::<_, ()>(())).unwrap()
    }

    #[tokio::test]
    async fn an_answer_that_is_refused_stays() {
        let mut finished = Finished::new(2, 100, Duration::from_mins(1));
        finished.record(1, calls(7));
        assert!(finished.take(1, &RequestId::Number(7), |_| Err(())).is_err());
        assert!(matches!(take(&mut finished, 1, 7), CallOutcome::Answered(_)));
    }

    #[tokio::test]
    async fn an_answer_can_be_taken_once_and_only_under_its_own_id() {
        let mut finished = Finished::new(2, 100, Duration::from_mins(1));
        finished.record(1, calls(7));
        assert!(matches!(take(&mut finished, 1, 8), CallOutcome::Unknown));
        assert!(matches!(take(&mut finished, 1, 100), CallOutcome::Cancelled(9)));
        assert!(matches!(take(&mut finished, 1, 7), CallOutcome::Answered(_)));
        assert!(matches!(take(&mut finished, 1, 7), CallOutcome::Unknown));
    }

    #[tokio::test]
    async fn number_and_age_are_bounded() {
        let mut finished = Finished::new(2, 100, Duration::from_mins(1));
        for connection in 1..=3 {
            finished.record(connection, calls(7));
        }
        assert!(matches!(take(&mut finished, 1, 7), CallOutcome::Unknown));
        assert!(matches!(take(&mut finished, 2, 7), CallOutcome::Answered(_)));
        finished.longest = Duration::ZERO;
        assert!(matches!(take(&mut finished, 3, 7), CallOutcome::Unknown));
    }

    #[tokio::test]
    async fn the_bytes_of_answers_are_bounded() {
        let mut finished = Finished::new(9, 10, Duration::from_mins(1));
        for connection in 1..=3 {
            let mut last = calls(7);
            last.answered.as_mut().unwrap().1.json = "12345".into();
            finished.record(connection, last);
        }
        assert!(matches!(take(&mut finished, 1, 7), CallOutcome::Unknown));
        assert!(matches!(take(&mut finished, 2, 7), CallOutcome::Answered(_)));
        assert!(matches!(take(&mut finished, 3, 7), CallOutcome::Answered(_)));
    }
}
