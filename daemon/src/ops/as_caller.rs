//! Calls with the identity of the client that may wait, and the credentials in messages of a client.

use std::io;
use std::sync::Arc;

use sockbroker_sys::identity::Identity;
use tokio::time::{sleep, timeout_at};

use crate::error::{During, OpError, OpResult};
use crate::network::caller_identity::Client;
use crate::ops::wait::{RETRY_PAUSE, WaitPolicy};
use sockbroker_policy::action::AncillaryItem;

impl Client {
    /// Adds the client's ids to a message (`SCM_CREDENTIALS`, `unix(7)`): without them the receiver would get
    /// the broker's. They replace credentials from the client, which were checked to be its own. The process
    /// id is that of the broker, which sends the message: the client's id may belong to another process when
    /// the message is read.
    pub(super) fn sign(&self, control: &mut Vec<AncillaryItem>) {
        control.retain(|item| !is_credentials(item));
        let Identity { uid, gid, .. } = *self.identity();
        let data = [std::process::id(), uid, gid].map(u32::to_ne_bytes).concat();
        let (level, kind) = CREDENTIALS;
        control.push(AncillaryItem::Data { level, kind, data });
    }

    /// Makes a call with the identity of the client, and repeats it while it fails with `EAGAIN`: no event
    /// reports that another socket's queue has space. With [`WaitPolicy::None`] the call is made once.
    pub(super) async fn until_done<T: Send + 'static>(
        &self,
        call: &'static str,
        wait_policy: WaitPolicy,
        job: impl Fn() -> io::Result<T> + Send + Sync + 'static,
    ) -> OpResult<T> {
        let job = Arc::new(job);
        let attempts = async {
            let (mut pause, longest) = RETRY_PAUSE;
            loop {
                let job = job.clone();
                match self.attempt(call, move || job()).await? {
                    Err(error)
                        if error.kind() == io::ErrorKind::WouldBlock
                            && !matches!(wait_policy, WaitPolicy::None) => {}
                    result => return result.during(call),
                }
                sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        };
        match wait_policy {
            WaitPolicy::None | WaitPolicy::Endless => attempts.await,
            WaitPolicy::Until(deadline) => {
                timeout_at(deadline, attempts).await.unwrap_or(Err(OpError::Timeout))
            }
            WaitPolicy::KernelUntil(deadline) => timeout_at(deadline, attempts)
                .await
                .unwrap_or(Err(OpError::Os { call, errno: libc::EAGAIN })),
        }
    }
}

const CREDENTIALS: (i32, i32) = (libc::SOL_SOCKET, libc::SCM_CREDENTIALS);

fn is_credentials(item: &AncillaryItem) -> bool {
    matches!(item, AncillaryItem::Data { level, kind, .. } if (*level, *kind) == CREDENTIALS)
}
