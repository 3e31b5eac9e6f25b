//! Views: asks every worker, and passes the answers on.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::Instant;

use sockbroker_sys::process;

use super::host::Host;
use super::state::Monitor;
use super::views::{ANSWER, InProgress, VIEWS};
use crate::message::{ToWorker, View};

impl<H: Host> Monitor<H> {
    /// Asks every other worker. Only workers of root and of the broker's own user get a view: the monitor judges
    /// by what it knows itself, and not by what a worker says about its clients.
    pub(super) fn view(&mut self, asker: u64, request: u64, view: View) {
        let Some(worker) = self.workers.get(&asker) else { return };
        let may = worker.uid() == 0 || worker.uid() == process::effective_uid();
        let busy = self.views.open.values().filter(|view| view.asker == asker).count() >= VIEWS;
        let mut waiting = BTreeSet::new();
        if may && !busy {
            let others = self
                .workers
                .iter()
                .filter(|(token, worker)| **token != asker && worker.is_serving());
            waiting.extend(others.map(|(token, _)| *token));
        }
        self.views.next += 1;
        let question = self.views.next;
        let (deadline, asked) = (Instant::now() + ANSWER, waiting.clone());
        let open = InProgress { asker, request, waiting, missing: 0, deadline };
        self.views.open.insert(question, open);
        for token in asked {
            self.send(token, &ToWorker::Look { question, view }, &[]);
        }
        self.finish_views(Instant::now());
    }

    /// Passes the answer of a worker on.
    pub(super) fn seen(&mut self, token: u64, question: u64, part: OwnedFd) {
        let view = self.views.open.get_mut(&question);
        let asker =
            view.and_then(|view| view.waiting.remove(&token).then_some((view.asker, view.request)));
        if let Some((asker, request)) = asker {
            self.send(asker, &ToWorker::Part { request }, &[&part]);
        }
        self.reaper.close(part);
        self.finish_views(Instant::now());
    }

    /// Completes the views that have every answer, or whose time is over.
    pub(super) fn finish_views(&mut self, now: Instant) {
        let is_over = |view: &InProgress| view.waiting.is_empty() || view.deadline <= now;
        let over =
            self.views.open.iter().filter(|(_, view)| is_over(view)).map(|(number, _)| *number);
        for number in over.collect::<Vec<_>>() {
            let Some(view) = self.views.open.remove(&number) else { continue };
            let missing = view.missing + view.waiting.len() as u64;
            let InProgress { asker, request, .. } = view;
            self.send(asker, &ToWorker::Complete { request, missing }, &[]);
        }
    }
}
