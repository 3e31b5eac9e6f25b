//! Kernel memory that options take, counted for the user of the socket.
//!
//! The value of an option determines what it takes, so that the amount is reserved before the system call
//! and a limit can refuse it. Duplicates of a socket share one count, which ends with the last of them.
//!
//! The table covers the `setsockopt` functions of Linux 6.18 that a class of options leads to.
//!
//! | option | memory | counted |
//! |---|---|---|
//! | `SO_RESERVE_MEM` (`sock_reserve_memory`) | taken at once | its value |
//! | `PACKET_RX_RING`, `PACKET_TX_RING` (`packet_set_ring`) | blocks, each a power of two of pages, and a bit a frame | yes |
//! | `PACKET_FANOUT` (`fanout_add`) | 8 bytes for each member that the group may have | yes |
//! | `PACKET_ADD_MEMBERSHIP` (`packet_mc_add`) | an entry of the socket and one of the device | yes |
//! | `SO_RCVBUFFORCE`, `SO_SNDBUFFORCE` (`sk_setsockopt`) | queues up to twice the value | yes |
//! | `SO_VM_SOCKETS_BUFFER_SIZE`, `_MIN_SIZE` (`vsock_update_buffer_size`) | queues up to the value, which its user may raise at will | yes |
//! | `SCTP_INITMSG` (`sctp_stream_init`) | an entry for each stream | yes |
//! | `SO_RCVBUF`, `SO_SNDBUF`, `SO_RCVLOWAT` | queues up to `rmem_max`, `wmem_max`, `tcp_rmem` | no: as any socket |
//! | filters, memberships and source lists of IP, extension headers, `ALG_SET_KEY`, `TCP_MD5SIG` (`sock_kmalloc`) | up to `optmem_max` a socket | no: as any socket |
//! | `CAN_RAW_FILTER`, `SO_J1939_FILTER` | up to 512 filters a socket | no: as any socket |
//! | `IPV6_FLOWLABEL_MGR` | 4096 labels in all (`FL_MAX_SIZE`) | no |
//! | `MRT_*`, `MRT6_*`, `IP_XFRM_POLICY` | tables of the network namespace | no: changing them is what the classes `routing` and `ipsec` grant |
//! | `TLS_TX`, `TLS_RX`, `TCP_ULP`, `TCP_FASTOPEN_KEY`, `DCCP_SOCKOPT_*`, `TIPC_GROUP_JOIN` | a few kilobytes a socket | no: as any socket |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::LimitExceeded;
use crate::quota::{Reservation, Share, User};

/// `SO_RESERVE_MEM` of `asm-generic/socket.h`, which the libc crate lacks.
pub const SO_RESERVE_MEM: i32 = 73;
/// `PACKET_TX_RING` and `PACKET_FANOUT` of `linux/if_packet.h`.
const PACKET_TX_RING: i32 = 13;
const PACKET_FANOUT: i32 = 18;
/// `SO_VM_SOCKETS_BUFFER_SIZE` and its minimum, of `linux/vm_sockets.h`.
const VSOCK_BUFFER_SIZE: i32 = 0;
const VSOCK_BUFFER_MIN_SIZE: i32 = 1;
/// `SOL_SCTP` and `SCTP_INITMSG` of `linux/sctp.h`.
const SOL_SCTP: i32 = 132;
const SCTP_INITMSG: i32 = 2;

/// The size of a page; larger ones make blocks that are larger already.
const PAGE: u64 = 4096;
/// `struct packet_mclist` and the device's `struct netdev_hw_addr`, each in its block of the allocator.
const MEMBERSHIP: u64 = 256;
/// `struct sctp_stream_out` and `struct sctp_stream_in`, with what manages them.
const STREAM: u64 = 64;
/// Members of a fan-out group whose option does not say how many (`PACKET_FANOUT_MAX` of its first form).
const FANOUT_MEMBERS: u64 = 256;

/// What takes memory, each with one amount a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the names say what takes memory, and the table above by which option"
)]
pub enum Slot {
    Reserved,
    ReceiveRing,
    SendRing,
    Fanout,
    Memberships,
    ReceiveBuffer,
    SendBuffer,
    VsockBuffer,
    VsockMinimum,
    Streams,
}

/// How an option changes the memory of its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Sets it to this number of bytes.
    To(u64),
    /// Adds this number of bytes.
    More(u64),
    /// Subtracts this number of bytes.
    Less(u64),
}

impl Change {
    /// The bytes of the slot afterwards.
    fn apply(self, before: u64) -> u64 {
        match self {
            Self::To(bytes) => bytes,
            Self::More(bytes) => before.saturating_add(bytes),
            Self::Less(bytes) => before.saturating_sub(bytes),
        }
    }
}

/// The memory that setting an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    slot: Slot,
    change: Change,
}

impl Demand {
    /// The memory that an option of a socket of this family takes, from the bytes of its value as the
    /// kernel reads them. `None` for options that are not counted and for values that the kernel refuses.
    pub fn of(family: i32, level: i32, name: i32, value: &[u8]) -> Option<Self> {
        let to = |slot, bytes| Some(Self { slot, change: Change::To(bytes) });
        let int = || number(value, 0).map(u32::cast_signed);
        let buffer = |value: i32| 2 * u64::try_from(value).unwrap_or(0).min(1 << 30);
        match (level, name) {
            (libc::SOL_SOCKET, SO_RESERVE_MEM) => to(Slot::Reserved, u64::try_from(int()?).ok()?),
            (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE) => to(Slot::ReceiveBuffer, buffer(int()?)),
            (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE) => to(Slot::SendBuffer, buffer(int()?)),
            // They replace a larger size by one that the host allows to any socket.
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => to(Slot::ReceiveBuffer, 0),
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => to(Slot::SendBuffer, 0),
            (libc::SOL_PACKET, _) if family == libc::AF_PACKET => Self::of_packet(name, value),
            (libc::AF_VSOCK, VSOCK_BUFFER_SIZE) => to(Slot::VsockBuffer, wide(value)?),
            (libc::AF_VSOCK, VSOCK_BUFFER_MIN_SIZE) => to(Slot::VsockMinimum, wide(value)?),
            (SOL_SCTP, SCTP_INITMSG) => {
                // struct sctp_initmsg: streams out, streams in, 16 bits each.
                let streams = number(value, 0)?;
                to(Slot::Streams, STREAM * u64::from((streams & 0xffff) + (streams >> 16)))
            }
            _ => None,
        }
    }

    fn of_packet(name: i32, value: &[u8]) -> Option<Self> {
        let (slot, change) = match name {
            libc::PACKET_RX_RING => (Slot::ReceiveRing, Change::To(ring(value)?)),
            PACKET_TX_RING => (Slot::SendRing, Change::To(ring(value)?)),
            PACKET_FANOUT => {
                // struct fanout_args: id and type, then since Linux 5.9 the number of members.
                let members = number(value, 1).map_or(FANOUT_MEMBERS, u64::from);
                (Slot::Fanout, Change::To(8 * members.max(FANOUT_MEMBERS)))
            }
            libc::PACKET_ADD_MEMBERSHIP => (Slot::Memberships, Change::More(MEMBERSHIP)),
            libc::PACKET_DROP_MEMBERSHIP => (Slot::Memberships, Change::Less(MEMBERSHIP)),
            _ => return None,
        };
        Some(Self { slot, change })
    }
}

/// The memory of a ring. `struct tpacket_req`, with which `tpacket_req3` begins: the size of a block, the
/// number of blocks, the size of a frame, the number of frames. Without blocks the ring is freed.
fn ring(value: &[u8]) -> Option<u64> {
    let [block, blocks, _, frames] = [0, 1, 2, 3].map(|place| number(value, place));
    let (block, blocks, frames) = (u64::from(block?), u64::from(blocks?), u64::from(frames?));
    if blocks == 0 {
        return Some(0);
    }
    // alloc_pg_vec: get_order() rounds a block up, and a pointer leads to each.
    let block = block.max(PAGE).next_power_of_two();
    Some(blocks.saturating_mul(block + 8).saturating_add(frames / 8))
}

/// The 32-bit number at a place.
fn number(value: &[u8], place: usize) -> Option<u32> {
    let bytes = value.get(4 * place..4 * place + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn wide(value: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?))
}

/// The kernel memory of one socket and its duplicates.
#[derive(Debug, Clone, Default)]
pub struct KernelMemory(Arc<Mutex<BTreeMap<Slot, Reservation>>>);

impl KernelMemory {
    /// What is counted: bytes by what takes them.
    pub fn amounts(&self) -> BTreeMap<Slot, u64> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().map(|(slot, part)| (*slot, part.amount())).collect()
    }

    /// The bytes by which setting an option raises what is counted.
    pub fn growth(&self, Demand { slot, change }: Demand) -> u64 {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = slots.get(&slot).map_or(0, Reservation::amount);
        change.apply(before).saturating_sub(before)
    }

    /// Counts for a user what was counted before a restart; no limit refuses it.
    pub fn restore(user: &Arc<User>, amounts: &BTreeMap<Slot, u64>) -> Self {
        let counted =
            amounts.iter().map(|(slot, amount)| (*slot, user.take_back(Share::Kernel, *amount)));
        Self(Arc::new(Mutex::new(counted.collect())))
    }

    /// Runs the system call that sets an option, within the limits of the user. A call that fails changes
    /// nothing.
    pub fn change<T, E: From<LimitExceeded>>(
        &self,
        user: &Arc<User>,
        Demand { slot, change }: Demand,
        set: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        // Held over the call, so that what is counted is what the last one has set.
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = slots.get(&slot).map_or(0, Reservation::amount);
        let after = change.apply(before);
        match slots.get_mut(&slot) {
            Some(taken) => taken.resize(before.max(after))?,
            None if after > 0 => drop(slots.insert(slot, user.take(Share::Kernel, after)?)),
            None => {}
        }
        let result = set();
        let amount = if result.is_ok() { after } else { before };
        match slots.get_mut(&slot) {
            // It shrinks or stays, which no limit refuses.
            Some(taken) if amount > 0 => taken.resize(amount)?,
            Some(_) | None => drop(slots.remove(&slot)),
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::tests::user;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn demand(family: i32, level: i32, name: i32, value: &[u8]) -> Option<(Slot, Change)> {
        Demand::of(family, level, name, value).map(|demand| (demand.slot, demand.change))
    }

    #[test]
    fn rings_take_their_blocks_in_powers_of_two_of_pages() {
        let packet =
            |name, value: &[u32]| demand(libc::AF_PACKET, libc::SOL_PACKET, name, &words(value));
        for (value, bytes) in [
            (&[1 << 20, 1024, 2048, 512 * 1024][..], 1024 * ((1 << 20) + 8) + 64 * 1024),
            (&[4096, 3, 4096, 3], 3 * (4096 + 8)),
            (&[5 * 4096, 2, 4096, 10], 2 * (8 * 4096 + 8) + 1),
            (&[0, 0, 0, 0], 0),
            // struct tpacket_req3 goes on.
            (&[4096, 1, 4096, 1, 60, 0, 0], 4096 + 8),
            (&[1, u32::MAX, 1, 1], u64::from(u32::MAX) * 4104),
            (&[u32::MAX, u32::MAX, 0, 0], u64::MAX),
        ] {
            let ring = packet(libc::PACKET_RX_RING, value);
            assert_eq!(ring, Some((Slot::ReceiveRing, Change::To(bytes))), "{value:?}");
            let ring = packet(PACKET_TX_RING, value);
            assert_eq!(ring, Some((Slot::SendRing, Change::To(bytes))), "{value:?}");
        }
        assert_eq!(packet(libc::PACKET_RX_RING, &[1, 2, 3]), None, "the kernel refuses it");
        let other = demand(libc::AF_INET, libc::SOL_PACKET, libc::PACKET_RX_RING, &words(&[9; 4]));
        assert_eq!(other, None);
    }

    #[test]
    fn values_are_read_as_the_kernel_reads_them() {
        let inet = |level, name, value: &[u8]| demand(libc::AF_INET, level, name, value);
        let int = |value: i32| value.to_ne_bytes();
        let long = |value: i64| value.to_ne_bytes();
        let socket = libc::SOL_SOCKET;
        for (found, expected) in [
            (inet(socket, SO_RESERVE_MEM, &int(9)), Some((Slot::Reserved, Change::To(9)))),
            (inet(socket, SO_RESERVE_MEM, &int(-9)), None),
            (inet(socket, SO_RESERVE_MEM, &[1, 2, 3]), None),
            (
                inet(socket, libc::SO_RCVBUFFORCE, &long(1 << 20)),
                Some((Slot::ReceiveBuffer, Change::To(2 << 20))),
            ),
            (
                inet(socket, libc::SO_SNDBUFFORCE, &int(i32::MAX)),
                Some((Slot::SendBuffer, Change::To(2 << 30))),
            ),
            (
                inet(socket, libc::SO_RCVBUFFORCE, &int(-1)),
                Some((Slot::ReceiveBuffer, Change::To(0))),
            ),
            (inet(socket, libc::SO_RCVBUF, &int(99)), Some((Slot::ReceiveBuffer, Change::To(0)))),
            (inet(socket, libc::SO_RCVLOWAT, &int(99)), None),
            (
                demand(libc::AF_VSOCK, libc::AF_VSOCK, 0, &long(7)),
                Some((Slot::VsockBuffer, Change::To(7))),
            ),
            (
                inet(SOL_SCTP, SCTP_INITMSG, &[3, 0, 2, 0, 0, 0, 0, 0]),
                Some((Slot::Streams, Change::To(5 * STREAM))),
            ),
        ] {
            assert_eq!(found, expected);
        }
        let packet =
            |name, value: &[u32]| demand(libc::AF_PACKET, libc::SOL_PACKET, name, &words(value));
        assert_eq!(packet(PACKET_FANOUT, &[7]), Some((Slot::Fanout, Change::To(8 * 256))));
        let large = packet(PACKET_FANOUT, &[7, 65_536]);
        assert_eq!(large, Some((Slot::Fanout, Change::To(8 * 65_536))));
    }

    #[test]
    fn memory_is_reserved_before_the_call_and_follows_what_it_did() {
        let user = user(1000);
        let memory = KernelMemory::default();
        let change = |change, result: Result<(), LimitExceeded>| {
            let demand = Demand { slot: Slot::ReceiveRing, change };
            let mut ran = false;
            let set = || {
                ran = true;
                result
            };
            let result = memory.change(&user, demand, set);
            (result.is_ok(), ran, user.used(Share::Kernel))
        };
        let failed = Err(LimitExceeded { name: "the call failed", value: 0 });
        assert_eq!(change(Change::To(600), Ok(())), (true, true, 600));
        assert_eq!(change(Change::To(1001), Ok(())), (false, false, 600));
        assert_eq!(change(Change::To(900), failed), (false, true, 600));
        assert_eq!(change(Change::To(0), failed), (false, true, 600));
        assert_eq!(change(Change::To(200), Ok(())), (true, true, 200));
        assert_eq!(change(Change::More(300), Ok(())), (true, true, 500));
        assert_eq!(change(Change::Less(600), Ok(())), (true, true, 0));
        assert_eq!(change(Change::More(700), failed), (false, true, 0));
        assert_eq!(change(Change::To(700), Ok(())), (true, true, 700));
        let duplicate = memory.clone();
        drop(memory);
        assert_eq!(user.used(Share::Kernel), 700);
        drop(duplicate);
        assert_eq!(user.used(Share::Kernel), 0);
    }

    #[test]
    fn restored_amounts_count_beyond_the_limit_and_end_with_the_socket() {
        let user = user(1000);
        let amounts = BTreeMap::from([
            (Slot::Reserved, 200),
            (Slot::ReceiveRing, 300),
            (Slot::Fanout, 1),
            (Slot::Streams, 900),
        ]);
        let memory = KernelMemory::restore(&user, &amounts);
        assert_eq!(user.used(Share::Kernel), amounts.values().sum::<u64>());
        assert_eq!(memory.amounts(), amounts);
        drop(memory);
        assert_eq!(user.used(Share::Kernel), 0);
    }
}
