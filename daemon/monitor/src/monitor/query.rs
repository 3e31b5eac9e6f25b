//! Queries: sends one to every worker, and passes the answers on.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Instant;

use sockbroker_sys::{process, sealed};

use super::host::Host;
use super::queries::{ANSWER, InProgress, QUERIES};
use super::state::{Monitor, is_owner};
use crate::channel::ChannelError;
use crate::message::{Query, ToWorker};

impl<H: Host> Monitor<H> {
    /// Sends a query to every other worker. The monitor judges by what the kernel reported about the principal of the
    /// worker that asks, and not by what this worker says about its clients.
    pub(super) fn query_others(&mut self, asker: u64, request: u64, query: Query) {
        let Some(worker) = self.workers.get(&asker) else { return };
        let peer = worker.peer();
        let administrators = &self.policies.users.administrators;
        let includes = match self.remote.get(peer.uid) {
            Some(remote) => administrators.include_remote(remote),
            None => administrators.include(peer, is_owner(peer.uid)),
        };
        if !includes {
            let end = ToWorker::QueryEnd { request, missing: None };
            return self.send(asker, &end, &[]);
        }
        if self.queries.open.values().filter(|open| open.asker == asker).count() >= QUERIES {
            let reason = "it has too many queries in progress";
            let error = ChannelError::Nonsense { reason, descriptors: Vec::new() };
            return self.fail(asker, &error);
        }
        let others =
            self.workers.iter().filter(|(token, worker)| **token != asker && worker.is_serving());
        let waiting: BTreeSet<_> = others.map(|(token, _)| *token).collect();
        self.queries.next += 1;
        let number = self.queries.next;
        let (deadline, asked) = (Instant::now() + ANSWER, waiting.clone());
        let open = InProgress { asker, request, query, waiting, missing: 0, deadline };
        self.queries.open.insert(number, open);
        for token in asked {
            self.send(token, &ToWorker::Query { number, query }, &[]);
        }
        if query == Query::Metrics {
            let page = self.counters.page(self.workers.len());
            match sealed::create("metrics", page.as_bytes()) {
                Ok(page) => {
                    let uid = process::effective_uid();
                    self.send(asker, &ToWorker::QueryResult { request, uid }, &[&page]);
                }
                Err(error) => tracing::warn!(%error, "cannot report the counters of the monitor"),
            }
        }
        self.finish_queries(Instant::now());
    }

    /// Passes the answer of a worker on.
    pub(super) fn query_result(&mut self, token: u64, number: u64, result: OwnedFd) {
        let uid = self.workers.get(&token).map(|worker| worker.peer().uid).unwrap_or_default();
        let query = self.queries.open.get_mut(&number);
        let asked = query.and_then(|query| {
            query.waiting.remove(&token).then_some((query.asker, query.request, query.query))
        });
        if let Some((asker, request, _)) = asked {
            self.send(asker, &ToWorker::QueryResult { request, uid }, &[&result]);
        }
        match asked {
            // What is reported now must not be missing after the end of the worker.
            Some((_, _, Query::Metrics)) => self.keep_page(token, result),
            Some((_, _, Query::Sessions | Query::Handles(_))) | None => self.reaper.close(result),
        }
        self.finish_queries(Instant::now());
    }

    /// Keeps the page of metrics of a worker in place of an earlier one.
    pub(super) fn keep_page(&mut self, token: u64, page: OwnedFd) {
        let last = match self.workers.get_mut(&token) {
            Some(worker) => worker.page.replace(page),
            None => Some(page),
        };
        if let Some(last) = last {
            self.reaper.close(last);
        }
    }

    /// Ends the queries that have every answer, or whose time is over.
    pub(super) fn finish_queries(&mut self, now: Instant) {
        let is_over = |query: &InProgress| query.waiting.is_empty() || query.deadline <= now;
        let over = self.queries.open.iter().filter(|(_, query)| is_over(query));
        for number in over.map(|(number, _)| *number).collect::<Vec<_>>() {
            let Some(query) = self.queries.open.remove(&number) else { continue };
            let missing = Some(query.missing + query.waiting.len() as u64);
            let InProgress { asker, request, query, .. } = query;
            if query == Query::Sessions {
                // Last: the sessions of workers that have ended since the query began wait now.
                self.send_waiting(asker, request);
            }
            self.send(asker, &ToWorker::QueryEnd { request, missing }, &[]);
        }
    }
}
