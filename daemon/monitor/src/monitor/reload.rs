//! The reload of the policy: read again, and sent to every worker.

use std::os::fd::AsFd;
use std::time::Instant;

use super::ended::Ending;
use super::host::Host;
use super::policies::{DISTRIBUTE, DISTRIBUTE_OPENER, READ, ReadPolicy, Reader, Request, Step};
use super::state::{Monitor, READER};
use crate::message::{ToOpener, ToWorker};

impl<H: Host> Monitor<H> {
    /// Reads the policy again, for a worker's request or a signal.
    pub(super) fn reload(&mut self, request: Option<Request>) {
        if !matches!(self.policies.step, Step::Idle) {
            self.policies.later.push_back(request);
            return;
        }
        self.policies.requests.extend(request);
        let started = Reader::start(&self.policies.files).and_then(|reader| {
            self.events.add(reader.channel.as_fd(), READER)?;
            Ok(reader)
        });
        match started {
            Ok(reader) => {
                let deadline = Instant::now() + READ;
                self.policies.step = Step::Reading { reader, deadline };
            }
            Err(error) => {
                self.finish_reload(&Err(format!("cannot start the policy reader: {error}")));
            }
        }
    }

    /// Handles the result of the reader.
    pub(super) fn read_policy_reader(&mut self) {
        let Step::Reading { reader, .. } = &self.policies.step else { return };
        let Some(read) = reader.result() else { return };
        self.end_reader();
        match read {
            Ok(policy) => self.distribute(policy),
            Err(reason) => self.finish_reload(&Err(reason)),
        }
    }

    fn end_reader(&mut self) {
        let step = std::mem::replace(&mut self.policies.step, Step::Idle);
        if let Step::Reading { reader: Reader { mut child, channel, .. }, .. } = step {
            drop(self.events.remove(channel.as_fd()));
            // It has nothing to do after its result. A file system that does not answer can delay its end.
            drop(child.kill());
            self.ending.add(Ending { child, unexpected: None, id: None });
        }
    }

    fn distribute(&mut self, policy: ReadPolicy) {
        let ReadPolicy { memory, users, credentials, needs_opener, .. } = policy;
        if needs_opener && self.opener.is_none() && self.warns_of_lost_capabilities {
            tracing::warn!(
                "a new rule needs a capability that was dropped at the start, or that the broker never had: restart it with \
                 this capability"
            );
        }
        (self.policies.memory, self.policies.users) = (memory, users);
        self.policies.generation += 1;
        self.policies.step =
            Step::Distributing { deadline: Instant::now() + DISTRIBUTE, for_opener: false };
        let generation = self.policies.generation;
        if let Some(opener) = &mut self.opener {
            // Without a copy there is no policy for the opener, which is then late.
            if let Ok(memory) = self.policies.memory.try_clone() {
                opener.send(ToOpener::Policy { generation }, vec![memory]);
            }
        }
        self.renew_credentials(credentials, generation);
        let tokens: Vec<_> = self.workers.keys().copied().collect();
        for token in tokens {
            let Some(worker) = self.workers.get(&token) else { continue };
            let memory = self.policies.memory.as_fd();
            if let Err(error) = worker.channel.send(&ToWorker::Policy { generation }, &[memory]) {
                self.fail(token, &error);
            }
        }
        self.judge_waiting();
        self.policy_distributed(Instant::now());
    }

    /// Ends the distribution if every worker and the opener have the policy. Workers that are late are killed.
    pub(super) fn policy_distributed(&mut self, now: Instant) {
        match &self.policies.step {
            Step::Idle => {}
            Step::Reading { deadline, .. } => {
                if *deadline <= now {
                    self.end_reader();
                    self.finish_reload(&Err("reading the policy took too long".to_owned()));
                }
            }
            Step::Distributing { deadline, for_opener } => {
                let (generation, is_over) = (self.policies.generation, *deadline <= now);
                let (deadline, for_opener) = (*deadline, *for_opener);
                let opener_is_late =
                    self.opener.as_ref().is_some_and(|opener| opener.in_force < generation);
                let gateway_is_late = self.gateway_is_late(generation);
                let behind = self.workers.iter().filter(|(_, worker)| worker.in_force < generation);
                let behind: Vec<_> = behind.map(|(token, _)| *token).collect();
                if behind.is_empty() && !opener_is_late && !gateway_is_late {
                    return self.finish_reload(&Ok(generation));
                }
                if is_over {
                    // First, so that losing the workers does not come here again.
                    if opener_is_late && !for_opener {
                        let deadline = deadline + DISTRIBUTE_OPENER;
                        self.policies.step = Step::Distributing { deadline, for_opener: true };
                    } else {
                        self.failure = opener_is_late.then_some("the opener has the old policy");
                        self.finish_reload(&Ok(generation));
                    }
                    if gateway_is_late {
                        self.lose_gateway("it did not put new credentials in force");
                    }
                    for token in behind {
                        tracing::error!(
                            "killing a worker that did not put the new policy in force"
                        );
                        self.lose(token);
                    }
                }
            }
        }
    }

    /// Answers the requests, and begins the next reading if one was requested since.
    fn finish_reload(&mut self, result: &Result<u64, String>) {
        self.policies.step = Step::Idle;
        match result {
            Ok(generation) => tracing::info!(generation, "a new policy is in force"),
            Err(reason) => {
                tracing::error!(
                    reason,
                    "the new policy cannot be used: the old one stays in force"
                );
            }
        }
        self.host.reloaded(result);
        for (token, request) in std::mem::take(&mut self.policies.requests) {
            if let Some(worker) = self.workers.get_mut(&token) {
                worker.reloads -= 1;
            }
            self.send(token, &ToWorker::Reloaded { request, result: result.clone() }, &[]);
        }
        let later = std::mem::take(&mut self.policies.later);
        if !later.is_empty() {
            self.policies.requests = later.into_iter().flatten().collect();
            self.reload(None);
        }
    }
}
