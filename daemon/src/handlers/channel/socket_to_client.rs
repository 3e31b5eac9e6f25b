//! The direction of a channel from the socket to the client, with the failures of the other one.

use sockbroker_proto::channel::{ChannelFrame, DATA_MAX, write_data_head, write_frame};

use crate::error::{OpError, OpResult};
use crate::handlers::channel::failure::{Failure, Failures};
use crate::handlers::channel::link::{Ended, Link};
use crate::handlers::channel::socket_end::Received;
use crate::ops::channel::Output;

impl Link {
    /// Gives the client what the socket receives, and reports failures of sending. It is complete only when the client does
    /// not read any more.
    pub(super) async fn socket_to_client(&self, output: &mut Output, failures: &Failures) -> Ended {
        if !self.receives() {
            return self.report_failures(output, failures).await;
        }
        let mut drops = self.socket.dropped_before;
        let mut failed_with: Option<Failure> = None;
        loop {
            if self.client.flush(output).await.is_err() {
                return self.drop_received().await;
            }
            let received = tokio::select! {
                biased;
                failure = failures.next(), if failed_with.is_none() => {
                    if self.is_last(&failure) {
                        // What has arrived before is still given.
                        failed_with = Some(failure);
                    } else {
                        *output = failed(&failure);
                    }
                    continue;
                }
                received = self.receive(failed_with.is_none()) => received,
            };
            match received {
                Ok(Received::Data(data)) => {
                    let mut head = Vec::new();
                    if self.has_frames() && write_data_head(&mut head, data.len()).is_err() {
                        return Ended::Failed(Failure::new(0, "more data than a frame carries"));
                    }
                    *output = Output::new(head, data);
                }
                Ok(Received::Urgent(byte)) => *output = written(ChannelFrame::Urgent(byte)),
                Ok(Received::Datagram(address, data)) => {
                    *output = self.datagram(&address, data, &mut drops);
                }
                Ok(Received::End) => {
                    self.end_client(output);
                    return match failed_with {
                        Some(failure) => Ended::Failed(failure),
                        None => self.report_failures(output, failures).await,
                    };
                }
                Err(error) => {
                    if let Some(failure) = failed_with {
                        return Ended::Failed(failure);
                    }
                    let os = matches!(error, OpError::Os { .. });
                    let failure = Failure::of(error);
                    if self.socket.is_stream() || !os {
                        return Ended::Failed(failure);
                    }
                    *output = failed(&failure);
                }
            }
        }
    }

    async fn receive(&self, waits: bool) -> OpResult<Received> {
        if waits && !self.has_frames() {
            self.socket.receive_for(&self.client).await
        } else {
            self.socket.receive(waits).await
        }
    }

    /// Reports failures of sending where nothing is received, or nothing more.
    async fn report_failures(&self, output: &mut Output, failures: &Failures) -> Ended {
        loop {
            if self.client.flush(output).await.is_err() {
                return self.drop_received().await;
            }
            let failure = failures.next().await;
            if self.is_last(&failure) {
                return Ended::Failed(failure);
            }
            *output = failed(&failure);
        }
    }

    /// The client does not read any more. What it has sent is still sent, so a stream is read without use: its peer might
    /// otherwise wait until its answers are read, and the kernel resets a connection that is closed with unread data.
    async fn drop_received(&self) -> Ended {
        if !self.sends() {
            return Ended::ClosedByClient;
        }
        while self.receives() && self.socket.is_stream() {
            match self.socket.receive(true).await {
                Ok(Received::End) => break,
                Ok(_) => {}
                Err(error) => return Ended::Failed(Failure::of(error)),
            }
        }
        Ended::Complete
    }

    /// Ends what the client receives.
    fn end_client(&self, output: &mut Output) {
        if self.has_frames() {
            *output = written(ChannelFrame::End);
        } else {
            self.client.end_output();
        }
    }

    /// A datagram after the number of those that the socket has dropped since the last one.
    fn datagram(&self, address: &str, mut data: Vec<u8>, drops: &mut u32) -> Output {
        data.truncate(DATA_MAX);
        let now = self.socket.dropped();
        let new = now.wrapping_sub(std::mem::replace(drops, now));
        let mut output = Output::default();
        if new > 0 {
            output = written(ChannelFrame::Dropped(new.into()));
        }
        let datagram = ChannelFrame::Datagram { address, data: &data };
        output.head.extend_from_slice(&written(datagram).head);
        output
    }
}

fn written(frame: ChannelFrame<'_>) -> Output {
    let mut output = Output::default();
    // Every part is within its limit.
    write_frame(&mut output.head, frame).ok();
    output
}

/// The frame that reports a failure.
pub(super) fn failed(failure: &Failure) -> Output {
    written(ChannelFrame::Reset { errno: failure.errno, reason: &failure.reason })
}
