//! Captures of the clients of this process: opened here or by the opener, and read in threads of this process or in a
//! process of their own.

mod source;
mod capture;
mod linked;
mod reader;
mod ask;
mod inbox;
mod totals;
mod outcome;

pub use capture::Capture;
pub use reader::{Reader, Started};
pub use source::{CaptureSource, Opening};
pub use totals::Sums;
