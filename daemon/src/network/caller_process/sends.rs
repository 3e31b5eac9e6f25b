//! The channel for sends that do not wait: one at a time.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use sockbroker_monitor::caller::message::{
    Bytes, DATA_MAX, Data, FromCaller, SHARED_MAX, SendChannel, ToCaller, UnixAnswer, UnixCall,
};
use sockbroker_monitor::caller::{Packed, SharedWriter, pack_call};
use sockbroker_monitor::channel::{AskError, ChannelError, Message as _};

/// How long a send that does not wait may take. Meanwhile this worker serves nothing else.
const LONGEST: Duration = Duration::from_secs(2);

/// The channel for sends that do not wait.
#[derive(Debug)]
pub(super) struct Sends {
    channel: SendChannel,
    /// Where data lies that is too large for a record.
    memory: Option<SharedWriter>,
}

impl Sends {
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { channel: SendChannel::over(socket, LONGEST)?, memory: None })
    }

    /// Puts data where the process finds it.
    pub(super) fn place(&mut self, data: &[u8]) -> Result<Data, AskError<FromCaller>> {
        let length = match u32::try_from(data.len()) {
            Ok(length) if data.len() > DATA_MAX && data.len() <= SHARED_MAX => length,
            _ => return Ok(Data::Inside(Bytes(data.to_vec()))),
        };
        let failed = |error| AskError::NotSent(ChannelError::System(error));
        if self.memory.is_none() {
            let memory = SharedWriter::new().map_err(failed)?;
            self.channel.send(&ToCaller::Memory, &[memory.as_fd()])?;
            self.memory = Some(memory);
        }
        self.memory.as_ref().map_or(Ok(()), |memory| memory.write(data)).map_err(failed)?;
        Ok(Data::Shared { length })
    }

    /// Makes a send, and waits for its answer.
    pub(super) fn ask(
        &self,
        number: u64,
        call: UnixCall,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<UnixAnswer, AskError<FromCaller>> {
        let (own, attached) =
            descriptors.split_at_checked(call.descriptors()).unwrap_or((descriptors, &[]));
        let failed = |error| AskError::NotSent(ChannelError::System(error));
        let Packed { message, memory } = pack_call(number, call).map_err(failed)?;
        let own: Vec<_> = memory.iter().map(OwnedFd::as_fd).chain(own.iter().copied()).collect();
        match u8::try_from(attached.len()) {
            Ok(0) => {}
            Ok(count) => self.channel.send(&ToCaller::Attach { number, count }, attached)?,
            Err(_) => return Err(AskError::Late),
        }
        match self.channel.ask(&message, &own)? {
            (FromCaller::Answer { number: answered, answer }, _)
                if answered == number && answer.made() == 0 =>
            {
                Ok(answer)
            }
            (_, descriptors) => {
                let reason = "it answered another call";
                Err(AskError::NotAnswered(ChannelError::Nonsense { reason, descriptors }))
            }
        }
    }
}
