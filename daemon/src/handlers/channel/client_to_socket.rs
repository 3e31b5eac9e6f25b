//! The direction of a channel from the client to the socket.

use bytes::{Bytes, BytesMut};
use sockbroker_proto::api::channel::ChannelFraming;
use sockbroker_proto::channel::{ChannelFrame, HEAD_BYTES, read_frame};

use crate::error::OpResult;
use crate::handlers::channel::failure::{Failure, Failures};
use crate::handlers::channel::link::{Ended, Link};

/// What the client sent.
#[derive(Debug)]
enum Part {
    Data(Bytes),
    /// A destination as JSON, or nothing, and the data.
    Datagram(String, Bytes),
    Urgent(u8),
    End,
    Close,
}

impl Link {
    /// Sends what the client sends, until the client ends it. After the end of the claim it sends only what has arrived.
    /// The client may have ended what it receives before.
    pub(super) async fn client_to_socket(&self, mut input: BytesMut, failures: &Failures) -> Ended {
        let mut draining = false;
        let mut ended = false;
        loop {
            match self.next_part(&mut input) {
                Ok(Some(Part::Close)) => return Ended::CloseHandle,
                Ok(Some(_)) if ended => {
                    return Ended::Failed(Failure::new(libc::EPROTO, "a frame after the end"));
                }
                Ok(Some(part)) => {
                    ended = matches!(part, Part::End);
                    if let Err(error) = self.send(part).await
                        && let Some(end) = self.fail(Failure::of(error), failures)
                    {
                        return end;
                    }
                    continue;
                }
                Ok(None) => {}
                Err(failure) => return Ended::Failed(failure),
            }
            let most = self.socket.piece();
            let read = if draining {
                self.client.try_read(&mut input, most)
            } else {
                tokio::select! {
                    biased;
                    read = self.client.read(&mut input, most) => read,
                    _ = self.claim.ended() => {
                        draining = true;
                        continue;
                    }
                }
            };
            match read {
                Ok(0) => break,
                Ok(_) => {}
                // Nothing more has arrived.
                Err(_) if draining => return Ended::Complete,
                // The client has closed its end, and has not read everything (`unix_release_sock()` in the kernel).
                Err(_) => return Ended::ClosedByClient,
            }
        }
        self.end_of_input(failures).await
    }

    /// Passes a failure of sending to the other direction; `Some` if it is the last.
    fn fail(&self, failure: Failure, failures: &Failures) -> Option<Ended> {
        let last = self.is_last(&failure);
        if last && !self.receives() {
            return Some(Ended::Failed(failure));
        }
        failures.add(failure);
        last.then(|| {
            // What the client sends from now on fails, also while it does not read.
            self.client.end_input();
            Ended::Complete
        })
    }

    /// The client has ended what it sends.
    async fn end_of_input(&self, failures: &Failures) -> Ended {
        match self.framing {
            // Without a frame that ends it.
            ChannelFraming::Frames => Ended::ClosedByClient,
            ChannelFraming::Raw if self.client.is_closed() => Ended::ClosedByClient,
            ChannelFraming::Raw if !self.sends() => Ended::Complete,
            ChannelFraming::Raw => {
                let sent = self.send(Part::End).await;
                let failed = sent.err().and_then(|error| self.fail(Failure::of(error), failures));
                failed.unwrap_or(Ended::Complete)
            }
        }
    }

    /// The next complete part of the input.
    fn next_part(&self, input: &mut BytesMut) -> Result<Option<Part>, Failure> {
        let wrong = |reason: &str| Failure::new(libc::EPROTO, reason);
        if !self.has_frames() {
            let data = (!input.is_empty()).then(|| input.split().freeze());
            return if data.is_some() && !self.sends() {
                Err(wrong("the channel only receives"))
            } else {
                Ok(data.map(Part::Data))
            };
        }
        let Some((frame, length)) = read_frame(input).map_err(|error| wrong(&error.to_string()))?
        else {
            return Ok(None);
        };
        let fits = match frame {
            ChannelFrame::Data(_) | ChannelFrame::Urgent(_) => self.socket.is_stream(),
            ChannelFrame::Datagram { .. } => !self.socket.is_stream(),
            ChannelFrame::End | ChannelFrame::Close => true,
            ChannelFrame::Reset { .. } | ChannelFrame::Dropped(_) => false,
        };
        if !fits {
            return Err(wrong("a frame of a kind that this socket does not send"));
        }
        if !self.sends() && frame != ChannelFrame::Close {
            return Err(wrong("the channel only receives"));
        }
        let part = match frame {
            ChannelFrame::Data(_) => None,
            ChannelFrame::Datagram { address, data } => {
                Some(Part::Datagram(address.to_owned(), Bytes::copy_from_slice(data)))
            }
            ChannelFrame::Urgent(byte) => Some(Part::Urgent(byte)),
            ChannelFrame::End => Some(Part::End),
            ChannelFrame::Close | ChannelFrame::Reset { .. } | ChannelFrame::Dropped(_) => {
                Some(Part::Close)
            }
        };
        let mut whole = input.split_to(length);
        Ok(Some(part.unwrap_or_else(|| Part::Data(whole.split_off(HEAD_BYTES).freeze()))))
    }

    async fn send(&self, part: Part) -> OpResult<()> {
        match part {
            Part::Data(data) => self.socket.send(data, 0).await,
            Part::Urgent(byte) => {
                self.socket.send(Bytes::copy_from_slice(&[byte]), libc::MSG_OOB).await
            }
            Part::Datagram(address, data) => self.socket.send_datagram(&address, data).await,
            Part::End if self.socket.is_stream() => self.socket.end_sending().await,
            Part::End | Part::Close => Ok(()),
        }
    }
}
