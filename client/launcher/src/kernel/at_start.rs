//! What the runtime of Rust changes before `main`: closed standard descriptors and the disposition of `SIGPIPE`.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

/// Bits 0 to 2: standard descriptors that were closed. Bit 3: `SIGPIPE` was ignored.
static STATE: AtomicU8 = AtomicU8::new(0);
const PIPE_SIGNAL: u8 = 1 << 3;

/// The C library calls this before the runtime of Rust starts.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    let mut state = 0;
    for number in 0..3 {
        // SAFETY: the call takes no pointer, and fails for a number that is not open.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            state |= 1 << number;
        }
    }
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `action` is memory for one structure, which the call fills; the other pointer is allowed to be null.
    let result = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the structure contains integers and pointers, for which zero is a value.
    let action = unsafe { action.assume_init() };
    if result == 0 && action.sa_sigaction == libc::SIG_IGN {
        state |= PIPE_SIGNAL;
    }
    STATE.store(state, Ordering::Relaxed);
}

/// Whether `SIGPIPE` was ignored.
pub(crate) fn ignored_pipe_signal() -> bool {
    STATE.load(Ordering::Relaxed) & PIPE_SIGNAL != 0
}

/// The standard descriptors that were closed. The runtime has opened `/dev/null` in their place.
pub(crate) fn closed_descriptors() -> impl Iterator<Item = i32> {
    let state = STATE.load(Ordering::Relaxed);
    (0..3).filter(move |number| state >> number & 1 == 1)
}
