//! `sendmsg_afalg`: data for `AF_ALG` with the control messages that say what to do with it.

use sockbroker_proto::ancillary::{AncillaryData, AncillaryItem};
use sockbroker_proto::bytes::Bytes;
use sockbroker_proto::constant::Constant;
use sockbroker_proto::handle::Handle;

use crate::error::{OpError, OpResult};
use crate::handlers::messages::{Parts, send};
use crate::handlers::number::{c_int, int};
use crate::rpc::call::Call;

/// What `sendmsg_afalg` sends beside the data.
#[derive(Debug)]
pub(super) struct Cipher {
    pub(super) op: Constant,
    pub(super) iv: Option<Bytes>,
    pub(super) assoclen: Option<i64>,
}

/// `sendmsg_afalg`: the control messages of `linux/if_alg.h` before the data.
pub(super) async fn send_cipher(
    call: &Call,
    handle: Handle,
    buffers: Vec<Bytes>,
    cipher: Cipher,
    flags: i32,
) -> OpResult<u64> {
    let entry = call.entry(handle)?;
    let facts = entry.declared();
    if facts.domain != libc::AF_ALG {
        return Err(OpError::Plain("algset is only supported for AF_ALG".to_owned()));
    }
    let op = int(cipher.op)?;
    if op < 0 {
        return Err(OpError::type_error("Invalid or missing argument 'op'"));
    }
    let mut items = vec![alg_item(libc::ALG_SET_OP, op.to_ne_bytes().to_vec())];
    if let Some(iv) = cipher.iv {
        let iv = call.bytes(iv)?;
        let length =
            u32::try_from(iv.len()).map_err(|_error| OpError::value("the iv is too long"))?;
        items.push(alg_item(libc::ALG_SET_IV, [&length.to_ne_bytes()[..], &iv].concat()));
    }
    if let Some(length) = cipher.assoclen {
        if length < 0 {
            return Err(OpError::type_error("assoclen must be positive"));
        }
        let length = c_int(length)?;
        items.push(alg_item(libc::ALG_SET_AEAD_ASSOCLEN, length.to_ne_bytes().to_vec()));
    }
    send(call, handle, Parts { buffers, ancdata: items, address: None }, flags).await
}

fn alg_item(kind: i32, data: Vec<u8>) -> AncillaryItem {
    let data = AncillaryData::Bytes(Bytes::Inline(data));
    AncillaryItem(Constant(libc::SOL_ALG.into()), Constant(kind.into()), data)
}
