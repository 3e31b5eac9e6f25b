//! Ctrl-C and SIGTERM: noticed, so that what was begun can be ended well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::Failure;

/// How long a waiting call may take before the flag is looked at again, in seconds.
pub(crate) const LOOK: f64 = 0.1;

/// Whether the user wants an end.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the signals set the flag instead of ending the process; the second one ends it.
    pub(crate) fn minded() -> Result<Self, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset, and only sets it.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag.clone())
                .and_then(|_id| signal_hook::flag::register(signal, flag.clone()))
                .map_err(|error| Failure::system("cannot mind signals", &error))?;
        }
        Ok(Self(flag))
    }

    /// Whether a signal came.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
