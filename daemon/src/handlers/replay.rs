//! `capture.replay`: the packets of a file on a packet socket.

use sockbroker_proto::api::capture::{ReplayFailure, ReplayParams, Replayed};

use crate::error::OpResult;
use crate::handlers::contents::Payload;
use crate::ops::frames::{Requirements, frames};
use crate::ops::replay::{self, Failure, Outcome};
use crate::ops::schedule::Schedule;
use crate::quota::Share;
use crate::rpc::call::Call;
use crate::rpc::error;
use sockbroker_policy::verb::Verb;

/// `capture.replay`.
pub(super) async fn replay(call: Call, params: ReplayParams) -> OpResult<Replayed> {
    let ReplayParams { handle, bytes, options } = params;
    let options = options.unwrap_or_default();
    let entry = call.entry(handle)?;
    let ticket = entry.sending.join(call.connection().number());
    let file = call.bytes(bytes)?;
    let schedule = Schedule::new(options.speed, options.packets_per_second, options.delay)?;
    call.settle(&entry, &ticket, Verb::Send).await;
    ticket.acquire().await;
    // A handle that was closed is not found.
    let authorize = || call.permit_send(&call.entry(handle)?, None, Payload::File);
    let link_type = replay::interface_link_type(&authorize()?)?;
    let _replay = call.connection().user().take(Share::Replays, 1)?;
    let first = options.first.unwrap_or(1);
    let blocks = call.broker().limits.replay_blocks;
    let required = Requirements { link_type, truncated: options.truncated, first, blocks };
    let frames = frames(&file, required)?;
    let outcome = replay::replay(&frames, &schedule, call.sender().progress, &authorize).await;
    describe(outcome, first)
}

/// The result. A failure before the first packet is an error of the call.
fn describe(outcome: Outcome, first: u64) -> OpResult<Replayed> {
    let Outcome { packets, bytes, failed, failures, duration, stopped } = outcome;
    let stopped = match stopped {
        Some(Failure { error, .. }) if packets == 0 && failed == 0 => return Err(error),
        stopped => stopped,
    };
    let failure = |Failure { index, reason, error }| {
        let (message, error) = error::message_and_data(error);
        let packet = first.saturating_add(index as u64);
        ReplayFailure { packet, reason: reason.unwrap_or(message), error }
    };
    Ok(Replayed {
        packets,
        bytes,
        failed,
        failures: failures.into_iter().map(failure).collect(),
        seconds: duration.as_secs_f64(),
        stopped: stopped.map(failure),
    })
}
