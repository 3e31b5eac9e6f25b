//! The messages of the gateway, and the connections of remote principals.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Instant;

use sockbroker_policy::subject::RemoteIdentity;

use super::gateway_link::GatewayLink;
use super::host::{Host, Refusal};
use super::opener_link::AGAIN;
use super::remote::is_remote;
use super::state::{AT_ONCE, GATEWAY, Monitor};
use crate::channel::ChannelError;
use crate::message::gateway::{FromGateway, ToGateway};
use crate::message::{Build, ToWorker};

impl<H: Host> Monitor<H> {
    /// Starts the gateway if it is due, and sends what waits. Returns when to do so again.
    pub(super) fn tend_gateway(&mut self, now: Instant) -> Option<Instant> {
        let stopping = self.kill_at.is_some();
        let gateway = self.gateway.as_mut().filter(|_| !stopping)?;
        match &mut gateway.link {
            Some(link) => {
                if let Err(error) = link.flush() {
                    self.lose_gateway(&error.to_string());
                    return self.gateway.as_ref()?.start_at;
                }
                link.is_behind().then(|| now + AGAIN)
            }
            None if gateway.start_at.is_some_and(|at| at <= now) => {
                self.start_gateway();
                self.gateway.as_ref()?.start_at
            }
            None => gateway.start_at,
        }
    }

    fn start_gateway(&mut self) {
        let Some(gateway) = &mut self.gateway else { return };
        gateway.start_at = None;
        let id = match &mut self.worker_ids {
            Some(ids) => ids.remote.take().map(Some),
            None => Some(None),
        };
        let generation = self.policies.generation;
        let memory = [self.configuration.as_fd(), self.policies.credentials.as_fd()];
        let started = id.ok_or_else(|| std::io::Error::other("all ids of workers are in use"));
        let started = started
            .and_then(|id| GatewayLink::start(&gateway.settings.listeners, id, generation, memory));
        let started = started.and_then(|link| {
            self.events.add(link.channel.as_fd(), GATEWAY)?;
            Ok(link)
        });
        match started {
            Ok(link) => {
                tracing::debug!(pid = link.pid(), "started the gateway");
                gateway.link = Some(link);
            }
            Err(error) => {
                tracing::error!(%error, "cannot start the gateway: clients on other machines are not served");
                gateway.start_at = Some(Instant::now() + super::policies::DISTRIBUTE);
            }
        }
    }

    /// Ends the gateway, and with it the connections of remote principals. Another one is started.
    pub(super) fn lose_gateway(&mut self, reason: &str) {
        let Some(gateway) = &mut self.gateway else { return };
        if let Some(link) = &gateway.link {
            let pid = link.pid();
            if self.kill_at.is_some() {
                tracing::debug!(pid, reason, "the gateway ends");
            } else {
                tracing::error!(pid, reason, "the gateway ends; its connections are closed");
            }
            drop(self.events.remove(link.channel.as_fd()));
        }
        if let Some((ending, channel)) = gateway.take() {
            self.ending.add(ending);
            self.reaper.close(channel);
        }
    }

    /// Ends the gateway with the broker.
    pub(super) fn stop_gateway(&mut self) {
        // Its connections end with their workers, and what they have sent has to arrive.
        if let Some(gateway) = &mut self.gateway {
            gateway.settings.listeners.clear();
            gateway.start_at = None;
            if let Some(link) = &mut gateway.link {
                drop(link.send(ToGateway::Stop, None));
            }
        }
    }

    /// Whether no gateway runs.
    pub(super) fn gateway_has_ended(&self) -> bool {
        self.gateway.as_ref().is_none_or(|gateway| gateway.link.is_none())
    }

    /// Sends new credentials to the gateway, which judges its connections again.
    pub(super) fn renew_credentials(&mut self, credentials: OwnedFd, generation: u64) {
        self.policies.credentials = credentials;
        let copy = self.policies.credentials.try_clone();
        let Some(link) = self.gateway.as_mut().and_then(|gateway| gateway.link.as_mut()) else {
            return;
        };
        let sent = copy
            .map_err(ChannelError::System)
            .and_then(|copy| link.send(ToGateway::Credentials { generation }, Some(copy)));
        if let Err(error) = sent {
            self.lose_gateway(&error.to_string());
        }
    }

    /// Whether the gateway has not put the credentials of a generation in force.
    pub(super) fn gateway_is_late(&self, generation: u64) -> bool {
        let link = self.gateway.as_ref().and_then(|gateway| gateway.link.as_ref());
        link.is_some_and(|link| link.greeted && link.in_force < generation)
    }

    /// Handles the messages of the gateway.
    pub(super) fn read_gateway(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(link) = self.gateway.as_ref().and_then(|gateway| gateway.link.as_ref()) else {
                return;
            };
            let (reason, descriptors) = match link.channel.receive() {
                Ok((message, mut descriptors)) if message.is_plausible() => {
                    self.answer_gateway(message, descriptors.pop());
                    continue;
                }
                Ok((_, descriptors)) => ("it sent an impossible name", descriptors),
                Err(ChannelError::NotReady) => return,
                Err(ChannelError::Closed) => ("it closed its channel", Vec::new()),
                Err(ChannelError::Nonsense { reason, descriptors }) => (reason, descriptors),
                Err(ChannelError::LostDescriptors { descriptors, .. }) => {
                    ("the monitor cannot open more files", descriptors)
                }
                Err(ChannelError::System(_)) => ("its channel failed", Vec::new()),
            };
            for descriptor in descriptors {
                self.reaper.close(descriptor);
            }
            return self.lose_gateway(reason);
        }
    }

    fn answer_gateway(&mut self, message: FromGateway, descriptor: Option<OwnedFd>) {
        let Some(link) = self.gateway.as_mut().and_then(|gateway| gateway.link.as_mut()) else {
            return;
        };
        match message {
            FromGateway::Hello(build) => {
                link.greeted = build == Build::OWN;
                if !link.greeted {
                    self.lose_gateway(
                        "it is of another build: restart the broker after an upgrade",
                    );
                }
            }
            FromGateway::InForce { generation } => {
                link.in_force = generation;
                self.policy_distributed(Instant::now());
            }
            FromGateway::Unusable { generation, reason } => {
                tracing::error!(reason, "the gateway cannot use its credentials");
                link.in_force = generation;
                self.policy_distributed(Instant::now());
            }
            FromGateway::Connection { request, identity } => {
                if let Some(connection) = descriptor {
                    self.admit_remote(request, identity, connection);
                }
            }
            FromGateway::End { connection, reason } => self.end_remote(connection, reason),
            FromGateway::NotAdmitted { identity } => self.close_sessions_of(&identity),
        }
    }

    /// Counts a connection of a remote principal, and passes it to the worker of this principal.
    fn admit_remote(&mut self, request: u64, identity: RemoteIdentity, connection: OwnedFd) {
        let Self { connections, workers, .. } = self;
        let in_use = |uid| {
            connections.contains_key(&uid) || workers.values().any(|worker| worker.uid() == uid)
        };
        let peer = self.remote.credentials(identity, in_use);
        let uid = peer.uid;
        let most = self.gateway.as_ref().map_or(0, |gateway| gateway.settings.connections);
        let remote = self.connections.iter().filter(|(uid, _)| is_remote(**uid));
        let exceeded = if remote.map(|(_, count)| *count).sum::<u64>() >= most {
            Some("remote_connections")
        } else if self
            .connections
            .get(&uid)
            .is_some_and(|own| *own >= self.limits.connections_per_user)
        {
            Some("connections_per_user")
        } else {
            None
        };
        if let Some(limit) = exceeded {
            self.reaper.close_connection(connection);
            let reason = format!("too many connections: the limit {limit} is reached");
            self.refuse(Refusal::Limit { uid, limit });
            return self.send_gateway(ToGateway::Refused { request, reason });
        }
        let number = self.number();
        *self.connections.entry(uid).or_default() += 1;
        let answer = match self.pass(number, &peer, connection) {
            Ok(()) => ToGateway::Passed { request, connection: number },
            Err(reason) => ToGateway::Refused { request, reason },
        };
        self.send_gateway(answer);
    }

    fn send_gateway(&mut self, message: ToGateway) {
        let link = self.gateway.as_mut().and_then(|gateway| gateway.link.as_mut());
        if let Some(Err(error)) = link.map(|link| link.send(message, None)) {
            self.lose_gateway(&error.to_string());
        }
    }

    /// Closes the sessions of a remote principal, also those that no connection uses.
    fn close_sessions_of(&mut self, identity: &RemoteIdentity) {
        let Some(number) = self.remote.number(identity) else { return };
        let workers = self.workers.iter().filter(|(_, worker)| worker.uid() == number);
        for token in workers.map(|(token, _)| *token).collect::<Vec<_>>() {
            tracing::info!(principal = %identity, "closes the sessions of a principal that is not admitted any longer");
            self.send(token, &ToWorker::CloseSessions, &[]);
        }
    }

    /// Ends a connection of a remote principal. The gateway ends no other one.
    fn end_remote(&mut self, number: u64, reason: String) {
        let mut remote = self.workers.iter().filter(|(_, worker)| is_remote(worker.uid()));
        // The connection may have ended meanwhile.
        let Some((token, _)) = remote.find(|(_, worker)| worker.has(number)) else { return };
        let token = *token;
        self.send(token, &ToWorker::EndConnection { number, reason }, &[]);
    }
}
